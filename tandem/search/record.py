"""The run in MLflow that holds those of a sweep's trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import (
    PARAMS_PER_REQUEST,
    chunks,
    connect,
    explained,
    find_or_create_experiment,
    resolve_uri,
)
from tandem.tracking.provenance import hide_password, parameter_text


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """The run that is going on while trials are trained, by this process and perhaps by others."""

    client: MlflowClient
    id: str

    def log_results(self, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
        """Logs what the trials have come to so far; later files replace earlier ones."""
        now = int(time.time() * 1000)
        with explained(self.client.tracking_uri):
            self.client.log_batch(self.id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
            for file in files:
                self.client.log_artifact(self.id, str(file))

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED; another process, or this command later, may go on."""
        with explained(self.client.tracking_uri):
            self.client.set_terminated(self.id, status)

    def end_lost_trial(self, run_id: str, reason: str) -> None:
        """Ends the run of a trial whose process could not."""
        with explained(self.client.tracking_uri):
            self.client.set_tag(run_id, vocabulary.FAILURE, reason)
            self.client.set_terminated(run_id, "KILLED")


def create_sweep_run(settings: Settings, *, framework: str, study: str) -> SweepRun:
    """A new run for the trials of a study.

    It has no tag with a framework, so that no comparison takes it for a trained network.

    Raises:
        UserError: MLflow does not answer or cannot be written.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    experiment = find_or_create_experiment(client, settings.tracking.experiment)
    name = settings.tracking.run_name or f"{settings.backbone}-{settings.regime}-{framework}, sweep"
    params = [Param(key, parameter_text(value)) for key, value in flatten(hide_password(settings)).items()]
    with explained(client.tracking_uri):
        created = client.create_run(
            experiment.experiment_id, run_name=name, tags={vocabulary.SWEEP: f"{framework}: {study}"}
        )
        for some_params in chunks(params, PARAMS_PER_REQUEST):
            client.log_batch(created.info.run_id, params=some_params)
    return SweepRun(client=client, id=created.info.run_id)


def continue_sweep_run(settings: Settings, *, run_id: str, study: str) -> SweepRun:
    """The run that was made for a study before, which is running again.

    Raises:
        UserError: MLflow does not answer, or does not know the run.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        raise UserError(
            f"sweep.study: the run {run_id} that holds the trials of study {study!r} is not in this MLflow; give the "
            "--tracking.uri that the sweep was started with, or another --sweep.study"
        ) from error
    return SweepRun(client=client, id=run_id)
