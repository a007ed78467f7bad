"""Time that recording a run and keeping checkpoints add to an epoch of training.

    python -m benchmarks.recording --threads 1
    python -m benchmarks.recording --framework torch --size 96 --rounds 10

Trains the same network on the same images with train_phase of a script: without a run and without checkpoints, with a
checkpoint per epoch, with a run in a sqlite file, with a run on an MLflow server of this machine, and with a run and
checkpoints as the scripts do it by default. The five take turns in one process, each for some epochs, in an order that
moves on by one from round to round; each round gives a ratio to its own turn without either. An epoch is short here, so
that its recording counts: a run of long epochs loses a smaller share. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.many_writers import server_in_front_of
from benchmarks.overhead import FRAMEWORKS, Case, MadeImages, Seconds, quartiles
from tandem.data.console import num_cores
from tandem.protocol.environment import prepare_environment
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking.checkpoints import Checkpoints
from tandem.tracking.curves import Curves
from tandem.tracking.mlflow_store import connect
from tandem.tracking.run import start_run

NEITHER, CHECKPOINTS, FILE, SERVER, BOTH = "neither", "checkpoints", "sqlite file", "server", "file, checkpoints"
TURNS = (NEITHER, CHECKPOINTS, FILE, SERVER, BOTH)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures what recording and checkpoints cost the training.")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="one framework (default: both, one after the other)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="compared epochs of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the framework's)")
    arguments = parser.parse_args(argv)
    if arguments.framework is None:
        words = sys.argv[1:] if argv is None else argv
        for framework in FRAMEWORKS:  # a process each: the frameworks cannot share one
            subprocess.run([sys.executable, "-m", __spec__.name, "--framework", framework, *words], check=True)
        return
    case = Case(
        kind="long",
        backbone=arguments.backbone,
        size=arguments.size,
        batch_size=arguments.batch_size,
        num_batches=5,
        precision="float32",
        epochs=arguments.epochs,
        threads=arguments.threads,
    )
    settings = case.settings(arguments.framework)
    prepare_environment(settings)
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        os.chdir(folder)
        seconds, num_bytes = measure(arguments.framework, case, settings, arguments.rounds, Path(folder))
    report(arguments, seconds, num_bytes)


def measure(
    framework: str, case: Case, settings: Settings, rounds: int, folder: Path
) -> tuple[dict[str, list[Seconds]], int]:
    """Seconds per epoch of each turn of each round, and the size of a checkpoint in bytes."""
    train, data = trainer(framework, case, settings), MadeImages(case)
    database = f"sqlite:///{folder}/own.db"
    connect(database)
    seconds: dict[str, list[Seconds]] = {turn: [] for turn in TURNS}
    num_bytes = 0
    with server_in_front_of(f"sqlite:///{folder}/server.db", str(folder)) as address:
        connect(address)
        train(Timed(NoRun(), None), data)  # the first use of everything
        for number in range(rounds):
            for place in range(len(TURNS)):
                turn = TURNS[(number + place) % len(TURNS)]
                uri = {FILE: database, BOTH: database, SERVER: address}.get(turn)
                kept = folder / "checkpoint" if turn in (CHECKPOINTS, BOTH) else None
                with recorded(settings, framework, uri) as run:
                    curves = Timed(run, kept)
                    train(curves, data)
                seconds[turn].append(curves.per_epoch())
                if kept:
                    num_bytes = sum(file.stat().st_size for file in kept.iterdir())
                curves.checkpoints.remove()
    return seconds, num_bytes


def trainer(framework: str, case: Case, settings: Settings) -> Callable[[Curves, MadeImages], Any]:
    """A function that trains a new network for one phase."""
    script: Any
    build: Callable[..., Any]
    if framework == "torch":
        import train_torch as script
        from tandem.on_torch import build_classifier as build
    else:
        import train_keras as script
        from tandem.on_keras import build_classifier as build
    script.set_up_framework(settings)
    phase: Phase = case.phase
    return lambda curves, data: script.train_phase(build(settings, len(data.classes)), phase, settings, data, curves)


class NoRun:
    """Stand-in for a run: forgets what it is told."""

    def log_metrics(self, values: Any, step: int = 0) -> None:
        pass


@contextlib.contextmanager
def recorded(settings: Settings, framework: str, uri: str | None) -> Iterator[Any]:
    if uri is None:
        yield NoRun()
        return
    settings = dataclasses.replace(settings, tracking=TrackingSettings(uri=uri))
    with start_run(settings, framework=framework, backend=framework, versions={}) as run:  # type: ignore[arg-type]
        yield run


class Timed(Curves):
    """Curves that note the time of each epoch, from the end of one to the end of the next."""

    def __init__(self, run: Any, folder: Path | None) -> None:
        super().__init__(run, checkpoints=Checkpoints(folder, minutes=10), quiet=True)
        self._ends: list[Seconds] = []

    def add(self, phase: Phase, **numbers: float) -> None:
        super().add(phase, **numbers)  # type: ignore[arg-type]
        self._ends.append(Seconds.now())

    def per_epoch(self) -> Seconds:
        """Means without the first epoch."""
        whole, number = self._ends[-1].since(self._ends[0]), len(self._ends) - 1
        return Seconds(whole.clock / number, whole.processors / number)


def report(arguments: argparse.Namespace, seconds: dict[str, list[Seconds]], num_bytes: int) -> None:
    """Prints a line per turn."""
    print(
        f"{arguments.framework}, {arguments.backbone} at {arguments.size} px, {num_cores()} cores, "
        f"{arguments.rounds} rounds of {arguments.epochs} epochs; a checkpoint has {num_bytes / 1e6:.0f} MB; median "
        "(quartiles)"
    )
    print(f"{'':20} {'ms per epoch':>24} {'ratio':>22} {'processor ms':>24} {'ratio':>22}")
    for turn, found in seconds.items():
        words = []
        for kind in ("clock", "processors"):
            own = [1000 * getattr(each, kind) for each in found]
            base = [1000 * getattr(each, kind) for each in seconds[NEITHER]]
            ratios = [one / other for one, other in zip(own, base, strict=True)]
            words.append(f"{statistics.median(own):8.0f} {quartiles(own, '.0f'):>15}")
            words.append(f"{statistics.median(ratios):8.3f} {quartiles(ratios, '.3f'):>13}")
        print(f"{turn:20} {' '.join(words)}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
