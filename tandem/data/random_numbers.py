"""Random numbers that no version of numpy changes."""

from __future__ import annotations

import numpy as np


def uniform(seed: np.random.SeedSequence, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 2**-53 from 0 to below 1, made of raw numbers in the way of numpy's own generator.

    numpy promises never to change the bit generator's raw numbers, unlike its permutations, integers and distributions.
    """
    return as_uniform(np.random.PCG64(seed).random_raw(shape))


def as_uniform(raw: np.ndarray) -> np.ndarray:
    """The same of raw numbers, uint64 of any shape."""
    return (raw >> np.uint64(11)) * 2.0**-53
