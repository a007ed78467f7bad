"""Kills training runs at random moments, repeats the command, and compares the predictions with an unkilled run's.

    python -m tests.scripts.kills --kills 50
    python -m tests.scripts.kills --kills 10 --during first_phase
    python -m tests.scripts.kills --kills 20 --during checkpoints

Each run is killed with SIGKILL up to five times, between its start and its end, and continued until it ends by itself.
Moments are counted in the processor time of the run, so that they are spread over it on a busy machine, too. The first
of a run is anywhere in it, the others come soon after it has been continued. Processes are forked from one that has
imported the framework; the first run of each framework is compared with one of the script as users start it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary
from tandem.tracking.numbers import read_numbers
from tests.scripts.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[2]
KILLS_PER_RUN = 5
MOST_CHECKPOINTS, SECONDS_OF_WRITING = 12, 0.1
"""A run that is killed while it writes a checkpoint dies in one of so many, within this time."""
DURING = ("all", "first_phase", "checkpoints")

# Two phases, the first one with cached features, dropout, augmentation and a plateau schedule.
WORDS = (
    *(
        "--regime",
        "two_stage",
        "--weights",
        "random",
        "--backbone",
        "mobilenet_v2",
        "--threads",
        "1",
        "--device",
        "cpu",
    ),
    *("--data.source", "digits", "--data.classes", '["0", "1", "2"]', "--data.images_per_class", "40"),
    *("--data.image_size", "32", "--batch_size", "16", "--max_epochs", "3", "--learning_rate", "0.01"),
    *("--head.dropout", "0.2", "--schedule.name", "plateau", "--tracking.data_report", "false"),
    *("--tracking.grad_cam_images", "0", "--tracking.experiment", "kills", "--data.cache_folder", "cache"),
    *("--checkpoint_minutes", "0.001"),
)


@dataclass
class Report:
    """Figures of many kills."""

    framework: str
    kills: int = 0
    runs: int = 0
    equal: int = 0
    seconds: float = 0.0
    """Elapsed time of the run that nothing killed."""
    processor_seconds: float = 0.0
    """Processor time of such a run without imports."""
    first_phase_seconds: float = 0.0
    """Processor time of its part before the second phase."""
    problems: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    half_written: int = 0
    """Kills that left a checkpoint under its temporary name."""


def command(framework: str) -> list[str]:
    return [sys.executable, str(ROOT / f"train_{framework}.py"), *WORDS]


def kill_runs(framework: str, num_kills: int, *, seed: int, during: str, folder: Path) -> Report:
    """Kills runs of one framework, and counts those whose predictions and curves are those of an unkilled one."""
    report, moments = Report(framework), random.Random(seed)
    whole = folder / "whole"
    whole.mkdir(parents=True)
    start = time.monotonic()
    done = subprocess.run(command(framework), cwd=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report.seconds = time.monotonic() - start
    preloaded = Preloaded(framework, WORDS)
    unkilled = _start_again(folder / "unkilled", whole)
    started = preloaded.start(unkilled, unkilled / "output.txt")
    watched = psutil.Process(started.pid)
    while started.poll() is None and not list(unkilled.glob("runs/*/*/checkpoint/phase.npz")):
        report.first_phase_seconds = _seconds_of(watched)
        time.sleep(0.005)
    assert started.wait() == 0, (unkilled / "output.txt").read_text()
    report.processor_seconds = started.seconds
    if problem := difference(whole, unkilled):
        report.problems.append(f"two runs without a kill: {problem}")
    while report.kills < num_kills:
        report.runs += 1
        work = _start_again(folder / f"run {report.runs}", whole)
        killed = _kill_and_continue(
            preloaded, work, min(KILLS_PER_RUN, num_kills - report.kills), report, moments, during
        )
        report.kills += killed
        problem = difference(whole, work)
        print(
            f"{framework}: run {report.runs} killed {killed} times: {problem or 'equal'}", file=sys.stderr, flush=True
        )
        if problem:
            report.problems.append(f"{work}: {problem}")
        else:
            report.equal += 1
            shutil.rmtree(work)
    preloaded.close()
    return report


def _start_again(work: Path, whole: Path) -> Path:
    """A folder in which images are stored already."""
    work.mkdir()
    shutil.copytree(whole / "cache", work / "cache")
    return work


def _kill_and_continue(
    preloaded: Preloaded, work: Path, num_kills: int, report: Report, moments: random.Random, during: str
) -> int:
    """Starts the command until it ends by itself; returns the number of times that it was killed."""
    killed = 0
    while True:
        dies_in = None
        if during == "checkpoints" and killed < num_kills:
            dies_in = moments.randint(1, MOST_CHECKPOINTS), moments.uniform(0.0, SECONDS_OF_WRITING)
        process = preloaded.start(work, work / "output.txt", dies_in)
        longest = report.processor_seconds * (0.5 if killed else 1.0)
        moment = moments.uniform(0.0, report.first_phase_seconds if during == "first_phase" else longest)
        watched = psutil.Process(process.pid)
        while process.poll() is None and killed < num_kills:
            if during != "checkpoints" and _seconds_of(watched) >= moment:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        status = process.wait()
        if status == -signal.SIGKILL:
            where = place(work, process.pid)
            report.places[where] += 1
            print(f"{report.framework}: killed {where}", file=sys.stderr, flush=True)
            report.half_written += is_writing(work)
            killed += 1
        if status == 0:
            return killed
        if has_finished(work):  # killed after its end: the same command would begin another run
            return killed
        if status > 0:
            report.problems.append(f"exit status {status}: {(work / 'output.txt').read_text()[-300:]}")
            return max(killed, 1)


def _seconds_of(process: psutil.Process) -> float:
    """Processor time of a process that runs."""
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has just ended
        return 0.0
    return float(times.user + times.system)


def is_writing(work: Path) -> bool:
    """True if there is a checkpoint under its temporary name."""
    return any(work.glob("runs/*/*/checkpoint/*.partial"))


def has_finished(work: Path) -> bool:
    """True if MLflow has a finished run."""
    if not (work / "mlflow.db").exists():
        return False
    return any(run.info.status == "FINISHED" for run in _runs(work))


def place(work: Path, pid: int) -> str:
    """The part of a run in which a process was killed, by the run's files."""
    records = list(work.glob(f"runs/*/*/{vocabulary.PROCESS_FILE}"))
    if not records or json.loads(records[0].read_text())["process"]["pid"] != pid:
        return "before it began or continued the run"
    if any("phase_2/test/" in path.read_text() for path in work.glob("runs/*/*/journal.jsonl")):
        return "after the training"
    names = {path.name for path in work.glob("runs/*/*/checkpoint/*")}
    if "phase.npz" in names:
        return "in phase 2"
    return "in phase 1" if names else "before the first checkpoint"


