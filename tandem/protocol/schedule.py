"""Learning rates of each step of a phase and of each block of the backbone, and rates of averaged weights."""

from __future__ import annotations

import numpy as np

from tandem.protocol.regimes import Phase
from tandem.protocol.settings import ScheduleSettings, Settings

# Defaults of torch's OneCycleLR, whose share of rising steps and factor of the first rate are fastai's.
RISING_SHARE = 0.3
FIRST_FACTOR = 1 / 25
LAST_FACTOR = FIRST_FACTOR / 10_000


def is_tabulated(schedule: ScheduleSettings) -> bool:
    """True if the rates of all steps are known before the phase, and change."""
    return schedule.name in ("cosine", "step", "one_cycle") or schedule.warmup_epochs > 0


def learning_rates(schedule: ScheduleSettings, phase: Phase, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of each step of a phase that runs to its epoch limit.

    Warm-up: step t of W (counted from 0) has (t + 1) / W of the rate, so the last one has all of it (gradual warm-up,
    Goyal et al. 2017, section 2.2). Cosine: step t of the T steps that follow has
    minimum + (rate - minimum) * (1 + cos(pi * t / T)) / 2 (Loshchilov and Hutter 2017, equation 5, without restarts).
    Step: epoch e of those that follow has rate * factor ** (e // step_epochs), and at least the minimum. One cycle
    (Smith 2018, section 4, with the cosines of torch's OneCycleLR): of T steps, the rate rises up to step 0.3 T - 1 and
    falls up to step T - 1.

    Args:
        schedule: Any but `plateau`, whose rates depend on the losses.
        phase: Gives learning rate and epoch limit.
        steps_per_epoch: Training batches per epoch.

    Returns:
        float64 of shape (max_epochs * steps_per_epoch,).
    """
    rates = np.full(phase.max_epochs * steps_per_epoch, phase.learning_rate, np.float64)
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if schedule.name == "cosine":
        progress = np.arange(len(rates) - warmup_steps) / (len(rates) - warmup_steps)
        rates[warmup_steps:] = _half_wave(phase.learning_rate, schedule.min_learning_rate, progress)
    elif schedule.name == "step":
        epochs = np.arange(len(rates) - warmup_steps) // steps_per_epoch
        lowered = phase.learning_rate * schedule.factor ** (epochs // schedule.step_epochs)
        rates[warmup_steps:] = np.maximum(lowered, schedule.min_learning_rate)
    elif schedule.name == "one_cycle":
        rates *= _one_cycle(len(rates))
    rates[:warmup_steps] = phase.learning_rate * np.arange(1, warmup_steps + 1) / warmup_steps
    return rates


def _one_cycle(num_steps: int) -> np.ndarray:
    """Factors on the highest rate of a cycle, float64 of shape (num_steps,)."""
    step, peak, last = np.arange(num_steps), RISING_SHARE * num_steps - 1, num_steps - 1
    rising = _half_wave(FIRST_FACTOR, 1.0, step / peak)
    falling = _half_wave(1.0, LAST_FACTOR, (step - peak) / (last - peak))
    return np.where(step <= peak, rising, falling)


def _half_wave(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """Half a cosine wave from start to end, over a progress from 0 to 1."""
    return end + (start - end) * (1 + np.cos(np.pi * progress)) / 2


def averaging_rates(settings: Settings, phase: Phase, steps_per_epoch: int) -> np.ndarray | None:
    """Rates at which the averaged weights follow the weights, average += rate * (weight - average), after each step.

    Step t, counted from 1, has the rate (1 - decay) / (1 - decay^t). So the average has the weights after step s of t
    with the factor decay^(t - s), over the sum of these factors (Kingma and Ba 2015, section 7.2).

    Args:
        settings: `ema_decay`.
        phase: Gives the epoch limit.
        steps_per_epoch: Optimizer steps per epoch.

    Returns:
        float64 of shape (max_epochs * steps_per_epoch,), with 1 as the first; None without averages.
    """
    if settings.ema_decay is None:
        return None
    steps = np.arange(1, phase.max_epochs * steps_per_epoch + 1)
    return (1 - settings.ema_decay) / (1 - settings.ema_decay**steps)


def block_factors(layer_decay: float, num_blocks: int) -> list[float]:
    """Factors on the head's learning rate for each block of the backbone, from the input to the head.

    These are the discriminative rates of Howard and Ruder 2018, section 3.2, whose factor between layers is 1 / 2.6.
    """
    return [layer_decay ** (num_blocks - block) for block in range(num_blocks)]
