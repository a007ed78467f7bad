"""Records the report on a data set once, in the experiment of the runs that use it."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import auxiliary_run
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.unfinished import process_tag


def log_data_report(
    uri: str | None,
    experiment: str,
    *,
    name: str,
    split_hash: str,
    params: Mapping[str, Any],
    lock_folder: Path | None = None,
    make: Callable[[Path], Mapping[str, float]],
) -> str | None:
    """Logs the report on a data set as an auxiliary run, unless the experiment has one for the same images and split.

    Of several processes that do this at the same moment on one machine, or with one cache, the first one logs it.

    Args:
        uri: The tracking URI; None as in the settings.
        experiment: The name of the experiment.
        name: The name of the data set.
        split_hash: The hash of every image, its class and its part; one report is recorded per hash.
        params: The settings that define the data set.
        lock_folder: The cache of the images, where the process that makes the report keeps a lock; None for no lock.
        make: Writes the report's files into an empty folder and returns its numbers by name, without a prefix; called
            only if a report is to be recorded.

    Returns:
        The run's id, None where the experiment has the report already or another process is making it.

    Raises:
        UserError: MLflow does not answer, or its experiment or its files cannot be written.
    """
    client = connect(resolve_uri(uri))
    experiment_id = find_or_create_experiment(client, experiment).experiment_id
    with _only_one(lock_folder, client.tracking_uri, experiment_id, split_hash) as is_own:
        if not is_own or _has_report(client, experiment_id, split_hash):
            return None
        return _log(client, experiment_id, name=name, split_hash=split_hash, params=params, make=make)


@contextlib.contextmanager
def _only_one(folder: Path | None, *names: str) -> Iterator[bool]:
    """True in the with block for one process at a time with these names."""
    if folder is None:
        yield True
        return
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    lock = FileLock(folder / f"report-{digest}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError:  # a cache that this user cannot write
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def _log(
    client: MlflowClient,
    experiment_id: str,
    *,
    name: str,
    split_hash: str,
    params: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, float]],
) -> str:
    with tempfile.TemporaryDirectory(prefix="tandem-data-report-") as folder:
        numbers = make(Path(folder))
        tags = {vocabulary.DATA_REPORT: split_hash, vocabulary.DATA_NAME: name, vocabulary.SPLIT_HASH: split_hash}
        tags |= process_tag()  # a killed process's run is marked by the next run of the experiment
        with auxiliary_run(client, experiment_id, name=f"data set: {name}", tags=tags, params=params) as run:
            run.log_metrics({vocabulary.DATA_PREFIX + key: value for key, value in numbers.items()})
            run.log_artifacts(sorted(Path(folder).iterdir()))
    return run.id


def _has_report(client: MlflowClient, experiment_id: str, split_hash: str) -> bool:
    # one that failed, or whose process was killed, is made again
    wanted = f"tags.`{vocabulary.DATA_REPORT}` = '{split_hash}' AND attributes.status = 'FINISHED'"
    with explained(client.tracking_uri):
        return bool(client.search_runs([experiment_id], filter_string=wanted, max_results=1))
