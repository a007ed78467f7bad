"""State of torch's random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def random_state() -> list[np.ndarray]:
    """States of the generators of the CPU and of each GPU, uint8."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [state.numpy() for state in (torch.get_rng_state(), *on_gpus)]


def restore_random_state(states: Sequence[np.ndarray]) -> None:
    """Sets the generators to an earlier random_state; those of GPUs only if there are as many."""
    on_cpu, *on_gpus = (torch.from_numpy(state.copy()) for state in states)
    torch.set_rng_state(on_cpu)
    if len(on_gpus) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(on_gpus)
