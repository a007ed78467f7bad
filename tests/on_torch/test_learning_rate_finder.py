from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch

from tandem.data.prepare import PreparedData
from tandem.on_torch.backbones import blocks_of
from tandem.on_torch.learning_rate_finder import take_steps
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.optimizers import build_optimizer
from tandem.on_torch.streams import open_streams
from tandem.protocol.backbones import find_backbone
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import OptimizerSettings, Settings
from tests.oracles import losses_of_gradient_descent
from tests.small_runs import NUM_CLASSES, small_settings, tell_images_apart
from train_torch import freeze_or_thaw

RATES = np.array([0.25, 0.5, 1.0, 2.0, 4.0]) / 512
GRADIENT_DESCENT = OptimizerSettings(name="sgd", momentum=0.0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.protocol.learning_rate_finder.RATES", RATES)


def after_test(settings: Settings, data: PreparedData) -> tuple[LearningRateFinder, torch.optim.Optimizer]:
    network = build(settings)
    phase = phases_of(settings)[0]
    blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    network.train()
    freeze_or_thaw(network, phase, blocks)
    optimizer = build_optimizer(settings.optimizer, phase.learning_rate, network.head, blocks)
    batches = itertools.chain.from_iterable(map(open_streams(settings, data, phase)[0].stream.epoch, itertools.count()))
    finder = LearningRateFinder()
    take_steps(finder, network, optimizer, batches, settings)
    return finder, optimizer


def build(settings: Settings) -> Classifier:
    lightning.seed_everything(settings.seed, verbose=False)
    return tell_images_apart(build_classifier(settings, NUM_CLASSES))


def test_losses_agree_with_gradient_descent_at_rising_rates(data: PreparedData) -> None:
    settings = small_settings(regime="frozen", optimizer=GRADIENT_DESCENT)
    finder, _ = after_test(settings, data)
    network = build(settings).eval()
    stream = open_streams(settings, data, phases_of(settings)[0])[0].stream
    batches = []
    # four batches per epoch: the fifth is the first of the second epoch
    for images, labels in [*stream.epoch(0), next(stream.epoch(1))]:
        with torch.no_grad():
            batches.append((network.backbone(network.pixels(torch.from_numpy(images))).numpy(), labels))
    last = network.head[-1]
    kernel, bias = last.weight.detach().numpy().T, last.bias.detach().numpy()
    assert finder.rates == RATES.tolist()
    np.testing.assert_allclose(finder.losses, losses_of_gradient_descent(batches, kernel, bias, RATES), rtol=1e-5)


def test_blocks_keep_their_factors_of_the_rate(data: PreparedData) -> None:
    optimizer = OptimizerSettings(name="sgd", layer_decay=0.5)
    finder, after = after_test(small_settings(regime="finetune", learning_rate=0.125, optimizer=optimizer), data)
    rates = [group["lr"] for group in after.param_groups]
    assert rates[0] == finder.rates[-1]
    np.testing.assert_allclose(rates[1:], [rates[0] * 0.5**power for power in range(len(rates) - 1, 0, -1)])
