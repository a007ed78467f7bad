"""Access to MLflow: its tracking URI, experiments, and writing journal entries to a run.

All writes go through MlflowClient. MLflow's fluent API keeps one active run per process, which other libraries in the
process log to as well; its asynchronous logging sends no batches and loses data silently.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import mlflow.store.db_migrations
import mlflow.telemetry
import requests
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from filelock import FileLock
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from tandem import interrupts
from tandem.commands import module_command
from tandem.errors import UserError, one_line
from tandem.protocol.addresses import resolve_address, sqlite_file, strip
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.creation import write_model
from tandem.tracking.database import (
    ARTIFACTS_FOLDER,
    create_database,
    follow_moved_folder,
    is_half_made,
    is_left_behind,
    without_strange_folder,
)
from tandem.tracking.journal import Entry, Journal
from tandem.tracking.views import experiment_tags

UNAUTHORIZED = 401
PROBE_SECONDS = 5  # without an answer, after which a server counts as unreachable
ENTRIES_PER_BATCH = 2000

_CREDENTIALS = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_S3_ENDPOINT_URL"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD"),
)

# Limits of one log_batch request (mlflow.utils.validation).
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
TAGS_PER_REQUEST = 100

Item = TypeVar("Item")


class Outage(Exception):
    """MLflow does not answer: the remaining entries have to be sent later."""


def resolve_uri(uri: str | None) -> str:
    """Tracking URI to use: the given one, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder.

    Returns:
        The URI; the file of a sqlite URI is absolute.

    Raises:
        UserError: MLflow cannot keep runs there.
    """
    return resolve_address(uri or os.environ.get("MLFLOW_TRACKING_URI") or vocabulary.DEFAULT_URI, "tracking")


def database_file(uri: str) -> Path | None:
    """File of a resolved sqlite URI, None for other URIs."""
    return sqlite_file(uri)


def artifact_root(uri: str) -> Path | None:
    """Folder for the files of runs: beside a sqlite file; None if an MLflow server decides."""
    if uri.startswith(("http://", "https://")):
        return None
    # MLflow's own default is ./mlruns of the folder in which the first process was started.
    database = database_file(uri)
    return (database.parent if database else Path.cwd()) / ARTIFACTS_FOLDER


def connect(uri: str) -> MlflowClient:
    """Connects to the MLflow at a resolved URI; creates a sqlite database if there is none.

    Raises:
        UserError: It does not answer within about ten seconds, refuses, or is not MLflow.
    """
    _configure_mlflow()
    if artifact_root(uri) is None:
        _probe_server(uri)
    else:
        _prepare_database(uri)
    client = MlflowClient(tracking_uri=uri)
    with explained(uri):
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns errors of MLflow, its database and the network into a UserError of one line."""
    try:
        yield
    except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
        if getattr(error, "get_http_status_code", lambda: None)() == UNAUTHORIZED:
            raise UserError(
                f"MLflow at {shown_uri(uri)} does not accept this user name and password: set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of an account there"
            ) from error
        raise UserError(
            f"MLflow at {shown_uri(uri)} refused: {one_line(error)}; "
            "check the URI, its credentials, and that it is an MLflow 3 server or database"
        ) from error


def find_or_create_experiment(client: MlflowClient, name: str) -> Experiment:
    """Experiment of this name, created if there is none; several processes may do this at once.

    Raises:
        UserError: The experiment was deleted, or keeps its files where this client cannot write.
    """
    uri = client.tracking_uri
    refusal = ""
    with explained(uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            root = artifact_root(uri)
            location = root / vocabulary.file_name(name) if root else None
            try:
                client.create_experiment(
                    name, artifact_location=location.as_uri() if location else None, tags=experiment_tags()
                )
            except MlflowException as error:
                refusal = one_line(error)
            experiment = client.get_experiment_by_name(name)  # another process may have created it
    if experiment is None:
        raise UserError(
            f"MLflow at {shown_uri(uri)} did not create the experiment {name!r}: {refusal}; unless this is "
            "about space or permissions, try another name"
        )
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the experiment {name!r} was deleted in MLflow at {shown_uri(uri)}: give another experiment, or restore "
            f"it: MLFLOW_TRACKING_URI={shlex.quote(shown_uri(uri))} "
            + module_command("mlflow", "experiments", "restore", "--experiment-id", experiment.experiment_id)
        )
    if artifact_root(uri) and experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise UserError(
            f"the experiment {name!r} was created through an MLflow server, and only that server can write its files: "
            f"received the tracking URI {shown_uri(uri)}; give the server's address (http://...), or another experiment"
        )
    return experiment


