"""Scores on resampled test images: what intervals and tests are computed from.

All runs that were tested on the same images are scored on the same resamples, so that differences between them can be
taken resample by resample. A resample weights each image by how often it was drawn; the sums that the scores are made
of are then one sparse matrix product for hundreds of resamples at once.

The minimum scores are resampled within each class: which class is the worst must not depend on how many of its images
happened to be drawn. All other scores are resampled over all images. A class that is missing from a resample has the
scores 0, as in tandem.evaluation.metrics.

A cell is what is compared: one run, or several that differ in nothing but their seed. Its score is the mean over its
runs. With R > 1 runs a resample also draws R - 1 of them with replacement; it is with R - 1 rather than R that their
mean varies as much as the mean of R new runs would (Rao and Wu 1988, "Resampling inference with complex survey data").
Cells with equally many runs draw the same positions.

With one run a cell, all of this is the plain paired bootstrap: it says which of two trained networks is better on
images like these, not which would be better if both were trained again. With two or three runs, how much seeds matter
is itself hardly known, and where they matter most, intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tandem.errors import UserError
from tandem.evaluation.metrics import CALIBRATION_BINS, calibration_gaps, image_scores, scores
from tandem.evaluation.predictions import Predictions

NUM_RESAMPLES = 2000  # Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 19: 1,000 or more
MAX_RESAMPLES = 20_000
SEED = 0

# Drawn at once: the weights, of shape (images, 250), stay in the processor's caches with some thousand images.
_BLOCK = 250

_MEANS = ("top5_accuracy", "log_loss", "recall_at_half")  # over images; accuracy comes from the classes' counts


@dataclass(frozen=True, kw_only=True, eq=False)
class ResampledScores:
    """The scores of cells that were tested on the same images, on these images and on resamples of them.

    Args:
        estimates: for each name of tandem.evaluation.metrics.scores, float64 of shape (cells,).
        resampled: the same names, float64 of shape (cells, resamples); column b of all cells is the same resample.
        correct: for each cell whether its runs were right, bool of shape (runs, images), in the order of `align`.
        num_classes: of the predictions.
    """

    estimates: dict[str, np.ndarray]
    resampled: dict[str, np.ndarray]
    correct: tuple[np.ndarray, ...]
    num_classes: int


def align(predictions: Sequence[Predictions]) -> list[Predictions]:
    """Brings the images of several runs into one order, that of their hashes.

    Files may have been renamed between two runs: it is the bytes and the class that make an image the same.

    Raises:
        UserError: the runs were not tested on the same images, or have other classes.
    """
    aligned = [_in_order_of_hashes(one) for one in predictions]
    for number, one in enumerate(aligned[1:], start=2):
        first = aligned[0]
        if one.classes != first.classes:
            raise UserError(
                f"the classes of runs 1 and {number} differ ({len(first.classes)} and {len(one.classes)} classes): "
                "only runs with the same classes in the same order can be compared image by image"
            )
        if one.hashes != first.hashes or not np.array_equal(one.truth, first.truth):
            raise UserError(
                f"runs 1 and {number} were tested on different images ({len(first.hashes)} and {len(one.hashes)} "
                "images): compare runs with the same test split"
            )
    return aligned


def resamples_for(num_tests: int) -> int:
    """How many resamples it takes for a p value to survive Holm's correction over some tests.

    The smallest p value of B resamples is 1 / (B + 1). With 100 resamples a test it is 0.01 after the correction.

    Returns:
        2,000 to 20,000; from 1,000 tests on (46 cells in pairs) the bootstrap can tell no two cells apart at 0.05.
    """
    return min(max(NUM_RESAMPLES, 100 * num_tests), MAX_RESAMPLES)


def resample_scores(
    cells: Sequence[Sequence[Predictions]], *, num_resamples: int = NUM_RESAMPLES, seed: int = SEED
) -> ResampledScores:
    """Scores cells on the same resamples of their test images.

    Args:
        cells: each the predictions of one or more runs, ordered by their seeds; all on the same test images.
        num_resamples: for tests between pairs, what `resamples_for` says.
        seed: of the resamples, which depend on it, on the test images' hashes and classes, and on nothing else.

    Raises:
        UserError: the runs were not tested on the same images.
        ValueError: there is no cell, or one without runs.
    """
    if not cells or not all(cells):
        raise ValueError(f"cells with runs are needed. Received: cells of {[len(cell) for cell in cells]} runs")
    runs = align([predictions for cell in cells for predictions in cell])
    truth, num_classes = runs[0].truth, len(runs[0].classes)
    sums = [_sums(run) for run in runs]
    class_sums = [matrix[: 2 * num_classes] for matrix in sums]

    observed = [scores(run) for run in runs]
    resampled = {name: np.empty((len(runs), num_resamples)) for name in observed[0]}
    for columns, weights in weight_blocks(truth, num_resamples, seed, within_class=False):
        support = class_support(truth, num_classes) @ weights
        for index, matrix in enumerate(sums):
            for name, values in _scores_of_sums(matrix @ weights, support).items():
                resampled[name][index, columns] = values
    for columns, weights in weight_blocks(truth, num_resamples, seed, within_class=True):
        support = class_support(truth, num_classes) @ weights
        for index, matrix in enumerate(class_sums):
            for name, values in class_scores(matrix @ weights, support).items():
                resampled[f"{name}_min"][index, columns] = values.min(axis=0)

    ends = np.cumsum([len(cell) for cell in cells])
    members = [slice(end - len(cell), end) for end, cell in zip(ends, cells, strict=True)]
    correct = np.array([run.predicted == truth for run in runs])
    return ResampledScores(
        estimates={
            name: np.array([np.mean([run[name] for run in observed[member]]) for member in members])
            for name in observed[0]
        },
        resampled={
            name: np.array([mean_of_drawn_runs(values[member], seed) for member in members])
            for name, values in resampled.items()
        },
        correct=tuple(correct[member] for member in members),
        num_classes=num_classes,
    )


def weight_blocks(
    truth: np.ndarray, num_resamples: int, seed: int, *, within_class: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Draws resamples of the test images, as many images as there are, with replacement.

    Args:
        truth: int64 of shape (images,).
        num_resamples: in all.
        seed: the first resamples of a seed are the same, however many are drawn.
        within_class: draws from each class as many images as it has.

    Yields:
        Which resamples these are, and how often each holds each image: float32 of shape (images, block). Sums of
        these counts are exact up to 2^24 images, and twice as fast as in float64.
    """
    images = len(truth)
    random = np.random.default_rng([seed, within_class])
    order = np.argsort(truth, kind="stable")
    support = np.bincount(truth)
    class_size, class_start = support[truth[order]], (np.cumsum(support) - support)[truth[order]]
    for start in range(0, num_resamples, _BLOCK):
        block = min(_BLOCK, num_resamples - start)
        if within_class:
            drawn = order[class_start + (random.random((block, images)) * class_size).astype(np.int64)]
        else:
            drawn = random.integers(0, images, (block, images))
        drawn += np.arange(block)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=block * images).reshape(block, images)
        yield slice(start, start + block), np.ascontiguousarray(counts.T, dtype=np.float32)


