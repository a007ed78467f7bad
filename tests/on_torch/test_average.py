from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tandem.on_torch.average import UseAverages
from tandem.protocol.settings import Settings
from tests.averages import (
    check_batch_norm_is_averaged_like_weights,
    check_frozen_part_is_unchanged,
    check_validation_and_best_weights_are_averaged,
    train,
)
from tests.on_torch.test_checkpoints import build_small_network
from train_torch import FRAMEWORK, TrainingSteps


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Framework:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[block] for block in backbone])
    # without dropout, which draws other masks in each run
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, values: values)
    return dataclasses.replace(FRAMEWORK, build_network=build_small_network)


def values_of(network: Any) -> list[np.ndarray]:
    return [value.detach().numpy().copy() for value in network.state_dict().values() if value.is_floating_point()]


@pytest.mark.parametrize("trained_before", [False, True], ids=["first phase", "later phase"])
def test_statistics_of_batch_norm_are_averaged_like_weights(
    framework: Framework, data: PreparedData, monkeypatch: pytest.MonkeyPatch, *, trained_before: bool
) -> None:
    if trained_before:  # a phase ends in inference mode
        framework = dataclasses.replace(framework, build_network=lambda *given: build_small_network(*given).eval())

    def after_each_step(settings: Settings) -> list[list[np.ndarray]]:
        steps = []
        with monkeypatch.context() as patch:
            patch.setattr(
                TrainingSteps,
                "on_train_batch_end",
                lambda self, *arguments: steps.append(values_of(self.network)),
                raising=False,
            )
            train(framework, settings, data)
        return steps

    check_batch_norm_is_averaged_like_weights(framework, data, values_of, after_each_step)


def test_validation_and_best_weights_are_averaged(framework: Framework, data: PreparedData) -> None:
    check_validation_and_best_weights_are_averaged(framework, data)


def test_frozen_backbone_is_unchanged_by_averages(framework: Framework, data: PreparedData) -> None:
    check_frozen_part_is_unchanged(framework, data)


def test_step_that_loss_scaling_skips_is_not_averaged() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    callback = UseAverages(np.array([1.0, 0.5, 0.25]))
    callback.on_train_start(SimpleNamespace(optimizers=[optimizer]), SimpleNamespace(network=layer))  # type: ignore[arg-type]
    first = layer.weight.item()
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert callback.num_steps == 2
    assert callback.averages[0].item() == pytest.approx((first - 1 + first - 2) / 2)
