from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tandem import interrupts


@pytest.mark.parametrize("number", interrupts.SIGNALS, ids=lambda number: number.name)
def test_signal_is_raised_where_the_loop_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(interrupts.Interrupted) as caught, interrupts.watch():
        os.kill(os.getpid(), number)
        assert interrupts.received() == number
        interrupts.check()
    assert caught.value.number == number
    assert signal.getsignal(number) == before


def test_signal_is_raised_without_asking_after_a_while() -> None:
    start = time.monotonic()
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    assert interrupts.SECONDS_UNTIL_RAISED <= time.monotonic() - start < 10


def test_signal_that_was_swallowed_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SECONDS_OF_A_STEP", 1.0)
    times = 0
    with interrupts.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        while times < 2:
            try:
                time.sleep(30)
            except interrupts.Interrupted:  # as in a callback of the garbage collection, where Python ignores it
                times += 1
        interrupts.handled()
    assert times == 2


def test_signal_waits_while_it_is_held() -> None:
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        with interrupts.holding():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.5 * interrupts.SECONDS_UNTIL_RAISED)
        interrupts.check()


def test_signal_that_was_handled_is_not_raised_again() -> None:
    with interrupts.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.handled()
        time.sleep(1.5 * interrupts.SECONDS_UNTIL_RAISED)
        interrupts.check()


def test_block_that_ends_normally_still_raises_its_signal() -> None:
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        os.kill(os.getpid(), signal.SIGHUP)


TWICE = """
import os, signal, time
from tandem import interrupts
with interrupts.watch(), interrupts.holding():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""

IMPORTING = """
import os, signal
from tandem import interrupts
interrupts.end_on_signals("train_torch.py")
os.kill(os.getpid(), signal.{name})
"""


def test_second_ctrl_c_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert done.stderr == "\ninterrupted twice: ended at once; the last checkpoint is kept\n"


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_during_imports_is_one_line(name: str, status: int) -> None:
    code = IMPORTING.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (status, "\ntrain_torch.py: interrupted before it began\n")
