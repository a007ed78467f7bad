from __future__ import annotations

import pytest

from tandem.comparison.ties import highest, is_above, merge_ties

# Equal on paper: the order of the terms of a sum decides on its last bit, and with it the version of Python.
ONE, OTHER = 0.1 + 0.2, 0.3


def test_last_bit_is_no_difference() -> None:
    assert ONE != OTHER
    assert not is_above(ONE, OTHER) and not is_above(OTHER, ONE)
    # One of a million images is one.
    assert is_above(0.3 + 1e-6, 0.3) and not is_above(0.3, 0.3 + 1e-6)


def test_equal_scores_become_the_lowest_of_them() -> None:
    assert merge_ties([ONE, 0.9, OTHER, 0.1]) == [0.3, 0.9, 0.3, 0.1]
    assert merge_ties([]) == []


@pytest.mark.parametrize("scores", [(ONE, OTHER, 0.1), (OTHER, ONE, 0.1), (0.1, OTHER, ONE)])
def test_first_of_equal_scores_is_the_highest(scores: tuple[float, ...]) -> None:
    named = dict(zip("abc", scores, strict=True))
    assert highest(named, lambda name: named[name]) == ("b" if scores[0] == 0.1 else "a")


def test_nothing_has_no_highest() -> None:
    assert highest([], float) is None
