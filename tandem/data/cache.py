"""Files and folders that several processes share: locks, partial names, leftovers of killed processes, free space.

Whatever stands under its final name is complete. It is written under a partial name, <name>.partial, and renamed in one
step; one process at a time makes an entry, under the lock <name>.lock. Locks of killed processes are free again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from tandem.data.console import say
from tandem.files import PARTIAL


class NoRoom(Exception):
    """One clause on why the disk cannot take what was to be written."""


def partial_of(entry: Path) -> Path:
    """The partial name of a file or folder, under which the holder of its lock makes it."""
    return entry.with_name(entry.name + PARTIAL)


def lock_of(entry: Path, *, timeout: float = -1) -> FileLock:
    """The lock of a file or folder, given by its final or its partial name.

    Args:
        entry: Its folder has to exist when the lock is acquired.
        timeout: Seconds that acquiring it waits before it raises filelock.Timeout; -1 waits for ever.
    """
    return FileLock(entry.with_name(entry.name.removesuffix(PARTIAL) + ".lock"), timeout=timeout)


def wait_for_lock(entry: Path, *, busy: str, quiet: bool) -> AcquireReturnProxy:
    """Acquires the lock of an entry, for a `with` block.

    Args:
        entry: As in lock_of.
        busy: Words for the line that is printed if this process has to wait: "decoding the same images".
        quiet: Says nothing.

    Raises:
        OSError: The lock's file cannot be written.
    """
    lock = lock_of(entry)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"Another process is {busy}: waiting for it.", quiet=quiet)
        return lock.acquire()


@contextmanager
def whole_folder(entry: Path) -> Iterator[Path]:
    """Makes a folder that is renamed to `entry`, or replaces it, when the block ends, and removed if the block fails.

    Args:
        entry: The caller holds its lock.

    Yields:
        The folder under its partial name, empty.
    """
    partial = partial_of(entry)
    for leftover in (partial, entry):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(entry.parent)


def remove_leftovers(folder: Path, is_leftover: Callable[[Path], bool], *, but: Path) -> None:
    """Removes folders that killed processes left behind; those that other processes are making stay.

    Args:
        folder: Holds the entries, their locks and their partial folders.
        is_leftover: True for a path that is not complete, if no process is working on it.
        but: The entry whose lock the caller holds.
    """
    for path in folder.iterdir():
        if path in (but, partial_of(but)) or not path.is_dir() or not is_leftover(path):
            continue
        try:
            with lock_of(path, timeout=0):
                if is_leftover(path):  # it may have been completed just now
                    shutil.rmtree(path, ignore_errors=True)
        except (Timeout, OSError):  # another process is working on it, or it belongs to another account
            pass


def check_room(folder: Path, needed: int, *, what: str) -> None:
    """Raises NoRoom if the disk of an existing folder has fewer than `needed` bytes free.

    Args:
        folder: Where they are to be written.
        needed: Number of bytes.
        what: Plural subject of the message: "the decoded images".
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoRoom(f"{what} need {in_megabytes(needed)} in {folder}, where {in_megabytes(free)} are free")


def in_megabytes(num_bytes: int) -> str:
    """A size for people, in millions of bytes: 1,234.5 MB."""
    return f"{num_bytes / 1e6:,.1f} MB"


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
