from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.loss import build_accuracy, build_loss
from tandem.protocol.settings import LossSettings, Settings
from tests.oracles import SOFT_BATCH, accuracy, soft_cross_entropy

LOGITS, TARGETS, WEIGHTS = SOFT_BATCH
SOFT, HARD = Settings(loss=LossSettings(label_smoothing=0.1)), Settings()


def compiled(settings: Settings) -> keras.Model:
    """Logits plus a trained bias for each of them, at a rate of 1: a step takes the gradient off the zeros."""
    network = keras.Sequential([keras.Input(LOGITS.shape), AddWeights()])
    loss, metrics = build_loss(settings), [build_accuracy(settings)]
    network.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss, metrics=metrics, jit_compile=False)
    return network


class AddWeights(keras.layers.Layer):
    """The only image of the input, with its logits as a batch."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=LOGITS.shape, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return inputs[0] + self.kernel


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_of_a_step_its_gradient_and_its_accuracy(soft: bool, weighted: bool) -> None:
    labels = TARGETS.argmax(axis=1)
    shares = TARGETS if soft else np.eye(LOGITS.shape[1])[labels]
    weights = WEIGHTS if weighted else np.ones(len(LOGITS))
    expected, gradient = soft_cross_entropy(LOGITS, shares, weights)
    network = compiled(SOFT if soft else HARD)
    given = (WEIGHTS,) if weighted else ()
    found = network.train_on_batch(LOGITS[np.newaxis], TARGETS if soft else labels, *given, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy(LOGITS, labels))
    assert 0 < found["accuracy"] < 1
    np.testing.assert_allclose(-network.layers[0].get_weights()[0], gradient, atol=1e-6)
