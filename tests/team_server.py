"""Server of mlflow_server/compose.yaml, run without Docker."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "mlflow_server"
# Values that a user would write to .env.
SECRETS = {
    "POSTGRES_PASSWORD": "p@ss %word/of:postgres",
    "S3_ACCESS_KEY": "tandem",
    "S3_SECRET_KEY": "secret-of-s3",
    "MLFLOW_ADMIN_PASSWORD": "p@ss %word/of:admin",
    "MLFLOW_SECRET_KEY": "0123456789abcdef",
}

# For a run that takes seconds.
SETTINGS = """
regime: finetune
backbone: mobilenet_v2
weights: random
batch_size: 32
max_epochs: 1
threads: 1
device: cpu
data:
  source: digits
  classes: ["0", "1", "2"]
  image_size: 32
  images_per_class: 40
  cache_folder: cache
tracking:
  experiment: team
  system_interval: 5.0
"""

Finished = subprocess.CompletedProcess[str]


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Value of compose.yaml with its variables substituted as by Docker Compose."""
    if isinstance(value, dict):
        return {key: interpolated(entry, variables) for key, entry in value.items()}
    if isinstance(value, list):
        return [interpolated(entry, variables) for entry in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, operator, word = found.groups()
        if variables.get(name):
            return variables[name]
        assert operator != ":?", f"{name} has to be set: {word}"
        return word or ""

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", fill, value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen[bytes], printed: Callable[[], str]) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            pass
        assert process.poll() is None and time.monotonic() < deadline, printed()
        time.sleep(0.2)


class TeamServer:
    """MLflow with the command and settings of compose.yaml, except for addresses."""

    def __init__(self, compose: dict[str, Any], folder: Path, environment: dict[str, str], **changes: str) -> None:
        service = compose["services"]["mlflow"]
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        self.account = (
            service["environment"]["MLFLOW_AUTH_ADMIN_USERNAME"],
            service["environment"]["MLFLOW_AUTH_ADMIN_PASSWORD"],
        )
        program, *words = service["command"]
        assert program == "mlflow" and "--host=0.0.0.0" in words and "--port=5000" in words
        addresses = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
        self._command = [sys.executable, "-m", "mlflow", *(addresses.get(word, word) for word in words)]
        (mounted,) = service["configs"]
        accounts = folder / "basic_auth.ini"
        accounts.write_text(compose["configs"][mounted["source"]]["content"])
        assert service["environment"]["MLFLOW_AUTH_CONFIG_PATH"] == mounted["target"]
        self.environment = {
            **environment,
            **service["environment"],
            "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
            **changes,
        }
        self._folder = folder
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self.environment,
                start_new_session=True,
            )
        wait_for(f"{self.uri}/health", self.process, self.printed)

    def stop(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(timeout=60)

    def printed(self) -> str:
        return self._log.read_text()
