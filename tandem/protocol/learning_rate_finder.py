"""The learning-rate range test: the rate rises with every step until the loss explodes; where it fell fastest is good.

Smith 2017 (arXiv 1506.01186, section 3.3) has the test; rising exponentially, the smoothed loss, the end and the
suggestion are those of fastai's lr_find (fastai/callback/schedule.py: LRFinder and the rule `steep`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

# fastai's, as are the shares below.
NUM_STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
MOMENTUM = 0.98  # of the smoothed loss
DIVERGED = 4.0  # times the lowest smoothed loss so far
FIRST_STEPS_LEFT_OUT = NUM_STEPS // 10  # in which the mean is one of few
LAST_STEPS_LEFT_OUT = 5  # in which the loss explodes

RATES = np.geomspace(LOWEST, HIGHEST, NUM_STEPS)
"""Of each step: each is the one before times the same factor."""

Batch = TypeVar("Batch")


@dataclass(kw_only=True)
class LearningRateFinder:
    """The steps of a test, as a loop of a framework takes them:

    finder = LearningRateFinder()
    for rate, (images, labels) in finder.steps(batches):
        finder.add(loss_of_a_training_step(images, labels, rate))
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of each step's batch, before the step."""
    smoothed: list[float] = field(default_factory=list)
    """Their running mean, with weights that fall by MOMENTUM from step to step."""

    def steps(self, batches: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
        """Each step's learning rate and batch, until the loss has exploded.

        Args:
            batches: at least NUM_STEPS of them.
        """
        for rate in RATES:
            if self.has_diverged():
                return
            self.rates.append(float(rate))
            yield float(rate), next(batches)

    def add(self, loss: float) -> None:
        """The loss of the step that was taken last."""
        step = len(self.losses) + 1
        before = self.smoothed[-1] * (1 - MOMENTUM ** (step - 1)) if self.smoothed else 0.0
        self.losses.append(loss)
        self.smoothed.append((MOMENTUM * before + (1 - MOMENTUM) * loss) / (1 - MOMENTUM**step))

    def has_diverged(self) -> bool:
        if not self.smoothed:
            return False
        return not math.isfinite(self.losses[-1]) or self.smoothed[-1] > DIVERGED * min(self.smoothed)

    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss fell fastest over the rate's logarithm; None where it never fell."""
        end = len(self.smoothed) - LAST_STEPS_LEFT_OUT
        if end - FIRST_STEPS_LEFT_OUT < 2:
            return None
        rates = np.asarray(self.rates[FIRST_STEPS_LEFT_OUT:end])
        smoothed = np.asarray(self.smoothed[FIRST_STEPS_LEFT_OUT:end])
        slopes = np.diff(smoothed) / np.diff(np.log(rates))
        steepest = int(slopes.argmin())
        return float(rates[steepest]) if slopes[steepest] < 0 else None
