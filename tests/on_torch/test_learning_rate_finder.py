from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch

from tandem.data.prepare import PreparedData
from tandem.data.stream import Batch
from tandem.on_torch.backbones import blocks_of
from tandem.on_torch.learning_rate_finder import take_steps
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.optimizers import build_optimizer
from tandem.on_torch.streams import open_streams
from tandem.on_torch.weights import hash_weights
from tandem.protocol.backbones import find_backbone
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import LossSettings, MixingSettings, OptimizerSettings, Settings
from tests.oracles import losses_of_gradient_descent
from tests.small_runs import NUM_CLASSES, small_settings, tell_images_apart
from train_torch import raise_learning_rate

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
    lightning.seed_everything(settings.seed, verbose=False)
    return tell_images_apart(build_classifier(settings, NUM_CLASSES))


def batches_of(settings: Settings, data: PreparedData) -> Iterator[Batch]:
    stream = open_streams(settings, data, phases_of(settings)[0])[0].stream
    return itertools.chain.from_iterable(map(stream.epoch, itertools.count()))


def rates_raised(network: Classifier, settings: Settings, data: PreparedData) -> LearningRateFinder:
    finder = LearningRateFinder()
    raise_learning_rate(network, phases_of(settings)[0], settings, batches_of(settings, data), finder)
    return finder


@pytest.mark.parametrize("changes", [{}, MIXED_AND_WEIGHTED], ids=["labels", "mixed"])
def test_losses_agree_with_gradient_descent_at_rising_rates(changes: dict[str, Any], data: PreparedData) -> None:
    settings = small_settings(regime="frozen", optimizer=GRADIENT_DESCENT, **changes)
    finder = rates_raised(build(settings), settings, data)
    network = build(settings)
    with torch.no_grad():
        batches = [
            (network.backbone(network.pixels(torch.from_numpy(images))).numpy(), *targets)
            for images, *targets in itertools.islice(batches_of(settings, data), len(RATES))
        ]
    last = network.head[-1]
    kernel, bias = last.weight.detach().numpy().T, last.bias.detach().numpy()
    assert finder.rates == RATES.tolist()
    np.testing.assert_allclose(finder.losses, losses_of_gradient_descent(batches, kernel, bias, RATES), rtol=1e-5)


@pytest.mark.parametrize(("clip_norm", "moves"), [(None, True), (1e-9, False)])
def test_gradients_are_clipped_as_in_training(clip_norm: float | None, moves: bool, data: PreparedData) -> None:
    settings = small_settings(regime="frozen", optimizer=dataclasses.replace(GRADIENT_DESCENT, clip_norm=clip_norm))
    network = build(settings)
    before = network.head[-1].weight.detach().clone()
    rates_raised(network, settings, data)
    assert ((network.head[-1].weight - before).abs().max().item() > 1e-4) is moves


@pytest.mark.parametrize("regime", ["frozen", "finetune"])
def test_only_a_trained_backbone_is_in_training_mode(regime: str, data: PreparedData) -> None:
    settings = small_settings(regime=regime, optimizer=GRADIENT_DESCENT)
    network = build(settings)
    before = hash_weights(network.backbone)
    rates_raised(network, settings, data)
    assert network.head.training and network.backbone.training == (regime == "finetune")
    assert (hash_weights(network.backbone) == before) == (regime == "frozen")


def test_blocks_keep_their_factors_of_the_rate(data: PreparedData) -> None:
    optimizer_settings = OptimizerSettings(name="sgd", layer_decay=0.5)
    settings = small_settings(regime="finetune", learning_rate=0.125, optimizer=optimizer_settings)
    network = build(settings)
    blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    optimizer, finder = build_optimizer(settings.optimizer, 0.125, network.head, blocks), LearningRateFinder()
    take_steps(finder, network, optimizer, batches_of(settings, data), settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == finder.rates[-1]
    np.testing.assert_allclose(rates[1:], [rates[0] * 0.5**power for power in range(len(rates) - 1, 0, -1)])
