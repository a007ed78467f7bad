"""Runs and models that are created once in MLflow, even if the answer of a server is lost."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary


def create_run(
    client: MlflowClient, experiment_id: str, *, name: str, tags: Mapping[str, str], start_time: int | None = None
) -> str:
    """Creates one run, even if the answer of a server is lost.

    MLflow's client then asks again, and the server has two runs, one of which would be RUNNING for ever. So the request
    has a number among the run's tags, which is removed when it is clear which run counts.

    Args:
        client: A client of the MLflow that gets the run.
        experiment_id: Its experiment.
        name: Its name.
        tags: Its tags.
        start_time: Milliseconds since 1970; None for now.

    Returns:
        The run's id.
    """
    options: dict[str, Any] = {"run_name": name, "start_time": start_time}
    if not client.tracking_uri.startswith(("http://", "https://")):
        return str(client.create_run(experiment_id, tags=dict(tags), **options).info.run_id)
    number = uuid.uuid4().hex
    failure, run_id = None, ""
    try:
        run_id = client.create_run(experiment_id, tags={**tags, vocabulary.REQUEST: number}, **options).info.run_id
    except MlflowException as error:
        failure = error
    try:
        found = [
            run.info.run_id
            for run in client.search_runs([experiment_id], filter_string=f"tags.`{vocabulary.REQUEST}` = '{number}'")
        ]
    except MlflowException:
        found = []
    if failure is not None and not found:
        raise failure
    run_id = run_id or found[0]
    with contextlib.suppress(MlflowException):
        for other in found:
            if other != run_id:
                client.delete_run(other)
        client.delete_tag(run_id, vocabulary.REQUEST)
    return run_id


def write_model(
    client: MlflowClient, *, experiment_id: str, run_id: str, folder: Path, name: str, step: int = 0
) -> None:
    """Uploads a folder that a save_model function of MLflow wrote, as a logged model; repeating it has no effect.

    Args:
        client: A client of the MLflow that has the run.
        experiment_id: The run's experiment.
        run_id: The run that produced the model.
        folder: The model's files. The uploaded MLmodel file names this run and the new model.
        name: The model's name, unique within the run.
        step: The run's step at which the model was produced.
    """
    # An earlier attempt may have created the model and died before it was confirmed.
    logged = find_model(client, experiment_id=experiment_id, run_id=run_id, name=name)
    if logged is None:
        logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
        for other in _find_models(client, experiment_id=experiment_id, run_id=run_id, name=name):
            if other.model_id != logged.model_id:  # the answer was lost, and the client has asked again
                client.delete_logged_model(other.model_id)
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
    """Logged model of a run by its name, None if there is none."""
    return next(iter(_find_models(client, experiment_id=experiment_id, run_id=run_id, name=name)), None)


def _find_models(client: MlflowClient, *, experiment_id: str, run_id: str, name: str) -> list[LoggedModel]:
    filter_string = f"name = '{name}' AND source_run_id = '{run_id}'"
    return list(client.search_logged_models([experiment_id], filter_string=filter_string))
