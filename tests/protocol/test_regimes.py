from __future__ import annotations

import typing
from typing import Any

import pytest

from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import Regime, Settings


@pytest.mark.parametrize(
    ("regime", "trainable"),
    [("scratch", ["all"]), ("frozen", ["head"]), ("two_stage", ["head", "all"]), ("finetune", ["all"])],
)
def test_phases_of_a_regime(regime: Any, trainable: list[str]) -> None:
    phases = phases_of(Settings(regime=regime, learning_rate=0.02, max_epochs=7))
    assert [phase.trainable for phase in phases] == trainable
    assert [phase.number for phase in phases] == list(range(1, len(trainable) + 1))
    assert [phase.max_epochs for phase in phases] == [7] * len(trainable)


def test_every_regime_has_phases() -> None:
    for regime in typing.get_args(Regime):
        assert phases_of(Settings(regime=regime))


def test_thawed_phase_runs_at_a_tenth_of_the_rate() -> None:
    assert [phase.learning_rate for phase in phases_of(Settings(regime="two_stage", learning_rate=0.02))] == [
        0.02,
        pytest.approx(0.002, rel=1e-12),
    ]


def test_factor_of_the_thawed_phase_is_a_setting() -> None:
    settings = Settings(regime="two_stage", learning_rate=0.02, thawed_rate_factor=0.5)
    assert [phase.learning_rate for phase in phases_of(settings)] == [0.02, 0.01]


@pytest.mark.parametrize("regime", ["scratch", "frozen", "finetune"])
def test_first_phase_runs_at_the_full_rate(regime: Any) -> None:
    settings = Settings(regime=regime, learning_rate=0.02, thawed_rate_factor=0.5)
    assert [phase.learning_rate for phase in phases_of(settings)] == [0.02]
