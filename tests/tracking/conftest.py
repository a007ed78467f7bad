from __future__ import annotations

import dataclasses
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from server_process import ROOT, Server

from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking.mlflow_store import connect


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh current folder, where runs go by default, and no tracking URI from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes it a second."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """The database where runs go by default."""
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def client(database: Path) -> MlflowClient:
    # MLflow keeps connections by URI, so that a relative one would lead to an earlier test's file.
    return MlflowClient(tracking_uri=f"sqlite:///{database}")


@pytest.fixture
def settings(database: Path) -> Settings:
    """Settings with nothing said about where to record."""
    return Settings(tracking=TrackingSettings(system_interval=60))


@pytest.fixture
def recorded_at(settings: Settings) -> Callable[..., Settings]:
    def change(**tracking: Any) -> Settings:
        return dataclasses.replace(settings, tracking=dataclasses.replace(settings.tracking, **tracking))

    return change


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path: Path, free_port: int, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    running = Server(folder, free_port)
    yield running
    running.kill()
