"""Kills an MLflow server at random moments during runs, delays and loses its answers, and counts what arrived.

    python -m tests.scripts.server_kills --kills 20

The runs are those of train_torch.py, and the server is that of mlflow_server/serve.py. MLflow must have every point of
the runs' journals once, with its time, the curves of a run that nothing disturbed, every file as it is in the run's
folder, one model, and no other run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.faulty_proxy import LOSE, PASS, REFUSE, REFUSE_AFTER, FaultyProxy, slowly
from tests.local_server import Server

Point = tuple[int, str, int]
"""Step, value and time of a point of a metric."""

Curves = dict[str, list[tuple[int, str]]]
"""Steps and values of metrics that are the same in each run."""

ROOT = Path(__file__).resolve().parents[2]
KILLS_PER_RUN = 4
EXPERIMENT = "kills"

# Two phases of many short epochs, so that there are many points.
WORDS = (
    *("--regime", "two_stage", "--weights", "random", "--backbone", "mobilenet_v2", "--threads", "1"),
    *("--device", "cpu", "--data.source", "digits", "--data.classes", '["0", "1"]', "--data.images_per_class", "20"),
    *("--data.image_size", "32", "--batch_size", "8", "--learning_rate", "0.01", "--early_stopping.patience", "null"),
    *("--max_epochs", "60", "--tracking.data_report", "false", "--tracking.grad_cam_images", "2"),
    *("--tracking.experiment", EXPERIMENT, "--tracking.system_interval", "1"),
)


@dataclass
class Report:
    """Figures of runs on a server that is disturbed."""

    case: str
    runs: int = 0
    kills: int = 0
    points: int = 0
    files: int = 0
    replayed: int = 0
    """Runs that ended without the server and were completed by a replay."""
    faults: Counter[str] = field(default_factory=Counter)
    """Requests by what the proxy did to them."""
    seconds: list[float] = field(default_factory=list)
    """Of each run."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = f", requests {dict(self.faults)}" if self.faults else ""
        seconds = f"{min(self.seconds):.0f} to {max(self.seconds):.0f} s" if self.seconds else "none"
        words = [
            f"{self.case}: {self.runs} runs ({seconds}), {self.kills} kills of the server{faults}, {self.points} "
            f"points, {self.files} files, {self.replayed} runs completed by a replay, {len(self.problems)} problems",
            *self.problems,
        ]
        return "\n  ".join(words)


