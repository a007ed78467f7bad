from __future__ import annotations

import numpy as np
import pytest

from tests.small_runs import assert_same_outputs

OUTPUTS = np.random.default_rng(0).normal(size=(6, 3))


def test_equal_outputs_that_differ_between_images_pass() -> None:
    assert_same_outputs(OUTPUTS + 1e-6, OUTPUTS, atol=1e-5)


@pytest.mark.parametrize(
    "received",
    [OUTPUTS[:, ::-1], OUTPUTS[::-1], OUTPUTS + 1e-4, OUTPUTS[:5], np.full_like(OUTPUTS, np.nan)],
    ids=["other order of outputs", "other order of images", "other values", "fewer images", "NaN"],
)
def test_different_outputs_fail(received: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        assert_same_outputs(received, OUTPUTS, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [(OUTPUTS[:1].repeat(6, axis=0), "images differ by 0 only"), (OUTPUTS[:, :1].repeat(3, axis=1), "outputs differ")],
    ids=["same for all images", "same for all classes"],
)
def test_outputs_that_are_all_the_same_fail_although_they_are_equal(outputs: np.ndarray, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        assert_same_outputs(outputs, outputs, atol=1e-5)
