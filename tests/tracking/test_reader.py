from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking.reader import NoRuns, download, find_weights, metric_history, read_runs
from tandem.tracking.start import start_run

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {}}


def test_runs_of_other_programs_are_not_read(settings: Settings, client: MlflowClient) -> None:
    for seed in range(3):
        with start_run(dataclasses.replace(settings, seed=seed), **START) as run:
            for step in (1, 0):
                run.log_metrics({"val/accuracy": seed + step / 10}, step=step)
            run.set_tags({"tandem.data": "birds"})
    experiment = client.get_experiment_by_name("tandem")
    assert experiment
    client.create_run(experiment.experiment_id)  # of another program
    deleted = client.create_run(experiment.experiment_id, tags={"tandem.framework": "torch"})
    client.delete_run(deleted.info.run_id)

    records = read_runs(None, "tandem")
    assert [record.params["seed"] for record in records] == ["0", "1", "2"]
    assert [record.metrics["val/accuracy"] for record in records] == [0.1, 1.1, 2.1]
    assert {record.status for record in records} == {"FINISHED"}
    assert {record.tags["tandem.data"] for record in records} == {"birds"}
    assert [(metric.step, metric.value) for metric in metric_history(records[2], "val/accuracy")] == [(0, 2), (1, 2.1)]
    assert metric_history(records[0], "missing") == []


def test_unknown_experiment_is_refused_with_a_list_of_experiments(recorded_at: Callable[..., Settings]) -> None:
    with start_run(recorded_at(experiment="birds"), **START):
        pass
    with pytest.raises(NoRuns, match=r"no experiment 'brids' .* there are Default, birds"):
        read_runs(None, "brids")
    with pytest.raises(UserError, match="has no runs of Tandem: train some"):
        read_runs(None, "Default")


@pytest.mark.parametrize("enabled", [True, False])
def test_state_of_the_garbage_collector_is_restored(settings: Settings, enabled: bool) -> None:
    with start_run(settings, **START):
        pass
    (gc.enable if enabled else gc.disable)()
    try:
        read_runs(None, "tandem")
        assert gc.isenabled() == enabled
        with pytest.raises(UserError):
            read_runs(None, "missing")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_reading_does_not_create_a_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs yet"):
        read_runs(None, "tandem")
    assert list(tmp_path.iterdir()) == []


def test_downloaded_files_are_unchanged(settings: Settings, tmp_path: Path) -> None:
    with start_run(settings, **START) as run:
        (run.folder / "final").mkdir()
        (run.folder / "final/scores.csv").write_text("a,b")
        run.log_artifact(run.folder / "final")
    (record,) = read_runs(None, "tandem")
    assert download(record, "final/scores.csv", tmp_path / "one").read_text() == "a,b"
    assert (download(record, "final", tmp_path / "two") / "scores.csv").read_text() == "a,b"
    with pytest.raises(UserError, match=f"cannot read the artifact missing.csv of run {run.id}"):
        download(record, "missing.csv", tmp_path)


def test_downloads_with_the_same_file_name_do_not_replace_each_other(settings: Settings, tmp_path: Path) -> None:
    with start_run(settings, **START) as run:
        for name in ("phase_1", "final"):
            (run.folder / name).mkdir()
            (run.folder / name / "scores.csv").write_text(name)
            run.log_artifact(run.folder / name / "scores.csv", folder=name)
    (record,) = read_runs(None, "tandem")
    copies = [download(record, f"{name}/scores.csv", tmp_path / "copies") for name in ("phase_1", "final")]
    assert [copy.read_text() for copy in copies] == ["phase_1", "final"]


def test_weights_of_an_earlier_run_are_found(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        (run.folder / "weights").mkdir()
        (run.folder / "weights/model.safetensors").write_text("weights")
        run.log_artifact(run.folder / "weights", remove=True)
    assert find_weights(None, f"runs:/{run.id}", "model.safetensors").read_text() == "weights"


def test_missing_weights_are_reported(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        pass
    with pytest.raises(UserError, match=r"no artifact weights: it has settings\.yaml"):
        find_weights(None, f"runs:/{run.id}", "model.safetensors")
    with pytest.raises(UserError, match="there is no run 0123456789"):
        find_weights(None, "runs:/0123456789", "model.safetensors")
    with pytest.raises(UserError, match="Received: 'runs:abc'"):
        find_weights(None, "runs:abc", "model.safetensors")


def test_weights_of_the_other_framework_are_refused(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        (run.folder / "weights").mkdir()
        (run.folder / "weights/backbone.weights.h5").write_text("weights")
        run.log_artifact(run.folder / "weights")
    with pytest.raises(
        UserError, match=r"has the weights backbone\.weights\.h5, but no backbone\.safetensors: give a run"
    ):
        find_weights(None, f"runs:/{run.id}", "backbone.safetensors")
