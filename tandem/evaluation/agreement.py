"""Which test images are hard for every run, and which only one run gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Indices of test images, int64, ascending.

    Args:
        all_wrong: images that no run gets right.
        only_right: for each run the images that it alone gets right.
    """

    all_wrong: np.ndarray
    only_right: tuple[np.ndarray, ...]


def agreement(truth: np.ndarray, predicted: Sequence[np.ndarray]) -> Agreement:
    """Finds the images that all runs get wrong and those that one run alone gets right.

    Args:
        truth: int64 of shape (images,).
        predicted: for each run int64 of shape (images,), in the same order: see tandem.evaluation.resampling.align. Of
            one run, every image that it gets right is one that it alone gets right.
    """
    correct = np.array([one == truth for one in predicted])
    times = correct.sum(axis=0)
    return Agreement(
        all_wrong=np.flatnonzero(times == 0),
        only_right=tuple(np.flatnonzero(one & (times == 1)) for one in correct),
    )
