from __future__ import annotations

import numpy as np
import pytest

from tandem.errors import UserError
from tandem.evaluation.ensemble import ensemble, mean_probabilities
from tandem.evaluation.predictions import Predictions


def predictions(
    probabilities: list[list[float]], hashes: str = "abc", truth: tuple[int, ...] = (0, 0, 1)
) -> Predictions:
    return Predictions(
        keys=tuple(f"{name}.png" for name in hashes),
        hashes=tuple(hashes),
        truth=np.array(truth, dtype=np.int64),
        probabilities=np.array(probabilities, dtype=np.float32),
        classes=("cat", "dog"),
    )


def test_probabilities_are_averaged_and_not_votes_counted() -> None:
    """Two of three members prefer the second class by a little, and the third is sure of the first one."""
    members = [np.array([[0.45, 0.55]]), np.array([[0.4, 0.6]]), np.array([[0.99, 0.01]])]
    found = mean_probabilities([one.astype(np.float32) for one in members])
    assert found == pytest.approx(np.array([[1.84 / 3, 1.16 / 3]]))
    assert found.dtype == np.float32


def test_ensemble_matches_images_by_their_bytes() -> None:
    first = predictions([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    renamed = predictions([[0.0, 1.0], [0.5, 0.5], [0.2, 0.8]], hashes="cab", truth=(1, 0, 0))
    found = ensemble([first, renamed])
    assert found.hashes == ("a", "b", "c") and found.truth.tolist() == [0, 0, 1]
    assert found.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]]))
    assert found.predicted.tolist() == [0, 1, 1]


def test_ensemble_of_one_is_that_one() -> None:
    only = predictions([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert np.array_equal(ensemble([only]).probabilities, only.probabilities)


def test_ensemble_of_other_images_is_refused() -> None:
    first, other = predictions([[1, 0]] * 3), predictions([[1, 0]] * 3, hashes="abd")
    with pytest.raises(UserError, match="different images"):
        ensemble([first, other])
