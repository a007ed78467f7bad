from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Run
from mlflow.pyfunc import load_model
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking import vocabulary
from tandem.tracking.copy import Copied, copy_runs
from tandem.tracking.reader import find_weights, read_runs
from tandem.tracking.start import start_run

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {}}


@pytest.fixture
def source(database: Path) -> str:
    return f"sqlite:///{database}"


@pytest.fixture
def new_target(empty_database: Path, tmp_path: Path) -> Callable[[], str]:
    """Creates empty stores, each with its own folder of files."""

    def new_target() -> str:
        folder = tmp_path / f"target{len(list(tmp_path.glob('target*')))}"
        folder.mkdir()
        return f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"

    return new_target


@pytest.fixture
def target(new_target: Callable[[], str]) -> str:
    return new_target()


def runs_in(uri: str, experiment: str = "tandem") -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))


def history(uri: str, run_id: str, key: str) -> list[tuple[int, int, str]]:
    values = MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)
    return sorted((metric.step, metric.timestamp, str(metric.value)) for metric in values)


def copied_in_a_process(source: str, target: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tandem.tracking.copy", "--from", source, "--to", target]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_copy_holds_the_whole_run(
    settings: Settings, source: str, target: str, save_doubling_model: Callable[[Path], None], tmp_path: Path
) -> None:
    with start_run(settings, **START) as run:
        for step in range(1200):  # more than fit in one request
            run.log_metrics({"train/loss": 1 / (1 + step)}, step=step)
        run.log_metrics({"val/loss": math.nan}, step=0)
        run.log_metrics({"val/loss": 0.5}, step=1)
        run.log_dataset(name="birds", digest="d1", source="digits", contexts=["train", "test"], profile={"images": 12})
        (run.folder / "final").mkdir()
        (run.folder / "final/scores.csv").write_text("a,b")
        run.log_artifact(run.folder / "final")
        save_doubling_model(tmp_path / "model")
        run.log_model(tmp_path / "model")
    assert copy_runs(source, target) == Copied(new=1, completed=0, unchanged=0)

    (copy,) = runs_in(target)
    original = MlflowClient(tracking_uri=source).get_run(run.id)
    assert copy.info.run_id != run.id
    for name in ("run_name", "status", "start_time", "end_time"):
        assert getattr(copy.info, name) == getattr(original.info, name)
    assert copy.data.params == original.data.params
    added = {vocabulary.COPIED_FROM, vocabulary.COPIED_STATE}
    assert {key: value for key, value in copy.data.tags.items() if key not in added} == original.data.tags
    assert copy.data.tags[vocabulary.COPIED_FROM] == run.id
    for key in ("train/loss", "val/loss"):
        assert history(target, copy.info.run_id, key) == history(source, run.id, key)
    assert len(history(target, copy.info.run_id, "train/loss")) == 1200
    (dataset,) = copy.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("birds", "d1")
    assert [tag.value for tag in dataset.tags] == ["train, test"]
    folder = Path(copy.info.artifact_uri.removeprefix("file://"))
    assert folder.is_relative_to(tmp_path / "target0")
    assert (folder / "final/scores.csv").read_text() == "a,b"

    client = MlflowClient(tracking_uri=target)
    (output,) = client.get_run(copy.info.run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.source_run_id, str(model.status)) == (run.name, copy.info.run_id, "READY")
    loaded = load_model(model.artifact_location)
    assert loaded.predict([1, 2]) == [2, 4]
    assert (loaded.metadata.run_id, loaded.metadata.model_id) == (copy.info.run_id, model.model_id)


