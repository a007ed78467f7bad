"""Number of cells at once that one MLflow store supports: processes that do nothing but record runs.

    python -m benchmarks.many_writers
    python -m benchmarks.many_writers --server

Each process records runs as the training scripts do, through the journal: settings, tags, 20 epochs of 7 metrics, 40
numbers at the end and 12 small files, as fast as it can. With sqlite all of them write to one file, with --server to an
MLflow server in front of one. A real cell records its run over minutes: divide runs per second by cells per second.
docs/scale.md has results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from mlflow.tracking import MlflowClient

from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, find_or_create_experiment
from tandem.tracking.start import start_run
from tandem.tracking.system import describe_hardware

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "benchmark"
NUM_EPOCHS, NUM_NUMBERS, NUM_FILES = 20, 40, 12
EPOCH_METRICS = (
    vocabulary.TRAIN_LOSS,
    vocabulary.TRAIN_ACCURACY,
    vocabulary.VAL_LOSS,
    vocabulary.VAL_ACCURACY,
    vocabulary.EPOCH_LEARNING_RATE,
    vocabulary.EPOCH_SECONDS,
    vocabulary.EPOCH_PHASE,
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures how many processes record runs in one store at once.")
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="processes at once")
    parser.add_argument("--runs", type=int, default=4, help="runs per process (default: %(default)s)")
    parser.add_argument("--server", action="store_true", help="through an MLflow server in front of the sqlite file")
    parser.add_argument(
        "--record", metavar="URI", help=argparse.SUPPRESS
    )  # used for the writers that this program starts
    arguments = parser.parse_args(argv)
    if arguments.record:
        print(json.dumps(record(arguments.record, arguments.runs)))
        return
    print(f"{describe_hardware()}\n{'a server' if arguments.server else 'sqlite'}, {arguments.runs} runs per writer")
    print(f"{'writers':>8} {'runs/s':>7} {'seconds per run: median':>24} {'longest':>8} {'incomplete':>11}")
    for number in arguments.writers:
        with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder, store(folder, arguments.server) as uri:
            find_or_create_experiment(connect(uri), EXPERIMENT)
            spans = run_writers(number, uri, arguments.runs, folder)
            whole = max(end for _, end in spans) - min(start for start, _ in spans)
            times = [end - start for start, end in spans]
            incomplete = len(times) - num_complete(uri)
            print(
                f"{number:8} {len(times) / whole:7.2f} {statistics.median(times):22.2f} {max(times):8.2f} "
                f"{incomplete:11}",
                flush=True,
            )


def record(uri: str, num_runs: int) -> list[tuple[float, float]]:
    """Records runs; returns the start of each, and the time when all of it is in MLflow."""
    settings = Settings(tracking=TrackingSettings(uri=uri, experiment=EXPERIMENT, system_interval=3600))
    spans = []
    for _ in range(num_runs):
        start = time.time()
        with start_run(settings, framework="torch", backend="torch", versions={}) as run:
            for epoch in range(NUM_EPOCHS):
                run.log_metrics(dict.fromkeys(EPOCH_METRICS, float(epoch)), step=epoch)
            run.log_metrics({f"test/{number}": 0.5 for number in range(NUM_NUMBERS)})
            for number in range(NUM_FILES):
                file = run.folder / f"{number}.csv"
                file.write_text("0123456789" * 1000)
                run.log_artifact(file)
        spans.append((start, time.time()))
    return spans


def run_writers(number: int, uri: str, num_runs: int, folder: str) -> list[tuple[float, float]]:
    """Spans of all runs that a number of processes record at once."""
    command = [sys.executable, "-m", "benchmarks.many_writers", "--record", uri, "--runs", str(num_runs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    writers = [
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(number)
    ]
    spans = []
    for writer in writers:
        spans += json.loads(writer.communicate()[0].splitlines()[-1])
    return spans


def num_complete(uri: str) -> int:
    """Finished runs with all their metrics."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    wanted = len(EPOCH_METRICS) + NUM_NUMBERS
    return sum(
        run.info.status == "FINISHED" and sum(not name.startswith("system/") for name in run.data.metrics) == wanted
        for run in runs
    )


@contextlib.contextmanager
def store(folder: str, with_server: bool) -> Iterator[str]:
    """URI of a new sqlite file in a folder, or of a server in front of it."""
    uri = f"sqlite:///{folder}/mlflow.db"
    connect(uri)
    with server_in_front_of(uri, folder) if with_server else contextlib.nullcontext(uri) as address:
        yield address


@contextlib.contextmanager
def server_in_front_of(uri: str, folder: str) -> Iterator[str]:
    """Address of an MLflow server of a sqlite file, which keeps artifacts in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # one worker: with several, each request takes 40 ms (mlflow_server/serve.py)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port)]
    command += ["--artifacts-destination", f"{folder}/artifacts", "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            while server.poll() is None:
                with contextlib.suppress(requests.RequestException):
                    if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
