"""Processes that write the database, the store, the features or a checkpoint, and die where they are told to."""

from __future__ import annotations

import builtins
import functools
import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from tandem.data.features import open_features
from tandem.data.prepare import prepare
from tandem.protocol.settings import DataSettings
from tandem.tracking.checkpoints import Checkpoints, read_state
from tandem.tracking.mlflow_store import connect

IMAGES = "images"
NUM_IMAGES, SIZE = 300, 64
NUM_FEATURES, BATCH = 2000, 10
NUM_STATES, STATE_NUMBERS = 8, 1_000_000

# Functions of os that change files; those of sqlite and numpy are called from C.
OPERATIONS = (
    *("open", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "posix_fallocate", "replace", "rename", "mkdir"),
    *("unlink", "rmdir"),
)

# ------------------------------------------------------------------------------------------------- commands and results


def write_database(folder: Path) -> None:
    """Creates MLflow's database, or opens it."""
    connect(f"sqlite:///{folder / 'mlflow.db'}")


def database_content(folder: Path) -> dict[str, bytes]:
    """All lines of the statements that make the database, without times; in MLflow's migrations their order varies."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        lines = [line for line in connection.iterdump() if not line.startswith('INSERT INTO "experiments"')]
        experiments = connection.execute("SELECT experiment_id, name, lifecycle_stage FROM experiments").fetchall()
        whole = connection.execute("PRAGMA integrity_check").fetchall()
    lines = sorted(line.strip(" ,") for part in lines for line in part.splitlines())
    content = "\n".join([*lines, str(experiments), str(whole)])
    return {"mlflow.db": content.encode()} | _others(folder, but=("mlflow.db",))


def write_store(folder: Path) -> None:
    """Checks, decodes and stores images of noise."""
    prepare(_data_settings(folder), quiet=True)


def store_content(folder: Path) -> dict[str, bytes]:
    return _others(folder / "cache")


def write_features(folder: Path) -> None:
    """Computes features of stored images; in the cache of the store."""

    def compute(rows: np.ndarray):  # type: ignore[no-untyped-def]
        for start in range(0, len(rows), BATCH):
            yield _numbers(rows[start : start + BATCH])

    data = prepare(_data_settings(folder), quiet=True)
    found = open_features(data.images, np.arange(len(data.images)), {"of": "a test"}, compute, quiet=True)
    assert np.array_equal(found.values, _numbers(np.arange(len(data.images)))), "wrong features were served"


def features_content(folder: Path) -> dict[str, bytes]:
    content = _others(folder / "cache")
    for name in content:
        if name.endswith("seconds.npy"):  # no two passes take the same time
            seconds = np.load(folder / "cache" / name)
            content[name] = f"{len(seconds)} times, {np.isnan(seconds).sum()} missing".encode()
    return content


def write_checkpoint(folder: Path) -> None:
    """Writes the checkpoints of a phase, from the one that it finds on."""
    checkpoints, log = Checkpoints(folder / "checkpoint"), folder / "epochs.log"
    num_done = log.stat().st_size if log.exists() else 0
    if checkpoints.after_phase is not None:
        assert np.array_equal(checkpoints.after_phase["weights"], _weights(NUM_STATES))
        return
    found = checkpoints.in_phase(1)
    assert found is None or np.array_equal(found["weights"], _weights(found["epoch"])), "parts of two states"
    assert num_done <= (found["epoch"] if found else 0), "a checkpoint is lost"
    for epoch in range(found["epoch"] + 1 if found else 1, NUM_STATES + 1):
        checkpoints.write_epoch({"phase": 1, "epoch": epoch, "weights": _weights(epoch)}, "an epoch")
        with log.open("ab") as file:
            file.write(b".")
    checkpoints.write_phase({"epoch": NUM_STATES, "weights": _weights(NUM_STATES)}, number=1)
    assert checkpoints.problem is None


def checkpoint_content(folder: Path) -> dict[str, bytes]:
    names = {str(path.relative_to(folder)): b"" for path in folder.rglob("*.*") if path.is_file()}
    state = read_state(folder / "checkpoint/phase.npz")  # the file itself has the time in it
    return names | {"state": b"" if state is None else state["weights"].tobytes()}


def _data_settings(folder: Path) -> DataSettings:
    return DataSettings(source=str(folder / IMAGES), image_size=SIZE // 2, cache_folder=str(folder / "cache"))


def _make_images(folder: Path) -> None:
    random_numbers = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = folder / IMAGES / ("left", "right")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_numbers.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)


def _numbers(rows: np.ndarray) -> np.ndarray:
    return (rows[:, None] + np.arange(NUM_FEATURES) / NUM_FEATURES).astype(np.float32)


def _weights(number: int) -> np.ndarray:
    return np.full(STATE_NUMBERS, number, np.float32)


def _others(folder: Path, but: Sequence[str] = ()) -> dict[str, bytes]:
    """Hashes of all files but locks."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name not in but
    }


@dataclass(frozen=True)
class Kind:
    """A kind of writing."""

    write: Callable[[Path], None]
    """The command."""
    content: Callable[[Path], dict[str, bytes]]
    """The result, by name."""
    prepare: Callable[[Path], None] = lambda folder: None
    """Makes what the command starts from."""

    def is_complete(self, folder: Path, wanted: dict[str, bytes]) -> bool:
        """True if a command that was killed had written its whole result."""
        # opening the database would create it
        return ("mlflow.db" not in wanted or (folder / "mlflow.db").exists()) and self.content(folder) == wanted


def _prepare_features(folder: Path) -> None:
    _make_images(folder)
    write_store(folder)


KINDS = {
    "database": Kind(write_database, database_content),
    "store": Kind(write_store, store_content, _make_images),
    "features": Kind(write_features, features_content, _prepare_features),
    "checkpoint": Kind(write_checkpoint, checkpoint_content),
}

# --------------------------------------------------------------------------------------------------------------- deaths


@dataclass(frozen=True)
class Death:
    """The operation on files at which a process kills itself."""

    number: int
    """Counted from 1."""
    how: str
    """before, after, or torn: after the first half of what it writes."""


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _count_operations(death: Death | None) -> list[int]:
    """Counts the operations on files from now on, in the list's only number, and dies at one of them."""
    counted, lock = [0], threading.Lock()

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with lock:
                counted[0] += 1
                is_last = death is not None and counted[0] == death.number
            if not is_last:
                return function(*arguments, **options)
            if death.how == "torn" and function.__name__ in ("write", "pwrite"):
                handle, content, *rest = arguments
                function(handle, content[: len(content) // 2], *rest)
            elif death.how != "before":
                function(*arguments, **options)
            _die()

        return call

    for name in OPERATIONS:
        if hasattr(os, name):
            setattr(os, name, watched(getattr(os, name)))
    builtins.open = watched(builtins.open)  # type: ignore[assignment]
    return counted


def work(kind: str, folder: Path, death: Death | None, parent: Connection) -> None:
    """The process that writes."""
    counted = _count_operations(death)
    parent.send("begun")
    KINDS[kind].write(folder)
    parent.send(counted[0])
