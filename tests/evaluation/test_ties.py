from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from tandem.evaluation.ties import TOLERANCE, highest, is_above, mean, merge_ties, merge_ties_along

# Equal on paper: the order of the terms of a sum, and with it the version of Python, decides on its last bit.
ONE, OTHER = 0.1 + 0.2, 0.3

# 0.8 three times and 0.9, 0.7, 0.8 have the same mean, which `sum` finds before Python 3.12 and misses from it on.
FOLDS = {"alexnet": [0.5, 0.6, 0.7], "vgg16": [0.8, 0.8, 0.8], "vgg19": [0.9, 0.7, 0.8]}


def neighbours(value: float) -> list[float]:
    """A value, and values that differ from it in the last bits."""
    return [np.nextafter(value, 0), value, np.nextafter(value, 1), np.nextafter(np.nextafter(value, 1), 1)]


def test_mean_does_not_depend_on_the_order() -> None:
    values = [0.1, 0.2, 0.3, 0.7, 1e-3, 0.9999]
    assert len({mean(order) for order in itertools.permutations(values)}) == 1
    assert mean(values) == pytest.approx(np.mean(values))
    assert mean(number / 4 for number in (1, 2, 3)) == 0.5
    assert mean([0.6927374301675978]) == 0.6927374301675978


def test_last_bit_is_no_difference() -> None:
    assert ONE != OTHER
    assert not is_above(ONE, OTHER) and not is_above(OTHER, ONE)


@pytest.mark.parametrize("value", [0.8, 1 / 3, 0.0009765625, 1.0])
def test_scores_that_differ_in_their_last_bits_are_tied(value: float) -> None:
    assert not any(is_above(one, other) for one, other in itertools.product(neighbours(value), repeat=2))
    assert set(merge_ties(neighbours(value))) == {min(neighbours(value))}


def test_scores_that_differ_by_one_image_are_not_tied() -> None:
    for images in (10, 50_000, 10_000_000):
        assert is_above(0.5 + 1 / images, 0.5) and not is_above(0.5, 0.5 + 1 / images)
        assert merge_ties([0.5 + 1 / images, 0.5]) == [0.5 + 1 / images, 0.5]
    assert is_above(0.5 + 2 * TOLERANCE, 0.5)


def test_tied_scores_become_the_lowest_of_them_in_their_order() -> None:
    assert merge_ties([ONE, 0.9, OTHER, 0.1]) == [0.3, 0.9, 0.3, 0.1]
    assert merge_ties([]) == []


def test_tied_scores_have_one_rank() -> None:
    means = np.array([mean(scores) for scores in FOLDS.values()])
    nudge = np.array([0, 2e-16, 0])
    nudged = [means, means + nudge, means - nudge]
    data_sets = merge_ties_along(np.array([*nudged, [0.9, 0.1, 0.2]]), axis=1)
    ranks = stats.rankdata(-data_sets, axis=1)
    assert ranks.tolist() == [[3, 1.5, 1.5]] * 3 + [[1, 3, 2]]


def test_mean_rank_of_the_folds_is_the_same_with_any_sum() -> None:
    # vgg16 and vgg19 share a rank on the first data set: (1.5 + 2 + 2) / 3 = 1.833 instead of (1 + 2 + 2) / 3 = 1.667
    others = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]
    for vgg16, vgg19 in itertools.product(neighbours(0.8), repeat=2):
        scores = merge_ties_along(np.array([[0.6, vgg16, vgg19], *others]))
        average = stats.rankdata(-scores, axis=1).mean(axis=0)
        assert average.tolist() == pytest.approx([5 / 3, 5.5 / 3, 7.5 / 3])


def test_scores_that_are_not_tied_are_unchanged() -> None:
    scores = np.array([[0.5, 0.25, 0.75], [0.1, 0.3, 0.2]])
    for axis in (0, 1, -1):
        assert np.array_equal(merge_ties_along(scores, axis=axis), scores)


def test_axis_decides_which_scores_are_compared() -> None:
    above = float(np.nextafter(0.5, 1))
    scores = np.array([[0.5, 0.9], [above, 0.1]])
    assert np.array_equal(merge_ties_along(scores, axis=0), [[0.5, 0.9], [0.5, 0.1]])
    assert np.array_equal(merge_ties_along(scores, axis=1), scores)


def test_missing_scores_stay_missing_and_tie_with_nothing() -> None:
    found = merge_ties_along(np.array([np.nan, 0.5, np.nan, float(np.nextafter(0.5, 1))]))
    assert np.isnan(found[[0, 2]]).all() and found[1] == found[3] == 0.5


@pytest.mark.parametrize("scores", [(ONE, OTHER, 0.1), (OTHER, ONE, 0.1), (0.1, OTHER, ONE)])
def test_first_of_equal_scores_is_the_highest(scores: tuple[float, ...]) -> None:
    named = dict(zip("abc", scores, strict=True))
    assert highest(named, lambda name: named[name]) == ("b" if scores[0] == 0.1 else "a")


def test_nothing_has_no_highest() -> None:
    assert highest([], float) is None
