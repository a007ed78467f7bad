"""Resamples of test images, for statements about classes that have no formula: which of them is the hardest.

A resample weights each image by how often it was drawn from its class. The numbers that scores of classes are made of
are then one sparse matrix product for hundreds of resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from tandem import interrupts
from tandem.evaluation.predictions import Predictions

NUM_RESAMPLES = 2000  # Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 19: 1,000 or more
SEED = 0

# Drawn at once: the weights, of shape (images, 250), stay in the processor's caches with some thousand images.
_BLOCK = 250


def weight_blocks(truth: np.ndarray, num_resamples: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Draws resamples of the test images: from each class as many images as it has, with replacement.

    Args:
        truth: int64 of shape (images,).
        num_resamples: Number of resamples in all.
        seed: The first resamples of a seed are the same, however many are drawn.

    Yields:
        Which resamples these are, and how often each holds each image: float32 of shape (images, block). Sums of
        these counts are exact up to 2^24 images, and twice as fast as in float64.
    """
    images = len(truth)
    random = np.random.default_rng([seed, 1])
    order = np.argsort(truth, kind="stable")
    support = np.bincount(truth)
    class_size, class_start = support[truth[order]], (np.cumsum(support) - support)[truth[order]]
    for start in range(0, num_resamples, _BLOCK):
        interrupts.check()
        block = min(_BLOCK, num_resamples - start)
        drawn = order[class_start + (random.random((block, images)) * class_size).astype(np.int64)]
        drawn += np.arange(block)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=block * images).reshape(block, images)
        yield slice(start, start + block), np.ascontiguousarray(counts.T, dtype=np.float32)


def class_support(truth: np.ndarray, num_classes: int) -> sparse.csr_array:
    """Times weights of images: how many each class has. Of shape (classes, images)."""
    return _indicator(truth, np.ones(len(truth)), num_classes)


def class_counts(predictions: Predictions) -> sparse.csr_array:
    """Times weights of images: how many of each class are right, and how many each class is predicted for.

    Returns:
        Of shape (2 * classes, images).
    """
    num_classes = len(predictions.classes)
    correct = (predictions.predicted == predictions.truth).astype(np.float64)
    return sparse.vstack(
        [
            _indicator(predictions.truth, correct, num_classes),
            class_support(predictions.predicted, num_classes),
        ],
        format="csr",
    )


def class_scores(counts: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class in each resample, 0 where the denominator is 0.

    Args:
        counts: of shape (2 * classes, resamples), from `class_counts`.
        support: of shape (classes, resamples).
    """
    right, predicted = np.split(counts.astype(np.float64), 2)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        # Where the denominator is 0, so is the numerator.
        return numerator / np.maximum(denominator, 1)

    return {
        "precision": ratio(right, predicted),
        "recall": ratio(right, support),
        "f1": ratio(2 * right, support + predicted),
    }


def _indicator(rows: np.ndarray, values: np.ndarray, num_rows: int) -> sparse.csr_array:
    """A matrix with one value in each column."""
    values = values.astype(np.float32)
    matrix = sparse.csr_array((values, (rows, np.arange(len(rows)))), shape=(num_rows, len(rows)))
    matrix.eliminate_zeros()
    return matrix
