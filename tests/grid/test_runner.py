from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from tandem.errors import UserError
from tandem.grid.processes import LocalProcesses, Outcome, divide, log_file
from tandem.grid.runner import counted_signals, run_cells, time_left
from tests.grid.small_cells import DEAF, SLEEP, TIDY, make_cell, make_outcome


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------------------------------------ time left


@pytest.mark.parametrize(
    ("outcomes", "at_once", "left"),
    [
        ([], 1, ""),
        ([make_outcome("torch", 2, status=2)], 1, ""),
        # the means of the cells' own frameworks: 3 * 20 + 10 seconds
        (
            [
                make_outcome("torch", 10),
                make_outcome("torch", 30),
                make_outcome("keras", 10),
                make_outcome("keras", 900, status=1),
            ],
            1,
            "about 70.0 s left",
        ),
        # no Keras cell has finished, so the mean of all cells: 3 * 40 + 40
        ([make_outcome("torch", 40)], 1, "about 2.7 min left"),
        # cells finished by an earlier attempt do not count
        ([make_outcome("torch", 40), make_outcome("torch", 0, by_earlier=True)], 1, "about 2.7 min left"),
        # one of two has just ended, the other is half done: (3 * 20 + 10 - 10) / 2
        ([make_outcome("torch", 20), make_outcome("keras", 10)], 2, "about 30.0 s left"),
        # at most four at once, of which three are half done: (3 * 20 + 10 - 30) / 4
        ([make_outcome("torch", 20), make_outcome("keras", 10)], 4, "about 10.0 s left"),
    ],
)
def test_time_left_comes_from_the_finished_cells_of_the_framework(
    outcomes: list[Outcome], at_once: int, left: str
) -> None:
    unfinished = [make_cell("torch")] * 3 + [make_cell("keras")]
    assert time_left(outcomes, unfinished, at_once=at_once) == left


def test_estimate_is_empty_after_the_last_cell() -> None:
    assert time_left([make_outcome("torch", 10)], []) == ""


# -------------------------------------------------------------------------------------------------------- several cells


class Session:
    """Grid whose cells run given Python code, and which can receive signals once cells have begun."""

    def __init__(self, codes: Sequence[str], jobs: int) -> None:
        self.cells = [make_cell(number=number) for number in range(1, len(codes) + 1)]
        self.codes = codes
        self.outcomes: list[Outcome] = []
        self._printed = io.StringIO()
        self._pool = LocalProcesses(divide(jobs, ["4", "5"], 6), lambda cell: self._command(cell.number))

    def _command(self, number: int) -> list[str]:
        return [sys.executable, "-c", self.codes[number - 1]]

    def run(self) -> str:
        """Runs the cells and returns the output."""
        try:
            for outcome in run_cells(self.cells, self._pool, Console(file=self._printed, soft_wrap=True)):
                self.outcomes.append(outcome)
        finally:
            self.printed = self._printed.getvalue()
        return self.printed

    def run_and_send(self, numbers: Sequence[signal.Signals], num_ready: int) -> str:
        """Runs the cells and sends signals, a second apart, once num_ready cells have printed `ready`."""

        def send() -> None:
            deadline = time.monotonic() + 60
            while sum("ready" in log.read_text() for log in Path().glob("grid/**/*.log")) < num_ready:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(1)

        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            self.run()
        sender.join()
        return self.printed


def test_as_many_cells_run_at_once_as_there_are_jobs() -> None:
    code = (
        "import pathlib, time\npathlib.Path('{0}.on').touch()\n"
        "while not pathlib.Path('{1}.on').exists(): time.sleep(0.05)"
    )
    # the first two wait for each other, the third for itself
    session = Session([code.format(1, 2), code.format(2, 1), code.format(3, 3)], jobs=2)
    printed = session.run()
    assert sorted(outcome.cell.number for outcome in session.outcomes) == [1, 2, 3]
    assert {outcome.status for outcome in session.outcomes} == {0}
    assert session.outcomes[2].cell.number == 3
    assert re.findall(r"\d of 3", printed) == ["1 of 3", "2 of 3", "3 of 3"]


def test_cells_have_their_shares_and_pass_them_on() -> None:
    code = "import os, sys, time; print(os.environ['CUDA_VISIBLE_DEVICES'], *sys.argv[1:]); time.sleep(0.5)"
    session = Session([code] * 4, jobs=2)
    session.run()
    shown = [log_file(cell).read_text().split() for cell in session.cells]
    assert {words[0] for words in shown[:2]} == {"4", "5"}  # the first two run side by side
    assert [words[1:] for words in shown] == [["--threads", "3"]] * 4


def test_failed_cell_does_not_stop_the_others() -> None:
    session = Session(["import sys; print('no'); sys.exit(7)", "pass"], jobs=1)
    printed = session.run()
    assert [(outcome.status, outcome.last_line) for outcome in session.outcomes] == [
        (7, "no"),
        (0, "no output"),
    ]
    assert "3 resnet50" not in printed and "1 resnet50 frozen torch: failed with exit status 7 after" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_ends_all_running_cells_and_starts_no_more(number: signal.Signals) -> None:
    session = Session([TIDY, TIDY, TIDY], jobs=2)
    start = time.monotonic()
    printed = session.run_and_send([number], num_ready=2)
    assert time.monotonic() - start < 50
    assert printed.startswith("Interrupted:") and session.outcomes == []
    logs = sorted(Path().glob("grid/**/*.log"))
    assert [log.read_text() for log in logs] == ["ready\nended properly\n"] * 2


def test_second_signal_kills_cells_that_do_not_end() -> None:
    session = Session([DEAF, SLEEP], jobs=2)
    start = time.monotonic()
    session.run_and_send([signal.SIGINT, signal.SIGINT], num_ready=2)
    assert time.monotonic() - start < 50


def test_cell_that_finishes_despite_a_signal_counts_as_finished() -> None:
    finishes = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + SLEEP
    session = Session([finishes, "pass"], jobs=1)
    printed = session.run_and_send([signal.SIGTERM], num_ready=1)
    assert [outcome.status for outcome in session.outcomes] == [0]
    assert "1 resnet50 frozen torch: finished after" in printed


def test_running_cells_end_if_another_cannot_be_started() -> None:
    session = Session([TIDY, "pass"], jobs=2)
    blocked = log_file(session.cells[1])
    blocked.mkdir(parents=True)
    with pytest.raises(UserError, match=r"^cannot write the output of cells to grid/"):
        session.run()
    assert not session.outcomes


def test_signal_handlers_are_restored_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with counted_signals() as signals:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.count == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
