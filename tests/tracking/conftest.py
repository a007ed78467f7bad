from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tandem.protocol.settings import Settings, TrackingSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
    import mlflow.pyfunc

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def everywhere_in_an_own_environment(own_environment: None) -> None:
    """Each test here runs in a folder of its own."""


@pytest.fixture
def settings(database: Path) -> Settings:
    """Settings with nothing said about where to record."""
    return Settings(tracking=TrackingSettings(system_interval=60))


@pytest.fixture
def recorded_at(settings: Settings) -> Callable[..., Settings]:
    def change(**tracking: Any) -> Settings:
        return dataclasses.replace(settings, tracking=dataclasses.replace(settings.tracking, **tracking))

    return change


class Server:
    """mlflow_server/serve.py in a process group of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, str(ROOT / "mlflow_server/serve.py"), "--port", str(port)]
        self._command += ["--uri", f"sqlite:///{folder}/server.db"]
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT.parent, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, self.printed()
            time.sleep(0.1)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def printed(self) -> str:
        return self._log.read_text()


@pytest.fixture
def server(tmp_path: Path, free_port: int, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    running = Server(folder, free_port)
    yield running
    running.kill()


@pytest.fixture
def save_doubling_model() -> Callable[[Path], None]:
    """Saves an MLflow model that doubles what it gets, in a folder."""

    def save(folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow would rather have no pickled models

            class Doubler(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
                def predict(self, model_input: list[int]) -> list[int]:
                    return [2 * number for number in model_input]

            mlflow.pyfunc.save_model(str(folder), python_model=Doubler(), pip_requirements=[])

    return save
