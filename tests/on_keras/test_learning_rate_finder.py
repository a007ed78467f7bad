from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.streams import open_streams
from tandem.on_keras.weights import hash_weights
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import LossSettings, MixingSettings, OptimizerSettings, Settings
from tests.oracles import losses_of_gradient_descent
from tests.small_runs import NUM_CLASSES, small_settings, tell_images_apart
from train_keras import raise_learning_rate

RATES = np.array([0.25, 0.5, 1.0, 2.0, 4.0]) / 512
GRADIENT_DESCENT = OptimizerSettings(name="sgd", momentum=0.0)
MIXED_AND_WEIGHTED = {
    "mixing": MixingSettings(mixup_alpha=1.0),
    "loss": LossSettings(label_smoothing=0.1, class_weights={"0": 3.0}),
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.protocol.learning_rate_finder.RATES", RATES)


def build(settings: Settings) -> Classifier:
    keras.utils.set_random_seed(settings.seed)
    return tell_images_apart(build_classifier(settings, NUM_CLASSES))


@pytest.mark.parametrize(
    "changes", [pytest.param({}, id="labels"), pytest.param(MIXED_AND_WEIGHTED, id="mixed", marks=pytest.mark.long)]
)
def test_losses_agree_with_gradient_descent_at_rising_rates(changes: dict[str, Any], data: PreparedData) -> None:
    settings = small_settings(regime="frozen", optimizer=GRADIENT_DESCENT, **changes)
    phase = phases_of(settings)[0]
    network = build(settings)
    kernel, bias = network.head.layers[-1].get_weights()
    stream = open_streams(settings, data, phase)[0].stream
    # four batches per epoch: the fifth is the first of the second epoch
    batches = [
        (keras.ops.convert_to_numpy(network.backbone(network.pixels(images), training=False)), *targets)
        for images, *targets in [*stream.epoch(0), next(stream.epoch(1))]
    ]
    finder = LearningRateFinder()
    batches_again = itertools.chain.from_iterable(map(stream.epoch, itertools.count()))
    raise_learning_rate(network, phase, settings, batches_again, finder)
    assert finder.rates == RATES.tolist()
    np.testing.assert_allclose(finder.losses, losses_of_gradient_descent(batches, kernel, bias, RATES), rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("regime", ["frozen", "finetune"])
def test_only_a_trained_backbone_is_in_training_mode(regime: str, data: PreparedData) -> None:
    settings = small_settings(regime=regime, optimizer=GRADIENT_DESCENT)
    network, phase = build(settings), phases_of(settings)[0]
    before = hash_weights(network.backbone)
    stream = open_streams(settings, data, phase)[0].stream
    raise_learning_rate(
        network,
        phase,
        settings,
        itertools.chain.from_iterable(map(stream.epoch, itertools.count())),
        LearningRateFinder(),
    )
    assert (hash_weights(network.backbone) == before) == (regime == "frozen")
