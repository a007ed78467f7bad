from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from tandem.grid_file import GridCell
from tandem.grid_runner import Outcome, interruptible, last_line, log_file, time_left
from tandem.protocol.parser import Framework
from tandem.protocol.settings import Settings, TrackingSettings

DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
SLEEPER = "import time\nprint('ready', flush=True)\ntime.sleep(60)"


def make_cell(framework: Framework = "torch", **tracking: str) -> GridCell:
    settings = Settings(tracking=TrackingSettings(**tracking))  # type: ignore[arg-type]
    return GridCell(number=3, name=f"resnet50 frozen {framework}", framework=framework, options=(), settings=settings)


def made(framework: Framework, seconds: float, status: int = 0) -> Outcome:
    return Outcome(cell=make_cell(framework), status=status, seconds=seconds, log=Path("log"))


@pytest.mark.parametrize(
    ("outcomes", "left"),
    [
        ([], ""),
        ([made("torch", 2, status=2)], ""),
        # of each framework's own mean: 3 * 20 + 10 seconds
        ([made("torch", 10), made("torch", 30), made("keras", 10), made("keras", 900, status=1)], "about 70.0 s left"),
        # Keras has none yet, so the mean of all: 3 * 40 + 40
        ([made("torch", 40)], "about 2.7 min left"),
    ],
)
def test_time_left_comes_from_the_finished_cells_of_the_framework(outcomes: list[Outcome], left: str) -> None:
    remaining = [make_cell("torch")] * 3 + [make_cell("keras")]
    assert time_left(outcomes, remaining) == left


def test_no_time_is_left_after_the_last_cell() -> None:
    assert time_left([made("torch", 10)], []) == ""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (b"one\ntwo\n\n", "two"),
        (b"10 %\r20 %\rstopped \n", "stopped"),
        (b"", "it has printed nothing"),
        (b"\xff broken\n", "� broken"),
    ],
)
def test_last_line_of_a_log_is_the_last_that_says_something(output: bytes, line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(output)
    assert last_line(log) == line


def test_logs_are_named_by_experiment_budget_and_cell() -> None:
    assert log_file(make_cell(experiment="birds")) == Path("grid/birds/03-resnet50_frozen_torch.log")
    assert log_file(make_cell(experiment="my birds/2", budget="small")).parent == Path("grid/my_birds_2-small")


def wait_while_signals_come(code: str, numbers: list[signal.Signals]) -> tuple[float, int, str]:
    """What Interruption makes of a process that runs this code: seconds, its return code, what is printed."""
    printed = io.StringIO()
    with interruptible(Console(file=printed)) as interruption:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, process_group=0)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"

        def send() -> None:
            for number in numbers:
                time.sleep(0.3)
                os.kill(os.getpid(), number)

        sender = threading.Thread(target=send)
        start = time.monotonic()
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            interruption.wait_for(process)
        seconds = time.monotonic() - start
        sender.join()
        process.stdout.close()
    return seconds, process.returncode, printed.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_running_process_before_the_grid(number: signal.Signals) -> None:
    seconds, status, printed = wait_while_signals_come(SLEEPER, [number])
    assert status == -signal.SIGTERM and seconds < 20
    assert printed.startswith("Interrupted:")


def test_second_signal_kills_a_process_that_does_not_end() -> None:
    seconds, status, _ = wait_while_signals_come(DEAF, [signal.SIGINT, signal.SIGINT])
    assert status == -signal.SIGKILL and seconds < 20


def test_process_that_starts_after_the_signal_is_ended_too() -> None:
    with interruptible(Console(file=io.StringIO())) as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
        with pytest.raises(KeyboardInterrupt):
            interruption.wait_for(process)
    assert process.returncode == -signal.SIGTERM


def test_handlers_are_as_before_afterwards_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(Console(file=io.StringIO())):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
