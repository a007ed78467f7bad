from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.errors import UserError
from tandem.launch.parent import ParentRun, mean_and_deviation, start_parent_run
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking import vocabulary
from tandem.tracking.reader import NoRuns, read_runs

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one store for all tests, since creating one takes seconds."""
    return tmp_path_factory.mktemp("store")


def settings_in(folder: Path, experiment: str) -> Settings:
    return Settings(tracking=TrackingSettings(uri=f"sqlite:///{folder / 'mlflow.db'}", experiment=experiment))


def add_child(parent: ParentRun, status: str = "FINISHED", **metrics: float) -> None:
    run = parent.run.client.create_run(parent.run.experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent.id})
    for name, value in metrics.items():
        parent.run.client.log_metric(run.info.run_id, name.replace("__", "/"), value)
    parent.run.client.set_terminated(run.info.run_id, status)


def test_parent_run_has_mean_and_deviation_of_finished_child_runs(folder: Path) -> None:
    settings = settings_in(folder, "folds")
    accuracies = [0.5, 0.75, 0.875]
    with start_parent_run(settings, framework="torch", what="seed 0, 3 folds") as parent:
        for accuracy in accuracies:
            add_child(parent, test__accuracy=accuracy, val__loss=1.0, cost__epochs=4.0)
            add_child(parent, status="FAILED", test__accuracy=0.0)
        num_children, summary = parent.log_mean_and_deviation()
    assert num_children == 3
    assert summary["cost/epochs"] == (4.0, 0.0)
    run = MlflowClient(tracking_uri=settings.tracking.uri).get_run(parent.id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "torch finetune mobilenet_v2, seed 0, 3 folds"
    assert run.data.tags[vocabulary.REPEATS] == "torch: seed 0, 3 folds"
    assert run.data.params["data.image_size"] == "224"
    assert run.data.metrics == {
        "mean/test/accuracy": pytest.approx(sum(accuracies) / 3),
        "std/test/accuracy": pytest.approx(statistics.stdev(accuracies)),
    }
    assert json.loads(run.data.tags["tandem.numbers.mean"]) == {"cost/epochs": 4.0}
    assert json.loads(run.data.tags["tandem.numbers.std"]) == {"cost/epochs": 0.0}
    (table,) = folder.glob(f"mlartifacts/*/{parent.id}/artifacts/numbers.csv")
    assert table.read_text().splitlines()[:2] == ["number,run,mean,std", "cost/epochs,,4.0,0.0"]


def test_comparisons_ignore_parent_runs(folder: Path) -> None:
    settings = settings_in(folder, "parents")
    with start_parent_run(settings, framework="keras", what="2 seeds"):
        pass
    with pytest.raises(NoRuns):
        read_runs(settings.tracking.uri, "parents")


@pytest.mark.parametrize(("error", "status"), [(UserError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_parent_run_never_stays_running(folder: Path, error: BaseException, status: str) -> None:
    settings = settings_in(folder, "ends")
    with pytest.raises(type(error)), start_parent_run(settings, framework="torch", what="2 seeds") as parent:
        raise error
    assert MlflowClient(tracking_uri=settings.tracking.uri).get_run(parent.id).info.status == status


def test_metric_that_a_child_run_lacks_has_no_mean() -> None:
    children = [{"test/accuracy": 0.5, "test/f1_macro": 0.4, "train/loss": 1.0}, {"test/accuracy": 1.0}]
    assert mean_and_deviation(children) == {"test/accuracy": (0.75, pytest.approx(0.5**0.5 / 2))}
    assert mean_and_deviation([{"test/accuracy": 0.5}]) == {"test/accuracy": (0.5, 0.0)}
    assert mean_and_deviation([]) == {}
