"""Comparisons of computed scores that ignore rounding errors.

The last bits of a mean depend on the order of its terms and on Python's version: `sum` of floats is compensated from
3.12 on. Wherever scores decide an order, a rank or a tie, they are compared by these functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

TOLERANCE = 1e-9
"""Scores that differ by no more are tied. Rounding errors of scores from 0 to 1 are about 1e-15; unequal accuracies of
r runs on n images differ by at least 1 / (n * r)."""

Item = TypeVar("Item")


def mean(values: Iterable[float]) -> float:
    """Mean of one or more numbers, rounded once: the same in any order and with any version of Python."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def is_above(first: float, second: float) -> bool:
    """True if the first score is higher than the second by more than a rounding error."""
    return first > second + TOLERANCE


def merge_ties(scores: Sequence[float]) -> list[float]:
    """As merge_ties_along, for a list of scores."""
    return merge_ties_along(np.array(scores, dtype=np.float64)).tolist()


def merge_ties_along(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Scores in which tied ones are equal to the bit, for functions that rank, sort or compare.

    Args:
        scores: float64 of any shape.
        axis: Scores along this axis are compared with each other.

    Returns:
        Array of the same shape: each score is replaced by the lowest one that it is tied with, directly or through
        others between them. NaN stays NaN.
    """
    along = np.moveaxis(np.asarray(scores, dtype=np.float64), axis, -1)
    order = np.argsort(along, axis=-1, kind="stable")
    ordered = np.take_along_axis(along, order, axis=-1)
    begins = np.ones(ordered.shape, dtype=bool)
    begins[..., 1:] = ~(ordered[..., 1:] <= ordered[..., :-1] + TOLERANCE)  # also if one of them is NaN
    places = np.maximum.accumulate(np.where(begins, np.arange(ordered.shape[-1]), 0), axis=-1)
    result = np.empty_like(along)
    np.put_along_axis(result, order, np.take_along_axis(ordered, places, axis=-1), axis=-1)
    return np.moveaxis(result, -1, axis)


def highest(items: Iterable[Item], score: Callable[[Item], float]) -> Item | None:
    """The first of the items with the highest score; None without items."""
    found = list(items)
    if not found:
        return None
    scores = merge_ties([score(item) for item in found])
    return found[scores.index(max(scores))]
