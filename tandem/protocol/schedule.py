"""Learning rates: of each step of a phase, and of each block of the backbone."""

from __future__ import annotations

import numpy as np

from tandem.protocol.regimes import Phase
from tandem.protocol.settings import ScheduleSettings


def changes_by_step(schedule: ScheduleSettings) -> bool:
    """Whether the rates of a phase stand in a table before it begins: with cosine, and while warming up."""
    return schedule.name == "cosine" or schedule.warmup_epochs > 0


def learning_rates(schedule: ScheduleSettings, phase: Phase, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of each step of a phase that runs to its epoch limit.

    Warm-up: of its W steps, number t (from 0) has (t + 1) / W of the rate, so that the last one has all of it (gradual
    warm-up, Goyal et al. 2017, section 2.2). Cosine: of the T steps that follow, number t has
    minimum + (rate - minimum) * (1 + cos(pi * t / T)) / 2 (Loshchilov and Hutter 2017, equation 5, without restarts).

    Args:
        schedule: `none` or `cosine`; what `plateau` does depends on the losses.
        phase: Its learning rate and its epoch limit.
        steps_per_epoch: Training batches of an epoch.

    Returns:
        Of shape (max_epochs * steps_per_epoch,) and type float64.
    """
    rates = np.full(phase.max_epochs * steps_per_epoch, phase.learning_rate)
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if schedule.name == "cosine":
        progress = np.arange(len(rates) - warmup_steps) / (len(rates) - warmup_steps)
        minimum = schedule.min_learning_rate
        rates[warmup_steps:] = minimum + (phase.learning_rate - minimum) * (1 + np.cos(np.pi * progress)) / 2
    rates[:warmup_steps] = phase.learning_rate * np.arange(1, warmup_steps + 1) / warmup_steps
    return rates


def block_factors(layer_decay: float, num_blocks: int) -> list[float]:
    """What the head's learning rate is multiplied by in each block of the backbone, from the input to the head.

    Discriminative rates of Howard and Ruder 2018, section 3.2, whose factor between layers is 1 / 2.6.
    """
    return [layer_decay ** (num_blocks - block) for block in range(num_blocks)]
