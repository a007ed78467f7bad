"""Files that are complete whenever they exist: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""Ending of the names of incomplete files and folders."""


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # owasp.org/www-community/attacks/CSV_Injection


@contextmanager
def whole_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A temporary path, for a function that writes a file by its name.

    The file replaces `path` when the block ends. If the block fails, `path` is unchanged. Several processes may do so
    at once: the last one wins.

    Args:
        path: Its folder exists.
        sync: Waits until the content is on the disk before it renames, so that not even a power failure leaves a part.

    Yields:
        A path in the same folder, with the same ending, on which writers choose a format: all of `.weights.h5`.
    """
    stem, dot, ending = path.name.partition(".")
    partial = path.with_name(f".{stem[:50]}.{uuid.uuid4().hex}{PARTIAL}{dot}{ending[-50:]}")
    try:
        yield partial
        if sync:
            _sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(path: Path, mode: str = "w", *, newline: str | None = None, sync: bool = False) -> Iterator[IO[Any]]:
    """As whole_path, but yields the open file.

    Args:
        path: Its folder exists.
        mode: `w` for text in UTF-8, `wb` for bytes.
        newline: As in open().
        sync: As in whole_path.
    """
    encoding = None if "b" in mode else "utf-8"
    with whole_path(path, sync=sync) as partial, partial.open(mode, encoding=encoding, newline=newline) as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Writes a whole file as UTF-8, with the line ends of the text. Missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, newline="") as file:
        file.write(text)


def csv_cell(value: Any) -> Any:
    """A value for a CSV file. A text that spreadsheets would take for a formula gets an apostrophe before it.

    Class names and file names come from folders that others have made; a cell such as =HYPERLINK(...) would be run.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
