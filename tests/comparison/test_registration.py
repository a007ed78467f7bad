from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from compare import main
from tandem.errors import UserError
from tandem.serving.opening import open_models
from tests.serving.logged import log_run
from tests.serving.mean_colours import mean_colours
from tests.small_runs import random_images

pytestmark = pytest.mark.usefixtures("own_environment")


def compare(client: MlflowClient, tmp_path: Path, *words: str) -> None:
    main(["--experiment", "mine", "--tracking_uri", client.tracking_uri, "--output", str(tmp_path / "tables"), *words])


def test_recommended_model_is_registered_with_its_reasons(
    client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_run(client, tmp_path, regime="finetune")  # gets two images of three right
    best = log_run(client, tmp_path, regime="scratch")  # gets all right
    compare(client, tmp_path, "--register", "pets")
    assert f"Registered run {best} as version 1 of pets: models:/pets@recommended" in capsys.readouterr().out
    version = client.get_model_version_by_alias("pets", "recommended")
    assert (version.run_id, int(version.version)) == (best, 1)
    assert (
        "accuracy: 1.00 [" in version.description and "among the 2 rows of the experiment mine" in version.description
    )
    assert "The most accurate is scratch torch" in version.description
    assert version.tags == {"tandem.framework": "torch", "tandem.data": "photographs"}
    (model,) = open_models(["models:/pets@recommended"], client.tracking_uri)
    images = random_images(2, shape=(20, 20, 3))
    assert np.array_equal(model.network(images), mean_colours(images))

    compare(client, tmp_path, "--register", "pets")
    assert int(client.get_model_version_by_alias("pets", "recommended").version) == 2


def test_run_without_a_model_cannot_be_registered(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path, with_model=False)
    with pytest.raises(UserError, match=rf"the recommended run {run_id} \(small\) has logged no model"):
        compare(client, tmp_path, "--register", "pets")


def test_nothing_is_registered_where_there_are_no_runs(client: MlflowClient, tmp_path: Path) -> None:
    client.create_experiment("mine")
    with pytest.raises(UserError, match="has no runs of Tandem"):
        compare(client, tmp_path, "--register", "pets")
