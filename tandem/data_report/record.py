"""Records the report of a data set beside the runs that use it, once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from tandem.errors import UserError
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import parameter_text


def log_data_report(
    uri: str | None,
    experiment: str,
    *,
    name: str,
    split_hash: str,
    params: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, float]],
) -> str | None:
    """Logs a data set's report as a run of its own, unless the experiment has one of the same images and split.

    The run has no tag with a framework, so that no comparison takes it for one of a network. Two processes that come to
    this at the same moment both log one, which does no harm.

    Args:
        uri: tracking URI; None as in the settings.
        experiment: its name.
        name: of the data set.
        split_hash: of every image, its class and its part: what is not recorded twice.
        params: what the data set was made from.
        make: writes the report's files into an empty folder and returns its numbers, by names without a prefix; called
            only if there is something to be recorded.

    Returns:
        The run's id, None where the experiment has the report already.

    Raises:
        UserError: MLflow does not answer, or its experiment or its files cannot be written.
    """
    client = connect(resolve_uri(uri))
    experiment_id = find_or_create_experiment(client, experiment).experiment_id
    if _has_report(client, experiment_id, split_hash):
        return None
    with tempfile.TemporaryDirectory(prefix="tandem-data-report-") as folder:
        numbers = make(Path(folder))
        with explained(client.tracking_uri):
            tags = {vocabulary.DATA_REPORT: split_hash, vocabulary.DATA_NAME: name, vocabulary.SPLIT_HASH: split_hash}
            run_id = client.create_run(experiment_id, run_name=f"data set: {name}", tags=tags).info.run_id
            try:
                now = get_current_time_millis()
                client.log_batch(
                    run_id,
                    params=[Param(key, parameter_text(value)) for key, value in params.items()],
                    metrics=[Metric(vocabulary.DATA_PREFIX + key, value, now, 0) for key, value in numbers.items()],
                )
                client.log_artifacts(run_id, folder)
            except OSError as error:
                client.set_terminated(run_id, "FAILED")
                raise UserError(
                    f"the data set's report cannot be written to the artifacts of the experiment {experiment!r}: "
                    f"{error}; make room or mend the rights there, or give another experiment"
                ) from error
            except BaseException:
                client.set_terminated(run_id, "FAILED")
                raise
            client.set_terminated(run_id)
    return run_id


def _has_report(client: MlflowClient, experiment_id: str, split_hash: str) -> bool:
    # one that failed, or whose process was killed, is made again
    wanted = f"tags.`{vocabulary.DATA_REPORT}` = '{split_hash}' AND attributes.status = 'FINISHED'"
    with explained(client.tracking_uri):
        return bool(client.search_runs([experiment_id], filter_string=wanted, max_results=1))
