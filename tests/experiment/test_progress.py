from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tandem.data.prepare import PreparedData
from tandem.experiment import Progress, predict_test
from tandem.protocol.settings import Settings
from tests.experiment.made_framework import LinearNetwork, MadeScript
from tests.small_runs import RecordingRun, small_settings


def begin(script: MadeScript, settings: Settings, data: PreparedData, folder: Path) -> tuple[Progress, LinearNetwork]:
    network = script.build_network(settings, data, None)
    return Progress(script.framework(), network, settings, RecordingRun(folder)), network  # type: ignore[arg-type]


def test_run_continues_after_its_last_trained_phase(data: PreparedData, tmp_path: Path) -> None:
    script, settings = MadeScript(), small_settings(regime="two_stage")
    progress, network = begin(script, settings, data, tmp_path)
    first, second = progress.phases_left()
    assert not progress.is_trained(first)
    network.head = network.head + 1
    outcome = script.train_phase(network, first, settings, data, progress.curves)
    progress.add_outcome(dataclasses.replace(outcome, feature_seconds=3.0))
    # it is killed while the phase is evaluated
    continued, again = begin(script, settings, data, tmp_path)
    assert list(continued.phases_left()) == [first, second]
    assert continued.is_trained(first) and not continued.is_trained(second)
    assert np.array_equal(again.head, network.head)
    assert continued.curves.feature_seconds == 3
    assert continued.outcomes == progress.outcomes and continued.curves.rows == progress.curves.rows
    continued.add_predictions(first, predict_test(script.framework(), again, settings, data))
    (result,) = continued.results
    assert (result.number, result.trainable, result.epochs) == (1, "head", 1) and 0 <= result.scores["accuracy"] <= 1
    continued.add_outcome(script.train_phase(again, second, settings, data, continued.curves))
    # the last phase is evaluated again, for its predictions; the result of the first one is kept
    last, _ = begin(script, settings, data, tmp_path)
    assert list(last.phases_left()) == [second] and last.is_trained(second)
    assert last.results == [result]
