from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tandem.data.sampling import draw_balanced


def draw(labels: np.ndarray, epoch: int = 0) -> np.ndarray:
    return draw_balanced(np.random.SeedSequence([3, epoch]), labels)


@pytest.mark.parametrize("counts", [[40, 3, 17], [1, 1, 1], [90, 1], [5, 5, 5, 6], [2, 0, 7]])
def test_classes_are_equally_frequent(counts: list[int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for epoch in range(5):
        drawn = draw(labels, epoch)
        assert len(drawn) == len(labels)
        found = Counter(labels[drawn].tolist())
        assert set(found) == set(labels.tolist())
        assert max(found.values()) - min(found.values()) <= 1


def test_images_of_a_class_are_equally_frequent() -> None:
    labels = np.repeat([0, 1, 2], [40, 3, 17])
    for epoch in range(5):
        times = np.bincount(draw(labels, epoch), minlength=len(labels))
        for label in range(3):
            of_class = times[labels == label]
            assert of_class.max() - of_class.min() <= 1
    assert times[labels == 0].max() == 1 and times[labels == 1].min() >= 6


def test_every_image_and_class_has_the_same_chance_over_the_epochs() -> None:
    labels = np.repeat([0, 1, 2], [30, 10, 4])  # 44 images: two classes of three have one more in each epoch
    num_epochs = 600
    times = sum(np.bincount(draw(labels, epoch), minlength=len(labels)) for epoch in range(num_epochs))
    expected = num_epochs * 44 / 3 / np.bincount(labels)[labels]
    # at most four standard deviations of a binomial count; 44 counts
    assert (abs(times - expected) < 4 * np.sqrt(expected)).all()
    # each class has the additional image in 400 of 600 epochs, with a standard deviation of 11.5
    extra = [sum(times[labels == label]) - num_epochs * 14 for label in range(3)]
    assert all(abs(count - 400) < 50 for count in extra)


def test_epochs_differ_and_equal_seeds_agree() -> None:
    labels = np.repeat([0, 1], [30, 3])
    assert np.array_equal(draw(labels), draw(labels))
    assert set(draw(labels)) != set(draw(labels, 1))


def test_draws_are_those_of_earlier_versions() -> None:
    assert draw(np.array([1, 0, 1, 1, 1, 0, 1])).tolist() == [5, 1, 5, 1, 2, 3, 4]