class RunWriter:
    """Writes journal entries to one run in MLflow, in order. Entries may be written twice without effect."""

    def __init__(self, client: MlflowClient, *, run_id: str, experiment_id: str, folder: Path) -> None:
        """
        Args:
            client: A client of the MLflow that has the run.
            run_id: The run.
            experiment_id: The run's experiment.
            folder: The run's folder, to which relative paths in the journal refer.
        """
        self._client = client
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._folder = folder

    def send(self, pending: deque[Entry], journal: Journal, sent: Callable[[int], None] = lambda count: None) -> None:
        """Sends all pending entries in the order of their numbers and marks them in the journal as sent or refused.

        An entry that fails although MLflow answers is marked as refused and skipped, so that one broken file does not
        hold up the rest of the run.

        Args:
            pending: The entries to send; the sent and refused ones are removed.
            journal: The journal of the run.
            sent: Called with the number of entries after each batch.

        Raises:
            Outage: MLflow does not answer. Entries that it has not confirmed are still in `pending`.
        """
        one_by_one = 0
        while pending:
            interrupts.check()  # of a replay; a training run sends in a thread of its own
            batch = [pending[0]] if one_by_one else _leading_batch(pending)
            one_by_one = max(0, one_by_one - 1)
            refusal = None
            try:
                self._write(batch)
            except Exception as error:
                self._check_that_mlflow_answers(error)
                if len(batch) > 1:
                    one_by_one = len(batch)
                    continue
                refusal = one_line(error)
            for _ in batch:
                pending.popleft()
            if refusal is None:
                journal.mark_sent(batch[0].number, batch[-1].number)
                self._remove_local_copy(batch[-1])
            else:
                journal.mark_refused(batch[0].number, refusal)
            sent(len(batch))

    def is_reachable(self) -> bool:
        """False if MLflow is a server that does not answer within seconds."""
        uri = self._client.tracking_uri
        if artifact_root(uri) is not None:
            return True  # a database, whose library has time limits
        try:
            requests.get(f"{uri}/health", timeout=PROBE_SECONDS)
        except requests.exceptions.SSLError:
            pass
        except requests.RequestException:
            return False
        return True

    def mark_as_killed(self) -> None:
        """Marks the run as KILLED, if MLflow answers."""
        with contextlib.suppress(Exception):  # a replay, or the next run in the same experiment, corrects it
            self._client.set_terminated(self._run_id, "KILLED")

    def _check_that_mlflow_answers(self, error: Exception) -> None:
        try:
            self._client.get_run(self._run_id)
        except Exception:
            raise Outage(one_line(error)) from error

    def _write(self, batch: list[Entry]) -> None:
        entry = batch[0]
        match entry.kind:
            case "run":
                pass  # created before the journal
            case "artifact":
                self._write_artifact(entry)
            case "dataset":
                self._write_dataset(entry)
            case "model":
                self._write_model(entry)
            case "end":
                self._client.set_terminated(self._run_id, entry.content["status"], end_time=entry.content["ended"])
            case _:
                self._write_values(batch)

    def _write_values(self, batch: list[Entry]) -> None:
        metrics, params, tags = [], [], []
        for entry in batch:
            values = entry.content["values"].items()
            if entry.kind == "metrics":
                step = entry.content["step"]
                metrics += [Metric(name, float(value), entry.time, step) for name, value in values]
            elif entry.kind == "params":
                params += [Param(name, value) for name, value in values]
            else:
                tags += [RunTag(name, value) for name, value in values]
        for some_params in chunks(params, PARAMS_PER_REQUEST):
            self._client.log_batch(self._run_id, params=some_params)
        for some_tags in chunks(tags, TAGS_PER_REQUEST):
            self._client.log_batch(self._run_id, tags=some_tags)
        for some_metrics in chunks(metrics, METRICS_PER_REQUEST):
            self._client.log_batch(self._run_id, metrics=some_metrics)

    def _write_artifact(self, entry: Entry) -> None:
        self._client.log_artifact(self._run_id, self._local_path(entry), entry.content["folder"] or None)

    def _write_dataset(self, entry: Entry) -> None:
        content = entry.content
        source = content["source"]
        dataset = Dataset(
            name=content["name"],
            digest=content["digest"],
            source_type="local" if Path(source).is_absolute() else "external",
            source=json.dumps({"uri": source}),
            profile=json.dumps(content["profile"]),
        )
        # MLflow keeps one input per name and digest, so the three parts share one context.
        context = InputTag(MLFLOW_DATASET_CONTEXT, ", ".join(content["contexts"]))
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [context])])

    def _write_model(self, entry: Entry) -> None:
        write_model(
            self._client,
            experiment_id=self._experiment_id,
            run_id=self._run_id,
            folder=self._local_path(entry),
            name=entry.content["name"],
        )

    def _local_path(self, entry: Entry) -> Path:
        path = self._folder / entry.content["path"]
        if not path.exists():
            raise FileNotFoundError(f"{path} is no longer there")
        return path

    def _remove_local_copy(self, entry: Entry) -> None:
        if not entry.content.get("remove"):
            return
        path = self._folder / entry.content["path"]
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _leading_batch(pending: deque[Entry]) -> list[Entry]:
    batch: list[Entry] = []
    for index in range(min(len(pending), ENTRIES_PER_BATCH)):  # not iterated: other threads append
        entry = pending[index]
        if entry.kind not in ("metrics", "params", "tags"):
            break
        batch.append(entry)
    return batch or [pending[0]]


