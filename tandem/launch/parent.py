"""Parent run in MLflow, with one child run per seed and fold, and their mean and standard deviation."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.protocol.settings import Settings, flatten
from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import AuxiliaryRun, auxiliary_run
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.numbers import read_numbers
from tandem.tracking.provenance import hide_password, method_title


@dataclass(frozen=True)
class ParentRun:
    """Run that is open while its children are trained."""

    run: AuxiliaryRun

    @property
    def id(self) -> str:
        return self.run.id

    def finished_children(self) -> list[dict[str, float]]:
        """Final numbers of each finished child."""
        client = self.run.client
        with explained(client.tracking_uri):
            runs = client.search_runs(
                [self.run.experiment_id],
                filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.id}' AND attributes.status = 'FINISHED'",
            )
        return [read_numbers(run) for run in runs]

    def log_mean_and_deviation(self) -> tuple[int, dict[str, tuple[float, float]]]:
        """Logs mean and standard deviation of the scores and costs that all finished children have.

        Returns:
            The number of children that are finished in MLflow; mean and standard deviation by name. The deviation
            is that of a sample (n - 1), 0 for a single child.
        """
        children = self.finished_children()
        summary = mean_and_deviation(children)
        self.run.log_numbers(
            {
                f"{statistic}/{name}": value
                for name, both in summary.items()
                for statistic, value in zip(vocabulary.STATISTICS, both, strict=True)
            }
        )
        return len(children), summary


@contextlib.contextmanager
def start_parent_run(settings: Settings, *, framework: str, what: str) -> Iterator[ParentRun]:
    """Parent run for the length of a with block; see auxiliary_run for how it ends.

    Args:
        settings: The settings that all children share.
        framework: torch or keras, the children's.
        what: The children in words, such as "3 seeds"; part of the run's name.

    Raises:
        UserError: MLflow does not answer or cannot be written.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    experiment = find_or_create_experiment(client, settings.tracking.experiment)
    name = settings.tracking.run_name or method_title(settings, framework)
    with auxiliary_run(
        client,
        experiment.experiment_id,
        name=f"{name}, {what}",
        tags={vocabulary.REPEATS: f"{framework}: {what}"},
        params=flatten(hide_password(settings)),
    ) as run:
        yield ParentRun(run)


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
