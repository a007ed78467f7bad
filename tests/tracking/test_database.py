from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.tracking import database as database_module
from tandem.tracking.database import can_write, is_half_made
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri
from tandem.tracking.reader import find_weights, read_runs

STRANGE_NAMES = (
    *("a%20b", "a b", "a#b", "a?b", "a&b=c;d", "a@b:c", "a+b", "%", "~x", "a[b]", "$HOME", "a\\b", "-x", "{a}", "*"),
    *("ä'\"", "a\nb", "日本 語", "研究室の画像" * 8, "é" * 100, "a|b<c>", ".hidden"),
)


@pytest.fixture
def quick_creation(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Databases are copied, in place of the seconds that MLflow takes to create one; returns what was created."""
    created: list[Path] = []

    class Copy:
        def __init__(self, uri: str, root: str) -> None:
            file = Path(sqlalchemy.make_url(uri).database or "")
            shutil.copy(empty_database, file)
            created.append(file)
            self.engine = sqlalchemy.create_engine("sqlite://")

    monkeypatch.setattr(database_module, "SqlAlchemyStore", Copy)
    return created


def half_made(file: Path, statements: tuple[str, ...] = (), seconds_ago: float = 60) -> Path:
    """A database as a process leaves it that is killed in the first moments of its creation."""
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(file)))
    FirstTables.metadata.create_all(engine)
    engine.dispose()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    then = file.stat().st_mtime - seconds_ago
    os.utime(file, (then, then))
    return file


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_folder_of_the_database_may_have_any_name(
    name: str, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parent" / name
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    client = connect(resolve_uri(None))
    experiment = find_or_create_experiment(client, "birds")
    run = client.create_run(experiment.experiment_id, tags={"tandem.framework": "torch"})
    (folder / "weights.bin").write_text("learned")
    client.log_artifact(run.info.run_id, str(folder / "weights.bin"), "weights")
    (stored,) = (folder / "mlartifacts" / "birds").rglob("weights.bin")
    assert stored.read_text() == "learned"
    assert find_weights(None, f"runs:/{run.info.run_id}", "weights.bin").read_text() == "learned"
    assert [found.run_id for found in read_runs(None, "birds")] == [run.info.run_id]
    assert os.listdir(folder.parent) == [name]
    assert sorted(os.listdir(folder)) == ["mlartifacts", "mlflow.db", "weights.bin"]


def test_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"caf\\xe9/mlflow.db: MLflow cannot .* not UTF-8: rename it"):
        resolve_uri(None)


def test_parameters_of_a_database_are_kept(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database.parent)
    uri = resolve_uri("sqlite:///mlflow.db?timeout=30")
    assert uri == f"sqlite:///{database}?timeout=30"
    connect(uri)
    assert os.listdir(database.parent) == ["mlflow.db"]
    as_uri = resolve_uri("sqlite:///file:mlflow.db?mode=ro&uri=true")
    assert as_uri == f"sqlite:///file:{database}?mode=ro&uri=true"
    client = connect(as_uri)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert os.listdir(database.parent) == ["mlflow.db"]


def test_database_appears_when_it_is_complete(
    tmp_path: Path, quick_creation: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mlflow.0123.partial.db").touch()  # of a killed process
    (tmp_path / "mlflow.db-journal").write_text("changes of a killed process, which belong to another file")
    connect(resolve_uri(None))
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "mlflow.db.lock"]
    (created,) = quick_creation
    assert created.parent == tmp_path and created.name != "mlflow.db" and not created.exists()


@pytest.mark.parametrize(
    "statements",
    [
        (),
        ("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",),
        ("CREATE TABLE _alembic_tmp_runs (a INTEGER)", "CREATE TABLE datasets (a INTEGER)"),
        ("DROP TABLE runs",),
    ],
)
def test_half_made_database_is_created_again(
    statements: tuple[str, ...],
    tmp_path: Path,
    quick_creation: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    half_made(tmp_path / "mlflow.db", statements)
    client = connect(resolve_uri(None))
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert len(quick_creation) == 1
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/mlflow.db was not complete")
    connect(resolve_uri(None))
    assert len(quick_creation) == 1


def test_empty_file_becomes_a_database(
    tmp_path: Path, quick_creation: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(database_module, "SECONDS_OF_CREATION", 0.1)
    (tmp_path / "mlflow.db").touch()
    connect(resolve_uri(None))
    assert (len(quick_creation), capsys.readouterr().err) == (1, "")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO experiments (name, lifecycle_stage) VALUES ('birds', 'active')",
        "INSERT INTO params (key, value, run_uuid) VALUES ('a', 'b', 'c')",
        "CREATE TABLE accounts (a INTEGER)",
    ],
)
def test_database_that_holds_something_is_never_created_again(statement: str, tmp_path: Path) -> None:
    assert not is_half_made(half_made(tmp_path / "x.db", (statement,)))


def test_database_that_another_program_creates_is_waited_for(
    empty_database: Path, tmp_path: Path, quick_creation: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = half_made(tmp_path / "mlflow.db", seconds_ago=0)
    monkeypatch.setattr(database_module.time, "sleep", lambda seconds: shutil.copy(empty_database, file))
    connect(resolve_uri(f"sqlite:///{file}"))
    assert quick_creation == []


@pytest.fixture
def project(client: MlflowClient, tmp_path: Path) -> Callable[[str], Path]:
    """Moves the folder of a database with a run to another place."""
    experiment = find_or_create_experiment(client, "birds")
    run = client.create_run(experiment.experiment_id, tags={"tandem.framework": "torch"})
    client.log_text(run.info.run_id, "learned", "weights/weights.bin")
    client.log_metric(run.info.run_id, "loss", 1.5)

    def move(name: str) -> Path:
        shutil.copytree(tmp_path, tmp_path.parent / name)
        shutil.rmtree(tmp_path)
        return tmp_path.parent / name

    return move


@pytest.mark.parametrize("name", ["moved", "moved %2F there?"])
def test_artifacts_of_a_moved_folder_are_found_beside_the_database(
    name: str,
    project: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = project(name)
    monkeypatch.chdir(folder)
    (run,) = read_runs(None, "birds")
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {folder}/mlflow.db was moved: its files were in {tmp_path}/mlartifacts, and are now read from "
        f"{folder}/mlartifacts"
    ]
    assert find_weights(None, f"runs:/{run.run_id}", "weights.bin").read_text() == "learned"
    client = connect(resolve_uri(None))
    new = client.create_run(client.get_experiment_by_name("birds").experiment_id)
    client.log_text(new.info.run_id, "more", "weights/more.txt")
    assert {path.name for path in (folder / "mlartifacts").rglob("*") if path.is_file()} == {"weights.bin", "more.txt"}
    assert not tmp_path.exists()
    assert capsys.readouterr().err == ""


def test_folder_that_is_still_there_was_not_moved(
    project: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path.parent / "copied"
    shutil.copytree(tmp_path, copy)
    monkeypatch.chdir(copy)
    (run,) = read_runs(None, "birds")
    assert run.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())
    assert capsys.readouterr().err == ""


def test_moved_folder_that_cannot_be_written_is_refused_with_a_remedy(
    project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("read-only")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(database_module, "can_write", lambda file: False)
    with pytest.raises(UserError, match=r"was moved.*make it writable, or copy mlflow\.db and mlartifacts/ into"):
        read_runs(None, "birds")


def test_database_in_a_folder_without_write_permission_is_read(
    client: MlflowClient, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_or_create_experiment(client, "birds")
    client.create_run("1", tags={"tandem.framework": "torch"})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", f"{database}.lock")

    # root may write anywhere, so permissions alone would prove nothing in a container
    monkeypatch.setattr("tandem.tracking.mlflow_store.FileLock", refuse)
    database.chmod(0o444)
    database.parent.chmod(0o555)
    try:
        assert len(read_runs(None, "birds")) == 1
        assert can_write(database) == (os.geteuid() == 0)
    finally:
        database.parent.chmod(0o755)
