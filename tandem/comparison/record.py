"""Records a comparison beside the runs that it compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import explained, find_or_create_experiment
from tandem.tracking.reader import RunRecord


def record_comparison(runs: Sequence[RunRecord], experiment: str, page: Path) -> str:
    """Logs a comparison's page as an artifact of a run of its own, which the MLflow UI shows.

    The run has no tag with a framework, so that no later comparison takes it for one of a network.

    Args:
        runs: of the experiment, at least one.
        experiment: its name.
        page: the HTML file.

    Returns:
        The run's id.

    Raises:
        UserError: MLflow does not answer, or the page cannot be written there.
    """
    client = MlflowClient(tracking_uri=runs[0].uri)
    found = find_or_create_experiment(client, experiment)
    with explained(client.tracking_uri):
        run = client.create_run(
            found.experiment_id, run_name="comparison", tags={vocabulary.COMPARISON: f"{len(runs)} runs"}
        )
        client.log_artifact(run.info.run_id, str(page))
        client.set_terminated(run.info.run_id)
    return run.info.run_id
