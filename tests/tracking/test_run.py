from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.run import Run, start_run

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {"torch": "2.15.0"}}


def recorded(run: Run) -> MlflowRun:
    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db").get_run(run.id)


def artifacts(run: Run) -> dict[str, Path]:
    """Artifacts of a run by path, found without MLflow."""
    (root,) = Path("mlartifacts").glob(f"*/{run.id}/artifacts")
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def journal_lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "journal.jsonl").read_text().splitlines()]


def test_metrics_have_the_steps_and_times_of_their_logging(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        before = time.time() * 1000
        for step in range(1500):  # more than fit in one request
            run.log_metrics({"train/loss": 1 / (step + 1), "val/loss": float(step)}, step=step)
        after = time.time() * 1000
        time.sleep(1.2)  # so that the times of logging and sending differ
        run.log_metrics({"test/accuracy": 0.5})

    query = "select key, step, value, timestamp from metrics where run_uuid = ? and key not like 'system/%'"
    with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
        rows = connection.execute(query, [run.id]).fetchall()
    values = {(key, step): value for key, step, value, _ in rows}
    assert len(rows) == len(values) == 3001
    assert all(values["train/loss", step] == 1 / (step + 1) for step in range(1500))
    assert all(before - 1 <= logged <= after for key, _, _, logged in rows if key != "test/accuracy")
    assert values["test/accuracy", 0] == 0.5


def test_nan_and_infinite_metrics_are_recorded(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        run.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float64(0.25)})
    metrics = recorded(run).data.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] > 1e308
    assert metrics["c"] < -1e308 and metrics["d"] == 0.25


def test_logging_a_metric_costs_microseconds(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        costs = []
        for step in range(2000):
            started = time.perf_counter()
            run.log_metrics({"train/loss": 0.1}, step=step)
            costs.append(time.perf_counter() - started)
    # Ten times the usual cost, since the machine may be busy; one request to MLflow takes milliseconds.
    assert sorted(costs)[1000] < 200e-6


def test_every_setting_is_a_parameter(settings: Settings) -> None:
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, classes=["b", "a"]))
    with start_run(settings, **START) as run:
        run.log_params({vocabulary.NUM_CLASSES: 2, "long": "x" * 7000})
    params = recorded(run).data.params
    assert set(params) == {*flatten(settings), vocabulary.NUM_CLASSES, "long"}
    assert params["data.classes"] == '["b", "a"]'
    assert params["threads"] == "null"
    assert params["tracking.log_model"] == "true"
    assert params["regime"] == "finetune"
    assert params["learning_rate"] == "0.001"
    assert params[vocabulary.NUM_CLASSES] == "2"
    assert len(params["long"]) == 6000
    assert "7000 characters" in params["long"]


def test_recorded_settings_file_is_valid_for_the_scripts(settings: Settings) -> None:
    optimizer = dataclasses.replace(settings.optimizer, epsilon=1e-7)
    settings = dataclasses.replace(settings, optimizer=optimizer, learning_rate=3e-5, backbone="größe_é", seed=4)
    with start_run(settings, **START) as run:
        pass
    file = artifacts(run)["settings.yaml"]
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings)
    parsed = parser.parse_args([f"--config={file}"]).as_dict()
    del parsed["config"]
    assert parsed == dataclasses.asdict(settings) == yaml.safe_load(file.read_text("utf-8"))


