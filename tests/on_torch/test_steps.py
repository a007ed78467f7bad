from __future__ import annotations

import pytest
import torch
from torch import nn

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.on_torch.head import build_head
from tandem.on_torch.networks import Classifier, Pixels
from tandem.protocol.settings import Settings
from tests.small_runs import NUM_CLASSES
from tests.steps_by_hand import CASES, Weights, check_steps
from train_torch import FRAMEWORK


def build(settings: Settings, weights: Weights) -> Classifier:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4))
    network = Classifier(Pixels(8, "unit"), backbone, build_head(settings, 4, NUM_CLASSES))
    kernel, bias, head_kernel, head_bias = weights
    channels_first = kernel.reshape(8, 8, 3, 4).transpose(3, 2, 0, 1).reshape(4, -1)
    with torch.no_grad():
        for parameter, value in zip(
            network.parameters(), (channels_first, bias, head_kernel.T, head_bias), strict=True
        ):
            parameter.copy_(torch.from_numpy(value.copy()))
    return network


def weights_of(network: Classifier) -> Weights:
    kernel, bias, head_kernel, head_bias = (parameter.detach().numpy() for parameter in network.parameters())
    return [kernel.reshape(4, 3, 8, 8).transpose(2, 3, 1, 0).reshape(-1, 4), bias, head_kernel.T, head_bias]


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_computed_by_hand(case: str, data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[backbone]])
    check_steps(case, FRAMEWORK, data, build, weights_of)
