"""The weights that a run starts from, and what it does where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning

from tandem.data.prepare import PreparedData
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.experiment import first_network
from tandem.on_torch.networks import Classifier
from tandem.on_torch.weights import hash_weights
from tests.small_runs import RecordingRun, small_settings
from train_torch import TORCH


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def build(data: PreparedData, **changes: Any) -> tuple[Classifier, dict[str, str]]:
    """The network and the run's tags."""
    run = RecordingRun()
    lightning.seed_everything(0, verbose=False)
    return first_network(TORCH, small_settings(**changes), data, run), run.tags  # type: ignore[arg-type]


def test_random_weights_stand_in_where_they_are_allowed_to(
    no_network: None, data: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    network, tags = build(data, weights="imagenet", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    said = capsys.readouterr().err
    assert said.count("weights: imagenet could not be downloaded") == 1
    assert said.rstrip("\n").endswith("going on with random weights, as allow_random_weights says")
    # the very network of a run that asks for random weights
    random, random_tags = build(data, weights="random")
    assert random_tags == {"tandem.weights_origin": "random"}
    assert hash_weights(network.backbone, network.head) == hash_weights(random.backbone, random.head)


def test_run_ends_where_random_weights_are_not_allowed(no_network: None, data: PreparedData) -> None:
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could not be downloaded"):
        build(data, weights="imagenet", allow_random_weights=False)


def test_a_network_off_the_shelf_may_be_random_too(no_network: None, data: PreparedData) -> None:
    network, tags = build(data, weights="imagenet", regime="off_the_shelf", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    assert network.head.out_features == 1000


def test_other_mistakes_are_not_passed_over(data: PreparedData, tmp_path: Path) -> None:
    file = tmp_path / "broken.pth"
    file.write_text("no weights at all")
    with pytest.raises(UserError, match=r"weights: .* cannot be read"):
        build(data, weights=str(file), allow_random_weights=True)
