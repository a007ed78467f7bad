from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from tandem.errors import TrainingDiverged, TrainingPruned
from tandem.protocol.regimes import phases_of
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tests.small_runs import RecordingRun, small_settings

HEAD, ALL = phases_of(small_settings(regime="two_stage"))


def add(curves: Curves, phase: object, loss: float) -> None:
    curves.add(
        phase,  # type: ignore[arg-type]
        learning_rate=0.1,
        seconds=1.0,
        train_loss=loss,
        train_accuracy=0.5,
        val_loss=loss,
        val_accuracy=0.5,
    )


def test_each_epoch_is_reported_with_its_number_over_all_phases() -> None:
    seen: list[tuple[float, float, float]] = []
    curves = Curves(
        RecordingRun(),  # type: ignore[arg-type]
        lambda row: seen.append((row["epoch"], row["phase"], row[vocabulary.VAL_LOSS])),
    )
    for phase, loss in ((HEAD, 3.0), (HEAD, 2.0), (ALL, 1.0)):
        add(curves, phase, loss)
    assert seen == [(0, 1, 3.0), (1, 1, 2.0), (2, 2, 1.0)]


def test_epoch_is_logged_before_a_sweep_prunes_the_training() -> None:
    run = RecordingRun()

    def prune(_: Mapping[str, float]) -> None:
        raise TrainingPruned("enough")

    with pytest.raises(TrainingPruned):
        add(Curves(run, prune), HEAD, 1.0)  # type: ignore[arg-type]
    assert [step for step, _ in run.logged] == [0]


def test_loss_that_is_not_a_number_is_not_reported() -> None:
    seen: list[Mapping[str, float]] = []
    with pytest.raises(TrainingDiverged):
        add(Curves(RecordingRun(), seen.append), HEAD, math.nan)  # type: ignore[arg-type]
    assert seen == []
