"""Costs that grow with the number of runs in a store: its file, a page of the MLflow UI's table, a grid's search for
finished cells, and reading all runs from a server.

    python -m benchmarks.many_runs

Fills a sqlite file with runs of 50 metrics and 60 parameters, as benchmarks/read_runs.py makes them, starts an MLflow
server in front of it, and sends the requests of the UI and the programs. docs/scale.md has results.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests
from mlflow.tracking import MlflowClient

from benchmarks.many_writers import server_in_front_of
from benchmarks.read_runs import EXPERIMENT, make_runs
from tandem.grid.file import GridCell
from tandem.grid.finished import finished_cells, identity_of, settle_earlier_attempts
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect
from tandem.tracking.reader import read_runs
from tandem.tracking.system import describe_hardware

PAGE = 100  # runs per request of the UI


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures costs that grow with the number of runs in a store.")
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 5000], help="numbers of runs, ascending")
    arguments = parser.parse_args(argv)
    print(f"{describe_hardware()}\nbest of three; seconds, except for the file")
    columns = ("kB a run", "page of 100", "sorted", "one cell", "sqlite: all", "server: all", "finished cells")
    print(f"{'runs':>6} " + " ".join(f"{name:>14}" for name in columns))
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        sqlite = f"sqlite:///{folder}/mlflow.db"
        connect(sqlite)
        file = Path(folder) / "mlflow.db"
        empty, num_made = file.stat().st_size, 0
        for number in sorted(arguments.runs):
            make_runs(sqlite, num_made, number - num_made, num_metrics=50, num_parameters=60)
            num_made = number
            with server_in_front_of(sqlite, folder) as uri:
                row = [
                    (file.stat().st_size - empty) / number / 1000,
                    *(best_of_three(ask) for ask in questions(uri, sqlite)),
                ]
            print(f"{number:6} " + " ".join(f"{value:14.2f}" for value in row), flush=True)


def questions(uri: str, sqlite: str) -> list[Callable[[], object]]:
    """Timed requests, in the order of the columns."""
    found = MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    assert found is not None
    search = f"{uri}/api/2.0/mlflow/runs/search"
    page = {"experiment_ids": [found.experiment_id], "max_results": PAGE}
    by_accuracy = {**page, "order_by": [f"metrics.`{vocabulary.TEST_PREFIX}accuracy` DESC"]}
    settings = Settings(tracking=TrackingSettings(uri=uri, experiment=EXPERIMENT))
    cell = GridCell(number=1, name="cell", framework="torch", options=(), settings=settings)
    return [
        lambda: requests.post(search, json=page, timeout=600).raise_for_status(),
        lambda: requests.post(search, json=by_accuracy, timeout=600).raise_for_status(),
        lambda: settle_earlier_attempts(cell, identity_of(cell), since=0),
        lambda: read_runs(sqlite, EXPERIMENT),
        lambda: read_runs(uri, EXPERIMENT),
        lambda: finished_cells([cell]),
    ]


def best_of_three(ask: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
