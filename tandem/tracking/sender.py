"""Background thread that sends a run's journal entries to MLflow, so that training never waits for the network."""

from __future__ import annotations

import threading
import time
from collections import deque

from rich.console import Console

from tandem import interrupts
from tandem.output import warn
from tandem.tracking.journal import Entry, Journal, read_journal
from tandem.tracking.mlflow_store import Outage, RunWriter

SECONDS_BETWEEN_BATCHES = 1.0
SECONDS_AFTER_SIGNAL = 5.0  # of sending the rest; a scheduler kills the process soon
SECONDS_OF_MARKING = 3.0  # of telling MLflow that the run has ended, after those
SECONDS_BETWEEN_QUESTIONS = 0.1  # whether a signal has come
SECONDS_WITHOUT_PROGRESS = 5.0  # until a server is asked whether it still answers
SILENT_PROBES = 2  # without an answer, after which the run does not wait any longer; each takes 10 s in all
LONGEST_PAUSE = 60.0  # seconds between two attempts while MLflow does not answer


class Sender:
    """Sends entries in batches; while MLflow does not answer, keeps them and tries again.

    Entries that are unsent after close() are in the journal for a replay.
    """

    def __init__(self, writer: RunWriter, journal: Journal, destination: str) -> None:
        """
        Args:
            writer: Writes to the run in MLflow.
            journal: The run's journal, where sent and refused entries are marked.
            destination: The name of the MLflow server or database in warnings.
        """
        self._writer = writer
        self._journal = journal
        self._destination = destination
        self._pending: deque[Entry] = deque()
        self._closing = threading.Event()
        self._warned = False
        self._gave_up = False
        self._thread = threading.Thread(target=self._send_until_closed, name="mlflow-sender", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        self._pending.append(entry)

    def close(self) -> None:
        """Sends all pending entries; gives up, after half a minute at most, if MLflow does not answer.

        After a signal it gives up after some seconds, and marks the run as KILLED if MLflow does not know its end.
        """
        self._closing.set()
        with Console(stderr=True).status("Sending the rest of the run to MLflow"), interrupts.holding():
            silent = 0
            while self._is_busy() and silent < SILENT_PROBES and interrupts.received() is None:
                # a large file may take longer than this, but then the server answers other requests
                silent = 0 if self._writer.is_reachable() else silent + 1
            if interrupts.received() is not None:
                self._thread.join(SECONDS_AFTER_SIGNAL)
                self._mark_as_killed()
        if self._thread.is_alive():
            self._gave_up = True
            warn(
                f"sending the rest of the run to MLflow at {self._destination} was interrupted"
                if interrupts.received() is not None
                else f"MLflow at {self._destination} accepts connections but does not answer: not waiting any longer "
                "for it"
            )

    def _mark_as_killed(self) -> None:
        """Tells MLflow that the run is over while its last entries are still on their way; a replay corrects it."""
        if not self._thread.is_alive() or not self._pending:
            return
        marking = threading.Thread(target=self._writer.mark_as_killed, name="mlflow-mark", daemon=True)
        marking.start()
        marking.join(SECONDS_OF_MARKING)

    def _is_busy(self) -> bool:
        """True if the thread runs and sends nothing for a while, or a signal comes."""
        before, since = len(self._pending), time.monotonic()
        while self._thread.is_alive() and interrupts.received() is None:
            self._thread.join(SECONDS_BETWEEN_QUESTIONS)
            if len(self._pending) != before:
                before, since = len(self._pending), time.monotonic()
            elif time.monotonic() - since >= SECONDS_WITHOUT_PROGRESS:
                break
        return self._thread.is_alive()

    def _send_until_closed(self) -> None:
        pause = SECONDS_BETWEEN_BATCHES
        while not self._closing.wait(pause):
            pause = SECONDS_BETWEEN_BATCHES if self._send_pending() else min(2 * pause, LONGEST_PAUSE)
        if self._send_pending():
            # A full disk or a locked database may have caused earlier refusals.
            self._pending.extend(read_journal(self._journal.path).unsent())
            self._send_pending()

    def _send_pending(self) -> bool:
        try:
            self._writer.send(self._pending, self._journal)
        except Exception as outage:
            if self._gave_up:  # and the journal is closed; a replay sends again what has arrived just now
                return False
            if not isinstance(outage, Outage):
                raise
            if not self._warned:
                self._warned = True
                warn(
                    f"MLflow at {self._destination} does not answer ({outage}); training continues, and "
                    f"{self._journal.path} keeps the entries"
                )
            return False
        return True
