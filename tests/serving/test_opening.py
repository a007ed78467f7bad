from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.serving.opening import open_models
from tests.serving.logged import DESCRIPTION, log_run
from tests.serving.mean_colours import mean_colours
from tests.small_runs import random_images

pytestmark = pytest.mark.usefixtures("own_environment")

IMAGES = random_images(3, shape=(20, 20, 3))


def test_model_of_a_run_is_opened_with_its_description(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path, resize="crop")
    (model,) = open_models([f"runs:/{run_id}"], client.tracking_uri)
    assert (model.description.run_id, model.description.resize) == (run_id, "crop")
    assert np.array_equal(model.network(IMAGES), mean_colours(IMAGES))


def test_model_of_an_older_version_is_described_by_its_run(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path, older=True)
    (model,) = open_models([f"runs:/{run_id}"], client.tracking_uri)
    expected = {**DESCRIPTION.to_dict(), "run_id": run_id, "scaling": "auto"}
    assert model.description.to_dict() == expected
    assert np.array_equal(model.network(IMAGES), mean_colours(IMAGES))


def test_mlflow_loads_the_model_and_predicts_files(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path)
    mlflow.set_tracking_uri(client.tracking_uri)
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    red = np.zeros((9, 30, 3), np.uint8)
    red[..., 0] = 255
    assert model.predict([red, red[..., ::-1]])["class"].tolist() == ["cat", "owl"]
    assert model.metadata.metadata["tandem"]["classes"] == ["cat", "dog", "owl"]


def test_registered_model_is_opened_by_its_alias(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path)
    (output,) = client.get_run(run_id).outputs.model_outputs
    client.create_registered_model("pets")
    location = client.get_logged_model(output.model_id).artifact_location
    client.create_model_version("pets", location, run_id, model_id=output.model_id)
    client.set_registered_model_alias("pets", "best", "1")
    (model,) = open_models(["models:/pets@best"], client.tracking_uri)
    assert model.description.run_id == run_id


def test_missing_models_are_named(client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("bare", (tmp_path / "artifacts").as_uri())
    bare = client.create_run(experiment, tags={"tandem.framework": "torch"}, run_name="bare").info.run_id
    for name, message in (
        ("runs:/0123", "there is no run 0123"),
        (f"runs:/{bare}", r"\(bare, RUNNING\) has logged no model; give a finished run"),
        ("models:/nothing@best", "cannot read models:/nothing@best from MLflow"),
        ("nowhere.onnx", "there is no file nowhere.onnx"),
        ("nowhere", "received the model 'nowhere'; allowed: runs:/RUN_ID"),
    ):
        with pytest.raises(UserError, match=message):
            open_models([name], client.tracking_uri)
