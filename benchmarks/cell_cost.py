"""Cost of a grid's cell beside its training: seconds of starting and ending, and bytes that its run leaves.

    python -m benchmarks.cell_cost

Runs a grid of small cells, handwritten digits on a network from scratch, in both frameworks, one after the other as
`python -m tandem.grid` does, and splits their times:

    before     from the start of the process to the start of the run: imports, settings, data
    training   cost/train_seconds: training and validation
    rest       of the run: building, evaluation, timing of predictions, figures, sending to MLflow
    after      from the end of the run to the end of the process
    between    the grid's own time from the end of a process to the start of the next

docs/scale.md has results.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from rich.console import Console

from tandem.grid.file import Grid, read_grid
from tandem.grid.finished import prepare_experiments
from tandem.grid.processes import LocalProcesses, Outcome, divide, num_cores
from tandem.grid.runner import run_cells
from tandem.protocol.gpus import visible_gpus
from tandem.protocol.settings_hash import settings_hash
from tandem.tracking import vocabulary
from tandem.tracking.system import describe_hardware

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {"torch": "train_torch", "keras": "train_keras", "grid": "tandem.grid.finished"}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the cost of a grid's cell beside its training.")
    parser.add_argument("--cells", type=int, default=2, help="cells per framework (default: %(default)s)")
    parser.add_argument("--frameworks", nargs="+", default=["torch", "keras"], choices=("torch", "keras"))
    parser.add_argument("--backbone", default="mobilenet_v2", help="default: %(default)s")
    parser.add_argument("--image_size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--imports", type=int, default=3, help="timings per import (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once (default: %(default)s)")
    arguments = parser.parse_args(argv)
    os.environ["PYTHONPATH"] = str(ROOT)
    print(describe_hardware())
    if arguments.imports:
        print("\nseconds of the imports of a process: medians of elapsed and of processor time")
        for name, module in IMPORTS.items():
            times = zip(*(time_import(module) for _ in range(arguments.imports)), strict=True)
            clock, processor = (statistics.median(values) for values in times)
            print(f"{name:>6} {clock:6.2f} {processor:6.2f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder, contextlib.chdir(folder):
        grid = write_grid(arguments)
        prepare_experiments(grid.cells)
        database = Path("mlflow.db")
        empty = database.stat().st_size
        start = time.time()
        pool = LocalProcesses(divide(arguments.jobs, visible_gpus(), num_cores()))
        ended: list[tuple[Outcome, float]] = []
        for outcome in run_cells(grid.cells, pool, Console(file=sys.stderr, soft_wrap=True)):
            if outcome.status:
                sys.exit(f"{outcome.cell.name}: {outcome.last_line}")
            ended.append((outcome, time.time()))
        print_times(ended, time.time() - start, arguments.jobs)
        print_bytes(len(ended), database.stat().st_size - empty)


def time_import(module: str) -> tuple[float, float]:
    """Elapsed and processor seconds of a new process that imports a module and ends."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def write_grid(arguments: argparse.Namespace) -> Grid:
    """Runs a grid with a number of seeds in the current folder; a cell before it stores the digits."""
    content = {
        "experiment": "benchmark",
        "settings": {
            "backbone": arguments.backbone,
            "data": {
                "source": "digits",
                "images_per_class": 40,
                "image_size": arguments.image_size,
                "cache_folder": "cache",
            },
            "regime": "scratch",
            "max_epochs": arguments.epochs,
            "tracking": {"data_report": False},
        },
        "cells": [{"frameworks": arguments.frameworks, "vary": {"seed": list(range(arguments.cells))}}],
    }
    file = Path("benchmark.yaml")
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_grid(file)


def print_times(outcomes: list[tuple[Outcome, float]], whole: float, jobs: int) -> None:
    """Prints one row per cell, and the grid's own time between cells."""
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("benchmark")
    assert experiment is not None
    runs = {key_of(run): run for run in client.search_runs([experiment.experiment_id])}
    print(f"\n{'seconds':>8} {'cell':>7} {'before':>7} {'training':>9} {'rest':>7} {'after':>7}")
    for outcome, ended in outcomes:
        run = runs[outcome.cell.framework, settings_hash(outcome.cell.settings)]
        started = ended - outcome.seconds
        training = run.data.metrics[vocabulary.TRAIN_SECONDS]
        inside = (run.info.end_time - run.info.start_time) / 1000
        parts = (run.info.start_time / 1000 - started, training, inside - training, ended - run.info.end_time / 1000)
        print(
            f"{outcome.cell.framework:>8} {outcome.seconds:7.1f} {parts[0]:7.1f} {parts[1]:9.1f} {parts[2]:7.1f} "
            f"{parts[3]:7.1f}"
        )
    if jobs == 1:
        between = (whole - sum(outcome.seconds for outcome, _ in outcomes)) / len(outcomes)
        print(f"between cells: {between:.2f} s each")
    else:
        median = statistics.median(outcome.seconds for outcome, _ in outcomes)
        print(f"{jobs} at once: {len(outcomes)} cells in {whole:.1f} s, median {median:.1f} s each")


def key_of(run: Run) -> tuple[str, str]:
    return run.data.tags[vocabulary.FRAMEWORK], run.data.tags[vocabulary.SETTINGS_HASH]


def print_bytes(num_cells: int, database: int) -> None:
    """Prints the bytes per run: in the database, by artifact, and in the run's folder."""
    print(f"\n{'kilobytes per run':>17}\n{database / num_cells / 1000:16.1f} in mlflow.db")
    sizes: dict[str, int] = defaultdict(int)
    for file in Path("mlartifacts").rglob("*"):
        if file.is_file():
            sizes[file.name] += file.stat().st_size
    print(f"{sum(sizes.values()) / num_cells / 1000:16.1f} of artifacts, of which")
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])[:8]:
        print(f"{size / num_cells / 1000:16.1f}   {name}")
    local = sum(file.stat().st_size for file in Path("runs").rglob("*") if file.is_file())
    print(f"{local / num_cells / 1000:16.1f} in the run's folder on the machine that trained it")


if __name__ == "__main__":
    main()
