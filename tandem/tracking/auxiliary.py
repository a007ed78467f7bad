"""Runs in MLflow that are not a trained network: parents of several runs, sweeps, comparisons, reports on data."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from tandem import interrupts
from tandem.errors import UserError
from tandem.files import write_text
from tandem.output import warn
from tandem.tracking import vocabulary
from tandem.tracking.creation import create_run
from tandem.tracking.mlflow_store import METRICS_PER_REQUEST, PARAMS_PER_REQUEST, chunks, explained
from tandem.tracking.numbers import Numbers
from tandem.tracking.provenance import parameter_text
from tandem.tracking.start import status_after


@dataclass(frozen=True, kw_only=True)
class AuxiliaryRun:
    """Open run that is not a trained network."""

    client: MlflowClient
    experiment_id: str
    id: str

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Logs metrics with the current time.

        Raises:
            UserError: MLflow does not answer or refuses one.
        """
        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, 0) for name, value in values.items()]
        with explained(self.client.tracking_uri):
            for some_metrics in chunks(metrics, METRICS_PER_REQUEST):
                self.client.log_batch(self.id, metrics=some_metrics)

    def log_numbers(self, values: Mapping[str, float]) -> None:
        """Logs numbers of the whole run once: as metrics what people chart, the others in tags, all in a file.

        Raises:
            UserError: MLflow does not answer or refuses one.
        """
        numbers = Numbers()
        metrics, tags = numbers.add(values)
        self.log_metrics(metrics)
        with explained(self.client.tracking_uri):
            for tag, text in tags.items():
                self.client.set_tag(self.id, tag, text)
        with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
            file = Path(folder) / vocabulary.NUMBERS_FILE
            write_text(file, numbers.table())
            self.log_artifacts([file])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters: strings, numbers, lists, None.

        Raises:
            UserError: MLflow does not answer or refuses one.
        """
        params = [Param(name, parameter_text(value)) for name, value in values.items()]
        with explained(self.client.tracking_uri):
            for some_params in chunks(params, PARAMS_PER_REQUEST):
                self.client.log_batch(self.id, params=some_params)

    def log_artifacts(self, paths: Iterable[Path]) -> None:
        """Uploads files, and folders under their own names.

        Raises:
            UserError: MLflow does not answer, or the files cannot be written.
        """
        try:
            with explained(self.client.tracking_uri):
                for path in paths:
                    interrupts.check()
                    self.client.log_artifact(self.id, str(path))
        except OSError as error:
            raise UserError(
                f"{path.name} cannot be written to the artifacts of the MLflow run {self.id}: {error}; make room or "
                "fix the permissions there, or give another experiment"
            ) from error


@contextlib.contextmanager
def auxiliary_run(
    client: MlflowClient,
    experiment_id: str,
    *,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any] | None = None,
    continued: str | None = None,
    in_use: Callable[[], bool] = lambda: False,
) -> Iterator[AuxiliaryRun]:
    """Run that is not a trained network, open for the length of a with block.

    It has no framework tag, by which comparisons and grids find trained networks. It ends as training runs do:
    FINISHED; FAILED after an exception; KILLED after Ctrl-C, SIGTERM or SIGHUP. The exception propagates;
    a signal becomes an Interrupted.

    Args:
        client: A client of the MLflow that records the run.
        experiment_id: The experiment of the run.
        name: The run's name in the MLflow UI.
        tags: The run's tags, one of which says what it is.
        params: The run's parameters, if any.
        continued: The id of an earlier run to continue in place of a new one; name, tags and parameters are then
            those it has.
        in_use: Asked when the block ends: True if other processes still use the run, which then stays RUNNING.

    Raises:
        UserError: MLflow does not answer or refuses the run. After an exception of the block, a run that cannot be
            ended is a warning instead.
    """
    with interrupts.watch():
        with explained(client.tracking_uri):
            if continued is None:
                run_id = create_run(client, experiment_id, name=name, tags=tags)
            else:
                run_id = continued
                client.update_run(run_id, status="RUNNING")
        run = AuxiliaryRun(client=client, experiment_id=experiment_id, id=run_id)
        try:
            if continued is None and params:
                run.log_params(params)
            yield run
            interrupts.check()
            stays = in_use()
        except BaseException as error:
            interrupts.handled()
            try:
                if not _is_true(in_use):
                    _terminate(run, status_after(error))
            except UserError as failure:  # the exception of the block matters more
                warn(f"the run {run.id} was not ended in MLflow: {failure}")
            raise
        if not stays:
            _terminate(run, "FINISHED")


def _is_true(in_use: Callable[[], bool]) -> bool:
    try:
        return in_use()
    except Exception:  # what made the block fail may be what answers this
        return False


def _terminate(run: AuxiliaryRun, status: str) -> None:
    with explained(run.client.tracking_uri):
        run.client.set_terminated(run.id, status)
