from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tandem.evaluation.predictions import Predictions, softmax


@pytest.fixture
def make_run() -> Callable[..., Predictions]:
    """Makes predictions of the same images, the same for the same seed, the better the larger the skill."""

    def make(
        seed: int, *, images: int = 120, num_classes: int = 6, skill: float = 2.0, test_set: int = 0
    ) -> Predictions:
        of_test_set = np.random.default_rng([1, test_set])
        truth = of_test_set.integers(0, num_classes, images)
        truth[:num_classes] = np.arange(num_classes)
        # Images that are hard for one run are hard for others.
        logits = of_test_set.normal(size=(images, num_classes)) + np.random.default_rng([2, seed]).normal(
            size=(images, num_classes)
        )
        logits[np.arange(images), truth] += skill
        return Predictions(
            keys=tuple(f"{index}.png" for index in range(images)),
            hashes=tuple(f"{index * 7919 % 10007:05d}" for index in range(images)),
            truth=truth,
            probabilities=softmax(logits),
            classes=tuple(f"class {index}" for index in range(num_classes)),
        )

    return make
