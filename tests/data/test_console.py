from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from tandem import interrupts
from tandem.data import console
from tandem.data.console import num_cores, on_all_cores, say, with_bar


def test_lines_go_to_stderr_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]photographs[/bold] 1,234 " + "long " * 40
    say(line, quiet=False)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line + "\n")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    say("a line", quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("num_items", [0, 1, 7, 1000])
def test_results_are_in_the_order_of_the_items(num_items: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3 == 0 and item < 20))
        return item**2

    found = list(on_all_cores(work, range(num_items), title="Squaring", quiet=True))
    assert found == [item**2 for item in range(num_items)]


def test_work_is_done_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "num_cores", lambda: 3)
    meeting = threading.Barrier(3, timeout=20)  # which one thread alone would never pass
    list(on_all_cores(lambda item: meeting.wait(), range(3), title="Meeting", quiet=True))


def test_error_of_an_item_is_raised_and_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "num_cores", lambda: 1)
    done: list[int] = []

    def work(item: int) -> None:
        if item == 40:
            raise ValueError("item 40")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="item 40"):
        list(on_all_cores(work, range(2000), title="Working", quiet=True))
    assert done[:40] == list(range(40))
    assert len(done) < 1000  # tasks that had not begun were cancelled


def test_signal_ends_the_work_after_the_items_that_have_begun(
    interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "num_cores", lambda: 2)
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.02)  # a task has 32 items, and so takes more than half a second
        done.append(item)

    threading.Timer(0.2, interrupted).start()
    begun = time.monotonic()
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        list(on_all_cores(work, range(2000), title="Working", quiet=True))
    assert time.monotonic() - begun < 0.2 + 2 * console.SECONDS_BETWEEN_QUESTIONS + 0.2
    assert done


def test_no_bar_is_drawn_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    list(on_all_cores(lambda item: item, range(10), title="Working", quiet=False))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_bar_shows_how_many_items_were_taken_on_a_terminal_only(
    quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(with_bar(range(3), title="epoch 2", total=3, quiet=quiet)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert list(with_bar(range(3), title="epoch 2", total=3, quiet=quiet)) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == "" and ("epoch 2" in captured.err) is not quiet


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to processes on Linux only")
def test_cores_are_those_that_the_process_may_use() -> None:
    cores = os.sched_getaffinity(0)
    assert num_cores() == len(cores)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
