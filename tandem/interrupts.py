"""Signals that end a program: noted when they come, raised where the program can stop.

An exception that a signal handler raises can come up anywhere, and is lost where Python ignores exceptions, as in a
callback of the garbage collection. So a handler notes the signal, and loops ask:

    with watch():
        for batch in batches:
            check()  # raises Interrupted after a signal

If nothing has asked for a while, Interrupted is raised wherever the program is, again and again until it is handled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

SECONDS_UNTIL_RAISED = 0.5
"""Time after which a signal is raised in code that does not ask for it."""

SECONDS_OF_A_STEP = 5.0
"""The same in loops that ask at each step. Docker kills a container ten seconds after SIGTERM."""

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]  # Slurm can announce the end of a job with SIGUSR1; Windows has neither this nor SIGHUP


_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal that a process gets when its parent dies

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Interrupted(KeyboardInterrupt):
    """The program was asked to end by Ctrl-C or another signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Watch:
    """The signals of this process since watch() began."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.depth = 0
        self.before: dict[int, Any] = {}
        self.received: int | None = None
        self.is_handled = False
        self.must_raise = False
        self.is_asked = False
        self.is_held = False


_watch = _Watch()


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Notes signals instead of ending the process, in a with block of the main thread; blocks can be nested.

    Raises:
        Interrupted: A signal came that nothing has handled before the outermost block ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _watch
    if _watch.depth == 0:
        _watch = _Watch()
        # An ignored signal stays ignored, such as SIGHUP under nohup.
        _watch.before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
        install()
    current = _watch
    current.depth += 1
    try:
        yield
        if current.depth == 1:
            check()
    finally:
        current.depth -= 1
        if current.depth == 0:
            current.is_handled = True
            for number, handler in current.before.items():
                signal.signal(number, handler)


def install() -> None:
    """Sets the handlers again within a watch, after a library has replaced them."""
    if threading.current_thread() is threading.main_thread():
        for number in _watch.before:
            signal.signal(number, _note)


def received() -> signal.Signals | None:
    """The signal that has come during the watch; None without one."""
    return None if _watch.received is None else signal.Signals(_watch.received)


def check() -> None:
    """Raises Interrupted in the main thread if a signal has come that nothing has handled."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _watch.received is not None and not _watch.is_handled and in_main_thread:
        _watch.is_handled = True
        raise Interrupted(_watch.received)


def handled() -> None:
    """Says that the program is ending because of the signal, so that it is not raised again."""
    _watch.is_handled = True


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """For a loop that calls check() at each step: a signal may wait for a whole step before it is raised."""
    before, _watch.is_asked = _watch.is_asked, True
    try:
        yield
    finally:
        _watch.is_asked = before


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """For work that must not be cut in two: a signal waits until the block ends."""
    before, _watch.is_held = _watch.is_held, True
    try:
        yield
    finally:
        _watch.is_held = before


def end_on_signals(program: str) -> None:
    """Ends the process with one line at a signal, for the time of imports, in which there is nothing to keep."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"\n{program}: interrupted before it began\n".encode())
        os._exit(exit_status(number))

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def end_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Lets Linux's kernel send this process a signal when its parent dies.

    To be called between fork and exec, where other threads' locks may be held: one call, and no imports. Without it a
    script whose grid was killed would train on, and its run would be trained twice.

    Args:
        parent: Number of the process that forks.
        number: The signal.
    """
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has died since the fork
        os._exit(exit_status(number))


def exit_status(number: int | None) -> int:
    """130 after Ctrl-C, 143 after the other signals: what a shell and a scheduler read as ended on request."""
    return 130 if number in (None, signal.SIGINT) else 143


def _note(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _watch.process:  # a forked worker ends as if it had not inherited this handler
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _watch.must_raise:
        _watch.must_raise = False
        if not _watch.is_handled and not _watch.is_held and _watch.received is not None:
            raise Interrupted(_watch.received)
        return
    if _watch.received is None:
        _watch.received = number
        threading.Thread(target=_raise_unless_handled, args=(_watch,), name="interrupts", daemon=True).start()
    elif number == signal.SIGINT:
        os.write(2, b"\ninterrupted twice: ended at once; the last checkpoint is kept\n")
        os._exit(exit_status(number))


def _raise_unless_handled(current: _Watch) -> None:
    start = time.monotonic()
    while not current.is_handled:
        time.sleep(0.05)
        if current.is_held or time.monotonic() - start < (
            SECONDS_OF_A_STEP if current.is_asked else SECONDS_UNTIL_RAISED
        ):
            continue
        if current.is_handled:
            return
        assert current.received is not None
        current.must_raise = True
        # a signal and no exception in the thread: it ends a system call that waits
        signal.pthread_kill(threading.main_thread().ident, current.received)  # type: ignore[arg-type]
        start = time.monotonic() + SECONDS_OF_A_STEP - SECONDS_UNTIL_RAISED
