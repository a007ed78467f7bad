"""Equality of computed scores: those that differ by rounding alone are tied.

The last bits of a mean depend on the order of its terms and on Python's version: `sum` of floats is compensated from
3.12 on. So scores are never compared with ==, and the best is never taken with max alone.
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


def are_tied(first: float, second: float) -> bool:
    """True if two scores are equal up to rounding."""
    return abs(first - second) <= TOLERANCE


def rounds_to(value: float, stated: float, decimals: int) -> bool:
    """True if a computed value may be rounded to a stated one, whichever way a tie of the rounding goes.

    Args:
        value: Computed.
        stated: A rounded number, as a document states it.
        decimals: Number of decimals of `stated`.
    """
    return abs(value - stated) <= 0.5 * 10.0**-decimals + TOLERANCE


def with_equal_ties(scores: np.ndarray, axis: int = -1) -> np.ndarray:
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
    begins[..., 1:] = ~(np.diff(ordered, axis=-1) <= TOLERANCE)  # also where the difference is not a number
    places = np.maximum.accumulate(np.where(begins, np.arange(ordered.shape[-1]), 0), axis=-1)
    result = np.empty_like(along)
    np.put_along_axis(result, order, np.take_along_axis(ordered, places, axis=-1), axis=-1)
    return np.moveaxis(result, -1, axis)


def best_first(items: Iterable[Item], score_of: Callable[[Item], float]) -> list[Item]:
    """Items in descending order of their scores; tied ones keep the order in which they were given."""
    listed = list(items)
    scores = with_equal_ties(np.array([score_of(item) for item in listed], dtype=np.float64))
    return [listed[index] for index in np.argsort(-scores, kind="stable").tolist()]


def best_of(items: Sequence[Item], score_of: Callable[[Item], float]) -> Item:
    """The item with the highest score; of tied ones, the first. There has to be one."""
    return best_first(items, score_of)[0]
