"""The first weights of a run, and their replacement if they cannot be downloaded."""

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
from train_torch import FRAMEWORK


@pytest.fixture(autouse=True)
def no_torch_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keeps weights of this machine's user out of the tests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def build(data: PreparedData, **changes: Any) -> tuple[Classifier, dict[str, str]]:
    """The network and the run's tags."""
    run = RecordingRun()
    lightning.seed_everything(0, verbose=False)
    return first_network(FRAMEWORK, small_settings(**changes), data, run), run.tags  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_network")
def test_random_weights_replace_imagenet_s_if_allowed(data: PreparedData, capsys: pytest.CaptureFixture[str]) -> None:
    network, tags = build(data, weights="imagenet", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    said = capsys.readouterr().err
    assert said.count("weights: imagenet could not be downloaded") == 1
    assert said.rstrip("\n").endswith("going on with random weights, as allow_random_weights says")
    # the same network as in a run with random weights
    random, random_tags = build(data, weights="random")
    assert random_tags == {"tandem.weights_origin": "random"}
    assert hash_weights(network.backbone, network.head) == hash_weights(random.backbone, random.head)


@pytest.mark.usefixtures("no_network")
def test_run_ends_if_random_weights_are_not_allowed(data: PreparedData) -> None:
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could not be downloaded"):
        build(data, weights="imagenet", allow_random_weights=False)


@pytest.mark.usefixtures("no_network")
def test_off_the_shelf_network_may_have_random_weights_too(data: PreparedData) -> None:
    network, tags = build(data, weights="imagenet", regime="off_the_shelf", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    assert network.head.out_features == 1000


def test_other_errors_of_weights_are_not_ignored(data: PreparedData, tmp_path: Path) -> None:
    file = tmp_path / "broken.pth"
    file.write_text("no weights at all")
    with pytest.raises(UserError, match=r"weights: .* cannot be read"):
        build(data, weights=str(file), allow_random_weights=True)
