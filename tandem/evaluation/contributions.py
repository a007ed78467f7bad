"""Contributions of single test images to a score.

A score moves with the drawn test images like a sum of one contribution per image (its influence function): the variance
of the score over test sets is the sum of the squared contributions. For accuracy a contribution is 1 or 0 minus the
accuracy, over the number of images. For averages of precision, recall and F1 over classes it is the delta method
(Takahashi et al. 2022, "Confidence interval for micro-averaged F1 and macro-averaged F1 scores"), taken to second order
for their bias in small classes. For the squared calibration error it is twice the average of the kernel of a
U-statistic (Hoeffding 1948). For ROC-AUC and average precision see tandem.evaluation.ranking.

Contributions to averages over classes are centred within each class, since test sets are split by class and the number
of images per class does not vary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import sparse

from tandem import interrupts
from tandem.evaluation.metrics import calibration_pairs
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import rank

Measure = Literal["precision", "recall", "f1"]
Average = Literal["macro", "weighted", "present"]
Agreement = Literal["cohen_kappa", "matthews_correlation"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Amount of information that test images have on a score."""

    images: float | np.ndarray
    """Number of images of equal weight with the same information."""
    step: float | np.ndarray
    """Largest change of the score by one image."""
    df: float = np.inf
    """Degrees of freedom of the variance over images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributions:
    """A score of one run and the contributions of the images to it."""

    score: float
    bias: float
    """Expected score with so few images per class, minus the score with very many."""
    images: np.ndarray
    """float64 of shape (images,), summing to 0; the sum of squares is the score's variance over test sets."""


