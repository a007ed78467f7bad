"""Runs whose process ended before them: found by the records in their folders, continued or marked as KILLED.

The parent run of several runs has a folder with a record too, so that the same command continues it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.files import write_text
from tandem.protocol.settings import Settings, walk
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.journal import Journal, read_journal
from tandem.tracking.process import is_gone, this_process

RUNNING, INTERRUPTED, ENDED = "running", "interrupted", "ended"
"""States of a run in its record. An interrupted run can be continued; one that has ended is continued on request only,
and not at all if it has finished."""

LOCK_FILE = "lock"  # of a parent's folder; a run's journal has its own

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run and the process that works on it, as recorded in the run's folder."""

    run_id: str
    experiment_id: str
    name: str
    uri: str
    """Tracking URI without its password."""
    command: str
    """Hash of everything that has to be equal in a command that continues the run."""
    versions: dict[str, str]
    process: dict[str, Any]
    state: str

    def write(self, folder: Path) -> None:
        """Replaces the record in a run's folder in one step."""
        write_text(folder / vocabulary.PROCESS_FILE, json.dumps(self.__dict__, indent=1))


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder; None if there is none that this version can read."""
    try:
        return Record(**json.loads((folder / vocabulary.PROCESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def command_hash(
    settings: Settings, framework: str, backend: str, not_compared: Mapping[str, str] | None = None
) -> str:
    """Hash of the framework and of all settings that affect numbers or cost, and of the run's name and budget.

    Args:
        settings: The run's.
        framework: torch or keras.
        backend: torch, tensorflow or jax.
        not_compared: The tags of a run that is not a result, such as a sweep's trial, which no other command continues.
    """
    values = {name: value for name, item, value in walk(settings) if item.metadata["affects"] != "nothing"}
    values |= {"tracking.run_name": settings.tracking.run_name, "tracking.budget": settings.tracking.budget}
    parts = [framework, backend, values, *([] if not_compared is None else [dict(not_compared)])]
    content = json.dumps(parts, sort_keys=True, default=vars)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run whose process is gone, held by this process."""

    folder: Path
    record: Record
    journal: Journal


@dataclass(frozen=True, kw_only=True)
class UnfinishedParent:
    """A parent run whose process is gone, held by this process."""

    folder: Path
    record: Record
    lock: FileLock


def find_unfinished(
    client: MlflowClient, settings: Settings, parent: Path, command: str, versions: Mapping[str, str]
) -> Unfinished | None:
    """The run that this command continues, as the setting `resume` says; None to begin a new one.

    Args:
        client: The MLflow that records the run.
        settings: `resume`.
        parent: Folder of the experiment's runs.
        command: From command_hash.
        versions: Versions of the framework's packages.

    Raises:
        UserError: The run that `resume` names cannot be continued.
    """
    return _find(client, settings, parent, command, versions, _hold_run)


def find_unfinished_trial(
    client: MlflowClient, parent: Path, run_id: str, command: str, versions: Mapping[str, str]
) -> Unfinished | None:
    """The run of a sweep's interrupted trial; None if it cannot be continued here.

    Args:
        client: The MLflow that records the run.
        parent: Folder of the experiment's runs.
        run_id: The run.
        command: From command_hash.
        versions: Versions of the framework's packages.
    """
    for folder, record in _records(parent):
        if record.run_id == run_id:
            is_same = (record.command, record.versions) == (command, dict(versions)) and record.state != ENDED
            return _hold_run(folder, record) if is_same and _can_continue(client, folder, record) else None
    return None


def find_unfinished_parent(
    client: MlflowClient, settings: Settings, parent: Path, command: str
) -> UnfinishedParent | None:
    """The parent run that this command continues; see find_unfinished."""
    return _find(client, settings, parent, command, {}, _hold_parent)