class Disturbed:
    """A run of train_torch.py on a server of its own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        (folder / "server").mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.server = Server(folder / "server", port)
        self.cache = cache
        self.output = folder / "output.txt"
        self.seconds = 0.0

    def start(self, uri: str) -> subprocess.Popen[bytes]:
        self._begun = time.monotonic()
        words = [*WORDS, "--tracking.uri", uri, "--data.cache_folder", str(self.cache)]
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "train_torch.py"), *words],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def has_begun(self) -> bool:
        return any(self.folder.glob("runs/*/*/journal.jsonl"))

    def finish(self, process: subprocess.Popen[bytes], report: Report) -> None:
        """Waits for the end of the run, and completes it as it says."""
        status = process.wait(600)
        self.seconds = time.monotonic() - self._begun
        report.seconds.append(self.seconds)
        if status != 0:
            report.problems.append(f"{self.folder}: exit status {status}: {self.output.read_text()[-400:]}")
        if "tandem.tracking.replay" in self.output.read_text():
            report.replayed += 1
            replays = [self.replay(), self.replay()]
            if "sent to MLflow" not in replays[0] or "has all entries" not in replays[1]:
                report.problems.append(f"{self.folder}: replays {replays}")

    def replay(self) -> str:
        (journal,) = self.folder.glob("runs/*/*/journal.jsonl")
        words = ["-m", "tandem.tracking.replay", str(journal.parent), "--uri", self.server.uri]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout + done.stderr

    def check(self, report: Report, curves: Curves | None) -> Curves:
        """Adds what is wrong with the run in MLflow to the report.

        Args:
            report: Of the case.
            curves: Those of an undisturbed run; None for that run itself.

        Returns:
            The curves of this run.
        """

        def complain(problem: str) -> None:
            report.problems.append(f"{self.folder}: {problem}")

        report.runs += 1
        client = MlflowClient(self.server.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        runs = list(client.search_runs([experiment.experiment_id]))
        if [run.info.status for run in runs] != ["FINISHED"]:
            complain(f"runs {[(run.info.run_id, run.info.status) for run in runs]}")
            return {}
        models = client.search_logged_models([experiment.experiment_id])
        if [str(model.status) for model in models] != ["READY"]:
            complain(f"models {[(model.name, str(model.status)) for model in models]}")
        (folder,) = (path.parent for path in self.folder.glob("runs/*/*/journal.jsonl"))
        entries = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        points, wanted = _points(client, runs[0]), _points_of_journal(entries)
        for name in points.keys() | wanted.keys():
            if points.get(name) != wanted.get(name):
                complain(f"{name} is {points.get(name)}, and in the journal {wanted.get(name)}")
        report.points += sum(map(len, points.values()))
        own = {
            name: [(step, value) for step, value, _ in found]
            for name, found in points.items()
            if not name.startswith(("system/", "cost/")) and "seconds" not in name and "/cost/" not in name
        }
        if curves is not None and own != curves:
            complain(f"other curves than without a disturbance: {own} and {curves}")
        report.files += self._check_files(client, runs[0], folder, entries, complain)
        return own

    def _check_files(
        self, client: MlflowClient, run: Run, folder: Path, entries: list[Any], complain: Callable[[str], None]
    ) -> int:
        with tempfile.TemporaryDirectory() as copy:
            there = Path(client.download_artifacts(run.info.run_id, "", copy))
            files = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()}
        for entry in entries:
            if entry.get("kind") != "artifact":
                continue
            name = str(Path(entry["folder"]) / Path(entry["path"]).name)
            if name not in files and not any(other.startswith(f"{name}/") for other in files):
                complain(f"{name} is not in MLflow")
            here = folder / entry["path"]
            if here.is_file() and files.get(name) != here.read_bytes():
                complain(f"{name} is not as it is in the run's folder")
        return len(files)


def _points(client: MlflowClient, run: Run) -> dict[str, list[Point]]:
    return {
        name: sorted(
            (point.step, str(float(point.value)), point.timestamp)
            for point in client.get_metric_history(run.info.run_id, name)
        )
        for name in run.data.metrics
    }


def _points_of_journal(entries: list[Any]) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = {}
    for entry in entries:
        if entry.get("kind") == "metrics":
            for name, value in entry["values"].items():
                points.setdefault(name, []).append((entry["step"], str(float(value)), entry["time"]))
    return {name: sorted(found) for name, found in points.items()}


# --------------------------------------------------------------------------------------------------------------- cases


def kill_servers(
    folder: Path, cache: Path, num_kills: int, *, seed: int, curves: Curves | None, kills_per_run: int = KILLS_PER_RUN
) -> Report:
    """Kills servers with SIGKILL at random moments of runs, and starts them again after up to three seconds."""
    report, moments = Report("killed and started again"), random.Random(seed)
    while report.kills < num_kills:
        run = Disturbed(folder / f"run {report.runs + 1}", cache)
        process = run.start(run.server.uri)
        left = min(kills_per_run, num_kills - report.kills)
        while process.poll() is None and left:
            if not run.has_begun():
                time.sleep(0.02)
                continue
            time.sleep(moments.uniform(0.0, 3.0))
            if process.poll() is None:
                run.server.kill()
                report.kills, left = report.kills + 1, left - 1
                time.sleep(moments.uniform(0.0, 3.0))
                run.server.start()
        run.finish(process, report)
        run.check(report, curves)
        run.server.kill()
    return report


def kill_for_good(folder: Path, cache: Path, curves: Curves | None) -> Report:
    """Kills a server in a run's first phase, and starts it again after the run has ended without it."""
    report = Report("killed for good", kills=1)
    run = Disturbed(folder / "for good", cache)
    process = run.start(run.server.uri)
    while process.poll() is None and not run.has_begun():
        time.sleep(0.02)
    time.sleep(2)
    run.server.kill()
    process.wait(600)
    run.server.start()
    run.finish(process, report)
    if report.replayed != 1:
        report.problems.append("the run did not say how to send the rest")
    run.check(report, curves)
    run.server.kill()
    return report


def disturb(case: str, fate: Callable[[str, str], str], folder: Path, cache: Path, curves: Curves | None) -> Report:
    """A run behind a proxy."""
    report = Report(case)
    run = Disturbed(folder / case, cache)
    proxy = FaultyProxy(run.server.uri, fate)
    process = run.start(proxy.uri)
    run.finish(process, report)
    report.faults = Counter(proxy.counts)
    proxy.close()
    run.check(report, curves)
    run.server.kill()
    return report


def sometimes(moments: random.Random, share: float, *fates: str) -> Callable[[str, str], str]:
    """A fate for each request: one of some with a probability, otherwise an answer."""
    return lambda method, path: moments.choice(fates) if moments.random() < share else PASS


def losing(moments: random.Random) -> Callable[[str, str], str]:
    """A fate for each request: the first answers to those that create a run or a model are lost, and many others."""
    otherwise, seen = sometimes(moments, 0.3, LOSE, REFUSE_AFTER), set()

    def fate(method: str, path: str) -> str:
        creates = path.endswith(("/runs/create", "/logged-models", "/experiments/create"))
        if method == "POST" and creates and path not in seen:
            seen.add(path)
            return LOSE
        return otherwise(method, path)

    return fate


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scripts.server_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="number of kills of servers that start again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs (default: temporary)")
    arguments = parser.parse_args(argv)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    reports = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        cache = folder / "cache"
        reports.append(Report("undisturbed"))
        run = Disturbed(folder / "undisturbed", cache)
        run.finish(run.start(run.server.uri), reports[0])
        curves = run.check(reports[0], None)
        run.server.kill()
        moments = random.Random(arguments.seed)
        for start in (
            lambda: kill_for_good(folder, cache, curves),
            lambda: disturb("answers after 2 s", slowly(2.0), folder, cache, curves),
            lambda: disturb("500 in place of an answer", sometimes(moments, 0.3, REFUSE), folder, cache, curves),
            lambda: disturb("answers lost after the work was done", losing(moments), folder, cache, curves),
            lambda: kill_servers(folder, cache, arguments.kills, seed=arguments.seed, curves=curves),
        ):
            reports.append(start())
            print(reports[-1], flush=True)
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(main())
