from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats

from tandem.evaluation.power import PairPower, mcnemar_power
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.significance import paired_tests

MakeRun = Callable[..., Predictions]


@pytest.mark.parametrize(
    ("disagreement", "difference", "alpha"), [(0.3, 0.2, 0.05), (0.5, 0.1, 0.05), (0.6, 0.5, 0.01)]
)
def test_power_of_mcnemars_test_is_the_sum_over_all_outcomes(
    disagreement: float, difference: float, alpha: float
) -> None:
    images, expected = 12, 0.0
    chances = (disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement
    for first, second in product(range(images + 1), repeat=2):
        if 0 < first + second <= images and (first - second) ** 2 / (first + second) > stats.chi2.isf(alpha, 1):
            expected += stats.multinomial.pmf([first, second, images - first - second], images, chances)
    assert mcnemar_power(images, disagreement, difference, alpha) == pytest.approx(expected)


@pytest.mark.parametrize(("images", "disagreement"), [(200, 0.24), (1000, 0.1)])
def test_power_is_the_share_of_drawn_test_sets_in_which_the_test_finds_the_difference(
    images: int, disagreement: float
) -> None:
    difference = 0.05
    chances = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    counts = np.random.default_rng(0).multinomial(images, chances, 4000)[:, :2]
    found = (counts[:, 0] - counts[:, 1]) ** 2 / counts.sum(axis=1) > 1.959964**2
    assert mcnemar_power(images, disagreement, difference, 0.05) == pytest.approx(found.mean(), abs=0.025)


def test_detectable_difference_is_found_in_four_of_five_test_sets(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0, images=500)], [make_run(1, images=500)]])
    power = PairPower(rows, 0, 1, num_tests=1)
    detectable = power.detectable()
    assert detectable is not None
    assert power.chance(detectable) == pytest.approx(0.8, abs=0.005)
    assert power.chance(detectable / 2) < 0.4
    # Nothing but chance is found where there is no difference.
    assert power.chance(1e-9) == pytest.approx(0.05, abs=0.01)


def test_more_pairs_and_fewer_images_need_a_larger_difference(make_run: MakeRun) -> None:
    many, few = (ScoredRows([[make_run(seed, images=images)] for seed in (0, 1)]) for images in (800, 200))
    one, of_28, of_few = PairPower(many, 0, 1, 1), PairPower(many, 0, 1, 28), PairPower(few, 0, 1, 1)
    found = [power.detectable() or 1.0 for power in (one, of_28, of_few)]
    assert found[0] < 0.8 * found[1]
    assert found[0] < 0.6 * found[2]


def test_images_needed_make_a_difference_detectable(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0, images=500)], [make_run(1, images=500)]])
    power = PairPower(rows, 0, 1, num_tests=1)
    needed = power.images_needed(0.01)
    assert needed is not None and needed > 5000
    assert power.chance(0.01, needed) == pytest.approx(0.8, abs=0.01)
    detectable = power.detectable()
    assert detectable is not None
    assert power.images_needed(detectable) == pytest.approx(500, rel=0.02)


def test_disagreement_grows_with_the_difference(make_run: MakeRun) -> None:
    first, second, worse = (
        make_run(seed, images=20_000, skill=skill) for seed, skill in ((0, 3.5), (1, 3.5), (2, 2.9))
    )
    rows = ScoredRows([[first], [second], [worse]])
    estimates = rows.score("accuracy").estimates
    power = PairPower(rows, 0, 1, 1)
    difference = float(estimates[:2].mean() - estimates[2])
    seen = np.mean([rows.disagreement(place, 2) for place in (0, 1)])
    assert power._disagreement_at(difference) == pytest.approx(seen, rel=0.05)
    assert seen > 1.1 * power.disagreement
    assert power._disagreement_at(0.0) == pytest.approx(power.disagreement, rel=1e-3)


def test_seeds_that_differ_much_need_more_seeds_not_more_images(make_run: MakeRun) -> None:
    unlike = [[make_run(3 * row + seed, images=2000, skill=1.5 + seed) for seed in range(3)] for row in range(2)]
    power = PairPower(ScoredRows(unlike), 0, 1, 1)
    assert power.images_needed(0.01) is None
    assert (power.detectable() or 1.0) > 0.2


@pytest.mark.parametrize(("runs", "weaker"), [(2, 1.42), (4, 1.8)])
def test_power_of_several_runs_is_that_of_drawn_experiments(make_run: MakeRun, runs: int, weaker: float) -> None:
    def rows(number: int, skill: float) -> ScoredRows:
        seeds = [1000 + 100 * number + place for place in range(2 * runs)]
        return ScoredRows(
            [
                [make_run(seed, images=300, test_set=number) for seed in seeds[:runs]],
                [make_run(seed, images=300, test_set=number, skill=skill) for seed in seeds[runs:]],
            ]
        )

    chances, found, differences = [], [], []
    for number in range(60):
        unequal = rows(number, weaker)
        differences.append(-np.diff(unequal.score("accuracy").estimates)[0])
        (test,) = paired_tests(unequal, "accuracy")
        found.append(test.p_value is not None and test.p_value < 0.05)
    for number in range(60, 100):
        chances.append(PairPower(rows(number, 2.0), 0, 1, 1).chance(float(np.mean(differences))))
    assert 0.2 < np.mean(found) < 0.98
    assert np.mean(chances) == pytest.approx(np.mean(found), abs=0.15)


def test_runs_that_never_disagree_show_no_detectable_difference(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0)], [make_run(0)]])
    power = PairPower(rows, 0, 1, 1)
    assert (power.disagreement, power.detectable(), power.images_needed(0.01)) == (0, None, None)
