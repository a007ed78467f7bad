"""Comparisons of computed scores that ignore rounding errors.

Scores that are equal on paper can differ in their last bits: a floating-point sum depends on the order of its terms
and on the version of Python. Wherever scores decide an order, a rank or a tie, they are compared by these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

# Far above the rounding error of a mean of scores (about 1e-16), far below the share of one image of any test set.
TOLERANCE = 1e-9

Item = TypeVar("Item")


def is_above(first: float, second: float) -> bool:
    """True if the first score is higher than the second by more than a rounding error."""
    return first > second + TOLERANCE


def merge_ties(scores: Sequence[float]) -> list[float]:
    """The scores in their order; each is replaced by the lowest score that it equals up to rounding errors."""
    merged = list(scores)
    before = lowest = -float("inf")
    for index in sorted(range(len(scores)), key=lambda index: scores[index]):
        if is_above(scores[index], before):
            lowest = scores[index]
        before, merged[index] = scores[index], lowest
    return merged


def highest(items: Iterable[Item], score: Callable[[Item], float]) -> Item | None:
    """The first of the items with the highest score; None without items."""
    found = list(items)
    if not found:
        return None
    scores = merge_ties([score(item) for item in found])
    return found[scores.index(max(scores))]
