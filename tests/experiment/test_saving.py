from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from tandem.data.prepare import PreparedData
from tandem.experiment import save_network
from tandem.protocol.settings import TrackingSettings
from tandem.serving.logged_model import network_folder, read_description
from tests.experiment.made_framework import MadeScript
from tests.small_runs import RecordingRun, small_settings


@pytest.mark.parametrize("log_weights", [True, False])
@pytest.mark.parametrize("log_model", [True, False])
def test_weights_and_model_are_logged_unless_they_are_switched_off(
    log_weights: bool, log_model: bool, data: PreparedData, tmp_path: Path
) -> None:
    settings = small_settings(tracking=TrackingSettings(log_weights=log_weights, log_model=log_model))
    script, run = MadeScript(), RecordingRun(tmp_path)
    network = script.build_network(settings, data, None)
    save_network(script.framework(), network, settings, data, run)  # type: ignore[arg-type]
    assert run.artifacts == [tmp_path / "architecture.csv", *[tmp_path / "weights"] * log_weights]
    assert run.models == [tmp_path / "model"] * log_model
    names = {"architecture.csv", *["model"] * log_model, *["weights"] * log_weights}
    assert {file.name for file in tmp_path.iterdir()} == names
    if log_model:
        folder = tmp_path / "model"
        network = network_folder(folder)
        assert network is not None and (network / "MLmodel").read_text() == "(8, 8, 3) 5"
        description = read_description(folder)
        assert description is not None and description.image_shape == (8, 8, 3)
        assert description.classes == data.classes and description.split_hash == data.split.hash
        assert (description.resize, description.scaling, description.run_id) == ("squash", "unit", run.id)
        requirements = (folder / "requirements.txt").read_text().splitlines()
        assert {"numpy==2", f"pillow=={version('pillow')}"} <= set(requirements)
        assert not any(file.suffix in (".pkl", ".pickle", ".pth") for file in folder.rglob("*"))
