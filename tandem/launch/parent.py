"""A run in MLflow that holds others, one for each seed and fold, and what they have in common."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.protocol.settings import Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import (
    METRICS_PER_REQUEST,
    PARAMS_PER_REQUEST,
    chunks,
    connect,
    explained,
    find_or_create_experiment,
    resolve_uri,
)
from tandem.tracking.provenance import hide_password, parameter_text

MEAN_PREFIX, DEVIATION_PREFIX = "mean/", "std/"


@dataclass(frozen=True, kw_only=True)
class ParentRun:
    """The run that is going on while its children are trained."""

    client: MlflowClient
    experiment_id: str
    id: str

    def finished_children(self) -> list[dict[str, float]]:
        """The final metrics of each child that has finished."""
        with explained(self.client.tracking_uri):
            runs = self.client.search_runs(
                [self.experiment_id],
                filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.id}' AND attributes.status = 'FINISHED'",
            )
        return [run.data.metrics for run in runs]

    def log_mean_and_deviation(self) -> tuple[int, dict[str, tuple[float, float]]]:
        """Logs mean and standard deviation of the scores and costs that all finished children have.

        Returns:
            The number of children that MLflow knows to have finished; and both of each metric. The deviation is that of
            a sample (n - 1), 0 for a single child.
        """
        children = self.finished_children()
        summary = mean_and_deviation(children)
        now = int(time.time() * 1000)
        metrics = [
            Metric(prefix + name, value, now, 0)
            for name, both in summary.items()
            for prefix, value in zip((MEAN_PREFIX, DEVIATION_PREFIX), both, strict=True)
        ]
        with explained(self.client.tracking_uri):
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                self.client.log_batch(self.id, metrics=metrics[start : start + METRICS_PER_REQUEST])
        return len(children), summary


@contextlib.contextmanager
def start_parent_run(settings: Settings, *, framework: str, what: str) -> Iterator[ParentRun]:
    """A run of its own for the length of a with block: FINISHED, FAILED after an exception, or KILLED by Ctrl-C.

    It has no tag with a framework, so that no comparison takes it for a trained network.

    Args:
        framework: torch or keras; of its children.
        what: of what there is a child each, as words for a name.

    Raises:
        UserError: MLflow does not answer or cannot be written.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    experiment = find_or_create_experiment(client, settings.tracking.experiment)
    name = settings.tracking.run_name or f"{settings.backbone}-{settings.regime}-{framework}"
    with explained(client.tracking_uri):
        created = client.create_run(
            experiment.experiment_id, run_name=f"{name}, {what}", tags={vocabulary.REPEATS: f"{framework}: {what}"}
        )
        params = [Param(key, parameter_text(value)) for key, value in flatten(hide_password(settings)).items()]
        for some_params in chunks(params, PARAMS_PER_REQUEST):
            client.log_batch(created.info.run_id, params=some_params)
    parent = ParentRun(client=client, experiment_id=experiment.experiment_id, id=created.info.run_id)
    status = "FINISHED"
    try:
        yield parent
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        raise
    finally:
        with explained(client.tracking_uri):
            client.set_terminated(parent.id, status)


def mean_and_deviation(children: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of each score and cost that all children have; empty without children."""
    kinds = (vocabulary.TEST_PREFIX, vocabulary.COST_PREFIX)
    names = [
        name
        for name in (children[0] if children else {})
        if name.startswith(kinds) and all(name in c for c in children)
    ]
    return {name: _mean_and_deviation([child[name] for child in children]) for name in sorted(names)}


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