def chunks(items: list[Item], size: int) -> Iterable[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _probe_server(uri: str) -> None:
    # MLflow's own client waits for minutes for a server that accepts connections but does not answer.
    try:
        requests.get(f"{uri}/health", timeout=PROBE_SECONDS)
    except requests.exceptions.SSLError:
        pass  # MLflow has its own settings for certificates
    except requests.RequestException as error:
        raise UserError(
            f"no MLflow server answers at {shown_uri(uri)} ({type(error).__name__}): start it, check the "
            f"address, or give the tracking URI of this machine, {vocabulary.DEFAULT_URI}"
        ) from error


def _prepare_database(uri: str) -> None:
    database = database_file(uri)
    try:
        if database and is_half_made(database):
            database.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{database}.lock"):
                if is_half_made(database) and is_left_behind(database):
                    create_database(uri, database)
        # MLflow retries for a minute and a half if the database cannot be opened.
        with _connection(uri) as connection:
            connection.execute(sqlalchemy.text("PRAGMA schema_version" if database else "SELECT 1"))
        if database:
            follow_moved_folder(database)
        with without_strange_folder(uri):
            SqlAlchemyStore(uri, str(artifact_root(uri))).engine.dispose()
    except (OSError, ImportError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        raise UserError(
            f"cannot open the MLflow database {shown_uri(uri)}: {one_line(error)}; check that the file or "
            "server is an MLflow database and that you may write to it, or give another tracking URI"
        ) from error
    except MlflowException as error:
        raise UserError(
            f"cannot use the MLflow database {shown_uri(uri)}: {_version_problem(uri) or one_line(error)}"
        ) from error


@contextlib.contextmanager
def _connection(uri: str) -> Iterator[sqlalchemy.Connection]:
    """Connection to a database, closed after the with block together with its engine's pool."""
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _version_problem(uri: str) -> str | None:
    """Problem and remedy of a database of another MLflow version, None if the version is right."""
    with _connection(uri) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    migrations = ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))
    if found is None or found == migrations.get_current_head():
        return None
    try:
        migrations.get_revision(found)
    except CommandError:
        return f"a newer MLflow than this one ({mlflow.__version__}) wrote it (schema {found}): install that version"
    return (
        f"an older MLflow than this one ({mlflow.__version__}) wrote it: make a backup, and then run "
        + module_command("mlflow", "db", "upgrade", shown_uri(uri))
    )


def _configure_mlflow() -> None:
    # Of an environment file with the line ends of Windows, or of `cat token`; a header cannot hold them.
    for name in _CREDENTIALS:
        if os.environ.get(name):
            os.environ[name] = strip(os.environ[name])
    # 2 s of retries if a server is down, instead of 4 minutes by MLflow's defaults.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    # Includes the time in which a server passes an uploaded file on to its object store.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true").lower() == "true":
        mlflow.telemetry.set_telemetry_client()
    # Their errors are raised as well, and shown as one line.
    for name, level in {
        "mlflow": logging.WARNING,
        "mlflow.store.db.utils": logging.CRITICAL,
        "alembic": logging.WARNING,
        "urllib3.connectionpool": logging.ERROR,
    }.items():
        logging.getLogger(name).setLevel(level)
