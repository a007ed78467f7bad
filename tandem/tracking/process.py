"""The process that works on a run: recorded when it begins, so that others can tell whether it is gone.

A process on this machine is gone if its number is unused or has another start time. One on another machine is gone if
its lease has run out: as long as it lives, it touches its record every few seconds.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import psutil

SECONDS_BETWEEN_SIGNS = 15.0
LEASE_SECONDS = 120.0
"""Without a sign of life, after which a process on another machine counts as gone."""

SECONDS_TO_END = 60.0
"""Time for a process to end whose parent was killed; it writes a checkpoint and sends the rest."""

START_TOLERANCE = 2.0  # seconds; the start time is computed from the machine's clock, which may be set


def this_process() -> dict[str, Any]:
    """Host, boot of the host, number and start time of this process."""
    own = psutil.Process()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": own.pid, "started": own.create_time()}


def is_gone(process: dict[str, Any], record: Path | None = None) -> bool:
    """True if a process has provably ended.

    Args:
        process: From this_process.
        record: The file that it touches; None if there is none, so that nothing can be proved from another machine.
    """
    if process["boot"] == _boot():
        try:
            other = psutil.Process(process["pid"])
            is_same = abs(other.create_time() - process["started"]) < START_TOLERANCE
            return not is_same or other.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
    return record is not None and _age(record) > LEASE_SECONDS


class SignsOfLife:
    """Thread that touches a record every few seconds."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="signs-of-life", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _touch(self) -> None:
        while not self._ending.wait(SECONDS_BETWEEN_SIGNS):
            try:
                os.utime(self._record)
            except OSError:  # the folder is gone, or its disk does not answer
                continue


def _age(record: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system; 0 if unknown."""
    probe = record.with_name(f"{record.name}.{os.getpid()}.probe")
    try:
        probe.touch()
        age = probe.stat().st_mtime - record.stat().st_mtime
        probe.unlink(missing_ok=True)
        return age
    except OSError:
        return 0.0


def _boot() -> str:
    """Name of this start of the operating system."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
