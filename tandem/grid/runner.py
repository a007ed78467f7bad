"""Runs cells, as many at once as where they run has room for, shows how far they are, and ends them on Ctrl-C."""

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
from tandem.rendering.tables import format_value


class Pool(Protocol):
    """Where cells run: this machine, or a Ray cluster."""

    @property
    def at_once(self) -> int:
        """How many cells run at once."""

    @property
    def has_room(self) -> bool:
        """Whether a cell may be started, or queued where the pool has a queue of its own."""

    def describe(self) -> str:
        """One line on what each cell gets; empty where there is nothing to say."""

    def start(self, cell: GridCell) -> None:
        """Starts or queues a cell.

        Raises:
            UserError: It cannot be started.
        """

    def ended(self) -> list[Outcome]:
        """The outcomes of cells that have ended since the last call, after a short wait where there are none."""

    def end(self) -> None:
        """Lets all cells that run end their runs properly, and forgets those that are queued."""

    def kill(self) -> None:
        """Ends all cells that run at once."""


def run_cells(cells: Sequence[GridCell], pool: Pool, console: Console) -> Iterator[Outcome]:
    """Runs cells and shows how far they are.

    Raises:
        UserError: A cell cannot be started; those that run have ended.
        KeyboardInterrupt: On Ctrl-C, SIGTERM or SIGHUP, once the running cells have ended.
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
                    console.print("Interrupted: the running cells end their runs; once more kills them")
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
                progress.update(bar, description=_describe(running))
            for outcome in pool.ended():
                del running[outcome.cell.number]
                if (signals_obeyed or not_started) and outcome.status != 0:
                    continue  # it was ended from here, and is left
                outcomes.append(outcome)
                left = time_left(outcomes, [*running.values(), *waiting], at_once=pool.at_once)
                console.print(_what_became_of(outcome) + f"; {len(outcomes)} of {len(cells)}" + (left and f", {left}"))
                progress.update(bar, advance=1, left=left, description=_describe(running))
                yield outcome
        if signals.count:
            raise KeyboardInterrupt
        if not_started:
            raise not_started


def _describe(running: Mapping[int, GridCell]) -> str:
    names = [cell.name for cell in running.values()]
    return names[0] if len(names) == 1 else f"{len(names)} cells"


def _what_became_of(outcome: Outcome) -> str:
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
    """How many signals to end have come."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        # Nothing is raised or ended where the signal arrives, so that no process is started and forgotten.
        self.count += 1


@contextlib.contextmanager
def counted_signals() -> Iterator[Signals]:
    """SIGINT, SIGTERM and SIGHUP do nothing but count, for the length of a with block."""
    signals = Signals()
    # One that is ignored, as nohup does with SIGHUP, stays ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, signals.handle) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def time_left(outcomes: Sequence[Outcome], unfinished: Sequence[GridCell], *, at_once: int = 1) -> str:
    """How long the other cells will take, from those that have finished, of the same framework where there are.

    Args:
        outcomes: Of the cells that have ended, one of them just now.
        unfinished: The cells that run, and then those that wait.
        at_once: How many run at once; the others of them are through with half of theirs, on average.
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
