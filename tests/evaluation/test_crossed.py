from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from tandem.evaluation.contributions import Size, mean_contributions
from tandem.evaluation.crossed import ROUNDING, Crossed, Side, mean_of_independent, p_value, quantile, side_of_runs


def crossed(*runs: np.ndarray) -> Crossed:
    """Accuracies of rows from which images each of their runs gets right, of shape (runs, images)."""
    parts = [[mean_contributions(run.astype(np.float64)) for run in row] for row in runs]
    values = [np.array([part.score for part in row]) for row in parts]
    images = [np.array([part.images for part in row]) for row in parts]
    sides = [side_of_runs([own], [of_row]) for own, of_row in zip(values, images, strict=True)]
    means = [own.mean(axis=0) for own in images]
    number = runs[0].shape[1]
    signs = [1, -1][: len(runs)]
    return Crossed(
        value=np.array([sum(sign * own.mean() for sign, own in zip(signs, values, strict=True))]),
        images=np.array([np.square(sum(sign * mean for sign, mean in zip(signs, means, strict=True))).sum()]),
        sides=tuple(sides),
        size=Size(images=number, step=1 / number),
    )


def drawn(random: np.random.Generator, runs: int, images: int, deviation: float) -> np.ndarray:
    difficulty = random.normal(size=images)
    levels = 1.0 + deviation * random.normal(size=(runs, 1))
    return difficulty + random.normal(size=(runs, images)) < levels


def made(*, images: float, runs: tuple[int, ...], spread: tuple[float, ...], noise: tuple[float, ...]) -> Crossed:
    sides = zip(runs, spread, noise, strict=True)
    return Crossed(
        value=np.zeros(1),
        images=np.array([images]),
        sides=tuple(
            Side(num_runs=np.array([number]), spread=np.array([own]), noise=np.array([rest]))
            for number, own, rest in sides
        ),
        size=Size(images=10**9, step=1e-9),
    )


def test_variance_is_the_one_shot_estimate() -> None:
    # Gallas 2006: the square of the mean, less the mean of products of different runs on different images.
    right = drawn(np.random.default_rng(0), 4, 12, 0.5)
    values = right.astype(np.float64)
    products = [
        values[first, image] * values[second, other]
        for first, second in permutations(range(4), 2)
        for image, other in permutations(range(12), 2)
    ]
    expected = values.mean() ** 2 - np.mean(products)
    found = crossed(right)
    variance = (found.images - found.noise)[0] + found.sides[0].spread[0]
    # The variance over images is that of a share, with n in place of n - 1.
    with_n_minus_1 = (found.images - found.noise)[0] * 12 / 11 + found.sides[0].spread[0]
    assert with_n_minus_1 == pytest.approx(expected, abs=0.02 * expected + 0.0003)
    assert variance < with_n_minus_1


def test_parts_are_those_of_an_analysis_of_variance() -> None:
    values = drawn(np.random.default_rng(1), 5, 40, 0.3).astype(np.float64)
    grand, of_runs, of_images = values.mean(), values.mean(axis=1), values.mean(axis=0)
    runs_square = 40 * np.square(of_runs - grand).sum() / 4
    images_square = 5 * np.square(of_images - grand).sum() / 39
    rest_square = np.square(values - of_runs[:, None] - of_images + grand).sum() / (4 * 39)
    found = crossed(values > 0.5)
    assert found.sides[0].spread[0] == pytest.approx(runs_square / 200)
    assert found.images[0] * 40 / 39 == pytest.approx(images_square / 200)
    assert found.noise[0] * 40 / 39 == pytest.approx(rest_square / 200)


@pytest.mark.parametrize("rows", [1, 2])
def test_estimated_variance_is_that_of_many_experiments(rows: int) -> None:
    random = np.random.default_rng(2)
    values, variances = [], []
    for _ in range(600):
        difficulty = random.normal(size=200)
        runs = [
            difficulty + random.normal(size=(number, 200)) < 1 + 0.2 * random.normal(size=(number, 1))
            for number in (3, 6)[:rows]
        ]
        found = crossed(*runs)
        values.append(found.value[0])
        variances.append((found.images - found.noise)[0] + sum(side.spread[0] for side in found.sides))
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.12)


def test_one_run_is_a_trained_network_whose_images_alone_vary() -> None:
    right = drawn(np.random.default_rng(3), 1, 300, 0.5)
    share = right.mean()
    found = crossed(right)
    assert found.half_width(0.05)[0] == pytest.approx(1.959964 * (share * (1 - share) / 300) ** 0.5)
    assert (found.noise[0], found.sides[0].spread[0]) == (0, 0)


