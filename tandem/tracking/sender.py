"""Background thread that sends a run's journal entries to MLflow, so that training never waits for the network."""

from __future__ import annotations

import sys
import threading
from collections import deque

from rich.console import Console

from tandem.tracking.journal import Entry, Journal, read_journal
from tandem.tracking.mlflow_store import Outage, RunWriter

SECONDS_BETWEEN_BATCHES = 1.0
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
        self._thread = threading.Thread(target=self._send_until_closed, name="mlflow-sender", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        self._pending.append(entry)

    def close(self) -> None:
        """Sends all pending entries; gives up if MLflow does not answer."""
        self._closing.set()
        with Console(stderr=True).status("Sending the rest of the run to MLflow"):
            self._thread.join()

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
        except Outage as outage:
            if not self._warned:
                self._warned = True
                print(
                    f"warning: MLflow at {self._destination} does not answer ({outage}); training continues, and "
                    f"{self._journal.path} keeps the entries",
                    file=sys.stderr,
                )
            return False
        return True
