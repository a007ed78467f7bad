from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from tandem import on_keras
from tandem.data.prepare import PreparedData
from tandem.on_keras.head import build_head
from tandem.on_keras.networks import Classifier, Pixels
from tandem.protocol.settings import Settings
from tests.interrupted import CASES, check_case, check_divergence
from tests.small_runs import NUM_CLASSES
from train_keras import FRAMEWORK


def build_small_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> Classifier:
    """Two blocks with batch norm, and the settings' head."""
    keras.utils.clear_session()  # names of layers begin again, as in another process
    keras.utils.set_random_seed(settings.seed)
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu", name="first"),
        keras.layers.BatchNormalization(name="first_norm"),
        keras.layers.Dense(6, name="second"),
        keras.layers.BatchNormalization(name="second_norm"),
    ]
    return Classifier(Pixels(8, "unit"), keras.Sequential(layers), build_head(settings, 6, NUM_CLASSES))


@pytest.mark.parametrize("name", CASES)
def test_killed_and_continued_run_is_equal_to_the_last_bit(
    name: str, data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_keras, "blocks_of", lambda backbone, entry: [backbone.layers[1:3], backbone.layers[3:]])
    framework = dataclasses.replace(FRAMEWORK, build_network=build_small_network)
    check_case(name, framework, data, tmp_path, lambda: keras.utils.set_random_seed(9))


def test_divergence_says_its_step_and_keeps_the_weights_before(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_keras, "blocks_of", lambda backbone, entry: [backbone.layers[1:3], backbone.layers[3:]])
    framework = dataclasses.replace(FRAMEWORK, build_network=build_small_network)
    file, network = check_divergence(framework, data, tmp_path)
    expected = network.backbone.get_weights()
    network.backbone.load_weights(file)
    kept = network.backbone.get_weights()
    assert all(np.array_equal(*pair) for pair in zip(kept, expected, strict=True))
    assert any(np.abs(weights).max() > 1e6 for weights in kept)
