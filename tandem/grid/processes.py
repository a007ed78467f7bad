"""The process of a cell, and several of them at once on this machine, each with its share of GPUs and cores."""

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
import pynvml

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.launch.scripts import start_process, training_command
from tandem.tracking import vocabulary

LOG_FOLDER = Path("grid")
POLL_SECONDS = 0.1  # how late the end of a cell may be seen

# For cells that share a GPU: TensorFlow and JAX would take its whole memory at once.
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell's process."""

    cell: GridCell
    status: int | None
    """Its exit status; negative where a signal ended it, None where nobody knows, since its machine was lost."""
    seconds: float
    log: str | None
    """The file with its output, on a cluster after its machine's address; None where nobody knows."""
    last_line: str
    """Of its output, or what else is known of its end."""
    replay_command: str | None = None
    """What sends to MLflow what it has not taken of the run; None where it has everything."""
    by_earlier_attempt: bool = False
    """Whether it had a finished run already when it was tried again."""


def command_of(cell: GridCell) -> list[str]:
    """The command line of a cell's process."""
    return training_command(cell.framework, cell.options)


def log_file(cell: GridCell) -> Path:
    """Where the output of a cell goes, in the folder that the grid is started in."""
    tracking = cell.settings.tracking
    folder = tracking.experiment if tracking.budget == "full" else f"{tracking.experiment}-{tracking.budget}"
    return LOG_FOLDER / vocabulary.file_name(folder) / f"{cell.number:02}-{vocabulary.file_name(cell.name)}.log"


def threads_option(cell: GridCell, threads: int) -> list[str]:
    """The words that bound a cell's threads, unless its own settings do, or it runs on JAX, which cannot be bound."""
    unbound = cell.framework == "keras" and os.environ.get("KERAS_BACKEND") == "jax"
    return [] if cell.settings.threads is not None or unbound else ["--threads", str(threads)]


class CellProcess:
    """One training script in a process of its own, whose output goes to a file; it is ended with this process.

    Raises:
        UserError: That file cannot be written.
    """

    def __init__(
        self, cell: GridCell, command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            command: The command line.
            folder: What it runs in.
            variables: Of its environment, beside those of this process.
        """
        self.cell = cell
        self._log = folder / log_file(cell)
        self._start = time.perf_counter()
        with _new_file(self._log) as output:
            self._process = start_process(
                command, folder=folder, output=output, variables={"PYTHONUNBUFFERED": "1", **(variables or {})}
            )

    def outcome(self) -> Outcome | None:
        """What became of it; None while it runs."""
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
        """Lets it end its run properly."""
        self._process.terminate()  # not SIGINT, which a process in the background may have been told to ignore

    def kill(self) -> None:
        """Ends it and what it has started at once."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            # by parentage, for the processes that share out a run's batches have groups of their own
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _new_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a process of an earlier attempt that has not quite ended goes on writing to the old one
        path.unlink(missing_ok=True)
        return path.open("wb")
    except OSError as error:
        raise UserError(
            f"cannot write the output of cells to {path}: {error.strerror}; start the grid in a folder where you may"
        ) from error


def replay_command(output: str) -> str | None:
    """The command that sends to MLflow what it has not taken of the run with this output; None if it has everything."""
    found = re.findall(r"python -m tandem\.tracking\.replay .+", output)
    return found[-1].strip() if found else None


def last_line(output: str) -> str:
    """The last line of a text that is not blank."""
    lines = [line.strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "it has printed nothing")


# -------------------------------------------------------------------------------------------------------- this machine


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one of several cells that run at once has of this machine."""

    gpus: tuple[str, ...] | None
    """Indices or UUIDs, as in CUDA_VISIBLE_DEVICES; None leaves all that are visible."""
    is_shared: bool
    """Whether others have the same GPUs."""
    threads: int | None
    """CPU threads; None leaves it to the framework."""

    def variables(self) -> dict[str, str]:
        """What a process with this share has in its environment."""
        if self.gpus is None:
            return {}
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.is_shared:
            variables |= SHARED_GPU
        return variables


def divide(jobs: int, gpus: Sequence[str], num_cores: int, threads: int | None = None) -> list[Share]:
    """Equal shares of a machine; with more jobs than GPUs, several have the same one.

    Args:
        jobs: How many shares.
        gpus: As in CUDA_VISIBLE_DEVICES, none for a machine without.
        num_cores: The cores that this process may use.
        threads: Of each share; None for its part of the cores, which a single one need not be told.
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


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as they stand in CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        pynvml.nvmlInit()
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class LocalProcesses:
    """Cells on this machine, as many at once as there are shares of it."""

    def __init__(self, shares: Sequence[Share], command: Callable[[GridCell], list[str]] = command_of) -> None:
        """
        Args:
            shares: Of this machine, one for each process.
            command: The command line of a cell.
        """
        self.at_once = len(shares)
        self._free = list(shares)
        self._running: dict[CellProcess, Share] = {}
        self._command = command

    @property
    def has_room(self) -> bool:
        """Whether a share is free."""
        return bool(self._free)

    def describe(self) -> str:
        """One line on what each cell gets; empty where that is the whole machine."""
        share = self._free[0]
        if self.at_once == 1:
            return ""
        gpus = "no GPU" if share.gpus is None else f"{len(share.gpus)} GPU{'s' if len(share.gpus) > 1 else ''}"
        return f"{self.at_once} cells at once, each with {share.threads} threads and {gpus}" + (
            ", which others have too" if share.is_shared else ""
        )

    def start(self, cell: GridCell) -> None:
        """Starts a cell, for which there has to be room."""
        share = self._free[0]
        more = [] if share.threads is None else threads_option(cell, share.threads)
        process = CellProcess(cell, [*self._command(cell), *more], folder=Path(), variables=share.variables())
        self._running[process] = self._free.pop(0)

    def ended(self) -> list[Outcome]:
        """The outcomes of cells that have ended, after a short wait where there are none."""
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
        """Lets all running cells end their runs properly."""
        for process in self._running:
            process.end()

    def kill(self) -> None:
        """Ends all running cells at once."""
        for process in self._running:
            process.kill()
