"""The frozen phase on cached features against the same phase with the backbone in every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning

from tandem.data.prepare import PreparedData
from tandem.experiment import predict_test
from tandem.on_torch.networks import Classifier, build_classifier
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
from train_torch import FRAMEWORK, train_phase

LOSSES = ["train/loss", "val/loss"]
ACCURACIES = ["train/accuracy", "val/accuracy"]


@dataclass(frozen=True)
class Trained:
    """The results of a frozen phase."""

    outcome: PhaseOutcome
    rows: list[dict[str, float]]
    head: list[np.ndarray]
    probabilities: np.ndarray
    backbone_calls: int

    def numbers(self, names: list[str]) -> np.ndarray:
        return np.array([[row[name] for name in names] for row in self.rows])


def frozen_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"regime": "frozen", "max_epochs": 5, "learning_rate": 0.01}
    return small_settings(**{**values, "early_stopping": EarlyStoppingSettings(patience=None), **changes})


def build(settings: Settings, data: PreparedData) -> Classifier:
    lightning.seed_everything(settings.seed, verbose=False)
    return tell_images_apart(build_classifier(settings, NUM_CLASSES), np.asarray(data.images[data.rows("train")]))


def train(settings: Settings, data: PreparedData) -> Trained:
    network = build(settings, data)
    calls: list[int] = []
    hook = network.backbone.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    outcome = train_phase(network, phases_of(settings)[0], settings, data, curves)
    hook.remove()
    head = [value.numpy().copy() for value in network.head.state_dict().values()]
    return Trained(
        outcome, curves.rows, head, predict_test(FRAMEWORK, network, settings, data).probabilities, len(calls)
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
    pytest.param(frozen_settings(batch_size=29, max_epochs=3), id="last training batch of one image"),
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
    assert cached.backbone_calls < uncached.backbone_calls
    assert uncached.outcome.feature_seconds == 0
    assert (cached.outcome.epochs < settings.max_epochs) == (settings.early_stopping.patience is not None)


def test_backbone_runs_once_for_all_runs(fresh_data: PreparedData) -> None:
    settings = frozen_settings(max_epochs=2)
    first, second = train(settings, fresh_data), train(settings, fresh_data)
    # 45 images in two batches of different sizes, each of which is computed twice
    assert (first.backbone_calls, second.backbone_calls) == (4, 0)
    assert np.array_equal(first.numbers(LOSSES), second.numbers(LOSSES))
    assert first.outcome.cached_feature_seconds == 0
    assert second.outcome.cached_feature_seconds == second.outcome.feature_seconds == first.outcome.feature_seconds > 0
    assert second.outcome.train_seconds > second.outcome.feature_seconds


@pytest.mark.parametrize(
    "changes",
    [{"pixel_scaling": "unit"}, {"seed": 1}, {"precision": "bfloat16"}],
    ids=["scaling", "weights", "precision"],
)
def test_features_are_not_shared_between_different_settings(changes: dict[str, Any], fresh_data: PreparedData) -> None:
    settings = frozen_settings(max_epochs=1)
    train(settings, fresh_data)
    assert train(dataclasses.replace(settings, **changes), fresh_data).backbone_calls == 4


def test_low_precision_applies_only_to_the_backbone(data: PreparedData) -> None:
    settings = frozen_settings(precision="bfloat16", max_epochs=2)
    cached, uncached = train(settings, data), train(without_cache(settings), data)
    assert cached.numbers(LOSSES) == pytest.approx(uncached.numbers(LOSSES), rel=1e-2)
    assert {weights.dtype for weights in cached.head} == {np.dtype(np.float32)}


def test_cached_views_are_the_augmented_images_of_the_first_epochs(fresh_data: PreparedData) -> None:
    settings = frozen_settings(augmentation=AugmentationSettings(crop_padding=2), max_epochs=4, cache_views=2)
    cached, uncached = train(settings, fresh_data), train(without_cache(settings), fresh_data)
    assert cached.numbers(LOSSES)[:2] == pytest.approx(uncached.numbers(LOSSES)[:2], rel=1e-4)
    assert cached.numbers(LOSSES)[2] != pytest.approx(uncached.numbers(LOSSES)[2], rel=1e-4)
    assert cached.outcome.first_epoch_hash == uncached.outcome.first_epoch_hash is not None
    assert cached.backbone_calls == 5  # a batch of 30 images per view, one of 15; each size once more
    assert train(settings, fresh_data).backbone_calls == 0


def test_augmented_images_go_through_the_backbone_in_every_epoch(fresh_data: PreparedData) -> None:
    settings = frozen_settings(augmentation=AugmentationSettings(horizontal_flip=True), max_epochs=2)
    trained = train(settings, fresh_data)
    assert trained.backbone_calls == 2 * (4 + 2)
    assert trained.outcome.feature_seconds == 0
