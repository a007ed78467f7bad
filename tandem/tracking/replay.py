"""Sends unsent journal entries of a run to MLflow: python -m tandem.tracking.replay RUN_FOLDER."""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.progress import Progress

from tandem.errors import UserError, run_program
from tandem.secrets import shown_uri
from tandem.tracking.journal import Journal, read_journal
from tandem.tracking.mlflow_store import Outage, RunWriter, connect, resolve_uri
from tandem.tracking.vocabulary import JOURNAL_FILE


def replay(folder: Path, uri: str | None = None) -> int:
    """Sends the journal entries of a run that MLflow does not have, with their original times.

    A run whose process died becomes KILLED.

    Args:
        folder: The run's folder.
        uri: The tracking URI, if other than that of the run's start.

    Returns:
        The number of entries sent.

    Raises:
        UserError: There is no such journal, the run has not ended, MLflow does not answer, does not have the run, or
            refuses entries again.
    """
    entries = read_journal(folder / JOURNAL_FILE).entries
    if not entries:
        raise UserError(f"the journal in {folder} is empty: there is nothing to send")
    start = entries[0].content
    uri = uri or start["uri"]
    if ":***@" in uri:
        raise UserError(f"the journal in {folder} lacks the password of {uri}: give the whole URI with --uri")
    client = _connect_to_run(uri, start["run_id"], folder)
    journal = Journal(folder)
    try:
        if entries[-1].kind != "end":
            journal.append("end", status="KILLED", ended=entries[-1].time)
        pending = deque(read_journal(journal.path).unsent())
        total = len(pending)
        writer = RunWriter(
            client, run_id=start["run_id"], experiment_id=start["experiment_id"], folder=folder.absolute()
        )
        with Progress() as progress:
            bar = progress.add_task("Sending to MLflow", total=total)
            writer.send(pending, journal, sent=lambda count: progress.advance(bar, count))
    except Outage as outage:
        raise UserError(
            f"MLflow at {shown_uri(client.tracking_uri)} stopped answering ({outage}) with {len(pending)} of "
            f"{total} entries unsent: repeat the command when it is back"
        ) from outage
    finally:
        journal.close()
    content = read_journal(journal.path)
    if content.unsent():
        number, reason = next(iter(content.refusals.items()))
        raise UserError(
            f"MLflow refused {len(content.unsent())} of {total} entries of {folder}, the first of them number "
            f"{number}: {reason}; fix that and repeat the command"
        )
    return total


def _connect_to_run(uri: str, run_id: str, folder: Path) -> MlflowClient:
    client = connect(resolve_uri(uri))
    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"MLflow at {shown_uri(client.tracking_uri)} does not have the run {run_id} of {folder}: give the "
            "tracking URI of the run's start with --uri"
        ) from error
    return client


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tandem.tracking.replay", description=__doc__)
    parser.add_argument("folder", metavar="RUN_FOLDER", type=Path, help="the run's folder, which holds journal.jsonl")
    parser.add_argument("--uri", help="MLflow tracking URI, if other than that of the run's start")
    arguments = parser.parse_args(argv)
    count = replay(arguments.folder, arguments.uri)
    print(f"{count} journal entries sent to MLflow." if count else "MLflow has all entries of this run already.")


if __name__ == "__main__":
    run_program("replay", main)
