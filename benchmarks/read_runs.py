"""Time of compare.py from a local sqlite store to its tables, and its growth with the number of runs.

    python -m benchmarks.read_runs

Writes 250 runs of 30 metrics and 50 parameters to MLflow's tables, measures, and repeats this with 500, 1,000 and 2,000
runs. The last column is the whole of compare.py, with imports and output. As in real runs, most numbers are in tags;
--old makes all of them metrics, as in runs of version 0.2.0. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
import typing
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from tandem.comparison.comparison import compare_runs
from tandem.protocol.backbones import CATALOGUE
from tandem.protocol.settings import Regime, Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, find_or_create_experiment
from tandem.tracking.numbers import Numbers
from tandem.tracking.provenance import parameter_text
from tandem.tracking.reader import read_runs

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "benchmark"
NUM_STEPS = 20  # values per metric that a run logs in each epoch
SEEDS = range(5)

EPOCH_METRICS = (
    vocabulary.TRAIN_LOSS,
    vocabulary.TRAIN_ACCURACY,
    vocabulary.VAL_LOSS,
    vocabulary.VAL_ACCURACY,
    vocabulary.EPOCH_LEARNING_RATE,
    vocabulary.EPOCH_SECONDS,
    vocabulary.EPOCH_PHASE,
)
RUN_NUMBERS = (
    vocabulary.TRAIN_SECONDS,
    vocabulary.SECONDS_PER_EPOCH,
    vocabulary.EPOCHS,
    vocabulary.PARAMETERS,
    vocabulary.LATENCY_MILLISECONDS,
    *(vocabulary.TEST_PREFIX + name for name in ("accuracy", "f1_macro", "f1_min", "log_loss")),
    *(f"{vocabulary.phase_name(1)}/{vocabulary.TEST_PREFIX}{name}" for name in ("accuracy", "f1_macro")),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures how the time of compare.py grows with the number of runs.")
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[250, 500, 1000, 2000], help="numbers of runs, ascending"
    )
    parser.add_argument(
        "--metrics", type=int, default=30, help="metrics and other numbers per run (default: %(default)s)"
    )
    parser.add_argument("--old", action="store_true", help="record all numbers as metrics")
    parser.add_argument("--parameters", type=int, default=50, help="parameters per run (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        connect(uri)
        print(f"{arguments.metrics} metrics and {arguments.parameters} parameters per run; seconds, best of three")
        print(f"{'runs':>6} {'read_runs':>10} {'compare_runs':>13} {'both, CPU':>10} {'ratio':>6} {'compare.py':>11}")
        num_made, before = 0, None
        for num_runs in sorted(arguments.runs):
            counts = {"num_metrics": arguments.metrics, "num_parameters": arguments.parameters}
            make_runs(uri, num_made, num_runs - num_made, **counts, old=arguments.old)
            num_made = num_runs
            reading, comparing, cpu = (min(times) for times in zip(*(measure(uri) for _ in range(3)), strict=True))
            whole = min(measure_script(uri, Path(folder) / "tables") for _ in range(3))
            ratio = f"{cpu / before:.2f}" if before else "-"
            print(f"{num_runs:6} {reading:10.2f} {comparing:13.2f} {cpu:10.2f} {ratio:>6} {whole:11.2f}", flush=True)
            before = cpu


def make_runs(uri: str, first: int, count: int, *, num_metrics: int, num_parameters: int, old: bool = False) -> None:
    """Adds runs to a store: a grid over what users vary, and when that is through, with another learning rate.

    Through MLflow's own tables in one transaction, since its client needs five transactions and 0.2 s per run.

    Args:
        uri: Of the store.
        first: Number of the first run.
        count: Number of runs.
        num_metrics: Metrics and other numbers per run.
        num_parameters: Parameters per run.
        old: Make all numbers metrics, as version 0.2.0 did.
    """
    experiment = int(find_or_create_experiment(MlflowClient(uri), EXPERIMENT).experiment_id)
    rows: dict[type, list[dict[str, Any]]] = {
        table: [] for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric)
    }
    grid = list(itertools.product(SEEDS, CATALOGUE, typing.get_args(Regime), ("torch", "keras")))
    for number in range(first, first + count):
        rate, (seed, backbone, regime, framework) = 1 + number // len(grid), grid[number % len(grid)]
        settings = Settings(backbone=backbone, regime=regime, weights="imagenet", learning_rate=rate * 1e-4, seed=seed)
        texts = {name: parameter_text(value) for name, value in flatten(settings).items()}
        parameters = [*texts.items(), *((f"other.{index}", "value") for index in range(num_parameters))]
        tags = {
            MLFLOW_RUN_NAME: f"{backbone}-{regime}-{framework}",
            vocabulary.FRAMEWORK: framework,
            vocabulary.BACKEND: {"torch": "torch", "keras": "tensorflow"}[framework],
            vocabulary.TEST_HASH: "0" * 64,
            vocabulary.SPLIT_HASH: "1" * 64,
            vocabulary.SETTINGS_HASH: f"{number:064}",
            vocabulary.DATA_NAME: "benchmark",
            vocabulary.HARDWARE: "made up",
            **{f"{vocabulary.VERSION_PREFIX}{index}": "1.2.3" for index in range(12)},
        }
        run = {"run_uuid": uuid.uuid4().hex}
        values = {"value": 0.5 + number / 1e5, "timestamp": 1, "is_nan": False, **run}
        names = [*RUN_NUMBERS, *(f"other/{index}" for index in range(num_metrics))][: num_metrics - len(EPOCH_METRICS)]
        metrics, in_tags = Numbers().add(dict.fromkeys(names, values["value"]))
        once = names if old else list(metrics)
        tags |= {} if old else in_tags
        rows[SqlRun].append(
            {
                **run,
                "name": tags[MLFLOW_RUN_NAME],
                "experiment_id": experiment,
                "status": "FINISHED",
                "start_time": number,
                "end_time": number,
                "lifecycle_stage": "active",
                "artifact_uri": "nowhere",
                "user_id": "somebody",
            }
        )
        rows[SqlTag] += [{"key": key, "value": value, **run} for key, value in tags.items()]
        rows[SqlParam] += [{"key": key, "value": value, **run} for key, value in parameters[:num_parameters]]
        rows[SqlMetric] += [{"key": key, "step": step, **values} for key in EPOCH_METRICS for step in range(NUM_STEPS)]
        rows[SqlMetric] += [{"key": key, "step": 0, **values} for key in once]
        rows[SqlLatestMetric] += [{"key": key, "step": NUM_STEPS - 1, **values} for key in EPOCH_METRICS]
        rows[SqlLatestMetric] += [{"key": key, "step": 0, **values} for key in once]
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as transaction:
        for table, content in rows.items():
            transaction.execute(sqlalchemy.insert(table), content)
    engine.dispose()


def measure(uri: str) -> tuple[float, float, float]:
    """Seconds from the store to run records, from those to tables, and of the processor for both.

    The last are what a busy machine changes least.
    """
    start, cpu_start = time.perf_counter(), time.process_time()
    runs = read_runs(uri, EXPERIMENT)
    middle = time.perf_counter()
    comparison = compare_runs(runs)
    end, cpu_end = time.perf_counter(), time.process_time()
    assert comparison.tables
    return middle - start, end - middle, cpu_end - cpu_start


def measure_script(uri: str, output: Path) -> float:
    """Seconds of the whole of compare.py, with imports and output."""
    command = [sys.executable, str(ROOT / "compare.py"), "--experiment", EXPERIMENT]
    start = time.perf_counter()
    subprocess.run([*command, "--tracking.uri", uri, "--output", str(output)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
