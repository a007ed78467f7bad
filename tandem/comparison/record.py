"""Records a comparison beside the runs that it compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import auxiliary_run
from tandem.tracking.mlflow_store import find_or_create_experiment
from tandem.tracking.reader import RunRecord


def record_comparison(runs: Sequence[RunRecord], experiment: str, page: Path) -> str:
    """Logs a comparison's page as an artifact of an auxiliary run, which the MLflow UI shows.

    Args:
        runs: The compared runs, at least one.
        experiment: The name of the experiment.
        page: The HTML file.

    Returns:
        The run's id.

    Raises:
        UserError: MLflow does not answer, or the page cannot be written there.
    """
    client = MlflowClient(tracking_uri=runs[0].uri)
    experiment_id = find_or_create_experiment(client, experiment).experiment_id
    tags = {vocabulary.COMPARISON: f"{len(runs)} runs"}
    with auxiliary_run(client, experiment_id, name="comparison", tags=tags) as run:
        run.log_artifacts([page])
    return run.id
