"""Test images that every run gets wrong, and those that only one run gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Indices of test images, int64, in ascending order."""

    all_wrong: np.ndarray
    """Images that every run gets wrong."""
    only_right: tuple[np.ndarray, ...]
    """Images that only this run gets right, for each run."""


def agreement(truth: np.ndarray, predicted: Sequence[np.ndarray]) -> Agreement:
    """Finds the images that all runs get wrong, and those that only one run gets right.

    Args:
        truth: Class of each image, int64 of shape (images,).
        predicted: Predicted class of each image, int64 of shape (images,), for each run; in the same order of images
            (see tandem.evaluation.predictions.align). A single run alone gets right all that it gets right.
    """
    correct = np.array([one == truth for one in predicted])
    times = correct.sum(axis=0)
    return Agreement(
        all_wrong=np.flatnonzero(times == 0),
        only_right=tuple(np.flatnonzero(one & (times == 1)) for one in correct),
    )
