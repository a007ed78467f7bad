"""Runs every cell of a grid: backbone x framework x regime x data set x seed, each in a process of its own.

    python -m tandem.grid configs/birds.yaml --dry_run
    python -m tandem.grid configs/birds.yaml

What is in the file is described in tandem/grid_file.py. Cells run one after the other. One whose finished run is in
MLflow already is skipped, so the same command goes on where it was interrupted; one that fails is named at the end, and
the others run nevertheless. Words after `--` are options of the training scripts, for all cells:

    python -m tandem.grid configs/birds.yaml -- --data.source ~/birds --precision bfloat16

`--budget small` is for a machine without a GPU: at most 10 images a class, one epoch a phase, batches of 16 at most,
random weights where ImageNet's cannot be had, and no report on the data. It shows that a grid runs; such runs are
tagged, and no table has them beside others.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tandem.errors import UserError, run_program
from tandem.grid_file import (
    FRAMEWORKS,
    SMALL_BATCH_SIZE,
    SMALL_IMAGES_PER_CLASS,
    SMALL_MAX_EPOCHS,
    Grid,
    GridCell,
    read_grid,
)
from tandem.protocol.parser import KERAS_BACKENDS, Framework

ROOT = Path(__file__).resolve().parent.parent
LOG_FOLDER = Path("grid")

SMALL_BUDGET = (
    f"Small budget: at most {SMALL_IMAGES_PER_CLASS} images a class, {SMALL_MAX_EPOCHS} epoch a phase, batches of "
    f"{SMALL_BATCH_SIZE} at most, random weights where ImageNet's cannot be had, no report on the data. It shows that "
    "the cells run; comparisons keep such runs in tables of their own."
)

Identity = tuple[str, str, str, str]
"""Framework, what computes, hash of the settings and budget: equal for a cell and its run."""


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own options, and the words after `--`."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m tandem.grid",
        description="Runs every cell of a grid file by train_torch.py and train_keras.py, one after the other, and "
        "skips those whose finished run is in MLflow.",
        epilog="Options of the training scripts, for all cells, follow after --: ... -- --device cpu --threads 2",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="grid file, such as configs/birds.yaml")
    parser.add_argument("--dry_run", action="store_true", help="print the cells with their commands, and run none")
    parser.add_argument(
        "--budget",
        choices=("full", "small"),
        default="full",
        help=f"small is for a machine without a GPU: {SMALL_IMAGES_PER_CLASS} images a class and {SMALL_MAX_EPOCHS} "
        "epoch; --dry_run says the rest (default: %(default)s)",
    )
    parser.add_argument(
        "--frameworks",
        choices=("both", *FRAMEWORKS),
        help="run each cell in these instead of those that the file names",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="only the cells whose name has all of these words, for example: --only resnet50 keras",
    )
    parser.add_argument(
        "--keep_models",
        action="store_true",
        help="let each run log its trained weights and its model, which are not logged otherwise",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        help="MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, else the sqlite file mlflow.db in this folder",
    )
    return parser.parse_args(words[:end]), words[end + 1 :]


def main(argv: list[str] | None = None) -> None:
    arguments, more_options = parse_arguments(argv)
    chosen: dict[str | None, Sequence[Framework] | None] = {None: None, "both": FRAMEWORKS}
    grid = read_grid(
        arguments.file,
        frameworks=chosen.get(arguments.frameworks, (arguments.frameworks,)),
        budget=arguments.budget,
        keep_models=arguments.keep_models,
        tracking_uri=arguments.tracking_uri,
        more_options=more_options,
    )
    cells = [cell for cell in grid.cells if set(arguments.only) <= set(cell.name.split())]
    if not cells:
        raise UserError(
            f"--only: received {' '.join(arguments.only)}, but no cell's name has all of these words; the first is "
            f"{grid.cells[0].name}, and --dry_run without --only shows them all"
        )
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if arguments.dry_run:
        print_cells(cells, grid, arguments.budget, console)
        return
    if grid.missing:
        name, words = next(iter(grid.missing.items()))
        raise UserError(f"{arguments.file}: {name} is not given: {words}; add to the command: -- --{name} ...")
    if arguments.budget == "small":
        console.print(SMALL_BUDGET)
    if not run_grid(cells, console):
        sys.exit(1)


# ------------------------------------------------------------------------------------------------------------ the cells


def command_of(cell: GridCell) -> list[str]:
    """The command line of a cell's process."""
    return [sys.executable, str(ROOT / f"train_{cell.framework}.py"), *cell.options]


