from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tandem import on_keras
from tandem.data.prepare import PreparedData
from tandem.on_keras.backbones import batch_norms_of, blocks_of, fix_batch_norm
from tandem.on_keras.head import build_head
from tandem.on_keras.networks import Classifier, Pixels, build_classifier
from tandem.protocol.backbones import find_backbone
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import HeadSettings, PhaseSettings, Settings
from tandem.tracking.curves import Curves
from tests.fixed_batch_norm import CASES, EPSILON, MEAN, VARIANCE, Weights, check_training
from tests.small_runs import NUM_CLASSES, random_images, small_settings, tell_images_apart
from train_keras import FRAMEWORK, freeze_or_thaw, train_phase


def build(settings: Settings, weights: Weights) -> Classifier:
    norm = keras.layers.BatchNormalization(epsilon=EPSILON)
    backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4), norm])
    network = Classifier(Pixels(8, "unit"), backbone, build_head(settings, 4, NUM_CLASSES))
    network.backbone.set_weights([*weights[:4], MEAN, VARIANCE])
    network.head.set_weights(weights[4:])
    return network


def weights_of(network: Classifier) -> tuple[Weights, Weights]:
    kernel, bias, scale, offset, *statistics = network.backbone.get_weights()
    return [kernel, bias, scale, offset, *network.head.get_weights()], statistics


@pytest.mark.parametrize("case", CASES)
def test_training_with_fixed_statistics_is_that_computed_by_hand(
    case: str, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_keras, "blocks_of", lambda backbone, entry: [[*backbone.layers]])
    check_training(case, FRAMEWORK, data, build, weights_of)


@pytest.mark.long
def test_training_on_jax_is_that_computed_by_hand() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "with_fixed_statistics"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(words, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(CASES)} passed" in done.stdout, done.stdout


def test_last_blocks_and_then_all_train_with_the_statistics_that_they_came_with(
    data: PreparedData, curves: Curves
) -> None:
    settings = small_settings(
        regime="gradual",
        phases=[PhaseSettings(trainable="last", blocks=2), PhaseSettings(trainable="all")],
        max_epochs=1,
        backbone_batch_norm="frozen",
        head=HeadSettings(batch_norm=True),
    )
    network = tell_images_apart(build_classifier(settings, NUM_CLASSES))
    norms = list(batch_norms_of(network.backbone))
    assert len(norms) == 52
    before = {variable.path: variable.numpy().copy() for variable in network.weights}
    for phase in phases_of(settings):
        train_phase(network, phase, settings, data, curves)
    unchanged = {variable.path for variable in network.weights if np.array_equal(before[variable.path], variable)}
    assert unchanged == {variable.path for norm in norms for variable in (norm.moving_mean, norm.moving_variance)}


def test_thawed_network_computes_in_training_as_in_prediction(tmp_path: Path) -> None:
    network = tell_images_apart(build_classifier(small_settings(), NUM_CLASSES))
    images = random_images(8)
    expected = keras.ops.convert_to_numpy(network(images))
    blocks = blocks_of(network.backbone, find_backbone("mobilenet_v2", "keras"))
    for batch_norm, is_equal in (("frozen", True), ("train", False), ("frozen", False)):
        phase = Phase(number=1, trainable="all", learning_rate=1, max_epochs=1, batch_norm=batch_norm)  # type: ignore[arg-type]
        freeze_or_thaw(network, phase, blocks)
        logits = keras.ops.convert_to_numpy(network(images, training=True))
        assert np.array_equal(logits, expected) == is_equal, batch_norm  # the second time statistics have moved
        assert len(network.backbone.trainable_variables) == len(network.backbone.weights) - 2 * 52


def test_saved_model_is_that_without_fixed_statistics(tmp_path: Path) -> None:
    network = tell_images_apart(build_classifier(small_settings(), NUM_CLASSES)).backbone
    fix_batch_norm(network, True)
    pixels = random_images(4, shape=(32, 32, 3)).astype(np.float32)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    before = keras.ops.convert_to_numpy(loaded(pixels))
    np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(network(pixels)))
    assert not np.array_equal(before, keras.ops.convert_to_numpy(loaded(pixels, training=True)))


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", True), ("alexnet", False)])
def test_batch_norm_of_a_network_is_found(name: str, expected: bool) -> None:
    network = build_classifier(small_settings(backbone=name, image_size=64), NUM_CLASSES)
    assert on_keras.has_batch_norm(network.backbone) == expected