@dataclass(frozen=True, eq=False)
class ClassSplit:
    """The test images by their class."""

    truth: np.ndarray
    """int64 of shape (images,)."""
    num_classes: int

    @cached_property
    def support(self) -> np.ndarray:
        """Images per class, float64 of shape (classes,)."""
        return np.bincount(self.truth, minlength=self.num_classes).astype(np.float64)

    @cached_property
    def _strata(self) -> np.ndarray:
        """Classes, those with one image pooled: one image alone shows no variance."""
        return np.where(self.support > 1, np.arange(self.num_classes), self.num_classes)[self.truth]

    def weights(self, average: Average) -> np.ndarray:
        """Weight of each class in an average over classes, float64 of shape (classes,)."""
        if average == "macro":
            return np.full(self.num_classes, 1 / self.num_classes)
        if average == "present":
            return (self.support > 0) / np.count_nonzero(self.support)
        return self.support / len(self.truth)

    def size(self, average: Average) -> Size:
        """Information on an average over classes.

        The degrees of freedom are Satterthwaite's (1946) for classes of equal variance: few where one or two small
        classes decide. Halved, since the variance of a class with a recall near 0 or 1 is known less surely than that
        of normal values.
        """
        present = self.support > 0
        support = self.support[present]
        per_image = self.weights(average)[present] / support
        variances = per_image**2 * support
        return Size(
            images=1 / variances.sum(),
            step=per_image.max(),
            df=variances.sum() ** 2 / (variances**2 / np.maximum(support - 1, 0.5)).sum() / 2,
        )

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Values minus their mean in each class, scaled so that their squares are unbiased for the variance."""
        images = np.bincount(self._strata)
        means = np.bincount(self._strata, values) / np.maximum(images, 1)
        scale = np.sqrt(images / np.maximum(images - 1, 1))
        return (values - means[self._strata]) * scale[self._strata]


def mean_contributions(values: np.ndarray) -> Contributions:
    """Contributions to a mean over images.

    Args:
        values: One number per image, of shape (images,).
    """
    mean = values.mean()
    return Contributions(score=float(mean), bias=0.0, images=(values - mean) / len(values))


def class_contributions(split: ClassSplit, predicted: np.ndarray, measure: Measure, average: Average) -> Contributions:
    """Contributions to an average of precision, recall or F1 over classes.

    With c right images of a class with n images for which m were predicted, recall is c / n, precision c / m and F1
    2 c / (n + m). Derivatives in c and m give the contributions. Second derivatives with the covariance of c and m give
    the bias; for F1 they divide by (n + m + 1)(n + m + 2), whose reciprocal, unlike that of (n + m)^2, is hardly biased
    itself in small classes.

    Args:
        split: The test images.
        predicted: int64 of shape (images,), predicted classes.
        measure: Score of each class.
        average: "macro" for equal weights of the classes, "present" for those of the classes with images, "weighted"
            for their numbers of images.
    """
    truth, num_classes, support = split.truth, split.num_classes, split.support
    right = predicted == truth
    correct = np.bincount(truth[right], minlength=num_classes).astype(np.float64)
    predictions = np.bincount(predicted, minlength=num_classes).astype(np.float64)
    by_correct, by_predictions, curvature = np.zeros((3, num_classes))
    if measure == "recall":
        by_correct = 1 / np.maximum(support, 1)
        of_classes = correct * by_correct
    elif measure == "precision":
        total = np.maximum(predictions, 1)
        of_classes, curvature = correct / total, 1 / total**2
        # The variance of a share of few images is too small by one of them.
        by_correct = np.sqrt(total / np.maximum(total - 1, 1)) / total
        by_predictions = -of_classes * by_correct
    else:
        total = np.maximum(support + predictions, 1)
        of_classes, by_correct = 2 * correct / total, 2 / total
        by_predictions, curvature = -of_classes / total, 2 / ((total + 1) * (total + 2))
    weights = split.weights(average)
    gradient = np.where(right, (weights * by_correct)[truth], 0.0) + (weights * by_predictions)[predicted]
    of_correct, of_wrong = _count_variances(split, predicted, correct)
    half = 0.5 if measure == "f1" else 1.0
    bias = weights * curvature * (half * of_classes * (of_correct + of_wrong) - of_correct)
    return Contributions(score=float(weights @ of_classes), bias=float(np.sum(bias)), images=split.centred(gradient))


def _count_variances(split: ClassSplit, predicted: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances over test sets of each class's right images, and of other classes' images taken for it."""
    num_classes, support = split.num_classes, split.support
    unbiased = support / np.maximum(support - 1, 1)
    wrong = split.truth != predicted
    pairs, images = np.unique(split.truth[wrong] * num_classes + predicted[wrong], return_counts=True)
    truth = pairs // num_classes
    of_pairs = images * (1 - images / support[truth]) * unbiased[truth]
    return (
        correct * (1 - correct / np.maximum(support, 1)) * unbiased,
        np.bincount(pairs % num_classes, of_pairs, num_classes),
    )


def agreement_contributions(split: ClassSplit, predicted: np.ndarray, measure: Agreement) -> Contributions:
    """Contributions to Cohen's kappa or Matthews' correlation, on a scale from 0 to 1: half of one plus the score.

    With o the share of right images, t_k the share of images of class k, m_k that of images predicted as class k, and e
    the sum of t_k m_k, kappa is (o - e) / (1 - e), and the correlation of several classes (Gorodkin 2004, "Comparing
    two K-category assignments by a K-category correlation coefficient") is

        (o - e) / sqrt((1 - sum of m_k^2) (1 - sum of t_k^2)).

    Both are 0 where the denominator is 0. Derivatives in o and m_k give the contributions; t_k does not vary.
    """
    right = predicted == split.truth
    truth = split.support / len(split.truth)
    of_predicted = np.bincount(predicted, minlength=split.num_classes) / len(split.truth)
    beyond_chance = right.mean() - truth @ of_predicted
    if measure == "cohen_kappa":
        most = float(1 - truth @ of_predicted)
        score = beyond_chance / most if most > 0 else 0.0
        gradient = right - (1 - score) * truth[predicted]
    else:
        spread = 1 - of_predicted @ of_predicted
        most = float(np.sqrt(np.maximum(spread * (1 - truth @ truth), 0.0)))
        score = beyond_chance / most if most > 0 else 0.0
        gradient = right - truth[predicted]
        if most > 0:
            gradient = gradient + score * most / spread * of_predicted[predicted]
    images = split.centred(gradient / (2 * len(split.truth) * most)) if most > 0 else np.zeros(len(split.truth))
    return Contributions(score=float(1 + score) / 2, bias=0.0, images=images)


