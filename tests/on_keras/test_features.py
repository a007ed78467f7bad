"""The frozen phase on cached features against the same phase with the backbone in every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.experiment import predict_test
from tandem.on_keras.features import ToFeatures, backbone_pass
from tandem.on_keras.networks import Classifier, Pixels, build_classifier
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import (
    AugmentationSettings,
    EarlyStoppingSettings,
    HeadSettings,
    OptimizerSettings,
    ScheduleSettings,
    Settings,
)
from tandem.recording.run import PhaseOutcome
from tandem.tracking.curves import Curves
from tests.small_runs import (
    NUM_CLASSES,
    RecordingRun,
    assert_same_outputs,
    small_data,
    small_settings,
    tell_images_apart,
)
from train_keras import FRAMEWORK, train_phase

LOSSES = ["train/loss", "val/loss"]
ACCURACIES = ["train/accuracy", "val/accuracy"]


@dataclass(frozen=True)
class Trained:
    """The results of a frozen phase."""

    outcome: PhaseOutcome
    rows: list[dict[str, float]]
    head: list[np.ndarray]
    probabilities: np.ndarray

    def numbers(self, names: list[str]) -> np.ndarray:
        return np.array([[row[name] for name in names] for row in self.rows])


def frozen_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"regime": "frozen", "max_epochs": 5, "learning_rate": 0.01}
    return small_settings(**{**values, "early_stopping": EarlyStoppingSettings(patience=None), **changes})


def build(settings: Settings, data: PreparedData) -> Classifier:
    keras.utils.set_random_seed(settings.seed)
    images = np.asarray(data.images[data.rows("train")])
    return tell_images_apart(build_classifier(settings, NUM_CLASSES), images)


def train(settings: Settings, data: PreparedData) -> Trained:
    network = build(settings, data)
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    outcome = train_phase(network, phases_of(settings)[0], settings, data, curves)
    return Trained(
        outcome, curves.rows, network.head.get_weights(), predict_test(FRAMEWORK, network, settings, data).probabilities
    )


def without_cache(settings: Settings) -> Settings:
    return dataclasses.replace(settings, cache_features=False, cache_views=None)


def assert_same_phase(cached: Trained, uncached: Trained) -> None:
    assert cached.numbers(LOSSES) == pytest.approx(uncached.numbers(LOSSES), rel=1e-4)
    assert np.array_equal(cached.numbers(ACCURACIES), uncached.numbers(ACCURACIES))
    for name in ("epochs", "best_epoch", "first_epoch_hash", "backbone_before", "backbone_after", "frozen_after"):
        assert getattr(cached.outcome, name) == getattr(uncached.outcome, name), name
    for name in ("parameters", "trainable_parameters"):
        assert getattr(cached.outcome, name) == getattr(uncached.outcome, name), name
    for one, other in zip(cached.head, uncached.head, strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)
    assert_same_outputs(cached.probabilities, uncached.probabilities, atol=1e-4)


@pytest.fixture
def fresh_data(tmp_path: Path) -> PreparedData:
    """Images without any cached features."""
    return small_data(tmp_path)


CASES = [
    # of 30 and 15 images: the last training batch would have a single image, and is left out
    pytest.param(
        frozen_settings(batch_size=29, max_epochs=3), id="last training batch of one image", marks=pytest.mark.long
    ),
    # the last validation batch has one image; SGD, since Adam divides by the gradient's size and would enlarge rounding
    # errors where batch norm makes it vanish
    pytest.param(
        frozen_settings(
            batch_size=7,
            head=HeadSettings(hidden=[16], dropout=0.3, batch_norm=True),
            optimizer=OptimizerSettings(name="sgd"),
        ),
        id="dropout, batch norm, last validation batch of one image",
    ),
    pytest.param(
        frozen_settings(
            max_epochs=8,
            early_stopping=EarlyStoppingSettings(patience=4, min_delta=0.5),
            schedule=ScheduleSettings(name="plateau", patience=1, min_delta=0.5),
        ),
        id="early stop, schedule by losses",
        marks=pytest.mark.long,
    ),
    pytest.param(
        frozen_settings(schedule=ScheduleSettings(name="cosine", warmup_epochs=1)),
        id="schedule by steps",
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize("settings", CASES)
def test_phase_on_features_equals_the_phase_with_the_backbone(settings: Settings, data: PreparedData) -> None:
    cached, uncached = train(settings, data), train(without_cache(settings), data)
    assert_same_phase(cached, uncached)
    assert cached.outcome.feature_seconds > 0
    assert uncached.outcome.feature_seconds == 0
    assert (cached.outcome.epochs < settings.max_epochs) == (settings.early_stopping.patience is not None)


def test_features_are_those_of_inference(fresh_data: PreparedData) -> None:
    images = np.asarray(fresh_data.images)[:16]
    inputs = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(5)(keras.layers.Flatten()(inputs))
    backbone = keras.Model(inputs, keras.layers.Dropout(0.9)(dense))  # as in EfficientNet
    network = Classifier(Pixels(8, "unit"), backbone, keras.Sequential([keras.layers.Dense(NUM_CLASSES)]))
    backbone.trainable = False
    to_features = ToFeatures(network)
    to_features.compile()
    (features,) = backbone_pass(to_features, lambda rows: images[rows], batch_size=16)(np.arange(16))
    expected = keras.ops.convert_to_numpy(keras.Model(inputs, dense)(images / np.float32(255)))
    assert_same_outputs(features, expected, atol=1e-5)


def test_backbone_runs_once_for_all_runs(fresh_data: PreparedData) -> None:
    settings = frozen_settings(max_epochs=2)
    first, second = train(settings, fresh_data), train(settings, fresh_data)
    assert np.array_equal(first.numbers(LOSSES), second.numbers(LOSSES))
    assert first.outcome.cached_feature_seconds == 0
    assert second.outcome.cached_feature_seconds == second.outcome.feature_seconds == first.outcome.feature_seconds > 0
    assert second.outcome.train_seconds > second.outcome.feature_seconds


@pytest.mark.long
def test_cached_views_are_the_augmented_images_of_the_first_epochs(fresh_data: PreparedData) -> None:
    settings = frozen_settings(augmentation=AugmentationSettings(crop_padding=2), max_epochs=4, cache_views=2)
    cached, uncached = train(settings, fresh_data), train(without_cache(settings), fresh_data)
    assert cached.numbers(LOSSES)[:2] == pytest.approx(uncached.numbers(LOSSES)[:2], rel=1e-4)
    assert cached.numbers(LOSSES)[2] != pytest.approx(uncached.numbers(LOSSES)[2], rel=1e-4)
    assert cached.outcome.first_epoch_hash == uncached.outcome.first_epoch_hash is not None


def test_head_is_not_compiled_by_training_on_features(fresh_data: PreparedData, tmp_path: Path) -> None:
    settings = frozen_settings(max_epochs=1, optimizer=OptimizerSettings(name="sgd"))
    network = build(settings, fresh_data)
    train_phase(network, phases_of(settings)[0], settings, fresh_data, Curves(RecordingRun()))  # type: ignore[arg-type]
    assert not network.head.compiled