def difference(whole: Path, killed: Path) -> str:
    """The first difference between two runs' predictions or points in MLflow; empty without one."""
    (one,), runs = _runs(whole), _runs(killed)
    ended = [run for run in runs if run.info.status == "FINISHED"]
    if len(ended) != 1 or any(run.info.status == "RUNNING" for run in runs):
        return f"statuses {[run.info.status for run in runs]}"
    (other,) = ended
    frames = [pd.read_parquet(_artifacts(run) / "final/predictions.parquet") for run in (one, other)]
    if not np.array_equal(*(frame.filter(like="probability:").to_numpy() for frame in frames)):
        return "predictions differ"
    numbers, others = read_numbers(one), read_numbers(other)
    if set(numbers) != set(others):
        return f"numbers of one run only: {sorted(set(numbers) ^ set(others))}"
    for name in numbers:
        if name.startswith(("system/", "cost/")) or "seconds" in name or "/cost/" in name:
            continue
        if numbers[name] != others[name]:
            return f"{name}: {numbers[name]} and {others[name]}"
        if name not in one.data.metrics:
            continue
        points = [_points(folder, run, name) for folder, run in ((whole, one), (killed, other))]
        if points[0] != points[1]:
            return f"{name}: {points[0]} and {points[1]}"
    return ""


def _runs(folder: Path) -> list:
    client = _client(folder)
    experiment = client.get_experiment_by_name("kills")
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id]))


def _client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def _artifacts(run) -> Path:  # type: ignore[no-untyped-def]
    return Path(run.info.artifact_uri.removeprefix("file://").replace("%20", " "))


def _points(folder: Path, run, name: str) -> list[tuple[int, float]]:  # type: ignore[no-untyped-def]
    return sorted((point.step, point.value) for point in _client(folder).get_metric_history(run.info.run_id, name))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scripts.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of kills in each framework")
    parser.add_argument("--framework", choices=("torch", "keras"), action="append")
    parser.add_argument(
        "--during", choices=("all", "first_phase", "checkpoints"), default="all", help="moments of the kills"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs; those with a problem stay (default: temporary)")
    arguments = parser.parse_args(argv)
    failed = False
    for framework in arguments.framework or ("torch", "keras"):
        with tempfile.TemporaryDirectory() as folder:
            report = kill_runs(
                framework,
                arguments.kills,
                seed=arguments.seed,
                during=arguments.during,
                folder=(arguments.folder or Path(folder)) / framework,
            )
        print(
            f"{framework}: {report.kills} kills in {report.runs} runs of {report.seconds:.0f} s ("
            f"{report.processor_seconds:.0f} s of a processor), {report.equal} of "
            f"them equal to the last bit; killed {dict(report.places)}; {report.half_written} kills left a checkpoint "
            "half-written",
            *report.problems,
            sep="\n",
            flush=True,
        )
        failed = failed or report.equal < report.runs or bool(report.problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
