from __future__ import annotations

import numpy as np
import pytest

from tandem.protocol.head import head_widths, initial_kernels
from tandem.protocol.settings import HeadSettings


def test_widths_lead_from_the_features_to_the_classes() -> None:
    assert head_widths(HeadSettings(), num_features=1280, num_classes=10) == [1280, 10]
    assert head_widths(HeadSettings(hidden=[256, 64]), num_features=512, num_classes=3) == [512, 256, 64, 3]


@pytest.mark.parametrize(
    ("inputs", "units", "limit"),
    # sqrt(6 / (inputs + units)) by hand: 6/6 = 1, 6/24 = 1/4, 6/54 = 1/9, 6/600 = 1/100
    [(4, 2, 1.0), (20, 4, 0.5), (50, 4, 1 / 3), (500, 100, 0.1)],
)
def test_kernels_fill_the_range_of_glorot(inputs: int, units: int, limit: float) -> None:
    drawn = np.concatenate([initial_kernels([inputs, units], seed)[0].ravel() for seed in range(200)])
    assert np.abs(drawn).max() <= np.float32(limit)
    assert drawn.max() > 0.97 * limit and drawn.min() < -0.97 * limit
    # a uniform distribution: mean 0, variance limit^2 / 3
    assert abs(drawn.mean()) < 5 * limit / np.sqrt(3 * drawn.size)
    assert drawn.var() == pytest.approx(limit**2 / 3, rel=0.1)


def test_kernels_have_the_shapes_of_the_layers() -> None:
    kernels = initial_kernels([12, 7, 5, 3], seed=0)
    assert [kernel.shape for kernel in kernels] == [(12, 7), (7, 5), (5, 3)]
    assert all(kernel.dtype == np.float32 for kernel in kernels)


def test_same_seed_gives_the_same_kernels() -> None:
    first, again, other = (initial_kernels([30, 20, 10], seed) for seed in (5, 5, 6))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


def test_layers_are_drawn_independently() -> None:
    one, two = initial_kernels([8, 8, 8], seed=1)
    assert not np.array_equal(one, two)
    assert np.unique(one).size == one.size
