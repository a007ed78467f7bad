from __future__ import annotations

import contextlib
import json
import math
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tandem.protocol.settings import Settings
from tandem.tracking.run import Run
from tandem.tracking.start import start_run
from tests.recorded_runs import START, artifacts, recorded


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


def test_changed_parameter_is_refused_when_it_is_logged(settings: Settings) -> None:
    with start_run(settings, **START) as run:
        run.log_params({"seed": 0, "num_classes": 5})
        with pytest.raises(ValueError, match="num_classes is '5' already"):
            run.log_params({"num_classes": 6})
    assert recorded(run).data.params["num_classes"] == "5"


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
