"""Runs the cells of a grid, one after the other, each in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
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

from tandem.errors import UserError
from tandem.grid_file import GridCell
from tandem.report.tables import format_value
from tandem.scripts import training_script
from tandem.tracking import vocabulary

LOG_FOLDER = Path("grid")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell's process."""

    cell: GridCell
    status: int
    """Its exit status; negative where a signal ended it."""
    seconds: float
    log: Path


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
            after = format_value(outcome.seconds, "seconds")
            console.print(
                f"{cell.number} {cell.name}: {words} after {after}; {done} of {len(cells)}"
                + (f", {left}" if left else "")
            )
            progress.update(bar, advance=1, left=left)
            yield outcome


def command_of(cell: GridCell) -> list[str]:
    """The command line of a cell's process."""
    return [sys.executable, str(training_script(cell.framework)), *cell.options]


def run_cell(cell: GridCell, interruption: Interruption) -> Outcome:
    """One training script in a process of its own, whose output goes to a file.

    Raises:
        UserError: That file cannot be written.
        KeyboardInterrupt: The grid was interrupted; the process has ended.
    """
    log = log_file(cell)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise UserError(
            f"cannot write the output of cells to {log}: {error.strerror}; start the grid in a folder where you may"
        ) from error
    start = time.perf_counter()
    with output:
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
    return LOG_FOLDER / vocabulary.file_name(folder) / f"{cell.number:02}-{vocabulary.file_name(cell.name)}.log"


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
                with contextlib.suppress(ProcessLookupError):  # it has just ended
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
    left = sum(means.get(cell.framework, mean) for cell in remaining)
    return f"about {format_value(left, 'seconds')} left"


def replay_command(log: Path) -> str | None:
    """The command that sends to MLflow what it has not taken of the run with this log; None where it has everything."""
    found = re.findall(r"python -m tandem\.tracking\.replay .+", log.read_text(encoding="utf-8", errors="replace"))
    return found[-1].strip() if found else None


def last_line(log: Path) -> str:
    """The last line of a log file that is not blank."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it has printed nothing")
