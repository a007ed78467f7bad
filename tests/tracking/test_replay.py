from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tandem import interrupts
from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking.journal import read_journal
from tandem.tracking.mlflow_store import RunWriter
from tandem.tracking.replay import main, replay
from tandem.tracking.run import Run
from tandem.tracking.start import start_run

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {"torch": "2.15.0"}}


def log_one_of_each(run: Run, save_model: Callable[[Path], None], step: int = 0) -> None:
    run.log_params({"num_classes": 5})
    run.log_metrics({"train/loss": float("nan"), "val/loss": 0.5}, step=step)
    run.set_tags({"tandem.data": "birds"})
    (run.folder / "a.txt").write_text("x")
    run.log_artifact(run.folder / "a.txt", folder="data")
    run.log_dataset(name="birds", digest="abc", source="birds", contexts=("train",), profile={})
    save_model(run.folder / "model")
    run.log_model(run.folder / "model")


def everything(database: Path) -> dict[str, list[tuple]]:
    """All rows of runs, read directly from the database."""
    tables = ["runs", "params", "metrics", "latest_metrics", "tags", "inputs", "input_tags", "datasets"]
    tables += ["logged_models", "logged_model_tags", "logged_model_params"]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = {table: sorted(connection.execute(f"select * from {table}").fetchall(), key=repr) for table in tables}
        columns = [column[1] for column in connection.execute("pragma table_info(logged_models)")]
    # the time at which a model was last updated is not part of its content
    changing = columns.index("last_updated_timestamp_ms")
    rows["logged_models"] = [row[:changing] + row[changing + 1 :] for row in rows["logged_models"]]
    return rows


def test_repeated_sending_duplicates_nothing(
    settings: Settings, tmp_path: Path, save_doubling_model: Callable[[Path], None]
) -> None:
    with start_run(settings, **START) as run:
        log_one_of_each(run, save_doubling_model)
    before = everything(tmp_path / "mlflow.db")
    assert {table: len(rows) for table, rows in before.items() if table in ("runs", "inputs", "logged_models")} == {
        "runs": 1,
        "inputs": 2,  # the data set, and the model as an output
        "logged_models": 1,
    }
    assert replay(run.folder) == 0

    # As if the process had died each time between sending an entry and marking it.
    journal = run.folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "mark" not in json.loads(line)))
    assert replay(run.folder) == len(read_journal(journal).entries)
    assert everything(tmp_path / "mlflow.db") == before


def test_signal_ends_a_replay_after_an_entry_and_another_one_completes_it(
    settings: Settings,
    tmp_path: Path,
    save_doubling_model: Callable[[Path], None],
    interrupted: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_run(settings, **START) as run:
        log_one_of_each(run, save_doubling_model)
    before = everything(tmp_path / "mlflow.db")
    journal = run.folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "mark" not in json.loads(line)))
    upload = RunWriter._write_artifact
    monkeypatch.setattr(RunWriter, "_write_artifact", lambda *entry: (interrupted(), upload(*entry)))
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        replay(run.folder)
    (number,) = (
        entry.number for entry in read_journal(journal).entries if entry.content.get("path") == "settings.yaml"
    )
    assert read_journal(journal).unsent()[0].number == number + 1
    monkeypatch.setattr(RunWriter, "_write_artifact", upload)
    assert replay(run.folder) > 0
    assert everything(tmp_path / "mlflow.db") == before


def test_open_run_is_not_replayed(settings: Settings) -> None:
    with start_run(settings, **START) as run, pytest.raises(UserError, match="in use by another process"):
        replay(run.folder)


def test_moved_folder_can_be_replayed(
    settings: Settings, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(settings, **START) as run:
        file = run.folder / "late.txt"
        file.write_text("x")
        run.log_artifact(file)
        file.rename(run.folder / "away.txt")
    assert "late.txt is no longer there" in capsys.readouterr().err
    moved = run.folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"refused 1 of 1 entries.*late\.txt is no longer there"):
        replay(moved)
    (moved / "away.txt").rename(moved / "late.txt")
    assert replay(moved) == 1
    assert "late.txt" in [artifact.path for artifact in client.list_artifacts(run.id)]


def test_replay_to_an_mlflow_without_the_run_is_refused(
    settings: Settings, empty_database: Path, tmp_path: Path
) -> None:
    with start_run(settings, **START) as run:
        pass
    shutil.copy(empty_database, tmp_path / "other.db")
    with pytest.raises(UserError, match=f"does not have the run {run.id}"):
        replay(run.folder, f"sqlite:///{tmp_path}/other.db")


def test_replay_sends_everything_after_the_server_died(
    server: Any,
    recorded_at: Callable[..., Settings],
    save_doubling_model: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with start_run(recorded_at(uri=server.uri), **START) as run:
        run.log_metrics({"before": 1.0})
        journal = run.folder / "journal.jsonl"
        deadline = time.monotonic() + 20
        while read_journal(journal).unsent():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.kill()
        started = time.monotonic()
        log_one_of_each(run, save_doubling_model, step=1)
        (run.folder / "big.bin").write_text("big")
        run.log_artifact(run.folder / "big.bin", remove=True)
        assert time.monotonic() - started < 5  # logging did not wait for the server
    printed = capsys.readouterr().err
    assert printed.count("does not answer") == 1
    assert f"python -m tandem.tracking.replay {run.folder}" in printed
    assert (run.folder / "big.bin").exists()
    last = read_journal(journal).entries[-1]
    assert (last.kind, last.content["status"]) == ("end", "FINISHED")

    with pytest.raises(UserError, match="no MLflow server answers"):
        replay(run.folder)
    server.start()
    assert MlflowClient(tracking_uri=server.uri).get_run(run.id).info.status == "RUNNING"
    main([str(run.folder)])
    main([str(run.folder)])
    assert "MLflow has all entries of this run already" in capsys.readouterr().out

    client = MlflowClient(tracking_uri=server.uri)
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.info.end_time == last.content["ended"]
    assert found.data.metrics["before"] == 1
    (entry,) = [entry for entry in read_journal(journal).entries if "val/loss" in entry.content.get("values", {})]
    (point,) = client.get_metric_history(run.id, "val/loss")
    assert (point.value, point.step, point.timestamp) == (0.5, 1, entry.time)
    assert {file.path for file in client.list_artifacts(run.id)} == {"settings.yaml", "data", "big.bin"}
    assert found.outputs and len(found.outputs.model_outputs) == 1
    assert not (run.folder / "big.bin").exists()
