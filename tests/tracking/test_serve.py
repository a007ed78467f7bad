from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

from tandem.protocol.settings import Settings
from tandem.tracking.reader import find_weights, read_runs
from tandem.tracking.run import start_run

SERVE = str(Path(__file__).resolve().parents[2] / "mlflow_server/serve.py")


def test_server_keeps_files_beside_its_database(
    server: Any, recorded_at: Callable[..., Settings], tmp_path: Path
) -> None:
    with start_run(recorded_at(uri=server.uri), framework="torch", backend="torch", versions={}) as run:
        (run.folder / "weights").mkdir()
        (run.folder / "weights/model.safetensors").write_text("weights")
        run.log_artifact(run.folder / "weights")
    (record,) = read_runs(server.uri, "tandem")
    assert (record.run_id, record.status) == (run.id, "FINISHED")
    assert find_weights(server.uri, f"runs:/{run.id}", "model.safetensors").read_text() == "weights"
    (kept,) = (tmp_path / "server").rglob("model.safetensors")
    assert kept.relative_to(tmp_path / "server").parts[0] == "mlartifacts"
    assert run.where_to_look()[0].endswith(f"{server.uri}/#/experiments/1/runs/{run.id}?workflowType=machine_learning")
    assert requests.get(server.uri, timeout=5).text.lstrip().lower().startswith("<!doctype html>")

    port = server.uri.rpartition(":")[2]
    second = subprocess.run([sys.executable, SERVE, "--port", port], capture_output=True, text=True)
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
    assert second.stderr.count("\n") == 1 and second.stdout == ""

    # MLflow cannot be kept from naming its own protection.
    lines = [line for line in server.printed().splitlines() if not line.startswith("[MLflow] Security middleware")]
    assert len(lines) == 1 and server.uri in lines[0]
    listening = psutil.Process(server.process.pid)
    children = listening.children(recursive=True)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(timeout=20)
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_only_a_sqlite_file_is_served() -> None:
    command = [sys.executable, SERVE, "--uri", "http://127.0.0.1:5000"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--uri is the sqlite file to serve" in refused.stderr and refused.stderr.count("\n") == 1