def test_second_copy_adds_only_what_has_grown(
    settings: Settings, source: str, target: str, client: MlflowClient
) -> None:
    for seed in range(2):
        with start_run(dataclasses.replace(settings, seed=seed), **START) as run:
            run.log_metrics({"val/loss": 1.0}, step=0)
    experiment = client.get_experiment_by_name("tandem")
    assert experiment
    growing = client.create_run(experiment.experiment_id, tags={vocabulary.FRAMEWORK: "torch"}).info.run_id
    client.log_metric(growing, "val/loss", 3.0, timestamp=1000, step=0)
    client.log_text(growing, "one", "final/notes.txt")
    assert copy_runs(source, target) == Copied(new=3, completed=0, unchanged=0)
    assert [run.info.status for run in runs_in(target)] == ["FINISHED", "FINISHED", "RUNNING"]

    client.log_metric(growing, "val/loss", 2.0, timestamp=2000, step=1)
    client.log_param(growing, "seed", "2")
    client.set_tag(growing, "note", "late")
    client.log_text(growing, "one and two", "final/notes.txt")
    client.log_text(growing, "three", "final/more/notes.txt")
    client.set_terminated(growing, "KILLED", end_time=5000)
    assert copy_runs(source, target) == Copied(new=0, completed=1, unchanged=2)
    assert copy_runs(source, target) == Copied(new=0, completed=0, unchanged=3)

    copy = runs_in(target)[2]
    assert (copy.info.status, copy.info.end_time) == ("KILLED", 5000)
    assert (copy.data.params["seed"], copy.data.tags["note"]) == ("2", "late")
    assert history(target, copy.info.run_id, "val/loss") == [(0, 1000, "3.0"), (1, 2000, "2.0")]
    folder = Path(copy.info.artifact_uri.removeprefix("file://"))
    assert (folder / "final/notes.txt").read_text() == "one and two"
    assert (folder / "final/more/notes.txt").read_text() == "three"


def test_copy_of_a_run_with_a_new_tag_is_completed(settings: Settings, source: str, target: str) -> None:
    with start_run(settings, **START) as run:
        pass
    copy_runs(source, target)
    MlflowClient(tracking_uri=source).set_tag(run.id, "note", "looked at")
    assert copy_runs(source, target).completed == 1
    assert runs_in(target)[0].data.tags["note"] == "looked at"


def test_copied_children_belong_to_the_copy_of_their_parent(source: str, target: str, client: MlflowClient) -> None:
    experiment = client.create_experiment("sweep")
    # The child appears to be older, as when clocks of two machines differ.
    parent = client.create_run(experiment, start_time=2000, run_name="parent").info.run_id
    client.create_run(experiment, start_time=1000, tags={MLFLOW_PARENT_RUN_ID: parent}, run_name="child")
    copy_runs(source, target)
    copies = {run.info.run_name: run for run in runs_in(target, "sweep")}
    assert copies["child"].data.tags[MLFLOW_PARENT_RUN_ID] == copies["parent"].info.run_id


def test_copied_run_refers_to_the_copy_of_the_run_with_its_weights(
    settings: Settings, source: str, target: str, recorded_at: Callable[..., Settings]
) -> None:
    with start_run(recorded_at(experiment="first"), **START) as first:
        (first.folder / "weights").mkdir()
        (first.folder / "weights/model.safetensors").write_text("weights")
        first.log_artifact(first.folder / "weights")
    with start_run(dataclasses.replace(settings, weights=f"runs:/{first.id}"), **START):
        pass
    copy_runs(source, target)
    (copy,) = read_runs(target, "tandem")
    assert find_weights(target, copy.params["weights"], "model.safetensors").read_text() == "weights"


def test_parameter_of_a_copy_never_changes(
    settings: Settings, source: str, target: str, recorded_at: Callable[..., Settings]
) -> None:
    with start_run(recorded_at(experiment="first"), **START) as first:
        pass
    with start_run(dataclasses.replace(settings, weights=f"runs:/{first.id}"), **START) as second:
        pass
    copy_runs(source, target, ["tandem"])  # before the run that it refers to
    MlflowClient(tracking_uri=source).set_tag(second.id, "note", "looked at")
    assert copy_runs(source, target) == Copied(new=1, completed=1, unchanged=0)
    (copy,) = read_runs(target, "tandem")
    assert (copy.params["weights"], copy.tags["note"]) == (f"runs:/{first.id}", "looked at")