def mean_of_drawn_runs(values: np.ndarray, seed: int) -> np.ndarray:
    """The mean over R - 1 of a cell's R runs, drawn anew for each resample; of its one run if it has no more.

    Args:
        values: of shape (runs, ..., resamples).
        seed: as for the images.

    Returns:
        float64 of shape (..., resamples).
    """
    runs, resamples = values.shape[0], values.shape[-1]
    if runs == 1:
        return values[0]
    # A stream of its own: (seed, 0) and (seed, 1) draw images.
    drawn = np.random.default_rng([seed, runs]).integers(0, runs, (resamples, runs - 1))
    times = (drawn[:, :, None] == np.arange(runs)).sum(axis=1)
    return np.einsum("r...b,br->...b", values, times) / (runs - 1)


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


def _in_order_of_hashes(predictions: Predictions) -> Predictions:
    # Copies of an image in one class have the same outputs, so that their order among themselves is of no importance.
    hashes, truth = predictions.hashes, predictions.truth
    order = sorted(range(len(hashes)), key=lambda index: (hashes[index], truth[index]))
    return Predictions(
        keys=tuple(predictions.keys[index] for index in order),
        hashes=tuple(hashes[index] for index in order),
        truth=truth[order],
        probabilities=predictions.probabilities[order],
        classes=predictions.classes,
    )


def _indicator(rows: np.ndarray, values: np.ndarray, num_rows: int) -> sparse.csr_array:
    """A matrix with one value in each column."""
    values = values.astype(np.float32)
    matrix = sparse.csr_array((values, (rows, np.arange(len(rows)))), shape=(num_rows, len(rows)))
    matrix.eliminate_zeros()
    return matrix


def _sums(predictions: Predictions) -> sparse.csr_array:
    """Times weights of images: all sums that the scores are made of; `class_counts` come first."""
    of_images = image_scores(predictions)
    return sparse.vstack(
        [
            class_counts(predictions),
            _indicator(*calibration_gaps(predictions), CALIBRATION_BINS),
            sparse.csr_array(np.array([of_images[name] for name in _MEANS], dtype=np.float32)),
        ],
        format="csr",
    )


def _scores_of_sums(sums: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """All scores but the minima, each of shape (resamples,)."""
    sums = sums.astype(np.float64)
    classes, images = len(support), support.sum(axis=0, dtype=np.float64)
    right, gaps, means = sums[:classes], sums[2 * classes : -len(_MEANS)], sums[-len(_MEANS) :]
    result = {"accuracy": right.sum(axis=0) / images, "calibration_error": np.abs(gaps).sum(axis=0) / images}
    for name, sum_of_images in zip(_MEANS, means, strict=True):
        result[name] = sum_of_images / images
    for name, of_classes in class_scores(sums[: 2 * classes], support).items():
        result[f"{name}_macro"] = of_classes.mean(axis=0)
        result[f"{name}_weighted"] = (of_classes * support).sum(axis=0) / images
    return result
