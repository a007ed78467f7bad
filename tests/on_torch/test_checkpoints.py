from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.on_torch.acceleration import to_device
from tandem.on_torch.head import build_head
from tandem.on_torch.networks import Classifier, Pixels
from tandem.protocol.settings import Settings
from tests.interrupted import CASES, check_case
from tests.small_runs import NUM_CLASSES
from train_torch import FRAMEWORK


def build_small_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> Classifier:
    """Two blocks with batch norm, the first one with a convolution, and the settings' head."""
    torch.manual_seed(settings.seed)
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    second = nn.Sequential(nn.Linear(4 * 3 * 3, 6), nn.BatchNorm1d(6), nn.Dropout(0.2))
    network = Classifier(Pixels(8, "unit"), nn.Sequential(first, second), build_head(settings, 6, NUM_CLASSES))
    return to_device(network, settings)  # weights of the convolution in channels_last


@pytest.mark.parametrize("name", CASES)
def test_killed_and_continued_run_is_equal_to_the_last_bit(
    name: str, data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[block] for block in backbone])
    framework = dataclasses.replace(FRAMEWORK, build_network=build_small_network)
    check_case(name, framework, data, tmp_path, lambda: torch.manual_seed(9) and None)
