from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged
from tandem.on_torch.acceleration import to_device
from tandem.on_torch.head import build_head
from tandem.on_torch.networks import Classifier, Pixels
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import Settings
from tandem.tracking.curves import Curves
from tests.interrupted import CASES, check_case, check_divergence
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings
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


def test_divergence_says_its_step_and_keeps_the_weights_before(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[block] for block in backbone])
    framework = dataclasses.replace(FRAMEWORK, build_network=build_small_network)
    file, network = check_divergence(framework, data, tmp_path)
    kept, expected = load_file(file), network.backbone.state_dict()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], value.cpu()) for name, value in expected.items())


def test_loss_is_looked_at_within_an_epoch(data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[block] for block in backbone])
    monkeypatch.setattr("tandem.on_torch.checkpoints.BATCHES_BETWEEN_LOOKS", 2)
    losses = []
    mean_loss = on_torch.mean_loss

    def second_is_bad(*arguments: Any) -> torch.Tensor:
        losses.append(mean_loss(*arguments))
        return losses[-1] * (float("nan") if len(losses) == 2 else 1)

    monkeypatch.setattr(on_torch, "mean_loss", second_is_bad)
    settings = small_settings(regime="finetune")
    network = build_small_network(settings, data, None)
    curves = Curves(RecordingRun(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(TrainingDiverged, match=r"epoch 1 of the run, step 2: train loss nan"):
        FRAMEWORK.train_phase(network, phases_of(settings)[0], settings, data, curves)
    assert len(losses) == 2