def _find(
    client: MlflowClient,
    settings: Settings,
    parent: Path,
    command: str,
    versions: Mapping[str, str],
    hold: Callable[[Path, Record], Found | None],
) -> Found | None:
    if settings.resume == "never":
        return None
    if settings.resume == "auto":
        for folder, record in reversed(_records(parent)):
            same = (record.command, record.versions, record.uri) == (
                command,
                dict(versions),
                shown_uri(client.tracking_uri),
            )
            may_continue = same and record.state in (RUNNING, INTERRUPTED) and _can_continue(client, folder, record)
            if may_continue and (found := hold(folder, record)) is not None:
                return found
        return None
    folder, record = _named(settings.resume, parent)
    if record.command != command:
        raise UserError(
            f"resume: the run {record.run_id} in {folder} was started with other settings, or in the other framework; "
            "give the command that it was started with"
        )
    if record.versions != dict(versions):
        raise UserError(
            f"resume: the run {record.run_id} was started with {_in_words(record.versions)}, and here are "
            f"{_in_words(versions)}; install those, or start a new run with --resume never"
        )
    found = hold(folder, record) if _can_continue(client, folder, record) else None
    if found is None:
        raise UserError(
            f"resume: the run {record.run_id} in {folder} has finished, is not in this MLflow, or may still be running "
            f"on {record.process['host']} (process {record.process['pid']}); a process on another machine counts as "
            "gone after two minutes without a sign of life"
        )
    return found


def mark_dead_runs(client: MlflowClient, experiment_id: str, parent: Path, *, but: str) -> None:
    """Marks runs as KILLED that MLflow shows as RUNNING although their process is gone.

    Args:
        client: The MLflow that shows them.
        experiment_id: The experiment in which to look; for runs of other folders, by their tags.
        parent: Folder of the experiment's runs.
        but: Id of this process's run, whose tags may still name an earlier process.
    """
    dead = set()
    for folder, record in _records(parent):
        if record.state == RUNNING and is_gone(record.process, folder / vocabulary.PROCESS_FILE):
            dead.add(record.run_id)
    with contextlib.suppress(MlflowException):
        running = client.search_runs([experiment_id], filter_string="attributes.status = 'RUNNING'")
        for run in running:
            is_dead = run.info.run_id in dead or _has_dead_process(run.data.tags)
            if is_dead and run.info.run_id != but:
                client.set_terminated(run.info.run_id, "KILLED")


def _has_dead_process(tags: Mapping[str, str]) -> bool:
    names = (vocabulary.PROCESS, f"{vocabulary.PROCESS}.")
    processes = [text for name, text in tags.items() if name == names[0] or name.startswith(names[1])]
    try:
        return bool(processes) and all(is_gone(json.loads(text)) for text in processes)
    except (KeyError, ValueError, TypeError):
        return False


def process_tag(*, of_several: bool = False) -> dict[str, str]:
    """Tag of a run with the process that works on it, or with one of several that do."""
    process = json.dumps(this_process())
    digest = f".{hashlib.sha256(process.encode()).hexdigest()[:8]}" if of_several else ""
    return {f"{vocabulary.PROCESS}{digest}": process}


def _records(parent: Path) -> list[tuple[Path, Record]]:
    """Folders and records of all runs of an experiment, from the oldest to the newest."""
    return [
        (path.parent, record)
        for path in sorted(parent.glob(f"*/{vocabulary.PROCESS_FILE}"))
        if (record := read_record(path.parent)) is not None
    ]


def _named(name: str, parent: Path) -> tuple[Path, Record]:
    folder = Path(name).expanduser().absolute()
    if folder.is_dir():
        if record := read_record(folder):
            return folder, record
        raise UserError(f"resume: received {name!r}, a folder without {vocabulary.PROCESS_FILE}; give a run's folder")
    for folder, record in _records(parent):
        if name in (record.run_id, folder.name):
            return folder, record
    raise UserError(
        f"resume: received {name!r}, allowed: auto, never, the folder of a run, or the id of a run in {parent}"
    )


def _can_continue(client: MlflowClient, folder: Path, record: Record) -> bool:
    """False if the run's process may live, it has finished, or MLflow does not have it."""
    if record.state == RUNNING and not is_gone(record.process, folder / vocabulary.PROCESS_FILE):
        return False
    try:
        run = client.get_run(record.run_id)
    except MlflowException:
        return False
    return run.info.status != "FINISHED" and run.info.lifecycle_stage == "active"


def _hold_run(folder: Path, record: Record) -> Unfinished | None:
    try:
        journal = Journal(folder)  # its lock decides between two commands that start at once
    except (UserError, OSError):
        return None
    if not read_journal(journal.path).entries:
        journal.close()
        return None
    return Unfinished(folder=folder, record=record, journal=journal)


def _hold_parent(folder: Path, record: Record) -> UnfinishedParent | None:
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)  # decides between two commands that start at once
    except (Timeout, OSError):
        return None
    return UnfinishedParent(folder=folder, record=record, lock=lock)


def _in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
