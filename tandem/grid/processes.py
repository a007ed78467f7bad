"""Processes of cells, and a pool of them on this machine, each with its share of the GPUs and cores."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.launch.scripts import start_process, training_command
from tandem.protocol.environment import MEMORY_AS_NEEDED
from tandem.tracking import vocabulary

LOG_FOLDER = Path("grid")
POLL_SECONDS = 0.1  # between two checks for cells that have ended


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a cell's process."""

    cell: GridCell
    status: int | None
    """Exit status; negative after a signal, None if its machine was lost."""
    seconds: float
    log: str | None
    """File with the output, on a cluster preceded by the machine's address; None if unknown."""
    last_line: str
    """Last line of the output, or another description of the end."""
    replay_command: str | None = None
    """Command that sends the unsent part of the run to MLflow; None if MLflow has everything."""
    by_earlier_attempt: bool = False
    """True if an earlier attempt had finished the cell."""


def command_of(cell: GridCell) -> list[str]:
    """The command line of a cell's process."""
    return training_command(cell.framework, cell.options)


def log_file(cell: GridCell) -> Path:
    """File for the output of a cell, relative to the folder in which the grid is started."""
    tracking = cell.settings.tracking
    folder = tracking.experiment if tracking.budget == "full" else f"{tracking.experiment}-{tracking.budget}"
    return LOG_FOLDER / vocabulary.file_name(folder) / f"{cell.number:02}-{vocabulary.file_name(cell.name)}.log"


def threads_option(cell: GridCell, threads: int) -> list[str]:
    """Arguments that limit a cell's threads; none if its settings give a limit, or on JAX, which has no such limit."""
    unbound = cell.framework == "keras" and os.environ.get("KERAS_BACKEND") == "jax"
    return [] if cell.settings.threads is not None or unbound else ["--threads", str(threads)]


class CellProcess:
    """Process of a training script, whose output goes to a file; on Linux it ends with this process.

    Raises:
        UserError: The file cannot be written.
    """

    def __init__(
        self, cell: GridCell, command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            cell: The cell.
            command: The command line.
            folder: The working folder of the process.
            variables: Environment variables in addition to those of this process.
        """
        self.cell = cell
        self._log = folder / log_file(cell)
        self._start = time.perf_counter()
        with _new_file(self._log) as output:
            self._process = start_process(
                command, folder=folder, output=output, variables={"PYTHONUNBUFFERED": "1", **(variables or {})}
            )

    def outcome(self) -> Outcome | None:
        """Result of the process; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return Outcome(
            cell=self.cell,
            status=status,
            seconds=time.perf_counter() - self._start,
            log=str(self._log),
            last_line=last_line(text),
            replay_command=replay_command(text),
        )

    def end(self) -> None:
        """Asks the process to end its run as KILLED."""
        self._process.terminate()  # not SIGINT, which background processes may ignore

    def kill(self) -> None:
        """Kills the process and its descendants at once."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            # not by process group: the processes of a run on several devices have groups of their own
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _new_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a process of an earlier attempt that is about to end continues to write to the old file
        path.unlink(missing_ok=True)
        return path.open("wb")
    except OSError as error:
        raise UserError(
            f"cannot write the output of cells to {path}: {error.strerror}; start the grid in a folder that you may "
            "write to"
        ) from error


def replay_command(output: str) -> str | None:
    """Replay command in the output of a script; None if MLflow has everything of its run."""
    word = r"(?:'[^']*'|[^\s'])+"
    found = re.findall(rf"(?:PYTHONPATH={word} )?{word} -m tandem\.tracking\.replay .+", output)
    return found[-1].strip() if found else None


def last_line(output: str) -> str:
    """Last line of a text that is not blank."""
    lines = [line.strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "no output")


# -------------------------------------------------------------------------------------------------------- this machine


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share of this machine for one of several cells that run at once."""

    gpus: tuple[str, ...] | None
    """Indices or UUIDs, as in CUDA_VISIBLE_DEVICES; None for all visible GPUs."""
    is_shared: bool
    """True if other cells use the same GPUs."""
    threads: int | None
    """CPU threads; None for the framework's default."""

    def variables(self) -> dict[str, str]:
        """Environment variables of a process with this share."""
        if self.gpus is None:
            return {}
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.is_shared:
            variables |= MEMORY_AS_NEEDED
        return variables


def divide(jobs: int, gpus: Sequence[str], num_cores: int, threads: int | None = None) -> list[Share]:
    """Divides a machine into equal shares; with more jobs than GPUs, several shares have the same GPU.

    Args:
        jobs: The number of shares.
        gpus: GPUs as in CUDA_VISIBLE_DEVICES; empty for a machine without GPUs.
        num_cores: The number of cores that this process may use.
        threads: Threads per share; None for an equal part of the cores, or no limit for a single share.
    """
    if jobs == 1:
        return [Share(gpus=None, is_shared=False, threads=threads)]
    threads = threads or max(1, num_cores // jobs)
    each = len(gpus) // jobs
    shares = []
    for number in range(jobs):
        if not gpus:
            mine = None
        elif each:
            mine = tuple(gpus[number * each : (number + 1) * each])
        else:
            mine = (gpus[number % len(gpus)],)
        shares.append(Share(gpus=mine, is_shared=bool(gpus) and not each, threads=threads))
    return shares


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class LocalProcesses:
    """Pool of cells on this machine, one per share."""

    def __init__(self, shares: Sequence[Share], command: Callable[[GridCell], list[str]] = command_of) -> None:
        """
        Args:
            shares: Shares of this machine, one per process.
            command: Gives the command line of a cell.
        """
        self.at_once = len(shares)
        self._free = list(shares)
        self._running: dict[CellProcess, Share] = {}
        self._command = command

    @property
    def has_room(self) -> bool:
        """True if a share is free."""
        return bool(self._free)

    def describe(self) -> str:
        """Line that says what each cell gets; empty if that is the whole machine."""
        share = self._free[0]
        if self.at_once == 1:
            return ""
        gpus = "no GPU" if share.gpus is None else f"{len(share.gpus)} GPU{'s' if len(share.gpus) > 1 else ''}"
        return f"{self.at_once} cells at once, each with {share.threads} threads and {gpus}" + (
            " shared with other cells" if share.is_shared else ""
        )

    def start(self, cell: GridCell) -> None:
        """Starts a cell; a share must be free."""
        share = self._free[0]
        more = [] if share.threads is None else threads_option(cell, share.threads)
        process = CellProcess(cell, [*self._command(cell), *more], folder=Path(), variables=share.variables())
        self._running[process] = self._free.pop(0)

    def ended(self) -> list[Outcome]:
        """Outcomes of cells that have ended; waits for a moment if there are none."""
        outcomes = []
        for process, share in list(self._running.items()):
            if outcome := process.outcome():
                outcomes.append(outcome)
                del self._running[process]
                self._free.append(share)
        if not outcomes:
            time.sleep(POLL_SECONDS)
        return outcomes

    def end(self) -> None:
        """Asks all running cells to end their runs as KILLED."""
        for process in self._running:
            process.end()

    def kill(self) -> None:
        """Kills all running cells at once."""
        for process in self._running:
            process.kill()
