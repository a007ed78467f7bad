"""Regimes are lists of phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tandem.protocol.settings import Settings

Trainable = Literal["head", "all"]

TRAINABLE_OF_PHASES: dict[str, tuple[Trainable, ...]] = {
    "scratch": ("all",),
    "frozen": ("head",),
    "two_stage": ("head", "all"),
    "finetune": ("all",),
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with its own optimizer, callbacks and early stop."""

    number: int
    """Counted from 1."""
    trainable: Trainable
    """`head`: the backbone changes in nothing, batch-norm statistics included, and runs in inference mode."""
    learning_rate: float
    max_epochs: int


def phases_of(settings: Settings) -> tuple[Phase, ...]:
    """The phases of the settings' regime, in order."""
    return tuple(
        Phase(
            number=number,
            trainable=trainable,
            learning_rate=settings.learning_rate * (settings.thawed_rate_factor if number > 1 else 1),
            max_epochs=settings.max_epochs,
        )
        for number, trainable in enumerate(TRAINABLE_OF_PHASES[settings.regime], start=1)
    )
