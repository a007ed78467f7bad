from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import mlflow.store.db_migrations
import pytest
from alembic.script import ScriptDirectory
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri


def test_default_is_a_database_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert resolve_uri(None) == "http://tracking:5000"
    assert resolve_uri("sqlite:///sub/x.db") == f"sqlite:///{tmp_path}/sub/x.db"


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:./mlruns", "file:///tmp/x", "sqlite://", "ftp://host/x"])
def test_uris_where_mlflow_cannot_keep_runs_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"use sqlite:///mlflow\.db") as caught:
        resolve_uri(uri)
    assert repr(uri) in str(caught.value)


def test_server_that_is_down_is_reported_at_once(free_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=f"no MLflow server answers at http://127.0.0.1:{free_port}") as caught:
        connect(f"http://127.0.0.1:{free_port}")
    assert time.monotonic() - started < 10
    assert "\n" not in str(caught.value)


def test_server_that_never_answers_is_given_up_within_ten_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(UserError, match="no MLflow server answers"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["text.db", "folder.db"])
def test_file_that_is_not_a_database_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at " * 40)
    (tmp_path / "folder.db").mkdir()
    started = time.monotonic()
    with pytest.raises(UserError, match="cannot open the MLflow database") as caught:
        connect(f"sqlite:///{tmp_path}/{name}")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_files_go_beside_the_database_whatever_its_path(empty_database: Path, tmp_path: Path) -> None:
    (tmp_path / "my runs").mkdir()
    shutil.copy(empty_database, tmp_path / "my runs/x.db")
    client = connect(resolve_uri(f"sqlite:///{tmp_path}/my runs/x.db"))
    experiment = find_or_create_experiment(client, "birds/first try")
    run = client.create_run(experiment.experiment_id)
    file = tmp_path / "a.txt"
    file.write_text("x")
    client.log_artifact(run.info.run_id, str(file))
    stored = [path for path in (tmp_path / "my runs").rglob("a.txt")]
    assert [path.relative_to(tmp_path / "my runs").parts[:2] for path in stored] == [("mlartifacts", "birds_first_try")]


def test_deleted_experiment_is_refused_with_the_command_that_restores_it(client: MlflowClient) -> None:
    experiment = find_or_create_experiment(client, "birds")
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(UserError, match=f"'birds' was deleted.*--experiment-id {experiment.experiment_id}"):
        find_or_create_experiment(client, "birds")


def test_experiment_of_a_server_is_not_written_directly(client: MlflowClient) -> None:
    client.create_experiment("birds", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(UserError, match="'birds' was created through an MLflow server"):
        find_or_create_experiment(client, "birds")


def test_database_of_a_newer_mlflow_is_refused(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update alembic_version set version_num = 'ffff0000ffff'")
    with pytest.raises(
        UserError, match=r"a newer MLflow than this one .* wrote it \(schema ffff0000ffff\): install"
    ) as caught:
        connect(f"sqlite:///{database}")
    assert "\n" not in str(caught.value)


def test_database_of_an_older_mlflow_is_refused_with_the_upgrade_command(database: Path) -> None:
    # The database is only marked as older: MLflow creates missing tables by itself, and requests an upgrade otherwise.
    migrations = ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))
    older = migrations.get_revision("head").down_revision
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update alembic_version set version_num = ?", (older,))
    with pytest.raises(UserError, match=f"an older MLflow .* mlflow db upgrade sqlite:///{database}$") as caught:
        connect(f"sqlite:///{database}")
    assert "\n" not in str(caught.value)


def test_new_experiment_has_two_views(client: MlflowClient) -> None:
    experiment = find_or_create_experiment(client, "birds")
    views = {
        key: json.loads(value) for key, value in experiment.tags.items() if key.startswith("mlflow.sharedViewState.")
    }
    assert {view["name"] for view in views.values()} == {"Tandem: results", "Tandem: curves"}
    for view in views.values():
        state = json.loads(view["state"])
        (section,) = state["compareRunSections"]
        assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {section["uuid"]}
        assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"]) >= 4
        client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"])
