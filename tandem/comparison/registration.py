"""Registers the recommended model of a comparison in MLflow's model registry."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from tandem.comparison.comparison import Comparison, GroupComparison
from tandem.comparison.recommended import recommended_row, recommended_run
from tandem.errors import UserError
from tandem.rendering.tables import Kind, Value, format_value
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import explained

ALIAS = "recommended"

LONGEST_DESCRIPTION = 4900
"""Characters; MLflow's databases keep 5,000."""


def register_recommended(comparison: Comparison, experiment: str, name: str) -> str:
    """Registers the model of the recommended run as a new version, and moves the alias to it.

    Args:
        comparison: Of the experiment.
        experiment: Name of the experiment.
        name: Name of the registered model, created if there is none.

    Returns:
        A line that names the version and the run.

    Raises:
        UserError: There is no single recommendation, its run has logged no model, or MLflow refuses.
    """
    group, run = recommended_run(comparison, experiment)
    client = MlflowClient(tracking_uri=run.uri, registry_uri=run.uri)
    with explained(run.uri):
        outputs = client.get_run(run.run_id).outputs
        models = outputs.model_outputs if outputs else []
        if not models:
            raise UserError(
                f"--register: the recommended run {run.run_id} ({run.name}) has logged no model; train it again with "
                "tracking.log_model (in a grid --keep_models)"
            )
        logged = client.get_logged_model(models[-1].model_id)
        _create(client, name, experiment)
        version = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=run.run_id,
            model_id=logged.model_id,
            description=describe(group, experiment),
            tags={key: run.tags[key] for key in (vocabulary.FRAMEWORK, vocabulary.DATA_NAME) if key in run.tags},
        )
        client.set_registered_model_alias(name, ALIAS, version.version)
    return f"Registered run {run.run_id} as version {version.version} of {name}: models:/{name}@{ALIAS}"


def describe(group: GroupComparison, experiment: str) -> str:
    """The description of the version in Markdown: the recommendation, and the row's numbers."""
    row = recommended_row(group)
    measured: tuple[tuple[str, Value, Kind], ...] = (
        ("accuracy", row.score("accuracy"), "score"),
        ("macro F1", row.score("f1_macro"), "score"),
        ("worst-class F1", row.score("f1_min"), "score"),
        ("training", row.mean(vocabulary.TRAIN_SECONDS), "seconds"),
        ("latency", row.mean(vocabulary.LATENCY_MILLISECONDS), "milliseconds"),
        ("parameters", row.mean(vocabulary.PARAMETERS), "amount"),
    )
    numbers = [
        f"- {name}: {format_value(value, kind, row.decimals)}" for name, value, kind in measured if value is not None
    ]
    text = (
        f"{row.label}, recommended by compare.py for {group.group.title} among the {len(group.analysis.rows)} rows of "
        f"the experiment {experiment}.\n\n" + "\n".join(numbers)
    )
    for sentence in group.recommendation:
        if len(text) + len(sentence) > LONGEST_DESCRIPTION:
            break
        text += f"\n\n{sentence}"
    return text + "\n"


def _create(client: MlflowClient, name: str, experiment: str) -> None:
    try:
        client.create_registered_model(name, description=f"Recommended by compare.py for the experiment {experiment}.")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
