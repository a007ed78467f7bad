from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tandem import interrupts
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking import sender
from tandem.tracking.journal import Entry, Journal, read_journal
from tandem.tracking.mlflow_store import Outage
from tandem.tracking.replay import replay
from tandem.tracking.sender import Sender
from tandem.tracking.start import start_run
from tests.local_server import Server


class Writer:
    """Stand-in for RunWriter with adjustable answers."""

    def __init__(self) -> None:
        self.answers = True
        self.refuses = False
        self.hangs_until: threading.Event | None = None
        self.reachable = True
        self.attempts: list[float] = []
        self.sent: list[int] = []
        self.is_marked = False

    def send(self, pending: deque[Entry], journal: Journal) -> None:
        if not pending:
            return
        self.attempts.append(time.monotonic())
        if self.hangs_until is not None:
            self.hangs_until.wait(30)
        if not self.answers:
            raise Outage("no route")
        while pending:
            entry = pending.popleft()
            if self.refuses:
                journal.mark_refused(entry.number, "locked")
            else:
                self.sent.append(entry.number)
                journal.mark_sent(entry.number, entry.number)

    def is_reachable(self) -> bool:
        return self.reachable

    def mark_as_killed(self) -> None:
        self.is_marked = True


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def start(writer: Writer, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sender]:
    def start(seconds_between_batches: float = 0.01, longest_pause: float = 60.0) -> Sender:
        monkeypatch.setattr(sender, "SECONDS_BETWEEN_BATCHES", seconds_between_batches)
        monkeypatch.setattr(sender, "LONGEST_PAUSE", longest_pause)
        return Sender(writer, journal, "http://server")  # type: ignore[arg-type]

    return start


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def log(sending: Sender, journal: Journal, count: int = 1) -> None:
    for _ in range(count):
        sending.put(journal.append("tags", values={"a": "1"}))


def test_entries_are_sent_in_order_before_the_run_ends(
    start: Callable[..., Sender], writer: Writer, journal: Journal
) -> None:
    sending = start()
    log(sending, journal, 20)
    wait_until(lambda: len(writer.sent) == 20)
    log(sending, journal)
    sending.close()
    assert writer.sent == list(range(1, 22))
    assert read_journal(journal.path).unsent() == []


def test_logging_does_not_wait_for_mlflow(start: Callable[..., Sender], writer: Writer, journal: Journal) -> None:
    sending = start(seconds_between_batches=60)
    log(sending, journal, 5)
    assert writer.attempts == []
    sending.close()  # does not wait for the next batch
    assert writer.sent == [1, 2, 3, 4, 5]


def test_outage_is_one_warning_and_entries_are_sent_when_mlflow_answers_again(
    start: Callable[..., Sender], writer: Writer, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.answers = False
    sending = start()
    log(sending, journal)
    wait_until(lambda: len(writer.attempts) >= 3)
    writer.answers = True
    wait_until(lambda: writer.sent == [1])
    sending.close()
    assert capsys.readouterr().err == (
        "warning: MLflow at http://server does not answer (no route); training continues, and "
        f"{journal.path} keeps the entries\n"
    )


def test_pauses_double_up_to_a_limit_during_an_outage(
    start: Callable[..., Sender], writer: Writer, journal: Journal
) -> None:
    writer.answers = False
    sending = start(seconds_between_batches=0.05, longest_pause=0.2)
    log(sending, journal)
    wait_until(lambda: len(writer.attempts) >= 6)
    sending.close()
    pauses = [later - earlier for earlier, later in zip(writer.attempts[:5], writer.attempts[1:6], strict=True)]
    for pause, shortest in zip(pauses, (0.1, 0.2, 0.2, 0.2, 0.2), strict=True):
        assert pause >= shortest
    assert pauses[4] < 1.6  # the limit holds: without it this pause would be 1.6 s


def test_refused_entries_are_tried_once_more_at_the_end(
    start: Callable[..., Sender], writer: Writer, journal: Journal
) -> None:
    writer.refuses = True
    sending = start()
    log(sending, journal, 2)
    wait_until(lambda: len(read_journal(journal.path).refusals) == 2)
    writer.refuses = False
    sending.close()
    assert writer.sent == [1, 2]
    assert read_journal(journal.path).unsent() == []


def test_entries_that_cannot_be_sent_at_the_end_stay_in_the_journal(
    start: Callable[..., Sender], writer: Writer, journal: Journal
) -> None:
    writer.answers = False
    sending = start()
    log(sending, journal, 3)
    sending.close()
    assert [entry.number for entry in read_journal(journal.path).unsent()] == [1, 2, 3]


def test_server_that_never_answers_is_not_waited_for(
    start: Callable[..., Sender],
    writer: Writer,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sender, "SECONDS_WITHOUT_PROGRESS", 0.05)
    writer.hangs_until, writer.reachable = threading.Event(), False
    sending = start()
    sending.put(journal.append("tags", values={"a": "b"}))
    begun = time.monotonic()
    sending.close()
    assert time.monotonic() - begun < 5
    assert "accepts connections but does not answer: not waiting any longer for it" in capsys.readouterr().err
    assert [entry.number for entry in read_journal(journal.path).unsent()] == [1]
    writer.hangs_until.set()
    sending._thread.join()


@pytest.mark.parametrize("hangs", [True, False])
def test_signal_while_the_rest_is_sent_ends_that_within_seconds(
    hangs: bool,
    start: Callable[..., Sender],
    writer: Writer,
    journal: Journal,
    interrupted: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sender, "SECONDS_AFTER_SIGNAL", 0.5 if hangs else 30.0)
    writer.hangs_until = threading.Event()
    sending = start(seconds_between_batches=60)
    log(sending, journal, 2)
    threading.Timer(0.3, interrupted).start()
    if not hangs:
        threading.Timer(0.6, writer.hangs_until.set).start()
    begun = time.monotonic()
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        sending.close()
    assert time.monotonic() - begun < 3
    assert writer.is_marked == hangs
    assert ("was interrupted" in capsys.readouterr().err) == hangs
    assert len(read_journal(journal.path).unsent()) == (2 if hangs else 0)
    writer.hangs_until.set()
    sending._thread.join()


def test_slow_upload_to_a_server_that_answers_is_waited_for(
    start: Callable[..., Sender], writer: Writer, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SECONDS_WITHOUT_PROGRESS", 0.02)
    writer.hangs_until = threading.Event()
    sending = start()
    sending.put(journal.append("tags", values={"a": "b"}))
    threading.Timer(0.5, writer.hangs_until.set).start()
    sending.close()
    assert writer.sent == [1]


@pytest.mark.long
@pytest.mark.timeout(120)
def test_run_on_a_frozen_server_ends_within_half_a_minute(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_environment: None
) -> None:
    settings = Settings(tracking=TrackingSettings(uri=server.uri, system_interval=60))
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        run.log_metrics({"train/loss": 1.0})
        time.sleep(3)
        processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        for process in processes:
            process.suspend()  # the system accepts connections for it, and nobody answers
        run.log_metrics({"train/loss": 0.5}, step=1)
        begun = time.monotonic()
    seconds = time.monotonic() - begun
    for process in processes:
        process.resume()
    assert seconds < 30
    assert "not waiting any longer for it" in capsys.readouterr().err
    assert replay(run.folder) > 0
    history = MlflowClient(server.uri).get_metric_history(run.id, "train/loss")
    assert [metric.value for metric in sorted(history, key=lambda metric: metric.step)] == [1.0, 0.5]
