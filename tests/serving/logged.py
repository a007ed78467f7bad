"""Finished runs with a logged model, without a framework."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from tandem.evaluation.predictions import Predictions
from tandem.serving.image_model import Description
from tandem.serving.logged_model import save_image_model
from tandem.tracking.creation import write_model
from tests.serving import mean_colours
from tests.serving.photographs import CLASSES

DESCRIPTION = Description(
    classes=CLASSES,
    height=20,
    width=20,
    resize="squash",
    pixel_range=None,
    max_pixels=178_956_970,
    batch_size=4,
    framework="torch",
    backbone="mobilenet_v2",
    regime="scratch",
    image_size=20,
    scaling="torch",
    data="photographs",
    split_hash="0123",
    run_id="4567",
)


def save_network(folder: Path) -> None:
    """Writes the MLflow model of mean_colours, as the framework's packages write theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder,
            loader_module="mean_colours",
            code_paths=[mean_colours.__file__],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *DESCRIPTION.image_shape))]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(CLASSES)))]),
            ),
            pip_requirements=["numpy"],
        )


def log_run(
    client: MlflowClient,
    scratch: Path,
    *,
    experiment: str = "mine",
    with_model: bool = True,
    older: bool = False,
    **changes: Any,
) -> str:
    """Creates a finished run with a model, and returns its id.

    Args:
        client: A client of its MLflow.
        scratch: A folder for files on their way.
        experiment: Name of the experiment.
        with_model: Logs a model.
        older: Logs the network alone, as earlier versions did.
        **changes: Fields of the model's description.
    """
    found = client.get_experiment_by_name(experiment)
    experiment_id = (
        found.experiment_id if found else client.create_experiment(experiment, (scratch / "artifacts").as_uri())
    )
    description = dataclasses.replace(DESCRIPTION, **changes)
    tags = {
        "tandem.framework": description.framework,
        "tandem.data": "photographs",
        "tandem.split_hash": "0123",
        "tandem.test_hash": "4567",
    }
    run_id = client.create_run(experiment_id, tags=tags, run_name="small").info.run_id
    params = {"backbone": "mobilenet_v2", "regime": description.regime, "data.resize": "squash", "batch_size": "4"}
    for name, value in {**params, "data.image_size": "20", "pixel_scaling": "auto", "seed": "0"}.items():
        client.log_param(run_id, name, value)
    work = scratch / f"work-{run_id}"
    work.mkdir()
    save_network(work / "network")
    folder = work / "network"
    if not older:
        folder = work / "model"
        save_image_model(work / "network", dataclasses.replace(description, run_id=run_id), folder)
    if with_model:
        write_model(client, experiment_id=experiment_id, run_id=run_id, folder=folder, name="model")
    predictions = Predictions(
        keys=("a", "b", "c"),
        hashes=("1", "2", "3"),
        truth=np.array([0, 1, 2]),
        probabilities=np.eye(3, dtype=np.float32)[[0, 1, 2 if description.regime == "scratch" else 1]],
        classes=CLASSES,
    )
    predictions.write(work / "predictions.parquet")
    client.log_artifact(run_id, str(work / "predictions.parquet"), "final")
    client.log_metric(run_id, "test/accuracy", float((predictions.predicted == predictions.truth).mean()))
    client.set_terminated(run_id, "FINISHED")
    return str(run_id)
