"""Signals in the parts of a run that follow the training of a phase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tandem import interrupts
from tandem.data.prepare import PreparedData
from tandem.experiment import (
    Framework,
    Progress,
    explain_predictions,
    measure_inference_cost,
    predict_test,
    run_experiment,
    save_network,
)
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking.run import Run
from tests.experiment.made_framework import LinearNetwork, MadeScript
from tests.small_runs import small_settings


def framework_of(script: MadeScript) -> Framework:
    """The order of a run as in both training scripts."""

    def train_and_evaluate(settings: Settings, data: PreparedData, run: Run) -> None:
        network = script.build_network(settings, data, None)
        progress = Progress(framework, network, settings, run)
        for phase in progress.phases_left():
            if not progress.is_trained(phase):
                progress.add_outcome(script.train_phase(network, phase, settings, data, progress.curves))
            predictions = predict_test(framework, network, settings, data)
            progress.add_predictions(phase, predictions)
        save_network(framework, network, settings, data, run)
        cost = measure_inference_cost(framework, network, settings, data)
        explain_predictions(framework, network, settings, data, predictions, run)
        progress.record_end(data, predictions, cost)

    framework: Framework = script.framework(train_and_evaluate=train_and_evaluate)
    return framework


# The call in which the signal comes, of predict_batch or of the gradients, and the phases that are then trained. There
# are two batches of test images, and two phases.
PLACES = {
    "evaluation of the first phase": ("predict", 1, 1),
    "evaluation of the last phase": ("predict", 3, 2),
    "warm-up of the cost of inference": ("predict", 5, 2),
    "cost of inference": ("predict", 10, 2),
    "Grad-CAM": ("explain", 1, 2),
}


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=[pytest.mark.long] if "last" in place or "cost" in place else []) for place in PLACES],
)
def test_signal_ends_the_run_after_a_step_and_it_continues_from_its_last_phase(
    place: str, client: MlflowClient, database: Path, tmp_path: Path, interrupted: Callable[[], None]
) -> None:
    kind, number, num_trained = PLACES[place]
    script, calls = MadeScript(), {"predict": 0, "explain": 0}

    def count(name: str) -> None:
        calls[name] += 1
        if name == kind and calls[name] == number:
            interrupted()

    def predict_batch(network: LinearNetwork, settings: Settings, images: np.ndarray) -> np.ndarray:
        count("predict")
        return network(images)

    def explain(network: LinearNetwork, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count("explain")
        return images.astype(np.float32), np.ones(images.shape, np.float32)

    script.predict_batch = predict_batch  # type: ignore[method-assign]
    script.package.features_and_gradients = explain  # type: ignore[method-assign]
    tracking = TrackingSettings(
        uri=f"sqlite:///{database}", folder=str(tmp_path / "runs"), system_interval=60, data_report=False
    )
    settings = small_settings(tmp_path / "cache", tracking=tracking)
    with pytest.raises(interrupts.Interrupted) as caught:
        run_experiment(framework_of(script), settings)
    assert calls[kind] == number
    kept, command = caught.value.__notes__
    assert kept.startswith(f"kept: the training up to the end of phase {num_trained}, in ")
    assert command.startswith("to continue: python ")
    assert [run.info.status for run in runs_of(client)] == ["KILLED"]

    trained = [call for call in script.calls if call.startswith("train")]
    assert len(trained) == num_trained
    run_experiment(framework_of(script), settings)
    assert [call for call in script.calls if call.startswith("train")] == ["train head", "train all"]
    (run,) = runs_of(client)
    assert run.info.status == "FINISHED" and run.data.tags["tandem.resumed"] == "1"
    assert run.data.metrics["test/accuracy"] >= 0


def runs_of(client: MlflowClient) -> list[Any]:
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
