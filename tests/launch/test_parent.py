from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.errors import UserError
from tandem.launch import parent as parent_module
from tandem.launch.parent import ParentRun, mean_and_deviation, start_parent_run
from tandem.protocol.repeats import Repeat
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking import vocabulary
from tandem.tracking.process import this_process
from tandem.tracking.reader import NoRuns, read_runs
from tandem.tracking.unfinished import RUNNING, read_record
from tests.processes import dead_process

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


# ------------------------------------------------------------------------------------------------------- continuation


@contextmanager
def interrupted(settings: Settings, error: BaseException | None = None) -> Iterator[ParentRun]:
    with (
        pytest.raises(KeyboardInterrupt if error is None else type(error)),
        start_parent_run(settings, framework="torch", what="2 seeds") as parent,
    ):
        yield parent
        raise error or KeyboardInterrupt


def run_of(parent: ParentRun) -> MlflowRun:
    return parent.run.client.get_run(parent.id)


def add_finished(parent: ParentRun, seed: int, fold: int | None = None, **metrics: float) -> None:
    run = parent.run.client.create_run(parent.run.experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent.id})
    parent.run.client.log_param(run.info.run_id, "seed", json.dumps(seed))
    parent.run.client.log_param(run.info.run_id, "data.fold", json.dumps(fold))
    for name, value in metrics.items():
        parent.run.client.log_metric(run.info.run_id, name.replace("__", "/"), value)
    parent.run.client.set_terminated(run.info.run_id, "FINISHED")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("1 of 2 runs failed")])
def test_same_command_continues_the_parent_and_knows_its_finished_children(folder: Path, error: BaseException) -> None:
    settings = dataclasses.replace(settings_in(folder, f"continued {type(error).__name__}"), seeds=[1, 2])
    with interrupted(settings, error) as first:
        add_finished(first, seed=1, test__accuracy=0.5)
        assert not first.is_continued
    with start_parent_run(settings, framework="torch", what="2 seeds") as parent:
        assert parent.is_continued and parent.id == first.id
        assert run_of(parent).info.status == "RUNNING"
        assert parent.finished_repeats() == {Repeat(seed=1, fold=None)}
        add_finished(parent, seed=2, test__accuracy=1.0)
        assert parent.log_mean_and_deviation()[0] == 2
    run = run_of(parent)
    assert run.info.status == "FINISHED" and run.data.metrics["mean/test/accuracy"] == 0.75
    assert run.data.tags[vocabulary.RESUMED] == "1"
    assert not parent.folder.exists()
    with start_parent_run(settings, framework="torch", what="2 seeds") as another:  # a finished one is not continued
        assert another.id != parent.id


def test_parent_of_a_killed_process_is_continued(folder: Path) -> None:
    settings = settings_in(folder, "killed parent")
    with interrupted(settings) as first:
        pass
    record = read_record(first.folder)
    assert record is not None
    dataclasses.replace(record, state=RUNNING, process=this_process()).write(first.folder)
    with start_parent_run(settings, framework="torch", what="2 seeds") as another:
        assert another.id != first.id  # it may live
    dataclasses.replace(record, state=RUNNING, process=dead_process()).write(first.folder)
    with start_parent_run(settings, framework="torch", what="2 seeds") as parent:
        assert parent.id == first.id


@pytest.mark.parametrize(
    "changes",
    [
        {"resume": "never"},
        {"seeds": [1, 2, 3]},
        {"learning_rate": 0.5},
        {"log_weights": False},
    ],
    ids=str,
)
def test_other_commands_begin_a_new_parent(folder: Path, changes: dict[str, object]) -> None:
    settings = dataclasses.replace(settings_in(folder, f"others {changes}"), seeds=[1, 2])
    with interrupted(settings) as first:
        pass
    tracking = {name: changes.pop(name) for name in ("log_weights",) if name in changes}
    other = dataclasses.replace(settings, **changes, tracking=dataclasses.replace(settings.tracking, **tracking))  # type: ignore[arg-type]
    with start_parent_run(other, framework="torch", what="2 seeds") as parent:
        assert parent.id != first.id and not parent.is_continued


def test_parent_is_continued_on_request(folder: Path) -> None:
    settings = settings_in(folder, "request")
    with interrupted(settings) as first:
        pass
    with start_parent_run(dataclasses.replace(settings, resume=first.id), framework="torch", what="2 seeds") as parent:
        assert parent.id == first.id


def test_two_finished_children_of_a_seed_count_once(folder: Path) -> None:
    with start_parent_run(settings_in(folder, "twice"), framework="torch", what="2 seeds") as parent:
        for accuracy in (0.25, 0.75):
            add_finished(parent, seed=1, fold=3, test__accuracy=accuracy)
        assert parent.finished_repeats() == {Repeat(seed=1, fold=3)}
        assert parent.finished_children() == [{"test/accuracy": 0.75}]


def test_child_that_an_earlier_command_left_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_module, "SECONDS_TO_END", 0.2)
    settings = settings_in(folder, "left")
    with interrupted(settings) as first:
        child = first.run.client.create_run(first.run.experiment_id, tags={MLFLOW_PARENT_RUN_ID: first.id})
    with start_parent_run(settings, framework="torch", what="2 seeds") as parent:
        parent.run.client.set_tag(child.info.run_id, vocabulary.PROCESS, json.dumps(this_process()))
        with pytest.raises(UserError, match=f"{child.info.run_id} of an earlier command is still running"):
            parent.wait_for_children()
        parent.run.client.set_tag(child.info.run_id, vocabulary.PROCESS, json.dumps(dead_process()))
        parent.wait_for_children()
