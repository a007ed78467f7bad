"""Reads runs from MLflow: parameters, metrics and tags, files, curves, and weights of earlier runs."""

from __future__ import annotations

import atexit
import contextlib
import gc
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tandem.commands import script_command
from tandem.errors import UserError, is_full_disk, one_line
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, database_file, explained, resolve_uri
from tandem.tracking.numbers import read_numbers, without_numbers

RUNS_PER_PAGE = 5000  # MLflow allows 50,000; a server needs some seconds for 5,000


class NoRuns(UserError):
    """There are no runs to read: no store, no such experiment, or an experiment without runs of Tandem."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Row of a run in MLflow."""

    uri: str
    """Resolved tracking URI."""
    run_id: str
    name: str
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    start_time: int
    """Milliseconds since 1970, UTC."""
    params: dict[str, str]
    metrics: dict[str, float]
    """Last value of each metric, and the numbers of the whole run that MLflow has in tags."""
    tags: dict[str, str]
    artifact_uri: str


def read_runs(uri: str | None, experiment: str) -> list[RunRecord]:
    """Reads Tandem's training runs of an experiment, oldest first.

    Args:
        uri: The tracking URI; None as in the settings.
        experiment: The name of the experiment.

    Raises:
        NoRuns: There is no store yet, no such experiment, or no such run in it.
        UserError: MLflow does not answer.
    """
    client = connect_existing(uri)
    place = shown_uri(client.tracking_uri)
    with explained(client.tracking_uri), _garbage_collector_paused():
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage != "active":
            names = sorted(other.name for other in client.search_experiments())
            raise NoRuns(
                f"no experiment {experiment!r} in MLflow at {place}: there are {', '.join(names)}; give one of them"
            )
        records: list[RunRecord] = []
        token: str | None = None
        while True:
            page = client.search_runs(
                [found.experiment_id],
                # Excludes runs of other programs.
                filter_string=f"tags.`{vocabulary.FRAMEWORK}` LIKE '%'",
                max_results=RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            records += [_record_of(run, client.tracking_uri) for run in page]
            token = page.token
            if not token:
                break
    if not records:
        raise NoRuns(
            f"the experiment {experiment!r} in MLflow at {place} has no runs of Tandem: train some with "
            f"{script_command('train_torch.py', '--tracking.experiment', experiment)}, and likewise with train_keras.py"
        )
    return records


def metric_history(run: RunRecord, key: str) -> list[Metric]:
    """All values of a metric in the order of their steps; empty if the run lacks the metric."""
    with explained(run.uri):
        history = MlflowClient(tracking_uri=run.uri).get_metric_history(run.run_id, key)
    return sorted(history, key=lambda metric: (metric.step, metric.timestamp))


def download(run: RunRecord, artifact_path: str, folder: Path) -> Path:
    """Downloads a file or folder of a run's artifacts.

    Each download goes to a new subfolder: some artifact stores drop the path, and final/predictions.parquet of a run
    would replace its phase_1/predictions.parquet, or that of another run.

    Args:
        run: The run.
        artifact_path: The path among the run's artifacts.
        folder: The local parent folder, created if missing.

    Returns:
        The local path of the copy.

    Raises:
        UserError: The run has no such artifact, or its files cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _download(run.uri, run.run_id, run.artifact_uri, artifact_path, Path(tempfile.mkdtemp(dir=folder)))


def find_weights(uri: str | None, run: str, file: str) -> Path:
    """Finds a weights file of an earlier run; a downloaded copy is removed when the process ends.

    Args:
        uri: The tracking URI; None as in the settings.
        run: `runs:/<run id>`.
        file: The name of the file among the run's weights, which depends on the framework.

    Raises:
        UserError: `run` has another form, there is no such run, it has no weights, or only weights of the other
            framework.
    """
    matched = re.fullmatch(r"runs:/([0-9a-zA-Z_-]+)/?", run)
    if not matched:
        raise UserError(f"expected an earlier run as runs:/<run id>. Received: {run!r}")
    run_id = matched[1]
    client = connect_existing(uri)
    artifact_uri = _get_run(client, run_id).artifact_uri
    with explained(client.tracking_uri):
        names = [file.path for file in client.list_artifacts(run_id)]
    if vocabulary.WEIGHTS_FOLDER not in names:
        raise UserError(
            f"the run {run_id} has no artifact {vocabulary.WEIGHTS_FOLDER}: it has {', '.join(names) or 'none'}; "
            "give a finished run that logged its weights (tracking.log_weights; in a grid --keep_models)"
        )
    folder = _download(client.tracking_uri, run_id, artifact_uri, vocabulary.WEIGHTS_FOLDER, temporary_folder())
    if not (folder / file).is_file():
        raise UserError(
            f"the run {run_id} has the weights {', '.join(sorted(path.name for path in folder.iterdir()))}, but no "
            f"{file}: give a run of the same framework"
        )
    return folder / file


def find_run(uri: str | None, run_id: str) -> RunRecord:
    """Finds a training run by its id.

    Args:
        uri: The tracking URI; None as in the settings.
        run_id: The id.

    Raises:
        UserError: There is no such run.
    """
    return _get_run(connect_existing(uri), run_id)


def _get_run(client: MlflowClient, run_id: str) -> RunRecord:
    try:
        return _record_of(client.get_run(run_id), client.tracking_uri)
    except MlflowException as error:
        raise UserError(
            f"there is no run {run_id} in MLflow at {shown_uri(client.tracking_uri)}: copy the run id from the "
            "MLflow UI, and check the tracking URI"
        ) from error


def _record_of(run: MlflowRun, uri: str) -> RunRecord:
    return RunRecord(
        uri=uri,
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start_time=run.info.start_time,
        params=run.data.params,
        metrics=read_numbers(run),
        tags=without_numbers(run.data.tags),
        artifact_uri=run.info.artifact_uri,
    )


@contextlib.contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    """Pauses Python's garbage collector, which scans all objects repeatedly as MLflow creates a hundred per run.

    Without the pause this takes 60 % of the time of reading a sqlite store, and frees nothing (docs/performance.md).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def connect_existing(uri: str | None) -> MlflowClient:
    """Connects to an MLflow that has runs.

    Args:
        uri: The tracking URI; None as in the settings.

    Raises:
        NoRuns: There is no database yet.
        UserError: MLflow does not answer.
    """
    resolved = resolve_uri(uri)
    database = database_file(resolved)
    if database and not database.exists():
        raise NoRuns(
            f"there are no runs yet: no file {database}; train some with {script_command('train_torch.py')}, or give "
            "the place of existing runs as the tracking URI or MLFLOW_TRACKING_URI"
        )
    return connect(resolved)


def _download(uri: str, run_id: str, artifact_uri: str, artifact_path: str, folder: Path) -> Path:
    try:
        # the run's id instead of its artifact URI would cost another request for the run
        source = f"{artifact_uri}/{artifact_path}"
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=uri))
    except Exception as error:  # each kind of artifact store raises errors of its own
        if is_full_disk(error):
            raise UserError(
                f"the disk is full at {folder}, where {artifact_path} of run {run_id} was to be copied: make room, or "
                "set TMPDIR to a folder on another disk"
            ) from error
        raise UserError(
            f"cannot read the artifact {artifact_path} of run {run_id} from MLflow at "
            f"{shown_uri(uri)}: {one_line(error)}; fix that and repeat the command"
        ) from error


def temporary_folder() -> Path:
    """A new folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="tandem-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
