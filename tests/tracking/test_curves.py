from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pytest

from tandem.errors import TrainingDiverged, TrainingPruned
from tandem.protocol.regimes import Phase, phases_of
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tests.small_runs import RecordingRun, small_settings

HEAD, ALL = phases_of(small_settings(regime="two_stage"))


def add(curves: Curves, phase: Phase, val_loss: float, *, train_loss: float = 1.0, seconds: float = 1.0) -> None:
    curves.add(
        phase,
        learning_rate=0.1,
        seconds=seconds,
        train_loss=train_loss,
        train_accuracy=0.5,
        val_loss=val_loss,
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


@pytest.mark.parametrize(
    ("train_loss", "val_loss"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -math.inf)]
)
def test_diverged_epoch_is_logged_but_not_reported(train_loss: float, val_loss: float) -> None:
    seen: list[Mapping[str, float]] = []
    run = RecordingRun()
    curves = Curves(run, seen.append)  # type: ignore[arg-type]
    add(curves, HEAD, 1.0)
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 2 of the run: .*use a learning_rate below 0\.1"):
        add(curves, HEAD, val_loss, train_loss=train_loss)
    assert [row["epoch"] for row in seen] == [0]
    assert [step for step, _ in run.logged] == [0, 1]


def test_seconds_are_those_of_the_phase() -> None:
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    for phase, seconds in ((HEAD, 1.5), (HEAD, 2.5), (ALL, 4.0)):
        add(curves, phase, 1.0, seconds=seconds)
    assert curves.seconds_of(HEAD) == [1.5, 2.5]
    assert curves.seconds_of(ALL) == [4.0]


def test_each_epoch_is_a_line_that_counts_from_1_within_its_phase(capsys: pytest.CaptureFixture[str]) -> None:
    head, everything = (dataclasses.replace(phase, max_epochs=30) for phase in (HEAD, ALL))
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    numbers = {"learning_rate": 0.1, "train_accuracy": 0.9}
    curves.add(head, seconds=4.2, train_loss=0.31, val_loss=0.4719, val_accuracy=0.75, **numbers)
    curves.add(head, seconds=12.345, train_loss=0.25, val_loss=0.4, val_accuracy=0.8, **numbers)
    curves.add(everything, seconds=0.05, train_loss=0.2, val_loss=0.3, val_accuracy=0.85, **numbers)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "epoch  1/30  loss 0.310  val_loss 0.472  val_acc 0.750  4.2 s",
        "epoch  2/30  loss 0.250  val_loss 0.400  val_acc 0.800  12.3 s",
        "phase 2, epoch  1/30  loss 0.200  val_loss 0.300  val_acc 0.850  0.05 s",
    ]


def test_quiet_curves_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    add(Curves(RecordingRun(), quiet=True), HEAD, 1.0)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")
