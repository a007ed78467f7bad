from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tandem.protocol.head import initial_kernels
from tandem.protocol.settings import HeadSettings


def kernels(widths: list[int], seed: int = 0, **settings: Any) -> list[np.ndarray]:
    """Kernels of a head from the first width to the last."""
    inputs, *hidden, classes = widths
    return initial_kernels(HeadSettings(hidden=hidden, **settings), num_features=inputs, num_classes=classes, seed=seed)


@pytest.mark.parametrize(
    ("inputs", "units", "limit"),
    # sqrt(6 / (inputs + units)) by hand: 6/6 = 1, 6/24 = 1/4, 6/54 = 1/9, 6/600 = 1/100
    [(4, 2, 1.0), (20, 4, 0.5), (50, 4, 1 / 3), (500, 100, 0.1)],
)
def test_kernels_fill_the_range_of_glorot(inputs: int, units: int, limit: float) -> None:
    drawn = np.concatenate([kernels([inputs, units], seed)[0].ravel() for seed in range(200)])
    assert np.abs(drawn).max() <= np.float32(limit)
    assert drawn.max() > 0.97 * limit and drawn.min() < -0.97 * limit
    # a uniform distribution: mean 0, variance limit^2 / 3
    assert abs(drawn.mean()) < 5 * limit / np.sqrt(3 * drawn.size)
    assert drawn.var() == pytest.approx(limit**2 / 3, rel=0.1)


@pytest.mark.parametrize("deviation", [0.01, 0.5])
def test_normal_kernels_have_the_deviation_that_is_set(deviation: float) -> None:
    drawn = np.concatenate(
        [kernel.ravel() for kernel in kernels([300, 200, 10], initialization="normal", normal_std=deviation)]
    )
    assert abs(drawn.mean()) < 5 * deviation / np.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(deviation, rel=0.02)
    # in a normal distribution 68.27 % are within one standard deviation, 4.55 % beyond two
    assert (np.abs(drawn) < deviation).mean() == pytest.approx(0.6827, abs=0.01)
    assert (np.abs(drawn) > 2 * deviation).mean() == pytest.approx(0.0455, abs=0.005)


@pytest.mark.parametrize("initialization", ["glorot_uniform", "normal"])
def test_kernels_have_the_shapes_of_the_layers(initialization: str) -> None:
    drawn = kernels([12, 7, 5, 3], initialization=initialization)
    assert [kernel.shape for kernel in drawn] == [(12, 7), (7, 5), (5, 3)]
    assert all(kernel.dtype == np.float32 for kernel in drawn)
    assert [kernel.shape for kernel in kernels([1280, 10], initialization=initialization)] == [(1280, 10)]


@pytest.mark.parametrize("initialization", ["glorot_uniform", "normal"])
def test_same_seed_gives_the_same_kernels(initialization: str) -> None:
    first, again, other = (kernels([30, 20, 10], seed, initialization=initialization) for seed in (5, 5, 6))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


def test_layers_are_drawn_independently() -> None:
    one, two = kernels([8, 8, 8], seed=1)
    assert not np.array_equal(one, two)
    assert np.unique(one).size == one.size
