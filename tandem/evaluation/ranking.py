"""Rankings of the test images by the probability of one class: ROC and precision-recall curves, and their areas.

Each class is told apart from the rest. A threshold on its probability calls every image at or above it positive; with
TP and FP the positives that are and are not of the class, P the images of the class and N the others, a curve has one
point per threshold:

    ROC                 (FP / N, TP / P)
    precision-recall    (TP / P, TP / (TP + FP))

ROC-AUC is the area below the ROC curve with straight lines between its points: the probability that an image of the
class has a higher probability than one of the rest, ties counting one half. Average precision is the mean of the
precision at each image of the class, without interpolation. Both are scikit-learn's definitions. One sort per class
gives both of them, the curves, and each image's contributions, which scikit-learn does not have.

A class without test images, or with all of them, has no curves and no areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tandem.evaluation.predictions import Predictions

CURVE_RATES = np.linspace(0, 1, 101)
"""False positive rates, or recalls, of curves that are drawn and averaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The images ordered by the probability of one class, highest first."""

    order: np.ndarray
    """Indices of the images, int64 of shape (images,)."""
    is_positive: np.ndarray
    """True for an image of the class, in this order."""
    threshold: np.ndarray
    """Index of the threshold from which on an image is called positive, in this order; images of equal probability
    share one."""

    @cached_property
    def true_positives(self) -> np.ndarray:
        """At each threshold, highest first; float64 of shape (thresholds,)."""
        return np.cumsum(np.bincount(self.threshold, self.is_positive))

    @cached_property
    def false_positives(self) -> np.ndarray:
        """At each threshold, highest first; float64 of shape (thresholds,)."""
        return np.cumsum(np.bincount(self.threshold, ~self.is_positive))

    @property
    def positives(self) -> float:
        """Number of images of the class."""
        return self.true_positives[-1]

    @property
    def negatives(self) -> float:
        """Number of images of the rest."""
        return self.false_positives[-1]

    @property
    def precision(self) -> np.ndarray:
        """At each threshold, highest first; float64 of shape (thresholds,)."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @cached_property
    def roc_auc(self) -> float:
        """Area below the ROC curve, 0..1."""
        # The mean over images of the rest of the share of the class's images that rank above them.
        return float(_steps(self.false_positives) @ self._middles(self.true_positives)) / float(self.negatives)

    @cached_property
    def average_precision(self) -> float:
        """Mean precision at the images of the class, 0..1."""
        return float(_steps(self.true_positives) @ self.precision / self.positives)

    def roc_auc_contributions(self) -> np.ndarray:
        """Contributions of the images to the ROC-AUC, not centred: their placements among the images of the other kind.

        DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating
        characteristic curves", equations 4 and 5.

        Returns:
            float64 of shape (images,), in the order of the predictions.
        """
        return self._of_images(
            (1 - self._middles(self.false_positives)) / self.positives,
            self._middles(self.true_positives) / self.negatives,
        )

    def average_precision_contributions(self) -> np.ndarray:
        """Contributions of the images to the average precision, not centred: its derivative in each image's weight.

        An image counts in the precision at each threshold at or below its own probability.

        Returns:
            float64 of shape (images,), in the order of the predictions.
        """
        called = self.true_positives + self.false_positives
        weight = _steps(self.true_positives) / self.positives
        if_positive = np.cumsum((weight / called)[::-1])[::-1]
        if_called = np.cumsum((weight * self.precision / called)[::-1])[::-1]
        return self._of_images(self.precision / self.positives + if_positive - if_called, -if_called)

    def average_precision_bias(self) -> float:
        """Mean average precision of test sets of this size, minus that of a very large one, to second order.

        An image of the class counts in the precision at its own threshold, and precision is a ratio of two counts that
        vary. With TP, FP, and the rates TPR and FPR, the first adds (1 - TPR) FP / (TP + FP)^2 to the precision, and
        the second TP FP (TPR - FPR) / (TP + FP)^3.
        """
        called = self.true_positives + self.false_positives
        true_rate, false_rate = self.true_positives / self.positives, self.false_positives / self.negatives
        own = (1 - true_rate) * self.false_positives / called**2
        ratio = self.true_positives * self.false_positives * (true_rate - false_rate) / called**3
        return float(_steps(self.true_positives) @ (own + ratio) / self.positives)

    def _middles(self, counts: np.ndarray) -> np.ndarray:
        """Share of the images of one kind that rank above each threshold's own images, which count one half."""
        return (counts - _steps(counts) / 2) / counts[-1]

    def _of_images(self, if_positive: np.ndarray, if_negative: np.ndarray) -> np.ndarray:
        values = np.empty(len(self.order))
        values[self.order] = np.where(self.is_positive, if_positive[self.threshold], if_negative[self.threshold])
        return values

    def roc_curve(self) -> np.ndarray:
        """Highest true positive rate at each of CURVE_RATES; float64 of shape (101,)."""
        rates = np.concatenate([[0.0], self.false_positives / self.negatives])
        # Of several points at one rate, np.interp takes the last one, the highest.
        return np.interp(CURVE_RATES, rates, np.concatenate([[0.0], self.true_positives / self.positives]))

    def precision_recall_curve(self) -> np.ndarray:
        """Precision at the highest threshold with at least each of CURVE_RATES as recall; float64 of shape (101,).

        At a recall of 0, that of the highest threshold with an image of the class.
        """
        # As numbers of images, with a tolerance far below one image for the rounding of rates.
        wanted = np.maximum(CURVE_RATES * self.positives - 1e-6, 0.5)
        return self.precision[np.searchsorted(self.true_positives, wanted)]


def rank(predictions: Predictions, index: int) -> Ranking | None:
    """Ranks the images by the probability of a class.

    Args:
        predictions: Of the test images.
        index: Of the class.

    Returns:
        None for a class without test images, or with all of them.
    """
    is_positive = predictions.truth == index
    if is_positive.all() or not is_positive.any():
        return None
    probabilities = np.ascontiguousarray(predictions.probabilities[:, index])
    order = np.argsort(probabilities)[::-1]
    in_order = probabilities[order]
    return Ranking(
        order=order,
        is_positive=is_positive[order],
        threshold=np.cumsum(np.concatenate([[False], in_order[1:] != in_order[:-1]])),
    )


def ranking_table(predictions: Predictions) -> pd.DataFrame:
    """One row per class, with class, roc_auc and average_precision; both NaN for a class that cannot be ranked."""
    rankings = [rank(predictions, index) for index in range(len(predictions.classes))]
    return pd.DataFrame(
        {
            "class": list(predictions.classes),
            "roc_auc": [np.nan if ranking is None else ranking.roc_auc for ranking in rankings],
            "average_precision": [np.nan if ranking is None else ranking.average_precision for ranking in rankings],
        }
    )


def _steps(counts: np.ndarray) -> np.ndarray:
    """Increase of a count at each threshold."""
    return np.diff(counts, prepend=0.0)
