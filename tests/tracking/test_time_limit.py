from __future__ import annotations

import pytest

from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import PhaseSettings, Settings
from tandem.tracking.curves import Curves
from tandem.tracking.time_limit import PhaseTimeLimit
from tests.small_runs import RecordingRun

LOSSES = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}


def curves_of(settings: Settings, *seconds_of_phases: list[float], feature_seconds: float = 0.0) -> Curves:
    """Curves whose epochs took these seconds, in lists of one phase each."""
    curves = Curves(RecordingRun(), quiet=True)  # type: ignore[arg-type]
    curves.feature_seconds = feature_seconds
    for phase, seconds in zip(phases_of(settings), seconds_of_phases, strict=False):
        for each in seconds:
            curves.add(phase, learning_rate=0.1, seconds=each, **LOSSES)
    return curves


def limit_of(settings: Settings, phase: int, curves: Curves, feature_seconds: float = 0.0) -> PhaseTimeLimit:
    return PhaseTimeLimit(settings, phases_of(settings)[phase - 1], curves, feature_seconds=feature_seconds)


def longest(limit: PhaseTimeLimit) -> float:
    """Seconds of an epoch under way at which the limit is over, to a tenth."""
    tenths = next(tenths for tenths in range(10_000) if limit.is_over(tenths / 10))
    return tenths / 10


def test_single_phase_has_all_of_the_time() -> None:
    settings = Settings(regime="finetune", max_minutes=2)
    assert longest(limit_of(settings, 1, curves_of(settings))) == 120
    assert longest(limit_of(settings, 1, curves_of(settings, [50, 30]))) == 40


def test_thawed_phase_has_the_time_that_the_head_left() -> None:
    settings = Settings(regime="two_stage", max_minutes=2)
    assert longest(limit_of(settings, 1, curves_of(settings))) == 60
    assert longest(limit_of(settings, 2, curves_of(settings, [10, 20]))) == 90
    assert longest(limit_of(settings, 2, curves_of(settings, [10, 20], [70]))) == 20


def test_each_of_three_phases_has_an_equal_part_of_what_is_left() -> None:
    phases = [PhaseSettings(trainable=name) for name in ("head", "all", "all")]  # type: ignore[arg-type]
    settings = Settings(regime="gradual", phases=phases, max_minutes=3)
    assert longest(limit_of(settings, 1, curves_of(settings))) == 60
    assert longest(limit_of(settings, 2, curves_of(settings, [20]))) == 80
    assert longest(limit_of(settings, 3, curves_of(settings, [20], [81]))) == 79


def test_computing_features_counts_in_their_phase_and_before_later_ones() -> None:
    settings = Settings(regime="two_stage", max_minutes=2)
    curves = curves_of(settings, [10])
    assert longest(limit_of(settings, 1, curves, feature_seconds=30)) == 20
    assert longest(limit_of(settings, 2, curves)) == 80


def test_phase_after_one_that_took_too_long_is_over_at_once() -> None:
    settings = Settings(regime="two_stage", max_minutes=1)
    assert longest(limit_of(settings, 2, curves_of(settings, [70]))) == 0


def test_without_a_limit_no_phase_is_over() -> None:
    settings = Settings(regime="finetune")
    limit = limit_of(settings, 1, curves_of(settings, [1e9]))
    assert not limit.is_set and not limit.is_over(1e9)


@pytest.mark.parametrize("quiet", [False, True])
def test_end_of_a_phase_is_said_unless_curves_are_quiet(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(regime="two_stage", max_minutes=1)
    curves = curves_of(settings)
    curves.quiet = quiet
    limit = limit_of(settings, 2, curves)
    assert not limit.is_reached
    limit.end_phase()
    assert limit.is_reached
    assert capsys.readouterr().err == ("" if quiet else "The time limit (max_minutes) ends phase 2\n")
