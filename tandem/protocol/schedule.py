"""Learning rates of each step of a phase, and of each block of the backbone."""

from __future__ import annotations

import numpy as np

from tandem.protocol.regimes import Phase
from tandem.protocol.settings import ScheduleSettings


def changes_by_step(schedule: ScheduleSettings) -> bool:
    """True if the rate changes at each step in a way that is known before the phase: with cosine or a warm-up."""
    return schedule.name == "cosine" or schedule.warmup_epochs > 0


def learning_rates(schedule: ScheduleSettings, phase: Phase, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of each step of a phase that runs to its epoch limit.

    Warm-up: step t of W (counted from 0) has (t + 1) / W of the rate, so the last one has all of it (gradual warm-up,
    Goyal et al. 2017, section 2.2). Cosine: step t of the T steps that follow has
    minimum + (rate - minimum) * (1 + cos(pi * t / T)) / 2 (Loshchilov and Hutter 2017, equation 5, without restarts).

    Args:
        schedule: `none` or `cosine`; the rates of `plateau` depend on the losses.
        phase: Gives learning rate and epoch limit.
        steps_per_epoch: Training batches per epoch.

    Returns:
        float64 of shape (max_epochs * steps_per_epoch,).
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
    """Factors on the head's learning rate for each block of the backbone, from the input to the head.

    These are the discriminative rates of Howard and Ruder 2018, section 3.2, whose factor between layers is 1 / 2.6.
    """
    return [layer_decay ** (num_blocks - block) for block in range(num_blocks)]
