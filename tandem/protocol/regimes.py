"""Regimes as lists of phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tandem.protocol.settings import (
    AugmentationSettings,
    BatchNorm,
    MixingSettings,
    PhaseSettings,
    Settings,
    Trainable,
)

T = TypeVar("T")

TRAINABLE_OF_PHASES: dict[str, tuple[Trainable, ...]] = {
    "off_the_shelf": (),
    "scratch": ("all",),
    "frozen": ("head",),
    "two_stage": ("head", "all"),
    "finetune": ("all",),
}
"""Phases of each regime except `gradual`, whose phases are settings."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of training with its own optimizer, callbacks and early stop."""

    number: int
    """Number of the phase, counted from 1."""
    trainable: Trainable
    """`head`: only the head is trained; `last`: the last blocks of the backbone, too; `all`: everything. The rest of
    the backbone is unchanged, including its batch-norm statistics, and runs in inference mode."""
    blocks: int | None = None
    """Number of the last blocks that are trained, with `last`; otherwise None."""
    learning_rate: float
    """Learning rate of the head, before the schedule."""
    max_epochs: int
    """Epoch limit."""
    batch_norm: BatchNorm = "train"
    """That of the trained part of the backbone: `frozen` for fixed statistics, with scale and offset trained."""

    @property
    def words(self) -> str:
        """The trained part for people: head, last 2 blocks, all."""
        return self.trainable if self.blocks is None else f"last {self.blocks} block{'s' if self.blocks > 1 else ''}"


def phases_of(settings: Settings) -> tuple[Phase, ...]:
    """The phases of the settings' regime, in order; empty if nothing is trained."""
    return tuple(
        Phase(
            number=number,
            trainable=phase.trainable,
            blocks=phase.blocks,
            learning_rate=phase.learning_rate or settings.learning_rate,
            max_epochs=phase.max_epochs or settings.max_epochs,
            batch_norm=settings.backbone_batch_norm,
        )
        for number, phase in enumerate(_listed(settings), start=1)
    )


def _listed(settings: Settings) -> list[PhaseSettings]:
    if settings.regime == "gradual":
        return settings.phases or []
    thawed_rate = settings.learning_rate * settings.thawed_rate_factor
    return [
        PhaseSettings(trainable=trainable, learning_rate=thawed_rate if number > 1 else None)
        for number, trainable in enumerate(TRAINABLE_OF_PHASES[settings.regime], start=1)
    ]


def num_cached_views(phase: Phase, settings: Settings) -> int:
    """Number of views of each training image whose features a phase caches; 0 if it runs the backbone itself.

    Features are cached if the whole backbone is frozen, the run uses one device, and images are not mixed. Images
    without augmentation have one view.
    """
    if not settings.cache_features or phase.trainable != "head" or settings.num_devices != 1:
        return 0
    if settings.mixing != MixingSettings():
        return 0
    if settings.augmentation == AugmentationSettings():
        return 1
    return min(settings.cache_views or 0, phase.max_epochs)


def split_blocks(phase: Phase, blocks: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Splits the backbone's blocks into those that a phase freezes and those that it trains.

    Args:
        phase: A phase that trains at least as many `last` blocks as there are freezes none.
        blocks: All blocks, from the input to the head.
    """
    if phase.trainable == "last":
        assert phase.blocks is not None
        num_frozen = max(len(blocks) - phase.blocks, 0)
    else:
        num_frozen = len(blocks) if phase.trainable == "head" else 0
    return blocks[:num_frozen], blocks[num_frozen:]
