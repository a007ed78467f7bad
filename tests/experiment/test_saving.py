from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.experiment import save_network
from tandem.protocol.settings import TrackingSettings
from tandem.serving.logged_model import network_folder, read_description
from tests.experiment.made_framework import LinearNetwork, MadeScript
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


def test_parts_that_a_killed_process_has_left_are_replaced(data: PreparedData, tmp_path: Path) -> None:
    for part in ("weights", "network", "model", "model-parts/data"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "half").write_text("written")
    script, run = MadeScript(), RecordingRun(tmp_path)
    settings = small_settings()
    save_network(script.framework(), script.build_network(settings, data, None), settings, data, run)  # type: ignore[arg-type]
    assert {file.name for file in tmp_path.iterdir()} == {"architecture.csv", "model", "weights"}
    assert not list(tmp_path.rglob("half"))


def test_weights_are_written_to_another_place_if_the_disk_of_the_run_is_full(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, run, other = MadeScript(), RecordingRun(tmp_path / "run-1"), tmp_path / "other"
    run.folder.mkdir()
    other.mkdir()
    network = script.build_network(small_settings(), data, None)
    framework = script.framework()
    save_weights = framework.package.save_weights

    def fail_on_full_disk(network: LinearNetwork, folder: Path) -> None:
        if other not in folder.parents:
            folder.mkdir()
            raise RuntimeError("I/O error: No space left on device (os error 28)")  # as of safetensors
        save_weights(network, folder)

    monkeypatch.setattr(framework.package, "save_weights", fail_on_full_disk)
    (tmp_path / "full").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "full"))
    monkeypatch.setenv("HOME", str(other))
    with pytest.raises(RuntimeError, match="No space left") as caught:
        save_network(framework, network, small_settings(), data, run)  # type: ignore[arg-type]
    rescued = other / "run-1-weights"
    assert np.array_equal(np.load(rescued / "backbone.npy"), network.backbone)
    assert caught.value.__notes__ == [
        f"the trained weights are in {rescued}; later runs start from them with --weights {rescued}/backbone.npy"
    ]
    assert list((tmp_path / "full").iterdir()) == []

    monkeypatch.setenv("HOME", str(tmp_path / "full"))
    monkeypatch.chdir(tmp_path / "full")
    with pytest.raises(RuntimeError) as caught:
        save_network(framework, network, small_settings(), data, run)  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["the trained weights could not be written anywhere"]


def test_other_errors_write_no_weights_elsewhere(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, framework = MadeScript(), MadeScript().framework()
    network = script.build_network(small_settings(), data, None)

    def fail(network: LinearNetwork, folder: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(framework.package, "save_weights", fail)
    with pytest.raises(RuntimeError, match="a bug") as caught:
        save_network(framework, network, small_settings(), data, RecordingRun(tmp_path))  # type: ignore[arg-type]
    assert not hasattr(caught.value, "__notes__")
