"""The way into MLflow: where runs are recorded, and how journal entries are written there.

Runs are written through MlflowClient alone. MLflow's fluent API keeps an active run per process and takes over what
else in the process logs; its asynchronous logging does not batch and loses data silently.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
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
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from tandem.errors import UserError, one_line
from tandem.tracking import vocabulary
from tandem.tracking.journal import Entry, Journal
from tandem.tracking.provenance import without_password
from tandem.tracking.views import experiment_tags

UNAUTHORIZED = 401
PROBE_SECONDS = 5  # how long a server may take to answer at all before it counts as unreachable
ENTRIES_PER_BATCH = 2000

# Limits of one log_batch request (mlflow.utils.validation).
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
TAGS_PER_REQUEST = 100

Item = TypeVar("Item")


class Outage(Exception):
    """MLflow does not answer: what is left has to be sent later."""


def resolve_uri(uri: str | None) -> str:
    """The tracking URI to use: the given one, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder.

    Returns:
        the URI; the file of a sqlite URI is absolute.

    Raises:
        UserError: MLflow could not keep runs there.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or vocabulary.DEFAULT_URI
    scheme = chosen.partition(":")[0].partition("+")[0] if "://" in chosen else ""
    if scheme in ("http", "https"):
        return chosen.rstrip("/")
    if scheme in ("postgresql", "mysql", "mssql"):
        return chosen
    if scheme == "sqlite":
        database = sqlalchemy.make_url(chosen).database
        if database and database != ":memory:":
            return f"sqlite:///{Path(database).expanduser().absolute()}"
    raise UserError(
        f"MLflow cannot keep runs in this tracking URI: received {without_password(chosen)!r}, allowed are "
        "sqlite:///FILE.db, http(s)://HOST:PORT of an MLflow server, and postgresql://...; "
        f"to keep runs on this machine use {vocabulary.DEFAULT_URI}"
    )


def database_file(uri: str) -> Path | None:
    """The file of a resolved sqlite URI, None for other URIs."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def artifact_root(uri: str) -> Path | None:
    """Where files of runs in a resolved URI go: beside a sqlite file, None where a server decides."""
    if uri.startswith(("http://", "https://")):
        return None
    # For a database MLflow would take ./mlruns of whichever folder the first process was started in.
    database = database_file(uri)
    return (database.parent if database else Path.cwd()) / "mlartifacts"


def connect(uri: str) -> MlflowClient:
    """A client of the MLflow at a resolved URI, which answers; a sqlite database is made when there is none.

    Raises:
        UserError: it does not answer within about ten seconds, refuses, or is not MLflow.
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
    """Turns what MLflow, its database or the network raise into a UserError of one line."""
    try:
        yield
    except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
        if getattr(error, "get_http_status_code", lambda: None)() == UNAUTHORIZED:
            raise UserError(
                f"MLflow at {without_password(uri)} does not take this user name and password: set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of an account there"
            ) from error
        raise UserError(
            f"MLflow at {without_password(uri)} refused: {one_line(error)}; "
            "check the URI, its credentials, and that it is an MLflow 3 server or database"
        ) from error


def find_or_create_experiment(client: MlflowClient, name: str) -> Experiment:
    """The experiment of this name, made when there is none, by whichever process is first.

    Raises:
        UserError: it was deleted, or keeps its files where this client cannot write.
    """
    uri = client.tracking_uri
    refusal = ""
    with explained(uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            root = artifact_root(uri)
            location = root / re.sub(r"[^\w.-]", "_", name) if root else None
            try:
                client.create_experiment(
                    name, artifact_location=location.as_uri() if location else None, tags=experiment_tags()
                )
            except MlflowException as error:
                refusal = one_line(error)
            experiment = client.get_experiment_by_name(name)  # another process may have been faster
    if experiment is None:
        raise UserError(
            f"MLflow at {without_password(uri)} did not create the experiment {name!r}: {refusal}; where that is not "
            "about room or rights, try another name"
        )
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the experiment {name!r} was deleted in MLflow at {without_password(uri)}: give another name with "
            f"--tracking.experiment, or bring it back with: MLFLOW_TRACKING_URI={without_password(uri)} "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    if artifact_root(uri) and experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise UserError(
            f"the experiment {name!r} was made through an MLflow server, which alone can write its files: received "
            f"--tracking.uri {without_password(uri)}; give the server's address (http://...), or another "
            "--tracking.experiment"
        )
    return experiment


class RunWriter:
    """Writes journal entries to one run in MLflow, in order. Writing an entry twice does no harm."""

    def __init__(self, client: MlflowClient, *, run_id: str, experiment_id: str, folder: Path) -> None:
        """
        Args:
            folder: the run's folder, which relative paths of files in the journal start from.
        """
        self._client = client
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._folder = folder

    def send(self, pending: deque[Entry], journal: Journal, sent: Callable[[int], None] = lambda count: None) -> None:
        """Sends entries, in the order of their numbers, until none is pending, and marks in the journal what became of
        them.

        An entry that fails although MLflow answers is marked refused and passed over, so that one broken file does not
        keep back the rest of the run.

        Args:
            sent: called with the number of entries after each batch.

        Raises:
            Outage: MLflow does not answer. What it has not confirmed is still in `pending`.
        """
        one_by_one = 0
        while pending:
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

    def _check_that_mlflow_answers(self, error: Exception) -> None:
        try:
            self._client.get_run(self._run_id)
        except Exception:
            raise Outage(one_line(error)) from error

    def _write(self, batch: list[Entry]) -> None:
        entry = batch[0]
        match entry.kind:
            case "run":
                pass  # made before the journal was
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
        # MLflow keeps one input for a name and digest, so that the three parts share one context.
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


def write_model(
    client: MlflowClient, *, experiment_id: str, run_id: str, folder: Path, name: str, step: int = 0
) -> None:
    """Makes a folder that a save_model function of MLflow has written a logged model of a run; twice does no harm.

    Args:
        run_id: the run that made the model.
        folder: the model's files; its MLmodel, which names a run and a model, is rewritten on the way.
        name: the model's, used once in a run.
        step: of the run, at which it was made.
    """
    # An earlier attempt may have made it, and died before it could say so.
    logged = find_model(client, experiment_id=experiment_id, run_id=run_id, name=name) or client.create_logged_model(
        experiment_id, name=name, source_run_id=run_id
    )
    client.log_model_artifacts(logged.model_id, str(folder))
    description = Model.load(str(folder))
    description.run_id = run_id
    description.model_id = description.model_uuid = logged.model_id
    description.artifact_path = logged.artifact_location
    with tempfile.TemporaryDirectory() as scratch:
        description.save(str(Path(scratch) / "MLmodel"))
        client.log_model_artifact(logged.model_id, str(Path(scratch) / "MLmodel"))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    outputs = client.get_run(run_id).outputs
    if logged.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=step)])


