from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingPruned, UserError
from tandem.experiment import run_experiment
from tandem.experiment.run import train_trial
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import (
    AugmentationSettings,
    DataSettings,
    LossSettings,
    Settings,
    SweepSettings,
    TrackingSettings,
)
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tests.experiment.made_framework import MadeScript
from tests.small_runs import RecordingRun, small_settings


def settings_in(folder: Path, database: Path, **changes: Any) -> Settings:
    tracking = TrackingSettings(
        uri=f"sqlite:///{database}", folder=str(folder / "runs"), system_interval=60, data_report=False
    )
    return small_settings(folder / "cache", **{"tracking": tracking, **changes})


def runs_of(client: MlflowClient) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(experiments, order_by=["attributes.start_time ASC"])


def test_run_is_recorded_with_its_data_and_device(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    script = MadeScript()
    run_experiment(script.framework(), settings_in(tmp_path, database, device="gpu"))
    (run,) = runs_of(client)
    assert run.info.status == "FINISHED"
    tags = {"device": "gpu", "framework": "torch", "backend": "numpy", "data": "digits"}
    assert {name: run.data.tags[f"tandem.{name}"] for name in tags} == tags
    assert run.data.params["num_train_images"] == "30"
    assert script.calls == [f"run in {run.data.params['tracking.experiment']}"]


@pytest.mark.parametrize("find_learning_rate", [False, True])
def test_batch_that_does_not_fit_ends_a_run_in_one_line(
    find_learning_rate: bool, client: MlflowClient, database: Path, tmp_path: Path
) -> None:
    script = MadeScript()
    script.package.largest_batch = 7
    with pytest.raises(UserError, match=r"batch_size: received 8, .* does not fit .* smaller batch_size, such as 4"):
        run_experiment(script.framework(), settings_in(tmp_path, database, find_learning_rate=find_learning_rate))
    (run,) = runs_of(client)
    assert run.info.status == "FAILED" and "does not fit" in run.data.tags[vocabulary.FAILURE]


@pytest.mark.parametrize(("device", "place"), [("gpu", "a GPU"), ("cpu", "the CPU")])
def test_run_says_what_it_computes_on(
    device: str, place: str, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_experiment(MadeScript().framework(), settings_in(tmp_path, database, device=device))
    assert f"numpy {np.__version__} computes on {place}\n" in capsys.readouterr().err


def test_report_of_the_data_set_follows_the_run(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    tracking = TrackingSettings(uri=f"sqlite:///{database}", folder=str(tmp_path / "runs"), system_interval=60)
    run_experiment(MadeScript().framework(), settings_in(tmp_path, database, tracking=tracking))
    run, report = runs_of(client)
    assert vocabulary.FRAMEWORK in run.data.tags and vocabulary.DATA_REPORT in report.data.tags


def refuse(settings: Settings, data: PreparedData) -> None:
    raise UserError(f"num_devices: {len(data.rows('train'))} images are too few")


@pytest.mark.parametrize(
    ("changes", "hooks", "message"),
    [
        ({"backbone": "vgg16"}, {}, "numpy has no vgg16"),
        ({}, {"when_prepared": refuse}, "30 images are too few"),
        ({"regime": "off_the_shelf"}, {}, "5 of 5 classes match no single ImageNet class"),
        ({"data": DataSettings(source="lacking")}, {}, "received 'lacking'"),
        ({"loss": LossSettings(class_weights={"7": 2.0})}, {}, "received a weight for 7, allowed: .* 0, 1, 2, 3, 4"),
    ],
    ids=["backbone", "devices", "classes", "images", "weights"],
)
def test_wrong_settings_are_refused_before_a_run_is_created(
    changes: dict[str, Any],
    hooks: dict[str, Any],
    message: str,
    client: MlflowClient,
    database: Path,
    tmp_path: Path,
) -> None:
    script = MadeScript()
    with pytest.raises(UserError, match=message):
        run_experiment(script.framework(**hooks), settings_in(tmp_path, database, **changes))
    assert runs_of(client) == [] and script.calls == []


@pytest.mark.parametrize(("regime", "num_stores"), [("finetune", 2), ("off_the_shelf", 1)])
def test_only_training_stores_larger_images_for_crops(
    regime: str, num_stores: int, database: Path, tmp_path: Path, write_images: Any
) -> None:
    images = write_images({"goldfish": 12, "ostrich": 12}, size=(60, 48))
    data = DataSettings(source=str(images), image_size=32, cache_folder=str(tmp_path / "cache"))
    crops = AugmentationSettings(random_resized_crop=[0.5, 1.0])
    script = MadeScript()
    settings = settings_in(tmp_path, database, regime=regime, data=data, augmentation=crops)
    run_experiment(script.framework(), settings)
    assert len(list((tmp_path / "cache" / "stores").glob("*/images.npy"))) == num_stores


def test_range_test_takes_whole_batches_and_suggests_a_rate(
    client: MlflowClient, database: Path, tmp_path: Path
) -> None:
    script = MadeScript()
    run_experiment(script.framework(), settings_in(tmp_path, database, find_learning_rate=True))
    assert script.calls == ["build with random weights", "raise the rate of head"]
    assert script.batches[:5] == [8, 8, 8, 6, 8]  # the second epoch follows the first
    (run,) = runs_of(client)
    assert run.info.status == "FINISHED" and vocabulary.FRAMEWORK not in run.data.tags
    assert run.data.metrics[vocabulary.RANGE_SUGGESTION] > 0
    assert run.data.tags[vocabulary.DEVICE] == "cpu"


def test_sweep_trains_trials_as_in_new_processes(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    script = MadeScript()
    settings = settings_in(tmp_path, database, sweep=SweepSettings(num_trials=2))
    framework = script.framework(before_trial=lambda: script.calls.append("forget"))
    run_experiment(framework, settings)
    trial = ["forget", "set up with seed 0", "build with random weights", "train head", "train all"]
    assert script.calls == 2 * trial
    assert script.batches == []  # no test image is predicted
    parent, *trials = runs_of(client)
    assert vocabulary.SWEEP in parent.data.tags
    assert [run.data.tags[vocabulary.TRIAL_STATE] for run in trials] == ["complete"] * 2


def test_trial_returns_the_outcome_of_its_last_phase(data: PreparedData, tmp_path: Path) -> None:
    script, run = MadeScript(), RecordingRun(tmp_path)
    outcome = train_trial(script.framework(), small_settings(), data, run, Curves(run))  # type: ignore[arg-type]
    assert outcome.epochs == 1
    assert [values["epoch/phase"] for _, values in run.logged] == [1, 2]
    assert run.tags[vocabulary.DEVICE] == "cpu"


def test_interrupted_trial_keeps_its_trained_phases(data: PreparedData, tmp_path: Path) -> None:
    script, settings = MadeScript(), small_settings()

    def train_phase(network: Any, phase: Phase, *arguments: Any) -> Any:
        if phase.number == 2:
            raise KeyboardInterrupt
        return script.train_phase(network, phase, *arguments)

    run = RecordingRun(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_trial(script.framework(train_phase=train_phase), settings, data, run, Curves(run))  # type: ignore[arg-type]
    script.calls = []
    curves = Curves(run)  # type: ignore[arg-type]
    train_trial(script.framework(), settings, data, run, curves)  # type: ignore[arg-type]
    assert script.calls == ["set up with seed 0", "build with random weights", "train all"]
    assert [row["phase"] for row in curves.rows] == [1, 2]


def test_pruned_trial_keeps_no_checkpoint(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    script = MadeScript()

    def train_phase(network: Any, phase: Phase, *arguments: Any) -> Any:
        if phase.number == 2:
            raise TrainingPruned("pruned after epoch 1")
        return script.train_phase(network, phase, *arguments)

    settings = settings_in(tmp_path, database, sweep=SweepSettings(num_trials=1))
    run_experiment(script.framework(train_phase=train_phase), settings)
    assert [run.data.tags.get(vocabulary.TRIAL_STATE) for run in runs_of(client)] == [None, "pruned"]
    assert list(tmp_path.glob("runs/*/*/journal.jsonl")) and not list(tmp_path.glob("runs/*/*/checkpoint"))
