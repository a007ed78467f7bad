"""Journal of a run: all logged entries as JSON lines in the run's folder, written before they go to MLflow.

Each line is an entry, numbered from 1 and with its time, or a mark with MLflow's answer to entries:

    {"number": 7, "time": 1764000000000, "kind": "metrics", "step": 4, "values": {"train/loss": 0.3, "val/loss": "NaN"}}
    {"mark": "sent", "first": 1, "last": 7}
    {"mark": "refused", "number": 8, "reason": "..."}

The file survives a crash of the process, but not of the machine: lines go to the operating system at once but are not
forced to the disk, which would cost milliseconds per line. Once the disk is full, entries go to MLflow only.
"""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tandem.errors import FULL_DISK, UserError
from tandem.output import warn
from tandem.tracking import vocabulary


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One logged entry."""

    number: int
    """Counted from 1."""
    time: int
    """Milliseconds since 1970, UTC; the timestamp in MLflow."""
    kind: str
    """run, params, tags, metrics, artifact, dataset, model or end."""
    content: dict[str, Any]
    """Other keys of the line."""


class Journal:
    """Open journal that any thread may write to; a lock file keeps other processes from sending it."""

    def __init__(self, folder: Path) -> None:
        """Opens the journal of a run's folder, new or existing.

        Raises:
            UserError: Another process has the journal open, so the run has not ended.
        """
        self.path = folder / vocabulary.JOURNAL_FILE
        self._in_use = FileLock(f"{self.path}.lock")
        try:
            self._in_use.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"the journal {self.path} is in use by another process: wait until that run or replay ends"
            ) from error
        self._lock = threading.Lock()
        self._is_full = False
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        _cut_torn_line(self._file)
        entries = read_journal(self.path).entries
        self._last_number = entries[-1].number if entries else 0

    def append(self, kind: str, **content: Any) -> Entry:
        """Writes an entry with the current time. The content must be JSON without NaN and infinities."""
        with self._lock:
            # Counted before the entry is written: Ctrl-C in between leaves a gap instead of a number used twice.
            self._last_number += 1
            entry = Entry(number=self._last_number, time=time.time_ns() // 1_000_000, kind=kind, content=content)
            self._write({"number": entry.number, "time": entry.time, "kind": kind, **content})
        return entry

    def mark_sent(self, first: int, last: int) -> None:
        """Marks the entries from the first number to the last as sent to MLflow."""
        with self._lock:
            self._write({"mark": "sent", "first": first, "last": last})

    def mark_refused(self, number: int, reason: str) -> None:
        """Marks an entry that MLflow refused, with the reason."""
        with self._lock:
            self._write({"mark": "refused", "number": number, "reason": reason})

    def close(self) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1  # the descriptor may be reused: a later write must raise an OSError instead
        self._in_use.release()

    def _write(self, line: dict[str, Any]) -> None:
        text = (json.dumps(line, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, text) < len(text):  # the disk had room for a part of the line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            os.ftruncate(self._file, size)
            if size == 0:  # nothing is lost yet: do not start the run
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            if not self._is_full:
                self._is_full = True
                warn(
                    f"the disk of {self.path} is full ({error.strerror}); from now on entries go to MLflow only, and "
                    "are lost while MLflow does not answer"
                )


@dataclass(frozen=True, kw_only=True)
class JournalContent:
    """Content of a journal."""

    entries: list[Entry]
    """In the order of their numbers."""
    sent: frozenset[int]
    """Numbers of the entries that MLflow has."""
    refusals: dict[int, str]
    """MLflow's reasons by entry number, for refused entries that were not sent later."""

    def unsent(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.number not in self.sent]


def read_journal(path: Path) -> JournalContent:
    """Reads a journal, without an incomplete last line, which a process leaves that is killed while it writes.

    Raises:
        UserError: There is no journal, or a line other than the last is damaged.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"no journal at {path}: expected the folder of a run, such as runs/tandem/20260131-120000-..."
        ) from error
    entries: list[Entry] = []
    sent: set[int] = set()
    refusals: dict[int, str] = {}
    for position, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            content = json.loads(line)
            mark = content.pop("mark", None)
            if mark is None:
                number, logged_at, kind = content.pop("number"), content.pop("time"), content.pop("kind")
                entries.append(Entry(number=number, time=logged_at, kind=kind, content=content))
            elif mark == "sent":
                sent.update(range(content["first"], content["last"] + 1))
            else:
                refusals[content["number"]] = content["reason"]
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"line {position} of {path} is damaged: received {line[:80]!r}, expected a JSON object with a number, "
                "a time and a kind; remove the line to continue without it"
            ) from error
    refusals = {number: reason for number, reason in refusals.items() if number not in sent}
    return JournalContent(entries=entries, sent=frozenset(sent), refusals=refusals)


def encode_values(values: Mapping[str, float]) -> dict[str, float | str]:
    """Metric values for JSON: NaN and infinities become strings, which float() reads back."""
    encoded: dict[str, float | str] = {}
    for name, value in values.items():
        number = float(value)
        encoded[name] = number if math.isfinite(number) else str(number)
    return encoded


def _cut_torn_line(file: int) -> None:
    size = os.fstat(file).st_size
    text = os.pread(file, size, 0)
    whole = text.rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(file, whole)