def find_model(client: MlflowClient, *, experiment_id: str, run_id: str, name: str) -> LoggedModel | None:
    """The logged model of this name that a run has made, if there is one."""
    found = client.search_logged_models(
        [experiment_id], filter_string=f"name = '{name}' AND source_run_id = '{run_id}'", max_results=1
    )
    return found[0] if found else None


def _leading_batch(pending: deque[Entry]) -> list[Entry]:
    batch: list[Entry] = []
    for index in range(min(len(pending), ENTRIES_PER_BATCH)):  # other threads append: no iterating over it
        entry = pending[index]
        if entry.kind not in ("metrics", "params", "tags"):
            break
        batch.append(entry)
    return batch or [pending[0]]


def chunks(items: list[Item], size: int) -> Iterable[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _probe_server(uri: str) -> None:
    # MLflow's own client would wait for a silent server for minutes.
    try:
        requests.get(f"{uri}/health", timeout=PROBE_SECONDS)
    except requests.exceptions.SSLError:
        pass  # MLflow has its own settings for certificates: let it decide
    except requests.RequestException as error:
        raise UserError(
            f"no MLflow server answers at {without_password(uri)} ({type(error).__name__}): start it, check the "
            f"address, or record on this machine with --tracking.uri {vocabulary.DEFAULT_URI}"
        ) from error


def _prepare_database(uri: str) -> None:
    database = database_file(uri)
    try:
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # Four processes that open a fresh sqlite file at once all create its tables, and three of them die.
        with FileLock(f"{database}.lock") if database else contextlib.nullcontext():
            engine = sqlalchemy.create_engine(uri)
            # MLflow would try for a minute and a half to open what cannot be opened.
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA schema_version" if database else "SELECT 1"))
            engine.dispose()
            SqlAlchemyStore(uri, str(artifact_root(uri))).engine.dispose()
    except (OSError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise UserError(
            f"cannot open the MLflow database {without_password(uri)}: {one_line(error)}; check that the file or "
            "server is an MLflow database that you may write, or give another --tracking.uri"
        ) from error
    except MlflowException as error:
        raise UserError(
            f"cannot use the MLflow database {without_password(uri)}: {_what_to_do_with(uri) or one_line(error)}"
        ) from error


def _what_to_do_with(uri: str) -> str | None:
    """What a database of another MLflow version needs, None if the version is not what is wrong."""
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    migrations = ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))
    if found is None or found == migrations.get_current_head():
        return None
    try:
        migrations.get_revision(found)
    except CommandError:
        return (
            f"a newer MLflow than this one ({mlflow.__version__}) has written it (schema {found}): install that version"
        )
    return (
        f"it is of an older MLflow than this one ({mlflow.__version__}): make a backup, and then run "
        f"mlflow db upgrade {without_password(uri)}"
    )


def _configure_mlflow() -> None:
    # Retries of a dead server: 2 s in place of the 4 minutes of MLflow's defaults.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    # Also the time that a server may take to pass an uploaded file on to its object store.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true").lower() == "true":
        mlflow.telemetry.set_telemetry_client()
    # What matters of these is raised, and shown as one line.
    for name, level in {
        "mlflow": logging.WARNING,
        "mlflow.store.db.utils": logging.CRITICAL,
        "alembic": logging.WARNING,
        "urllib3.connectionpool": logging.ERROR,
    }.items():
        logging.getLogger(name).setLevel(level)
