"""The training images of an epoch in which all classes are equally frequent."""

from __future__ import annotations

import numpy as np

SPAWN_KEY = 1001
"""Of the generator's seed, far from those of order and augmentation, which are counted from 0."""


def draw_balanced(seed: np.random.SeedSequence, labels: np.ndarray) -> np.ndarray:
    """Draws as many images as there are, equally many of each class up to one.

    An image is drawn again only after all others of its class, so small classes are repeated evenly and of large ones a
    different part is drawn in each epoch. Independent draws, as of torch's WeightedRandomSampler, would leave the
    numbers of each class and image to chance.

    Args:
        seed: Of the epoch.
        labels: Class of each image, int64 of shape (n,).

    Returns:
        Indices into the images, class by class, int64 of shape (n,).
    """
    classes, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    num_images, num_classes = len(labels), len(classes)
    # numpy promises never to change the bit generator's raw numbers
    numbers = np.random.PCG64(seed).random_raw(num_classes + num_images)
    quotas = np.full(num_classes, num_images // num_classes)
    quotas[np.argsort(numbers[:num_classes], kind="stable")[: num_images % num_classes]] += 1
    by_class = np.lexsort((numbers[num_classes:], labels))  # within a class in random order
    starts, first_draws = np.cumsum(counts) - counts, np.cumsum(quotas) - quotas
    draw_of_class = np.arange(num_images) - np.repeat(first_draws, quotas)
    return by_class[np.repeat(starts, quotas) + draw_of_class % np.repeat(counts, quotas)]
