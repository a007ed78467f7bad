from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tandem import on_keras
from tandem.data.prepare import PreparedData
from tandem.on_keras.head import build_head
from tandem.on_keras.networks import Classifier, Pixels
from tandem.protocol.settings import Settings
from tests.small_runs import NUM_CLASSES
from tests.steps_by_hand import CASES, Weights, check_steps
from train_keras import FRAMEWORK


def build(settings: Settings, weights: Weights) -> Classifier:
    backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    network = Classifier(Pixels(8, "unit"), backbone, build_head(settings, 4, NUM_CLASSES))
    network.backbone.set_weights(weights[:2])
    network.head.set_weights(weights[2:])
    return network


def weights_of(network: Classifier) -> Weights:
    return [*network.backbone.get_weights(), *network.head.get_weights()]


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_computed_by_hand(case: str, data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_keras, "blocks_of", lambda backbone, entry: [[backbone]])
    check_steps(case, FRAMEWORK, data, build, weights_of)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_steps_of_other_backends_are_those_computed_by_hand(backend: str) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-m", "not long"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(words, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(CASES)} passed" in done.stdout, done.stdout
