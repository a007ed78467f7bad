"""Parent run in MLflow of a sweep's trials."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from tandem.errors import UserError
from tandem.protocol.settings import Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import AuxiliaryRun, auxiliary_run
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import hide_password, method_title
from tandem.tracking.unfinished import process_tag


@dataclass(frozen=True)
class SweepRun:
    """Run that is open while this process, and perhaps others, train trials."""

    run: AuxiliaryRun

    @property
    def id(self) -> str:
        return self.run.id

    def log_results(self, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
        """Logs the results so far; later files replace earlier ones."""
        self.run.log_metrics(metrics)
        self.run.log_artifacts(files)

    def end_lost_trial(self, run_id: str, reason: str) -> None:
        """Ends the run of a trial whose process died."""
        client = self.run.client
        with explained(client.tracking_uri):
            client.set_tag(run_id, vocabulary.FAILURE, reason)
            client.set_terminated(run_id, "KILLED")


@contextlib.contextmanager
def start_sweep_run(
    settings: Settings, *, framework: str, study: str, continued: str | None, in_use: Callable[[], bool]
) -> Iterator[SweepRun]:
    """Parent run of a study's trials for the length of a with block; see auxiliary_run for how it ends.

    Args:
        settings: The sweep's settings.
        framework: torch or keras.
        study: The study's name.
        continued: The id of the run that the study has already; None to create one.
        in_use: True if other processes still train trials of the study.

    Raises:
        UserError: MLflow does not answer, cannot be written, or does not have the run to continue.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    if continued is not None:
        try:
            client.get_run(continued)
        except MlflowException as error:
            raise UserError(
                f"sweep.study: the run {continued} that holds the trials of study {study!r} is not in this MLflow; "
                "give the --tracking.uri that the sweep was started with, or another --sweep.study"
            ) from error
        with explained(client.tracking_uri):
            for name, value in process_tag(of_several=True).items():
                client.set_tag(continued, name, value)
    experiment = find_or_create_experiment(client, settings.tracking.experiment)
    with auxiliary_run(
        client,
        experiment.experiment_id,
        name=settings.tracking.run_name or f"{method_title(settings, framework)}, sweep",
        tags={vocabulary.SWEEP: f"{framework}: {study}", **process_tag(of_several=True)},
        params=flatten(hide_password(settings)),
        continued=continued,
        in_use=in_use,
    ) as run:
        yield SweepRun(run)