def test_changed_parameter_is_refused_when_it_is_logged(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        run.log_params({"seed": 0, "num_classes": 5})
        with pytest.raises(ValueError, match="num_classes is '5' already"):
            run.log_params({"num_classes": 6})
    assert recorded(run).data.params["num_classes"] == "5"


def test_tags_record_framework_versions_script_and_hardware(settings: Settings) -> None:
    with start_run(settings, framework="keras", backend="jax", versions={"keras": "3.15.1"}) as run:
        run.set_tags({vocabulary.SPLIT_HASH: "abc"})
    tags = recorded(run).data.tags
    assert tags["tandem.framework"] == "keras"
    assert tags["tandem.backend"] == "jax"
    assert tags["tandem.version.keras"] == "3.15.1"
    assert tags["tandem.version.mlflow"] == mlflow.__version__
    assert tags["tandem.split_hash"] == "abc"
    assert tags["mlflow.source.name"] == Path(sys.argv[0]).name
    assert "CPUs" in tags["tandem.hardware"]
    assert recorded(run).info.run_name == "keras finetune mobilenet_v2"


def test_folder_name_has_time_title_and_run_id(recorded_at: Callable[..., Settings], tmp_path: Path) -> None:
    with start_run(recorded_at(experiment="my/birds", folder="kept"), **START) as run:
        pass
    assert run.folder.parent == tmp_path / "kept/my_birds"
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-mobilenet_v2-finetune-torch-{run.id[:8]}", run.folder.name)


def test_exception_ends_the_run_failed_with_its_traceback(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), start_run(settings, **START) as run:
        run.log_metrics({"a": 1.0})
        1 / 0  # noqa: B018
    found = recorded(run)
    assert found.info.status == "FAILED"
    assert found.data.tags[vocabulary.FAILURE] == "ZeroDivisionError: division by zero"
    assert found.data.metrics["a"] == 1
    text = artifacts(run)["traceback.txt"].read_text()
    assert "1 / 0" in text and text.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(("code", "status"), [(0, "FINISHED"), (3, "FAILED")])
def test_exit_status_within_a_run_decides_its_status(settings: Settings, code: int, status: str) -> None:
    with pytest.raises(SystemExit), start_run(settings, **START) as run:
        sys.exit(code)
    assert recorded(run).info.status == status


def test_interrupt_that_became_an_exit_is_killed(settings: Settings) -> None:
    with pytest.raises(SystemExit), start_run(settings, **START) as run:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    assert recorded(run).info.status == "KILLED"
    assert "traceback.txt" not in artifacts(run)


def test_signal_handlers_are_restored(settings: Settings) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with start_run(settings, **START):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_files_and_folders_are_uploaded_and_removed_on_request(settings: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("a,b")
    with start_run(settings, **START) as run:
        for name in ("weights/model.bin", "final/scores.csv", "final/deep/x.txt"):
            (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (run.folder / name).write_text(name)
        run.log_artifact(run.folder / "weights", remove=True)
        run.log_artifact(run.folder / "final")
        run.log_artifact(outside, folder="data", remove=True)
        with pytest.raises(FileNotFoundError, match="nothing to log"):
            run.log_artifact(run.folder / "missing")
    assert {name: path.read_text() for name, path in artifacts(run).items() if name != "settings.yaml"} == {
        "weights/model.bin": "weights/model.bin",
        "final/scores.csv": "final/scores.csv",
        "final/deep/x.txt": "final/deep/x.txt",
        "data/outside.csv": "a,b",
    }
    assert not (run.folder / "weights").exists()
    assert not outside.exists()
    assert (run.folder / "final/scores.csv").exists()


def test_missing_file_does_not_hold_up_the_other_entries(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(settings, **START) as run:
        file = run.folder / "lost.txt"
        file.write_text("x")
        run.log_artifact(file)
        file.unlink()
        run.log_metrics({"after": 1.0})
    found = recorded(run)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["after"] == 1
    assert "1 journal entries of this run are not in MLflow" in (message := capsys.readouterr().err)
    assert "lost.txt is no longer there" in message


def test_refused_name_does_not_hold_up_its_batch(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run(settings, **START) as run:
        run.log_metrics({"before": 1.0})
        run.log_metrics({"not$allowed": 1.0})
        run.log_metrics({"after": 1.0})
    found = recorded(run)
    assert found.info.status == "FINISHED"
    assert {"before", "after"} <= set(found.data.metrics)
    assert "not$allowed" not in found.data.metrics
    assert "not$allowed" in capsys.readouterr().err


def test_logging_after_the_end_is_an_error(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        pass
    with pytest.raises(OSError):
        run.log_metrics({"a": 1.0})


def test_data_set_is_an_input_of_the_run(settings: Settings, tmp_path: Path) -> None:
    with start_run(settings, **START) as run:
        run.log_dataset(
            name="birds", digest="0123456789abcdef", source=str(tmp_path), contexts=("train", "test"), profile={"n": 3}
        )
    inputs = recorded(run).inputs
    assert inputs
    (logged,) = inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("birds", "0123456789abcdef")
    assert json.loads(logged.dataset.source) == {"uri": str(tmp_path)}
    assert json.loads(logged.dataset.profile or "") == {"n": 3}
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "train, test")]


@pytest.fixture
def global_tracking_uri(database: Path) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("ignore")
def test_model_loads_by_its_id_and_by_its_run(
    settings: Settings, client: MlflowClient, global_tracking_uri: None, save_doubling_model: Callable[[Path], None]
) -> None:
    with start_run(settings, **START) as run:
        save_doubling_model(run.folder / "model")
        run.log_model(run.folder / "model", remove=True)
    outputs = recorded(run).outputs
    assert outputs
    (output,) = outputs.model_outputs
    for uri in (f"models:/{output.model_id}", f"runs:/{run.id}/{run.name}"):
        model = mlflow.pyfunc.load_model(uri)
        assert model.predict([0, 1, 2]) == [0, 2, 4]
        assert (model.metadata.run_id, model.metadata.model_id) == (run.id, output.model_id)
    logged = client.get_logged_model(output.model_id)
    assert (logged.status, logged.source_run_id, logged.name) == ("READY", run.id, run.name)
    assert not (run.folder / "model").exists()


def test_even_a_short_run_has_a_system_sample(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        pass
    metrics = recorded(run).data.metrics
    assert 0 <= metrics["system/cpu_percent"] <= 100
    assert 0 < metrics["system/process_memory_megabytes"] < metrics["system/memory_megabytes"] * 2


def test_system_is_sampled_at_the_interval(recorded_at: Callable[..., Settings]) -> None:
    with start_run(recorded_at(system_interval=0.05), **START) as run:
        time.sleep(0.5)
    samples = [line for line in journal_lines(run) if "system/cpu_percent" in line.get("values", {})]
    assert [line["step"] for line in samples] == list(range(len(samples)))
    assert 3 <= len(samples) <= 11


def test_where_to_look_has_the_address_of_the_run(
    settings: Settings, recorded_at: Callable[..., Settings], empty_database: Path, tmp_path: Path
) -> None:
    with start_run(settings, **START) as run:
        pass
    command, page, folder = run.where_to_look()
    assert command.endswith("/mlflow_server/serve.py")
    address = f"http://127.0.0.1:5000/#/experiments/{recorded(run).info.experiment_id}/runs/{run.id}"
    assert page.endswith(f"{address}?workflowType=machine_learning")
    assert folder.endswith(str(run.folder))
    shutil.copy(empty_database, tmp_path / "other.db")
    with start_run(recorded_at(uri="sqlite:///other.db"), **START) as run:
        pass
    assert run.where_to_look()[0].endswith(f"serve.py --uri sqlite:///{tmp_path}/other.db")


def test_no_run_is_created_if_its_folder_cannot_be(
    recorded_at: Callable[..., Settings], client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"tracking\.folder: received 'file'"),
        start_run(recorded_at(folder="file"), **START),
    ):
        pass
    experiment = client.get_experiment_by_name("tandem")
    assert experiment and client.search_runs([experiment.experiment_id]) == []


TRAINING = """
import sys, time
from pathlib import Path
from tandem.protocol.settings import Settings
from tandem.tracking.run import start_run

print("imported", flush=True)
sys.stdin.readline()
with start_run(Settings(), framework="torch", backend="torch", versions={}) as run:
    run.log_metrics({"a": 1.0})
    print(run.id, run.folder, flush=True)
    if sys.argv[1] == "waits":
        time.sleep(120)
"""


def test_four_processes_share_a_new_database_and_signals_end_them_as_killed(tmp_path: Path) -> None:
    arguments = ["waits", "waits", "waits", "ends"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argument in arguments
    ]
    try:
        for process in processes:
            assert process.stdout and process.stdout.readline() == "imported\n"
        for process in processes:  # all open the database at once
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        started = [process.stdout.readline().split() for process in processes if process.stdout]
        assert all(len(words) == 2 for words in started), [process.communicate()[1] for process in processes]
        processes[0].send_signal(signal.SIGINT)
        processes[1].send_signal(signal.SIGTERM)
        processes[2].send_signal(signal.SIGKILL)
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    runs = [client.get_run(run_id) for run_id, _ in started]
    assert [run.info.status for run in runs] == ["KILLED", "KILLED", "RUNNING", "FINISHED"], errors
    assert [run.data.metrics.get("a") for run in (runs[0], runs[1], runs[3])] == [1, 1, 1]
    for text, name in zip(errors, ("SIGINT", "SIGTERM"), strict=False):
        lines = text.splitlines()[-3:]
        assert lines[0] == f"tandem.interrupts.Interrupted: {name}"
        assert lines[1].startswith("kept: nothing yet") and lines[2].startswith("to continue: python ")
    assert errors[3] == ""  # no log output of MLflow or alembic
    assert len({run.info.experiment_id for run in runs}) == 1

    # A process killed with SIGKILL cannot end its run; a replay does.
    replay = [sys.executable, "-m", "tandem.tracking.replay", started[2][1]]
    subprocess.run(replay, check=True, capture_output=True)
    dead = client.get_run(started[2][0])
    assert (dead.info.status, dead.data.metrics["a"]) == ("KILLED", 1)
    assert dead.info.end_time - dead.info.start_time < 60_000


@pytest.mark.parametrize("name", ["..", "../../outside", "x" * 250, "/tmp/outside"])
def test_experiment_never_decides_where_files_go(
    name: str, recorded_at: Callable[..., Settings], tmp_path: Path
) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in (path, *path.parents)}
    settings = recorded_at(experiment=name, run_name=name)
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        (run.folder / "x").touch()
        run.log_artifact(run.folder / "x")
    assert run.folder.parent.parent == tmp_path / "runs"
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in (path, *path.parents)} == before
    assert not Path("/tmp/outside").exists()