def print_cells(cells: Sequence[GridCell], grid: Grid, budget: str, console: Console) -> None:
    """Each cell's name and the command that runs it alone."""
    finished: set[Identity] = set()
    note = None
    try:
        finished = finished_runs(cells)
    except UserError as error:  # of a store that is made by the first run, for example
        note = f"None counts as finished: {error}"
    for cell in cells:
        console.print(f"{cell.number} {cell.name}{' [finished]' if identity_of(cell) in finished else ''}")
        script = os.path.relpath(ROOT / f"train_{cell.framework}.py")
        console.print(f"    {shlex.join(['python', script, *cell.options])}")
    counts = [(name, sum(cell.framework == name for cell in cells)) for name in FRAMEWORKS]
    console.print(
        f"{len(cells)} cells ({', '.join(f'{count} {name}' for name, count in counts)}), "
        f"{sum(identity_of(cell) in finished for cell in cells)} finished"
    )
    if note:
        console.print(note)
    if budget == "small":
        console.print(SMALL_BUDGET)
    for name, words in grid.missing.items():
        console.print(f"Still to be given, after --: --{name}, {words}")


def identity_of(cell: GridCell) -> Identity:
    """What the run of a cell is found by."""
    # MLflow, which it imports, takes seconds: --help and wrong settings shall not wait for it
    from tandem.tracking.provenance import settings_hash

    backend = os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0]) if cell.framework == "keras" else "torch"
    return cell.framework, backend, settings_hash(cell.settings), cell.settings.tracking.budget


def finished_runs(cells: Sequence[GridCell]) -> set[Identity]:
    """What the finished runs of the cells' experiments are.

    Raises:
        UserError: MLflow does not answer, or there is no such experiment.
    """
    from tandem.tracking import vocabulary
    from tandem.tracking.reader import NoRuns, read_runs

    found: set[Identity] = set()
    for uri, experiment in {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}:
        try:
            runs = read_runs(uri, experiment)
        except NoRuns:
            continue
        names = (vocabulary.FRAMEWORK, vocabulary.BACKEND, vocabulary.SETTINGS_HASH)
        for run in runs:
            if run.status == "FINISHED":
                framework, backend, settings = (run.tags.get(name, "") for name in names)
                found.add((framework, backend, settings, run.tags.get(vocabulary.BUDGET, "full")))
    return found


def prepare_experiments(cells: Sequence[GridCell]) -> None:
    """Makes the cells' experiments where there are none, so that what is wrong with MLflow is said before all runs."""
    from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri

    for uri, experiment in {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}:
        find_or_create_experiment(connect(resolve_uri(uri)), experiment)


# ------------------------------------------------------------------------------------------------------------- the runs


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell's process."""

    cell: GridCell
    status: int
    """Its exit status; negative where a signal ended it."""
    seconds: float
    log: Path


