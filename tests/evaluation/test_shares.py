from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from tandem.evaluation.contributions import Size
from tandem.evaluation.crossed import Crossed, Side
from tandem.evaluation.shares import ShareDifference, share_limits

ONE_RUN = Side(num_runs=np.ones(1, dtype=int), spread=np.zeros(1), noise=np.zeros(1))


def share(right: int, images: int) -> Crossed:
    value = right / images
    return Crossed(
        value=np.array([value]),
        images=np.array([value * (1 - value) / images]),
        sides=(ONE_RUN,),
        size=Size(images=images, step=1 / images),
    )


def difference(only_first: int, only_second: int, images: int) -> ShareDifference:
    value = (only_first - only_second) / images
    variance = (only_first + only_second) / images - value**2
    return ShareDifference(
        Crossed(
            value=np.array([value]),
            images=np.array([variance / images]),
            sides=(ONE_RUN, ONE_RUN),
            size=Size(images=images, step=1 / images),
        )
    )


def statistic(only_first: int, only_second: int, images: int, delta: float) -> float:
    """Tango's statistic with the likelihood maximised by search."""
    rest = images - only_first - only_second

    def unlikely(second: float) -> float:
        first = second + delta
        likelihoods = (only_first, first), (only_second, second), (rest, 1 - first - second)
        return -sum(count * np.log(max(chance, 1e-300)) for count, chance in likelihoods)

    limits = max(0.0, -delta), (1 - delta) / 2
    second = optimize.minimize_scalar(unlikely, bounds=limits, method="bounded", options={"xatol": 1e-12}).x
    return (only_first - only_second - images * delta) / (images * (2 * second + delta * (1 - delta))) ** 0.5


@pytest.mark.parametrize(("right", "images"), [(40, 40), (0, 25), (170, 200), (1, 300), (5, 9)])
def test_limits_of_one_run_are_the_exact_binomial_ones(right: int, images: int) -> None:
    low, high = share_limits(share(right, images), 0.05)
    assert (low[0], high[0]) == pytest.approx(proportion_confint(right, images, method="beta"))


def test_limits_widen_with_the_spread_of_runs() -> None:
    one = share(170, 200)
    spread = Side(num_runs=np.array([4]), spread=np.array([0.01]), noise=np.array([1e-4]))
    several = Crossed(value=one.value, images=one.images, sides=(spread,), size=one.size)
    widths = [float(high[0] - low[0]) for low, high in (share_limits(crossed, 0.05) for crossed in (one, several))]
    assert widths[1] > 3 * widths[0]
    low, high = share_limits(several, 0.05)
    assert 0 <= low[0] < 0.85 < high[0] <= 1


@pytest.mark.parametrize(("only_first", "only_second", "images"), [(8, 1, 104), (0, 3, 40), (40, 70, 1310), (3, 0, 3)])
def test_no_difference_is_tested_by_mcnemar(only_first: int, only_second: int, images: int) -> None:
    table = [[0, only_first], [only_second, 0]]
    expected = mcnemar(table, exact=False, correction=False).pvalue
    assert difference(only_first, only_second, images).p_value(0.0)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("only_first", "only_second", "images"), [(7, 1, 21), (8, 3, 104), (5, 5, 60), (30, 2, 90)])
@pytest.mark.parametrize("delta", [-0.1, 0.02, 0.25])
def test_other_differences_are_tested_by_tangos_statistic(
    only_first: int, only_second: int, images: int, delta: float
) -> None:
    found = difference(only_first, only_second, images)
    p_value = found.p_value(delta)[0]
    expected = abs(statistic(only_first, only_second, images, delta))
    assert p_value == pytest.approx(2 * stats.norm.sf(expected), rel=1e-4)
    assert found.rejected(delta, p_value * 1.0001)[0] and not found.rejected(delta, p_value * 0.9999)[0]


def test_limits_of_a_published_example() -> None:
    # Bentur et al. 2009, airways before and after transplantation, of 21 children 1 and 7 changed; Tango's interval
    # in Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired binomial
    # proportions", table IX.
    low, high = difference(1, 7, 21).limits(0.05)
    assert (low[0], high[0]) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_limits_are_where_the_test_rejects() -> None:
    found = difference(12, 3, 150)
    low, high = found.limits(0.05)
    assert [found.p_value(float(limit[0]))[0] for limit in (low, high)] == pytest.approx([0.05, 0.05], rel=1e-5)
    for only_first in range(0, 16):
        one = difference(only_first, 3, 60)
        excluded = not one.limits(0.05)[0][0] <= 0 <= one.limits(0.05)[1][0]
        assert excluded == (one.p_value(0.0)[0] < 0.05)


def test_runs_that_are_right_on_the_same_images_may_still_differ_on_others() -> None:
    found = difference(0, 0, 100)
    low, high = found.limits(0.05)
    limit = 1.959964**2 / (100 + 1.959964**2)
    assert (low[0], high[0]) == pytest.approx((-limit, limit), rel=1e-5)
    assert found.p_value(0.0)[0] == 1
    assert found.disagreement[0] == 0


def test_limits_change_their_sign_with_the_order() -> None:
    forward, backward = difference(9, 2, 80).limits(0.05), difference(2, 9, 80).limits(0.05)
    assert (forward[0][0], forward[1][0]) == pytest.approx((-backward[1][0], -backward[0][0]))


def test_runs_of_a_row_stand_for_fewer_images_than_they_have_together() -> None:
    one = difference(9, 2, 80)
    quiet = Side(num_runs=np.array([3]), spread=np.array([1e-5]), noise=np.array([1e-5]))
    noisy = Side(num_runs=np.array([3]), spread=np.array([1e-2]), noise=np.array([1e-5]))
    widths = []
    for side in (quiet, noisy):
        crossed = Crossed(value=one.crossed.value, images=one.crossed.images, sides=(side, side), size=one.crossed.size)
        low, high = ShareDifference(crossed).limits(0.05)
        widths.append(float(high[0] - low[0]))
    assert widths[1] > 2 * widths[0]
