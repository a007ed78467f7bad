"""Runs cells in a pool, shows progress, and ends them on Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import signal
import statistics
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.grid.processes import Outcome
from tandem.interrupts import SIGNALS, Interrupted
from tandem.rendering.tables import format_value


class Pool(Protocol):
    """Place where cells run: this machine, or a Ray cluster."""

    @property
    def at_once(self) -> int:
        """Number of cells that run at once."""

    @property
    def has_room(self) -> bool:
        """True if a cell may be started, or queued if the pool has a queue."""

    def describe(self) -> str:
        """Line that says what each cell gets; may be empty."""

    def start(self, cell: GridCell) -> None:
        """Starts or queues a cell.

        Raises:
            UserError: The cell cannot be started.
        """

    def ended(self) -> list[Outcome]:
        """Outcomes of cells that have ended since the last call; waits for a moment if there are none."""

    def end(self) -> None:
        """Asks all running cells to end their runs as KILLED, and drops queued cells."""

    def kill(self) -> None:
        """Kills all running cells at once."""


def run_cells(cells: Sequence[GridCell], pool: Pool, console: Console) -> Iterator[Outcome]:
    """Runs cells, shows progress, and yields the outcome of each.

    Raises:
        UserError: A cell cannot be started; the running cells have ended.
        Interrupted: On Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, once the running cells have ended.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    waiting, running = deque(cells), dict[int, GridCell]()
    outcomes: list[Outcome] = []
    not_started: UserError | None = None
    with counted_signals() as signals, progress:
        bar = progress.add_task("", total=len(cells), left="")
        signals_obeyed = 0
        while (waiting and not signals.count) or running:
            if signals.count > signals_obeyed:
                if signals_obeyed == 0:
                    console.print("Interrupted: the running cells end their runs; a second Ctrl-C kills them")
                    pool.end()
                else:
                    pool.kill()
                signals_obeyed = signals.count
            while waiting and not signals.count and pool.has_room:
                cell = waiting.popleft()
                try:
                    pool.start(cell)
                except UserError as error:
                    not_started = error
                    waiting.clear()
                    pool.end()
                    break
                running[cell.number] = cell
                progress.update(bar, description=_describe_running(running))
            for outcome in pool.ended():
                del running[outcome.cell.number]
                if (signals_obeyed or not_started) and outcome.status != 0:
                    continue  # the grid ended the cell, so it counts as left
                outcomes.append(outcome)
                left = time_left(outcomes, [*running.values(), *waiting], at_once=pool.at_once)
                console.print(_describe_end(outcome) + f"; {len(outcomes)} of {len(cells)}" + (left and f", {left}"))
                progress.update(bar, advance=1, left=left, description=_describe_running(running))
                yield outcome
        if signals.count:
            raise Interrupted(signals.number)
        if not_started:
            raise not_started


def _describe_running(running: Mapping[int, GridCell]) -> str:
    names = [cell.name for cell in running.values()]
    return names[0] if len(names) == 1 else f"{len(names)} cells"


def _describe_end(outcome: Outcome) -> str:
    after = format_value(outcome.seconds, "seconds")
    if outcome.status is None:
        words = f"lost after {after}"
    elif outcome.by_earlier_attempt:
        words = "finished by an earlier attempt"
    elif outcome.status:
        words = f"failed with exit status {outcome.status} after {after}"
    else:
        words = f"finished after {after}"
    return f"{outcome.cell.number} {outcome.cell.name}: {words}"


class Signals:
    """Counter of received signals."""

    def __init__(self) -> None:
        self.count = 0
        self.number = signal.SIGINT
        """The first one."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        # No exception here: it could arrive while a process is being started, which would then be lost.
        if self.count == 0:
            self.number = signal.Signals(number)
        self.count += 1


@contextlib.contextmanager
def counted_signals() -> Iterator[Signals]:
    """Counts SIGINT, SIGTERM, SIGHUP and SIGUSR1 for the length of a with block, in place of their usual effect."""
    signals = Signals()
    # An ignored signal stays ignored, such as SIGHUP under nohup.
    before = {n: signal.signal(n, signals.handle) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def time_left(outcomes: Sequence[Outcome], unfinished: Sequence[GridCell], *, at_once: int = 1) -> str:
    """Estimated time for the unfinished cells, from the mean over finished cells of the same framework, or of all.

    Args:
        outcomes: Outcomes of the cells that have ended, the last of them just now.
        unfinished: The running cells, followed by the waiting cells.
        at_once: The number of cells that run at once; the other running cells are assumed to be half done.

    Returns:
        Text such as "about 5 min left"; empty if no cell has finished or none is left.
    """
    seconds = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == 0 and not outcome.by_earlier_attempt:
            seconds[outcome.cell.framework].append(outcome.seconds)
    if not seconds or not unfinished:
        return ""
    means = {framework: statistics.fmean(found) for framework, found in seconds.items()}
    mean = statistics.fmean(itertools.chain(*seconds.values()))
    each = [means.get(cell.framework, mean) for cell in unfinished]
    left = (sum(each) - sum(each[: at_once - 1]) / 2) / min(at_once, len(each))
    return f"about {format_value(left, 'seconds')} left"
