"""Checkpoints of a run: everything that its training depends on, so that a killed run continues where it was.

The folder `checkpoint` in the run's folder has two files, each replaced in one step:

- phase.npz: the network after the last trained phase, and the outcomes of all phases so far.
- epoch.npz: the state within the phase after that one: weights that it trains, optimizer, schedule, early stopping with
  the best weights so far, random numbers, epoch and batch, and the curves.

A state is a tree of dictionaries, lists, tuples, numbers, texts and numpy arrays. numpy checks the arrays' checksums.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem import interrupts
from tandem.errors import one_line

FORMAT_VERSION = 1  # to be raised when a state has other content: older checkpoints are then left alone

PHASE_FILE = "phase.npz"
EPOCH_FILE = "epoch.npz"

Tree = Any
"""A state or a part of one."""


# --------------------------------------------------------------------------------------------------------------- files


def write_state(path: Path, state: Mapping[str, Tree]) -> None:
    """Writes a state under a temporary name and renames it, so that a killed process leaves the file before it whole.

    Raises:
        OSError: It cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_packed({"version": FORMAT_VERSION, **state}, arrays))
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, tree=np.frombuffer(text.encode(), np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_state(path: Path) -> dict[str, Tree] | None:
    """A state; None if there is none, or its file is damaged or of another version."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            state: dict[str, Tree] = _unpacked(json.loads(arrays["tree"].tobytes()), arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"warning: the checkpoint {path} is damaged ({one_line(error)}) and is not used", file=sys.stderr)
        return None
    return state if state["version"] == FORMAT_VERSION else None


def _packed(tree: Tree, arrays: dict[str, np.ndarray]) -> Any:
    """The tree in JSON's types. Arrays move to `arrays`; keys that are not texts, and tuples, are kept as such."""
    match tree:
        case dict():
            return {"dict": [[_packed(key, arrays), _packed(value, arrays)] for key, value in tree.items()]}
        case list():
            return [_packed(value, arrays) for value in tree]
        case tuple():
            return {"tuple": [_packed(value, arrays) for value in tree]}
        case np.ndarray():
            name = f"array_{len(arrays)}"
            arrays[name] = tree
            return {"array": name}
        case np.generic():
            return tree.item()
    assert tree is None or isinstance(tree, bool | int | float | str), type(tree)
    return tree


def _unpacked(packed: Any, arrays: Mapping[str, np.ndarray]) -> Tree:
    match packed:
        case {"dict": pairs}:
            return {_unpacked(key, arrays): _unpacked(value, arrays) for key, value in pairs}
        case {"tuple": values}:
            return tuple(_unpacked(value, arrays) for value in values)
        case {"array": name}:
            return arrays[name]
        case list():
            return [_unpacked(value, arrays) for value in packed]
    return packed


# ----------------------------------------------------------------------------------------------------------------- run


class Checkpoints:
    """Checkpoints of a run, and the state that a continued run begins with."""

    def __init__(self, folder: Path | None, *, minutes: float | None = None) -> None:
        """
        Args:
            folder: Made at the first checkpoint; None for a run that keeps none.
            minutes: Minutes between two checkpoints within an epoch; None for none.
        """
        self.folder = folder
        self.minutes = minutes
        self.problem: str | None = None
        """Reason why the last checkpoint could not be written."""
        self.place = "nothing yet: it would begin again"
        """The point from which a continued run would train, in words."""
        self.good_weights: str | None = None
        """The point whose weights the network has got back after a divergence, in words."""
        self.after_phase = read_state(folder / PHASE_FILE) if folder else None
        """State after the last trained phase; None before that."""
        self._in_phase = read_state(folder / EPOCH_FILE) if folder else None

    def write_phase(self, state: Mapping[str, Tree], number: int) -> None:
        """Keeps the state after a phase, in place of those within it."""
        self._write(PHASE_FILE, state, f"the training up to the end of phase {number}")
        if self.folder and self.problem is None:
            (self.folder / EPOCH_FILE).unlink(missing_ok=True)

    def write_epoch(self, state: Mapping[str, Tree], place: str) -> None:
        """Keeps a state within a phase, in place of the one before."""
        self._write(EPOCH_FILE, state, place)

    def in_phase(self, number: int) -> dict[str, Tree] | None:
        """The state within a phase that an interrupted run left; None if it left none."""
        found = self._in_phase
        return found if found is not None and found["phase"] == number else None

    def last_phase(self) -> dict[str, Tree] | None:
        """The last state after a phase that was written; None without one."""
        return read_state(self.folder / PHASE_FILE) if self.folder else None

    def remove(self) -> None:
        """Removes all checkpoints of a run that has finished."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, state: Mapping[str, Tree], place: str) -> None:
        if self.folder is None:
            return
        try:
            with interrupts.holding():
                self.folder.mkdir(exist_ok=True)
                write_state(self.folder / name, state)
        except OSError as error:
            if self.problem is None:
                print(
                    f"warning: no checkpoint can be written to {self.folder} ({error.strerror or error}); training "
                    "continues, and the next checkpoint is tried again",
                    file=sys.stderr,
                )
            self.problem = error.strerror or str(error)
            return
        self.problem, self.place = None, place


class PhaseCheckpoints:
    """Checkpoints within a phase: the one that it continues from, and new ones.

    Attributes:
        state: State to continue from; None to begin the phase. The framework's callback sets it to None after use.
        epoch: Epoch to begin with, counted from 0 within the phase.
        batch: Batch of that epoch to begin with.
        seconds: Seconds of training before the interruption.
    """

    def __init__(self, checkpoints: Checkpoints, phase: int, rows: list[dict[str, float]]) -> None:
        """
        Args:
            checkpoints: The run's.
            phase: Its number.
            rows: The curves' rows, to which those of a continued run are added.
        """
        self._checkpoints = checkpoints
        self._phase = phase
        self._rows = rows
        self.state: dict[str, Tree] | None = None
        self.epoch, self.batch, self.seconds = 0, 0, 0.0
        self.continue_from(checkpoints.in_phase(phase))
        self._start = self._last = time.perf_counter()

    def continue_from(self, state: dict[str, Tree] | None) -> None:
        """Continues from a state, such as that of another process of the run; None begins the phase."""
        self.state = state
        if state is not None:
            self.epoch, self.batch, self.seconds = (state[name] for name in ("epoch", "batch", "seconds"))
            self._rows[:] = state["rows"]
            self._checkpoints.place = self._place(self.epoch, self.batch)

    def begin(self) -> None:
        """Begins to count the seconds of training."""
        self._start = self._last = time.perf_counter()

    def is_due(self) -> bool:
        """True if a checkpoint is to be written within an epoch: after some minutes, and before an interruption."""
        if self._checkpoints.folder is None:
            return False
        if interrupts.received() is not None:
            return True
        minutes = self._checkpoints.minutes
        return minutes is not None and time.perf_counter() - self._last >= 60 * minutes

    def save(self, epoch: int, batch: int, state: Mapping[str, Tree]) -> None:
        """Writes a checkpoint, before which `epoch` epochs and `batch` batches of the next one were trained."""
        common = {
            "phase": self._phase,
            "epoch": epoch,
            "batch": batch,
            "seconds": self.seconds + time.perf_counter() - self._start,
            "rows": self._rows,
        }
        self._checkpoints.write_epoch({**state, **common}, self._place(epoch, batch))
        self._last = time.perf_counter()

    def last_good_network(self) -> Tree | None:
        """The weights of the last checkpoint within the phase, for a network that has diverged; None without one.

        It also notes that the network gets them back.
        """
        folder = self._checkpoints.folder
        state = read_state(folder / EPOCH_FILE) if folder else None
        if state is None or state["phase"] != self._phase:
            return None
        self._checkpoints.good_weights = self._place(state["epoch"], state["batch"])
        return state["network"]

    @property
    def is_kept(self) -> bool:
        """True if the run keeps checkpoints."""
        return self._checkpoints.folder is not None

    def _place(self, epoch: int, batch: int) -> str:
        batches = f" and {batch} batches" if batch else ""
        return f"the training up to {epoch} epochs{batches} of phase {self._phase}"
