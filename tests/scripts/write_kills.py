"""Kills processes while they write the database, the store, the features or a checkpoint, and repeats the command.

    python -m tests.scripts.write_kills --kills 10

Half of the kills come at random moments, half at the n-th operation on files: before it, after it, or in the middle of
the bytes that it writes. Afterwards the same command must work, its result must be the bytes that a process without a
kill writes, and nothing else may be left. The kill is SIGKILL.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.scripts.writers import IMAGES, KINDS, Death, work

CONTEXT = multiprocessing.get_context("forkserver")  # its processes have all imports when they begin
CONTEXT.set_forkserver_preload(["tests.scripts.writers"])


def run(
    kind: str, folder: Path, *, death: Death | None = None, seconds: float | None = None
) -> tuple[int, float] | None:
    """Runs a command in a process of its own.

    Args:
        kind: One of KINDS.
        folder: Where it writes.
        death: The operation at which it dies.
        seconds: After which it is killed.

    Returns:
        The number of its operations on files and its seconds; None if it was killed.

    Raises:
        RuntimeError: It has failed.
    """
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=work, args=(kind, folder, death, there))
    process.start()
    there.close()
    with closing(here):
        try:
            here.recv()
            begun = time.monotonic()
            if seconds is not None and not here.poll(seconds):
                process.kill()
            ended = here.recv(), time.monotonic() - begun
        except EOFError:
            ended = None
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{kind}: exit status {process.exitcode}")
    return ended if process.exitcode == 0 else None


@dataclass
class Report:
    """Figures of the kills during one kind of writing."""

    kind: str
    kills: int = 0
    equal: int = 0
    early: int = 0
    """Kills that came before the result was complete."""
    operations: int = 0
    """On files, of a process that nothing kills."""
    seconds: float = 0.0
    """Of that process."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        line = (
            f"{self.kind}: {self.kills} kills in {self.seconds:.1f} s and {self.operations} operations on files, "
            f"{self.early} of them before the result was complete, {self.equal} times the same result afterwards"
        )
        return "\n  ".join([line, *self.problems])


def kill_writers(kind: str, num_kills: int, *, seed: int, folder: Path) -> Report:
    """Kills a command again and again, each time in a new folder, and repeats it there until its end."""
    report, moments = Report(kind), random.Random(f"{kind} {seed}")
    start, here = folder / "start", folder / "work"
    here.mkdir(parents=True)
    KINDS[kind].prepare(here)
    shutil.copytree(here, start, ignore=shutil.ignore_patterns(IMAGES))
    ended = run(kind, here)
    assert ended is not None
    (count, report.seconds), wanted = ended, KINDS[kind].content(here)
    report.operations = count
    while report.kills < num_kills:
        _start_again(start, here)
        if report.kills % 2:
            death = Death(moments.randint(1, count), moments.choice(("before", "after", "torn")))
            killed_at, ended = str(death), run(kind, here, death=death)
        else:
            seconds = moments.uniform(0, report.seconds)
            killed_at, ended = f"{seconds:.3f} s", run(kind, here, seconds=seconds)
        if ended is not None:
            continue  # it was faster than the kill
        report.kills += 1
        report.early += not KINDS[kind].is_complete(here, wanted)
        try:
            run(kind, here)
            found = KINDS[kind].content(here)
        except (RuntimeError, sqlite3.Error) as error:
            report.problems.append(f"killed at {killed_at}: {error}")
            continue
        unequal = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        if unequal:
            report.problems.append(f"killed at {killed_at}: {unequal} differ")
        else:
            report.equal += 1
    return report


def _start_again(start: Path, here: Path) -> None:
    """Everything as before the command but the images, of which a scan knows their times."""
    for path in here.iterdir():
        if path.is_dir() and path.name != IMAGES:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    shutil.copytree(start, here, dirs_exist_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scripts.write_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="number of kills of each kind")
    parser.add_argument("--kind", choices=tuple(KINDS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    failed = False
    for kind in arguments.kind or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            report = kill_writers(kind, arguments.kills, seed=arguments.seed, folder=Path(folder))
        print(report, flush=True)
        failed = failed or bool(report.problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
