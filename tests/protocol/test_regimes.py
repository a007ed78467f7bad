from __future__ import annotations

import typing
from typing import Any

import pytest

from tandem.protocol.regimes import Phase, num_cached_views, phases_of, split_blocks
from tandem.protocol.settings import (
    AugmentationSettings,
    LossSettings,
    MixingSettings,
    PhaseSettings,
    Regime,
    Settings,
)

HEAD = PhaseSettings(trainable="head")


@pytest.mark.parametrize(
    ("regime", "trainable"),
    [
        ("off_the_shelf", []),
        ("scratch", ["all"]),
        ("frozen", ["head"]),
        ("two_stage", ["head", "all"]),
        ("finetune", ["all"]),
    ],
)
def test_phases_of_a_regime(regime: Any, trainable: list[str]) -> None:
    phases = phases_of(Settings(regime=regime, learning_rate=0.02, max_epochs=7))
    assert [phase.trainable for phase in phases] == trainable
    assert [phase.number for phase in phases] == list(range(1, len(trainable) + 1))
    assert [phase.max_epochs for phase in phases] == [7] * len(trainable)
    assert [phase.blocks for phase in phases] == [None] * len(trainable)


def test_every_regime_that_trains_has_phases() -> None:
    without = [regime for regime in typing.get_args(Regime) if not phases_of(Settings(regime=regime, phases=[HEAD]))]
    assert without == ["off_the_shelf"]


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


def test_gradual_phases_are_those_of_the_settings() -> None:
    listed = [
        HEAD,
        PhaseSettings(trainable="last", blocks=2, learning_rate=0.005),
        PhaseSettings(trainable="all", max_epochs=3),
    ]
    settings = Settings(regime="gradual", phases=listed, learning_rate=0.02, max_epochs=7, thawed_rate_factor=0.5)
    assert phases_of(settings) == (
        Phase(number=1, trainable="head", learning_rate=0.02, max_epochs=7),
        Phase(number=2, trainable="last", blocks=2, learning_rate=0.005, max_epochs=7),
        Phase(number=3, trainable="all", learning_rate=0.02, max_epochs=3),
    )


@pytest.mark.parametrize(
    ("trainable", "blocks", "num_frozen", "words"),
    [
        ("head", None, 4, "head"),
        ("last", 1, 3, "last 1 block"),
        ("last", 3, 1, "last 3 blocks"),
        ("last", 4, 0, "last 4 blocks"),
        ("last", 9, 0, "last 9 blocks"),
        ("all", None, 0, "all"),
    ],
)
def test_phase_freezes_the_blocks_before_those_that_it_trains(
    trainable: Any, blocks: int | None, num_frozen: int, words: str
) -> None:
    names = ["stem", "first", "second", "third"]
    phase = Phase(number=1, trainable=trainable, blocks=blocks, learning_rate=1, max_epochs=1)
    assert split_blocks(phase, names) == (names[:num_frozen], names[num_frozen:])
    assert phase.words == words


FLIPPED = AugmentationSettings(horizontal_flip=True)


@pytest.mark.parametrize(
    ("changes", "views"),
    [
        ({"regime": "frozen"}, [1]),
        ({"regime": "two_stage"}, [1, 0]),
        ({"regime": "finetune"}, [0]),
        ({"regime": "gradual", "phases": [HEAD, PhaseSettings(trainable="last", blocks=1)]}, [1, 0]),
        ({"regime": "frozen", "cache_features": False}, [0]),
        ({"regime": "frozen", "augmentation": FLIPPED}, [0]),
        ({"regime": "frozen", "mixing": MixingSettings(mixup_alpha=0.2)}, [0]),
        ({"regime": "frozen", "mixing": MixingSettings(cutmix_alpha=1.0)}, [0]),
        ({"regime": "frozen", "loss": LossSettings(label_smoothing=0.1), "sampling": "balanced"}, [1]),
        ({"regime": "two_stage", "augmentation": FLIPPED, "cache_views": 4}, [4, 0]),
        # no epoch would see the others
        ({"regime": "frozen", "augmentation": FLIPPED, "cache_views": 40, "max_epochs": 10}, [10]),
    ],
)
def test_features_are_cached_if_the_whole_backbone_is_frozen(changes: dict[str, Any], views: list[int]) -> None:
    settings = Settings(**changes)
    assert [num_cached_views(phase, settings) for phase in phases_of(settings)] == views
