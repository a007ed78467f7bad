"""Messages to the user: single lines, and progress bars for work on all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from tandem import interrupts
from tandem.secrets import hide_secrets

T = TypeVar("T")
R = TypeVar("R")

# Tasks are small enough for the bar to move and large enough that handing them to a thread costs next to nothing. If
# there are few items, tasks are smaller, so that all cores finish at about the same time.
MOST_ITEMS_PER_TASK = 32
LEAST_TASKS_PER_CORE = 8

SECONDS_BETWEEN_QUESTIONS = 0.1
"""Time between two questions whether a signal has come, while other threads work."""


def say(line: str, *, quiet: bool) -> None:
    """Prints one line to stderr, unless quiet."""
    if not quiet:
        Console(stderr=True).print(hide_secrets(line), soft_wrap=True, markup=False, highlight=False)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 file, 2,000 files."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def on_all_cores(work: Callable[[T], R], items: Sequence[T], *, title: str, quiet: bool) -> Iterator[R]:
    """Yields work(item) in the order of the items, with a progress bar if stderr is a terminal.

    Threads and not processes: Pillow decodes and resizes without holding the GIL, the workers share memory, and it does
    not matter what the calling program has imported or started before.

    After a signal or an error each thread finishes the item that it has begun, and no other.

    Raises:
        Interrupted: A signal came.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    executor = ThreadPoolExecutor(num_cores(), thread_name_prefix="decode")
    ending = threading.Event()

    def do_all(items: Sequence[T]) -> list[R]:
        return [work(item) for item in items if not ending.is_set()]

    try:
        with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
            bar = progress.add_task(title, total=len(items))
            size = max(1, min(MOST_ITEMS_PER_TASK, len(items) // (LEAST_TASKS_PER_CORE * num_cores())))
            tasks: list[Future[list[R]]] = [
                executor.submit(do_all, items[start : start + size]) for start in range(0, len(items), size)
            ]
            for task in tasks:
                interrupts.check()
                while not task.done():
                    wait([task], timeout=SECONDS_BETWEEN_QUESTIONS)
                    interrupts.check()
                results = task.result()
                progress.advance(bar, len(results))
                yield from results
    finally:
        ending.set()
        executor.shutdown(cancel_futures=True)


def with_bar(items: Iterable[T], *, title: str, total: int, quiet: bool = False) -> Iterator[T]:
    """The items, with a progress bar while they are taken if stderr is a terminal; it disappears at the end."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return iter(items)
    return iter(track(items, title, total=total, transient=True, console=console))


def num_cores() -> int:
    """Number of cores that this process may use; in a container or batch job it can be less than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
