from __future__ import annotations

import time

import numpy as np
import pytest

from tandem.data.features import PhaseFeatures
from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.experiment import PhaseMeter
from tandem.protocol.regimes import Phase
from tandem.recording.run import PhaseOutcome
from tests.experiment.made_framework import LinearNetwork, MadePackage
from tests.small_runs import small_settings

PHASE = Phase(number=1, trainable="last", blocks=1, learning_rate=1e-3, max_epochs=3)
FEATURES = PhaseFeatures(seconds=8.0, cached_seconds=3.0, compile_seconds=0.25)


def measure(data: PreparedData, *, change: float = 0.0, seconds: float = 0.0) -> PhaseOutcome:
    """Measures a phase that adds a number to the frozen first row of the backbone, and one to its second row."""
    network = LinearNetwork(np.ones((2, 3)), np.ones((3, 5)))
    meter = PhaseMeter(MadePackage(), network, frozen=[[network.backbone[:1]]])
    assert meter.backbone_before == "6.0"
    stream = training_stream(small_settings(), data, PHASE)
    with meter.training():
        time.sleep(seconds)
        list(stream.epoch(0))
        network.backbone += [[change], [1.0]]
    return meter.outcome(epochs=3, best_epoch=1, compile_seconds=0.5, features=FEATURES, stream=stream)


def test_weights_are_hashed_before_and_after_the_phase(data: PreparedData) -> None:
    outcome = measure(data)
    assert (outcome.backbone_before, outcome.backbone_after) == ("6.0", "9.0")
    assert (outcome.frozen_before, outcome.frozen_after) == ("3.0", "3.0")


def test_changed_frozen_weights_have_another_hash(data: PreparedData) -> None:
    outcome = measure(data, change=2.0)
    assert (outcome.frozen_before, outcome.frozen_after) == ("3.0", "9.0")


def test_seconds_of_features_are_part_of_the_training(data: PreparedData) -> None:
    outcome = measure(data, seconds=0.1)
    assert 0.1 + 8.0 <= outcome.train_seconds < 8.5
    assert outcome.compile_seconds == 0.75
    assert (outcome.feature_seconds, outcome.cached_feature_seconds) == (8.0, 3.0)


def test_outcome_has_epochs_parameters_and_the_hash_of_the_batches(data: PreparedData) -> None:
    outcome = measure(data)
    assert (outcome.epochs, outcome.best_epoch) == (3, 1)
    assert (outcome.parameters, outcome.trainable_parameters) == (2 * 3 + 3 * 5, 3 * 5)
    stream = training_stream(small_settings(), data, PHASE)
    list(stream.epoch(0))
    assert outcome.first_epoch_hash == stream.first_epoch_hash is not None


def test_error_in_the_training_is_passed_on(data: PreparedData) -> None:
    network = LinearNetwork(np.ones((2, 3)), np.ones((3, 5)))
    with pytest.raises(KeyboardInterrupt), PhaseMeter(MadePackage(), network, frozen=[]).training():
        raise KeyboardInterrupt


def test_peak_memory_is_that_of_the_fit_alone(data: PreparedData) -> None:
    # before the fit, features were computed in larger batches, which took 1000 megabytes
    assert measure(data).peak_gpu_memory_megabytes == 7.0