def test_interrupted_copy_continues(settings: Settings, source: str, target: str, tmp_path: Path) -> None:
    ids = []
    for _ in range(3):
        with start_run(settings, **START) as run:
            run.log_metrics({"val/loss": 1.0})
            (run.folder / "scores.csv").write_text("a,b")
            run.log_artifact(run.folder / "scores.csv")
        ids.append(run.id)
    (lost,) = (tmp_path / "mlartifacts").rglob(f"{ids[1]}/artifacts/scores.csv")
    lost.rename(tmp_path / "kept.csv")
    lost.symlink_to("nowhere")  # cannot be read, even by root
    with pytest.raises(UserError, match=rf"stopped at run {ids[1]} .* after 1 of 3 runs: .*; fix that and repeat"):
        copy_runs(source, target)
    assert [run.info.status for run in runs_in(target)] == ["FINISHED", "RUNNING"]
    lost.unlink()
    (tmp_path / "kept.csv").rename(lost)
    assert copy_runs(source, target) == Copied(new=1, completed=1, unchanged=1)
    for run in runs_in(target):
        assert run.info.status == "FINISHED"
        assert len(history(target, run.info.run_id, "val/loss")) == 1
        assert (Path(run.info.artifact_uri.removeprefix("file://")) / "scores.csv").read_text() == "a,b"


def test_copies_of_copies_are_not_duplicated(
    settings: Settings, source: str, target: str, new_target: Callable[[], str]
) -> None:
    with start_run(settings, **START):
        pass
    third = new_target()
    assert copy_runs(source, target).new == 1
    assert copy_runs(target, third).new == 1
    assert copy_runs(source, third) == Copied(new=0, completed=0, unchanged=1)
    assert copy_runs(target, source) == Copied(new=0, completed=0, unchanged=1)
    assert [len(runs_in(uri)) for uri in (source, target, third)] == [1, 1, 1]


def test_only_selected_experiments_are_copied(source: str, target: str, recorded_at: Callable[..., Settings]) -> None:
    for name in ("birds", "cats"):
        with start_run(recorded_at(experiment=name), **START):
            pass
    assert copy_runs(source, target, ["birds"]).new == 1
    assert MlflowClient(tracking_uri=target).get_experiment_by_name("cats") is None
    with pytest.raises(UserError, match=r"no experiment 'dogs' in MLflow at .*: there are Default, birds, cats"):
        copy_runs(source, target, ["dogs"])


def test_impossible_copies_are_errors_of_one_line(source: str, tmp_path: Path, free_port: int) -> None:
    with pytest.raises(UserError, match="source and target of the copy are both sqlite"):
        copy_runs(source, source)
    with pytest.raises(UserError, match=r"there are no runs to copy: no file .*missing\.db"):
        copy_runs(f"sqlite:///{tmp_path}/missing.db", source)
    nowhere = copied_in_a_process(source, f"http://127.0.0.1:{free_port}")
    assert nowhere.returncode == 2
    assert nowhere.stderr.startswith(f"copy: error: no MLflow server answers at http://127.0.0.1:{free_port}")
    assert nowhere.stderr.count("\n") == 1


@pytest.mark.long
def test_copy_continues_after_the_server_was_killed(
    settings: Settings, source: str, server: Any, client: MlflowClient
) -> None:
    with start_run(settings, **START):
        pass
    experiment = client.get_experiment_by_name("tandem")
    assert experiment
    for number in range(6):
        run_id = client.create_run(experiment.experiment_id, run_name=f"run {number}").info.run_id
        metrics = [Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(300)]
        client.log_batch(run_id, metrics=metrics)
        for file in range(4):
            client.log_text(run_id, f"{number} {file}" * 1000, f"final/{file}.txt")
        client.set_terminated(run_id)
    results: list[subprocess.CompletedProcess[str]] = []
    copying = threading.Thread(target=lambda: results.append(copied_in_a_process(source, server.uri)))
    copying.start()
    deadline = time.monotonic() + 60
    remote = MlflowClient(tracking_uri=server.uri)
    while time.monotonic() < deadline:
        if remote.get_experiment_by_name("tandem") and len(runs_in(server.uri)) >= 3:
            break
        time.sleep(0.1)
    server.kill()
    copying.join()
    assert results[0].returncode == 2, results[0].stdout
    assert "the copy stopped at run " in results[0].stderr and results[0].stderr.count("\n") == 1

    server.start()
    assert copied_in_a_process(source, server.uri).returncode == 0
    again = copied_in_a_process(source, server.uri)
    assert "0 runs copied, 0 completed, 7 there already" in again.stdout
    copies = runs_in(server.uri)
    assert len(copies) == 7
    for copy in copies[1:]:
        original = copy.data.tags[vocabulary.COPIED_FROM]
        assert history(server.uri, copy.info.run_id, "loss") == history(source, original, "loss")
        assert len(remote.list_artifacts(copy.info.run_id, "final")) == 4