def agreement_size(split: ClassSplit) -> Size:
    """Information on Cohen's kappa and Matthews' correlation, on their scale from 0 to 1.

    If all predictions are right, one wrong one lowers either score by about 1 / (n - n sum of t_k^2), twice as much as
    its value from 0 to 1. With this number of images the limits of a perfect score are those of a perfect accuracy.

    Args:
        split: The test images, of at least two classes.
    """
    shares = split.support / len(split.truth)
    images = 2 * len(split.truth) * (1 - shares @ shares)
    return Size(images=images, step=1 / images, df=split.size("present").df)


def ranking_contributions(split: ClassSplit, predictions: Predictions) -> dict[str, Contributions]:
    """Contributions to the means over classes of ROC-AUC and average precision, by name.

    Args:
        split: The test images; at least two classes have some.
        predictions: Of these images.
    """
    weights = split.weights("present")
    scores, biases, images = np.zeros(2), np.zeros(2), np.zeros((2, len(split.truth)))
    for index in np.flatnonzero(weights):
        interrupts.check()
        ranking = rank(predictions, int(index))
        assert ranking is not None
        scores += weights[index] * np.array([ranking.roc_auc, ranking.average_precision])
        biases += weights[index] * np.array([0.0, ranking.average_precision_bias()])
        images[0] += weights[index] * ranking.roc_auc_contributions()
        images[1] += weights[index] * ranking.average_precision_contributions()
    return {
        name: Contributions(score=float(scores[place]), bias=float(biases[place]), images=split.centred(images[place]))
        for place, name in enumerate(("roc_auc_macro", "average_precision_macro"))
    }


def recall_of_classes(split: ClassSplit, predicted: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Recall of each class with the contributions of its images.

    Returns:
        float64 of shape (classes,), and of shape (classes, images).
    """
    right = predicted == split.truth
    support = np.maximum(split.support, 1)
    recall = np.bincount(split.truth, right, split.num_classes) / support
    values = (right - recall[split.truth]) / support[split.truth]
    return recall, _of_classes(split, [split.truth], [values])


def f1_of_classes(split: ClassSplit, predicted: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """F1 of each class with the contributions of its images and of those predicted as it.

    Returns:
        float64 of shape (classes,), and of shape (classes, images).
    """
    right = predicted == split.truth
    total = np.maximum(split.support + np.bincount(predicted, minlength=split.num_classes), 1)
    f1 = 2 * np.bincount(split.truth, right, split.num_classes) / total
    of_truth = (2.0 * right - (1.0 + right) * f1[split.truth]) / total[split.truth]
    of_predicted = np.where(right, 0.0, -f1[predicted] / total[predicted])
    return f1, _of_classes(split, [split.truth, predicted], [of_truth, of_predicted])


def _of_classes(split: ClassSplit, classes: list[np.ndarray], values: list[np.ndarray]) -> sparse.csr_array:
    images = np.tile(np.arange(len(split.truth)), len(classes))
    shape = (split.num_classes, len(split.truth))
    return sparse.csr_array((np.concatenate(values), (np.concatenate(classes), images)), shape=shape)


def calibration_contributions(confidence: np.ndarray, right: np.ndarray) -> Contributions:
    """Contributions to the squared calibration error, debiased: see metrics.calibration_pairs.

    Args:
        confidence: Highest probability of each image, of shape (images,).
        right: True where the predicted class is the true one, of shape (images,).
    """
    pairs = calibration_pairs(confidence, right)
    mean = pairs.mean()
    return Contributions(score=float(mean), bias=0.0, images=2 * (pairs - mean) / len(pairs))
