"""Trains a phase whose time is up after a number of steps, in either framework."""

from __future__ import annotations

import pytest

from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import EarlyStoppingSettings, OptimizerSettings
from tandem.recording.run import PhaseOutcome
from tandem.tracking.curves import Curves
from tandem.tracking.time_limit import PhaseTimeLimit
from tests.small_runs import RecordingRun, small_settings


def train(framework: Framework, data: PreparedData, *, over_at: int, max_epochs: int) -> tuple[PhaseOutcome, Curves]:
    """Trains everything, in 4 steps per epoch, until the time limit has been asked `over_at` times.

    It is asked after each step but an epoch's last one, and at the end of each epoch but the last one.
    """
    num_asked = 0

    def is_over(limit: PhaseTimeLimit, epoch_seconds: float = 0.0) -> bool:
        nonlocal num_asked
        num_asked += 1
        assert num_asked <= over_at, "the phase goes on"
        return num_asked == over_at

    settings = small_settings(
        regime="finetune",
        max_epochs=max_epochs,
        max_minutes=1,
        learning_rate=0.01,
        optimizer=OptimizerSettings(name="sgd", momentum=0.0),
        early_stopping=EarlyStoppingSettings(restore="last"),
    )
    framework.set_up(settings)
    network, curves = framework.build_network(settings, data, None), Curves(RecordingRun())  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhaseTimeLimit, "is_over", is_over)
        outcome = framework.train_phase(network, phases_of(settings)[0], settings, data, curves)
    return outcome, curves


def check_phase_ends_within_an_epoch(framework: Framework, data: PreparedData) -> None:
    outcome, curves = train(framework, data, over_at=6, max_epochs=9)  # after two of the second epoch's four steps
    assert outcome.ended_by_time_limit
    assert outcome.epochs == len(curves.rows) == 2
    correct = curves.rows[1]["train/accuracy"] * 16  # of two batches of 8 images
    assert correct == pytest.approx(round(correct), abs=1e-4)
    whole, _ = train(framework, data, over_at=8, max_epochs=9)  # at the end of the second epoch
    assert whole.ended_by_time_limit and whole.epochs == 2
    assert whole.backbone_after != outcome.backbone_after


def check_first_epoch_can_be_cut_short(framework: Framework, data: PreparedData) -> None:
    outcome, curves = train(framework, data, over_at=1, max_epochs=9)
    assert (outcome.epochs, outcome.best_epoch, len(curves.rows)) == (1, 0, 1)
    assert outcome.ended_by_time_limit
    assert outcome.backbone_before != outcome.backbone_after


def check_phase_that_ends_by_itself_is_not_marked(framework: Framework, data: PreparedData) -> None:
    outcome, _ = train(framework, data, over_at=8, max_epochs=2)  # asked 3 + 1 + 3 times
    assert not outcome.ended_by_time_limit and outcome.epochs == 2
