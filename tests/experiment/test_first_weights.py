from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.data.prepare import PreparedData
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.experiment.first_weights import first_network, locate_weights
from tandem.protocol.settings import TrackingSettings
from tests.experiment.made_framework import MadePackage, MadeScript
from tests.small_runs import RecordingRun, small_settings


@pytest.mark.parametrize("weights", ["random", "imagenet"])
def test_random_and_imagenet_weights_have_no_file(weights: str) -> None:
    assert locate_weights(small_settings(weights=weights), "backbone.npy") is None


def test_file_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_weights(small_settings(weights="~/mine.pth"), "backbone.npy") == tmp_path / "mine.pth"


def test_weights_of_a_run_are_its_backbone_file(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    run = client.create_run(client.create_experiment("earlier", artifact_location=str(tmp_path / "artifacts")))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "backbone.npy").write_text("the backbone")
    client.log_artifacts(run.info.run_id, str(tmp_path / "weights"), "weights")
    tracking = TrackingSettings(uri=f"sqlite:///{database}")
    settings = small_settings(weights=f"runs:/{run.info.run_id}", tracking=tracking)
    file = locate_weights(settings, "backbone.npy")
    assert file is not None and file.read_text() == "the backbone"
    with pytest.raises(UserError, match=r"backbone\.h5"):
        locate_weights(settings, "backbone.h5")


def test_tag_names_the_origin_of_the_weights(data: PreparedData, tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"weights")
    script, run = MadeScript(), RecordingRun()
    first_network(script.framework(), small_settings(weights=str(file)), data, run)  # type: ignore[arg-type]
    assert script.weights_files == [file]
    # from `printf weights | sha256sum`
    digest = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert run.tags == {"tandem.weights_origin": f"sha256:{digest}"}


@pytest.mark.parametrize(("batch_norm", "told"), [("train", 0), ("frozen", 1)])
def test_random_weights_replace_imagenet_s_if_allowed(
    batch_norm: str, told: int, data: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    script, run = MadeScript(error=WeightsNotDownloaded("weights: no network")), RecordingRun()
    settings = small_settings(weights="imagenet", allow_random_weights=True, backbone_batch_norm=batch_norm)
    assert first_network(script.framework(), settings, data, run) is not None  # type: ignore[arg-type]
    assert script.calls == ["build with imagenet weights", "build with random weights"]
    assert run.tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    printed = capsys.readouterr().err
    assert "weights: no network" in printed and printed.count("statistics of random weights: only a rehearsal") == told


@pytest.mark.parametrize(
    ("has_batch_norm", "batch_norm", "told"), [(False, "frozen", 1), (True, "frozen", 0), (False, "train", 0)]
)
def test_line_says_that_frozen_batch_norm_has_no_effect_without_batch_norm(
    has_batch_norm: bool,
    batch_norm: str,
    told: int,
    data: PreparedData,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(MadePackage, "has_batch_norm", lambda self, backbone: has_batch_norm)
    settings = small_settings(weights="imagenet", backbone="alexnet", backbone_batch_norm=batch_norm)
    first_network(MadeScript().framework(), settings, data, RecordingRun())  # type: ignore[arg-type]
    line = "backbone_batch_norm frozen has no effect: alexnet has no batch norm\n"
    assert capsys.readouterr().err.count(line) == told


@pytest.mark.parametrize(
    ("error", "allowed"),
    [(WeightsNotDownloaded("weights: no network"), False), (UserError("weights: another network's"), True)],
)
def test_other_errors_of_the_weights_end_the_run(error: UserError, allowed: bool, data: PreparedData) -> None:
    script, settings = MadeScript(error=error), small_settings(weights="imagenet", allow_random_weights=allowed)
    with pytest.raises(UserError, match=str(error)):
        first_network(script.framework(), settings, data, RecordingRun())  # type: ignore[arg-type]
    assert len(script.calls) == 1