def test_spread_alone_has_few_degrees_of_freedom() -> None:
    # Images 0.6 + noise 0.4, spread 3 of 3 runs: (1.96 * 0.6 + 4.303 * 3) / root(3.6)
    found = made(images=1.0, runs=(3,), spread=(3.0,), noise=(0.4,))
    assert found.half_width(0.05)[0] == pytest.approx((1.959964 * 0.6 + 4.302653 * 3) / 3.6**0.5, rel=1e-5)
    # Obuchowski, Rockette and Hillis: Satterthwaite's degrees of freedom of the sum; less cautious with few runs.
    hillis = stats.t.ppf(0.975, 3.6**2 / (3.0**2 / 2)) * 3.6**0.5
    assert found.half_width(0.05)[0] > hillis
    many = made(images=1.0, runs=(200,), spread=(3.0,), noise=(0.4,))
    of_hillis = stats.t.ppf(0.975, 3.6**2 / (3.0**2 / 199)) * 3.6**0.5
    assert many.half_width(0.05)[0] == pytest.approx(of_hillis, rel=0.01)


@pytest.mark.parametrize(
    ("runs", "spread", "df"),
    [
        ((3, 3), (1.0, 1.0), 4.0),  # 2^2 / (1/2 + 1/2)
        ((3, 3), (1.0, 0.0), 2.0),  # 1 / (1/2)
        ((2, 11), (1.0, 2.0), 2.0),  # 3^2 / (1 + 4/10) = 6.4, at most twice 1
        ((8, 9), (3.0, 1.0), 16 / (9 / 7 + 1 / 8)),
        ((1, 4), (0.0, 1.0), 3.0),
    ],
)
def test_degrees_of_freedom_of_two_spreads(runs: tuple[int, int], spread: tuple[float, float], df: float) -> None:
    found = made(images=0.0, runs=runs, spread=spread, noise=(0.0, 0.0))
    assert found.half_width(0.05)[0] == pytest.approx(stats.t.ppf(0.975, df) * sum(spread) ** 0.5, rel=1e-6)


def test_runs_that_agree_by_chance_have_the_spread_of_rounding() -> None:
    found = Crossed(
        value=np.zeros(1),
        images=np.array([1e-4]),
        sides=(Side(num_runs=np.array([2]), spread=np.zeros(1), noise=np.array([1e-4])),),
        size=Size(images=100, step=0.01),
    )
    rounding = ROUNDING * 0.01**2 / 2
    assert found.half_width(0.05)[0] == pytest.approx(stats.t.ppf(0.975, 1) * rounding**0.5)


def test_few_runs_support_no_small_p_value() -> None:
    two = made(images=1.0, runs=(2, 2), spread=(2.0, 2.0), noise=(0.4, 0.4))
    ten = made(images=1.0, runs=(10, 10), spread=(2.0, 2.0), noise=(0.4, 0.4))
    p_values = [p_value(lambda alpha, one=one: one.half_width(alpha) < 20, (1,))[0] for one in (two, ten)]
    assert p_values[0] > 0.005
    assert p_values[1] < 1e-6


def test_p_value_is_the_level_of_the_interval_that_ends_there() -> None:
    found = made(images=1.0, runs=(4, 6), spread=(2.0, 0.5), noise=(0.2, 0.1))
    for alpha in (0.5, 0.05, 1e-4):
        distance = found.half_width(alpha)
        level = p_value(lambda value, far=distance: found.half_width(value) < far, (1,))
        assert level[0] == pytest.approx(alpha, rel=1e-6)


def test_mean_over_folds_has_the_variance_of_independent_parts() -> None:
    random = np.random.default_rng(4)
    folds = [crossed(drawn(random, 1, images, 0.0)) for images in (50, 60, 55)]
    found = mean_of_independent(folds)
    shares = [fold.value[0] for fold in folds]
    assert found.value[0] == pytest.approx(np.mean(shares))
    variance = sum(fold.images[0] for fold in folds) / 9
    assert found.half_width(0.05)[0] == pytest.approx(1.959964 * variance**0.5)
    assert (found.size.images, found.size.step) == pytest.approx((9 / (1 / 50 + 1 / 60 + 1 / 55), 1 / 150))


def test_folds_with_several_runs_add_up_degrees_of_freedom() -> None:
    part = made(images=0.0, runs=(3,), spread=(1.0,), noise=(0.0,))
    found = mean_of_independent([part] * 5)
    # (5/25)^2 / (5 (1/25)^2 / 2) = 10
    assert found.half_width(0.05)[0] == pytest.approx(stats.t.ppf(0.975, 10) * (5 / 25) ** 0.5, rel=1e-6)


def test_quantiles_are_those_of_student_and_of_the_normal_distribution() -> None:
    assert quantile(0.05, 7.0) == pytest.approx(stats.t.ppf(0.975, 7))
    assert quantile(0.05, np.inf) == pytest.approx(stats.norm.ppf(0.975))
