from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from tandem.protocol.learning_rate_finder import HIGHEST, LOWEST, NUM_STEPS, LearningRateFinder


def run_test(loss_of: list[float]) -> LearningRateFinder:
    """A range test whose steps have these losses."""
    finder = LearningRateFinder()
    for _, index in finder.steps(itertools.count()):
        finder.add(loss_of[index])
    return finder


def test_rates_rise_by_the_same_factor_from_the_lowest_to_the_highest() -> None:
    finder = run_test([1.0] * NUM_STEPS)
    assert len(finder.rates) == NUM_STEPS
    assert finder.rates[0] == pytest.approx(LOWEST) and finder.rates[-1] == pytest.approx(HIGHEST)
    factors = np.divide(finder.rates[1:], finder.rates[:-1])
    np.testing.assert_allclose(factors, (HIGHEST / LOWEST) ** (1 / (NUM_STEPS - 1)))


def test_smoothed_loss_is_the_exponentially_weighted_mean_of_pandas() -> None:
    losses = (2 + np.random.default_rng(0).normal(size=NUM_STEPS) / 10).tolist()
    expected = pd.Series(losses).ewm(alpha=0.02, adjust=True).mean()
    np.testing.assert_allclose(run_test(losses).smoothed, expected)


def test_suggestion_is_where_the_smoothed_loss_falls_fastest() -> None:
    # by hand: a ramp down that is steepest between steps 60 and 61
    smoothed = [5.0 - 0.01 * step - (1.0 if step > 60 else 0.0) for step in range(NUM_STEPS)]
    finder = run_test([1.0] * NUM_STEPS)
    finder.smoothed = smoothed
    assert finder.suggestion() == finder.rates[60]


def test_first_tenth_and_last_five_steps_suggest_nothing() -> None:
    finder = run_test([1.0] * NUM_STEPS)
    # steep falls at both ends, a gentle one between steps 40 and 41
    falls = {4: 3.0, 40: 0.1, NUM_STEPS - 4: 3.0}
    finder.smoothed = [10.0 - sum(fall for place, fall in falls.items() if step > place) for step in range(NUM_STEPS)]
    assert finder.suggestion() == finder.rates[40]


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    assert run_test([1.0 + step / 100 for step in range(NUM_STEPS)]).suggestion() is None


def test_gradient_descent_on_a_quadratic_stops_soon_after_the_rate_at_which_it_diverges() -> None:
    # w -> w - rate * curvature * w diverges where rate > 2 / curvature, and is fastest at 1 / curvature
    curvature, weight = 4.0, 1.0
    finder = LearningRateFinder()
    for rate, _ in finder.steps(itertools.count()):
        finder.add(0.5 * curvature * weight**2 + 0.1)
        weight -= rate * curvature * weight
    assert finder.has_diverged()
    assert 2 / curvature < finder.rates[-1] < 10 * 2 / curvature
    suggestion = finder.suggestion()
    assert suggestion is not None and 0.01 / curvature < suggestion < 2 / curvature


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_a_number_ends_the_test_and_suggests_nothing(loss: float) -> None:
    finder = run_test([3.0 - 0.01 * step for step in range(50)] + [loss] * 50)
    assert len(finder.losses) == 51 and finder.has_diverged()
    suggestion = finder.suggestion()
    assert suggestion is not None and suggestion < finder.rates[50]


def test_a_loss_of_four_times_the_lowest_ends_the_test() -> None:
    # the smoothed loss is 1 for 10 steps; then each loss L moves it by 0.02 / (1 - 0.98^n) of the way
    losses = [1.0] * 10 + [1000.0] * 90
    finder = run_test(losses)
    assert len(finder.losses) == 11
    assert finder.suggestion() is None