def run_grid(cells: Sequence[GridCell], console: Console) -> bool:
    """Runs the cells that are not finished, and says what became of them.

    Returns:
        Whether none failed.

    Raises:
        UserError: MLflow does not answer.
        KeyboardInterrupt: On Ctrl-C, SIGTERM or SIGHUP, once the running cell has ended.
    """
    prepare_experiments(cells)
    finished = finished_runs(cells)
    waiting = [cell for cell in cells if identity_of(cell) not in finished]
    if len(waiting) < len(cells):
        console.print(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished already and skipped")
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    try:
        for outcome in run_cells(waiting, console):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        console.print("Interrupted: the same command goes on with the cells that are not finished")
        raise
    finally:
        failed = [outcome for outcome in outcomes if outcome.status != 0]
        console.print(
            f"{len(outcomes) - len(failed)} cells finished in {_duration(time.perf_counter() - start)}, "
            f"{len(failed)} failed, {len(waiting) - len(outcomes)} not run"
        )
        for outcome in failed:
            console.print(f"failed: {outcome.cell.number} {outcome.cell.name}, exit status {outcome.status}")
            console.print(f"    {last_line(outcome.log)}")
            console.print(f"    all of its output: {outcome.log}")
    return not failed


def run_cells(cells: Sequence[GridCell], console: Console) -> Iterator[Outcome]:
    """Runs cells one after the other and shows how far they are."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    outcomes: list[Outcome] = []
    with interruptible(console) as interruption, progress:
        bar = progress.add_task("", total=len(cells), left="")
        for done, cell in enumerate(cells, start=1):
            progress.update(bar, description=cell.name)
            outcome = run_cell(cell, interruption)
            outcomes.append(outcome)
            left = time_left(outcomes, cells[done:])
            words = "finished" if outcome.status == 0 else f"failed with exit status {outcome.status}"
            console.print(
                f"{cell.number} {cell.name}: {words} after {_duration(outcome.seconds)}; {done} of {len(cells)}"
                + (f", {left}" if left else "")
            )
            progress.update(bar, advance=1, left=left)
            yield outcome


def run_cell(cell: GridCell, interruption: Interruption) -> Outcome:
    """One training script in a process of its own, whose output goes to a file."""
    log = log_file(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of(cell),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            process_group=0,  # a terminal's Ctrl-C goes to the grid alone, which passes it on once
        )
        status = interruption.wait_for(process)
    return Outcome(cell=cell, status=status, seconds=time.perf_counter() - start, log=log)


def log_file(cell: GridCell) -> Path:
    """Where the output of a cell goes, in the current folder."""
    tracking = cell.settings.tracking
    folder = tracking.experiment if tracking.budget == "full" else f"{tracking.experiment}-{tracking.budget}"
    return LOG_FOLDER / _as_file_name(folder) / f"{cell.number:02}-{_as_file_name(cell.name)}.log"


class Interruption:
    """What Ctrl-C, SIGTERM and SIGHUP do while cells run: the running one ends its run properly, then the grid ends.

    A second signal kills it. Nothing is raised where the signal arrives, so that no process is started and forgotten.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._requested = False
        self._process: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self._process is not None:
            if self._requested:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._console.print("Interrupted: the running cell ends its run; once more kills it")
                # not SIGINT, which a process in the background may have been told to ignore
                self._process.terminate()
        self._requested = True

    def wait_for(self, process: subprocess.Popen[bytes]) -> int:
        """The exit status of a process; raises KeyboardInterrupt after its end where the grid was interrupted."""
        self._process = process
        if self._requested:
            process.terminate()
        status = process.wait()
        self._process = None
        if self._requested:
            raise KeyboardInterrupt
        return status


@contextlib.contextmanager
def interruptible(console: Console) -> Iterator[Interruption]:
    """The signals' handlers, for the length of a with block."""
    interruption = Interruption(console)
    # One that is ignored, as nohup does with SIGHUP, stays ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, interruption.handle) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def time_left(outcomes: Sequence[Outcome], remaining: Sequence[GridCell]) -> str:
    """How long the remaining cells will take, from those that have finished, of the same framework where there are."""
    seconds = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == 0:
            seconds[outcome.cell.framework].append(outcome.seconds)
    if not seconds or not remaining:
        return ""
    means = {framework: statistics.fmean(found) for framework, found in seconds.items()}
    mean = statistics.fmean(itertools.chain(*seconds.values()))
    return f"about {_duration(sum(means.get(cell.framework, mean) for cell in remaining))} left"


def last_line(log: Path) -> str:
    """The last line of a log file that is not blank."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it has printed nothing")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"


def _as_file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)


if __name__ == "__main__":
    run_program("tandem.grid", main)
