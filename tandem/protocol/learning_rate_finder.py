"""The learning-rate range test: the rate rises at every step until the loss diverges, and the rate at which the loss
fell fastest is suggested.

The test is Smith's (2017, arXiv 1506.01186, section 3.3). The exponential rise, the smoothed loss, the end and the
suggestion are those of fastai's lr_find (fastai/callback/schedule.py: LRFinder and the rule `steep`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

# constants of fastai's lr_find
NUM_STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
MOMENTUM = 0.98  # of the smoothed loss
DIVERGED = 4.0  # times the lowest smoothed loss so far
FIRST_STEPS_LEFT_OUT = NUM_STEPS // 10  # their smoothed loss is a mean of few values
LAST_STEPS_LEFT_OUT = 5  # the loss diverges in them

RATES = np.geomspace(LOWEST, HIGHEST, NUM_STEPS)
"""Learning rate of each step; neighbouring rates have the same ratio."""

Batch = TypeVar("Batch")


@dataclass(kw_only=True)
class LearningRateFinder:
    """Learning rates for a framework's training loop, and the losses that it reports:

    finder = LearningRateFinder()
    for rate, (images, labels) in finder.steps(batches):
        finder.add(loss_of_a_training_step(images, labels, rate))
    """

    rates: list[float] = field(default_factory=list)
    """Rate of each step so far."""
    losses: list[float] = field(default_factory=list)
    """Loss of each step's batch, before the step."""
    smoothed: list[float] = field(default_factory=list)
    """Running mean of the losses, with weights that fall by the factor MOMENTUM per step."""

    def steps(self, batches: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
        """Yields each step's learning rate and batch, until the loss has diverged.

        Args:
            batches: At least NUM_STEPS batches.
        """
        for rate in RATES:
            if self.has_diverged():
                return
            self.rates.append(float(rate))
            yield float(rate), next(batches)

    def add(self, loss: float) -> None:
        """Adds the loss of the last step."""
        step = len(self.losses) + 1
        before = self.smoothed[-1] * (1 - MOMENTUM ** (step - 1)) if self.smoothed else 0.0
        self.losses.append(loss)
        self.smoothed.append((MOMENTUM * before + (1 - MOMENTUM) * loss) / (1 - MOMENTUM**step))

    def has_diverged(self) -> bool:
        if not self.smoothed:
            return False
        return not math.isfinite(self.losses[-1]) or self.smoothed[-1] > DIVERGED * min(self.smoothed)

    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss fell fastest with the rate's logarithm; None if it never fell."""
        end = len(self.smoothed) - LAST_STEPS_LEFT_OUT
        if end - FIRST_STEPS_LEFT_OUT < 2:
            return None
        rates = np.asarray(self.rates[FIRST_STEPS_LEFT_OUT:end])
        smoothed = np.asarray(self.smoothed[FIRST_STEPS_LEFT_OUT:end])
        slopes = np.diff(smoothed) / np.diff(np.log(rates))
        steepest = int(slopes.argmin())
        return float(rates[steepest]) if slopes[steepest] < 0 else None
