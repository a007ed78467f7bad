"""Scores of rows that were tested on the same images, or on the same folds.

A row is what is compared: one run, or several that differ in their seed alone. Its score is the mean over its runs,
over folds the mean over the folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from tandem import interrupts
from tandem.evaluation.contributions import (
    Agreement,
    Average,
    ClassSplit,
    Contributions,
    Measure,
    Size,
    agreement_contributions,
    agreement_size,
    calibration_contributions,
    class_contributions,
    mean_contributions,
    ranking_contributions,
)
from tandem.evaluation.crossed import Crossed, Side, mean_of_independent, side_of_runs
from tandem.evaluation.metrics import image_scores, per_class_table
from tandem.evaluation.predictions import Predictions, align

MEANS = ("accuracy", "top5_accuracy", "recall_at_half", "log_loss")
_CLASS_AVERAGES: dict[str, tuple[Measure, Average]] = {
    "precision_macro": ("precision", "macro"),
    "precision_weighted": ("precision", "weighted"),
    "recall_macro": ("recall", "macro"),
    "recall_weighted": ("recall", "weighted"),
    "f1_macro": ("f1", "macro"),
    "f1_weighted": ("f1", "weighted"),
    "balanced_accuracy": ("recall", "present"),
}
CLASS_AVERAGES = tuple(_CLASS_AVERAGES)
AGREEMENTS: tuple[Agreement, ...] = ("cohen_kappa", "matthews_correlation")
RANKINGS = ("roc_auc_macro", "average_precision_macro")
CALIBRATION = "rms_calibration_error"

# With less, intervals were seen to miss the true score too often: benchmarks/calibration.py.
FEWEST_IMAGES_PER_CLASS = {"recall": 2, "f1": 4, "precision": 15, "agreement": 2, "roc_auc": 2, "average_precision": 15}
FEWEST_DF = {"recall": 4, "f1": 4, "precision": 20, "agreement": 4, "roc_auc": 4, "average_precision": 4}
MOST_BIAS = 1.0  # of the average precision, in standard deviations of the score over test sets
FEWEST_ERRORS = 20
FEWEST_IMAGES_FOR_CALIBRATION = 150


@dataclass(frozen=True, kw_only=True, eq=False)
class RowScores:
    """One score of several rows."""

    estimates: np.ndarray
    """float64 of shape (rows,): the score as tandem.evaluation.metrics defines it; its square for the calibration,
    half of one plus the score for AGREEMENTS."""
    values: np.ndarray
    """The same, corrected for the bias of small classes."""
    contributions: np.ndarray
    """Contributions of the images, averaged over the row's runs: float64 of shape (rows, images)."""
    runs: Side
    """Of shape (rows,)."""
    size: Size
    why_not: tuple[str | None, ...]
    """For each row the reason why it has no interval, None if it has one."""

    def of(self, rows: Sequence[int] | np.ndarray) -> Crossed:
        """The scores of some rows, with the parts of their variance."""
        rows = np.asarray(rows, dtype=np.int64)
        images = np.square(self.contributions[rows]).sum(axis=1)
        return Crossed(value=self.values[rows], images=images, sides=(self.runs.at(rows),), size=self.size)

    def differences(self, first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> Crossed:
        """The scores of some rows minus those of others, with the parts of their variance."""
        first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        images = [
            np.square(self.contributions[one] - self.contributions[other]).sum()
            for one, other in zip(first, second, strict=True)
        ]
        return Crossed(
            value=self.values[first] - self.values[second],
            images=np.array(images, dtype=np.float64),
            sides=(self.runs.at(first), self.runs.at(second)),
            size=self.size,
        )


class ScoredRows:
    """Rows with the predictions of their runs.

    Args:
        rows: For each row the predictions of one or more runs; all on the same test images.

    Raises:
        UserError: The runs were not tested on the same images.
        ValueError: There is no row, or one without runs.
    """

    def __init__(self, rows: Sequence[Sequence[Predictions]]) -> None:
        if not rows or not all(rows):
            raise ValueError(f"rows with runs are needed. Received: rows of {[len(row) for row in rows]} runs")
        aligned = [ScoredRun(run) for run in align([run for row in rows for run in row])]
        ends = np.cumsum([len(row) for row in rows])
        self.runs = tuple(tuple(aligned[end - len(row) : end]) for end, row in zip(ends, rows, strict=True))
        self.split = ClassSplit(aligned[0].predictions.truth, len(aligned[0].predictions.classes))
        self._scores: dict[str, RowScores] = {}

    def __len__(self) -> int:
        return len(self.runs)

    def num_runs(self, row: int) -> int:
        """Number of runs of a row."""
        return len(self.runs[row])

    @property
    def num_images(self) -> int:
        """Number of test images."""
        return len(self.split.truth)

    def score(self, name: str) -> RowScores:
        """One score of all rows.

        Args:
            name: A name of MEANS, CLASS_AVERAGES, AGREEMENTS (on a scale from 0 to 1) or RANKINGS, or CALIBRATION for
                the squared error.
        """
        if name not in self._scores:
            self._scores[name] = self._score(name)
        return self._scores[name]

    def disagreement(self, first: int, second: int) -> float:
        """The share of images that only one of two rows gets right, on average over pairs of their runs."""
        one, other = (np.mean([run.right for run in self.runs[row]], axis=0) for row in (first, second))
        return float(np.mean(one * (1 - other) + other * (1 - one)))

    def _score(self, name: str) -> RowScores:
        size, why_not = Size(images=self.num_images, step=1 / self.num_images), None
        contributions = _CONTRIBUTIONS[name]
        if name in _OF_CLASSES:
            measure, average = _OF_CLASSES[name]
            size = self.split.size(average)
            # Rounded, since 600 images of 40 classes of equal size would be 14.999... per class.
            if np.round(size.images / np.count_nonzero(self.split.support), 9) < FEWEST_IMAGES_PER_CLASS[measure]:
                why_not = f"fewer than {FEWEST_IMAGES_PER_CLASS[measure]} test images per class"
            elif size.df < FEWEST_DF[measure]:
                why_not = "a few small classes decide"
            if name in AGREEMENTS and np.count_nonzero(self.split.support) == 1:
                why_not = "all test images have one class"
            elif name in AGREEMENTS:
                size = agreement_size(self.split)
        elif name == CALIBRATION and self.num_images < FEWEST_IMAGES_FOR_CALIBRATION:
            why_not = f"fewer than {FEWEST_IMAGES_FOR_CALIBRATION} test images"
        rows = [[_unless_interrupted(contributions, self.split, run) for run in runs] for runs in self.runs]
        images = [np.array([part.images for part in row]) for row in rows]
        values = [np.array([part.score - part.bias for part in row]) for row in rows]
        return RowScores(
            estimates=np.array([np.mean([part.score for part in row]) for row in rows]),
            values=np.array([own.mean() for own in values]),
            contributions=np.array([own.mean(axis=0) for own in images]),
            runs=side_of_runs(values, images),
            size=size,
            why_not=tuple(
                why_not or _too_few_errors(name, runs) or _too_biased(name, parts)
                for runs, parts in zip(self.runs, rows, strict=True)
            ),
        )


@dataclass(frozen=True, eq=False)
class FoldScores:
    """One score of several rows over folds, which have no test images in common."""

    folds: tuple[RowScores, ...]

    @property
    def estimates(self) -> np.ndarray:
        """Mean over the folds, float64 of shape (rows,)."""
        return np.mean([fold.estimates for fold in self.folds], axis=0)

    @property
    def why_not(self) -> tuple[str | None, ...]:
        """For each row the reason of the first fold in which it has no interval."""
        reasons = zip(*(fold.why_not for fold in self.folds), strict=True)
        return tuple(next(filter(None, of_row), None) for of_row in reasons)

    def of(self, rows: Sequence[int] | np.ndarray) -> Crossed:
        """The scores of some rows, with the parts of their variance."""
        return mean_of_independent([fold.of(rows) for fold in self.folds])

    def differences(self, first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> Crossed:
        """The scores of some rows minus those of others, with the parts of their variance."""
        return mean_of_independent([fold.differences(first, second) for fold in self.folds])


@dataclass(frozen=True, eq=False)
class ScoredFolds:
    """The same rows on each fold.

    Statements are about networks trained on these folds' training images: those have images in common, and how far
    others would lead to other scores is not known from them (Bengio and Grandvalet 2004, "No unbiased estimator of the
    variance of k-fold cross-validation").
    """

    folds: tuple[ScoredRows, ...]

    def __len__(self) -> int:
        return len(self.folds[0])

    def num_runs(self, row: int) -> int:
        """The smallest number of runs that a row has on a fold."""
        return min(fold.num_runs(row) for fold in self.folds)

    def score(self, name: str) -> FoldScores:
        """One score of all rows.

        Args:
            name: A name of MEANS or CLASS_AVERAGES.
        """
        return FoldScores(tuple(fold.score(name) for fold in self.folds))


class ScoredRun:
    """One run's predictions, with what several scores need."""

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.predictions.predicted

    @cached_property
    def right(self) -> np.ndarray:
        return self.predicted == self.predictions.truth

    @cached_property
    def of_images(self) -> dict[str, np.ndarray]:
        return image_scores(self.predictions)

    @cached_property
    def of_rankings(self) -> dict[str, Contributions]:
        split = ClassSplit(self.predictions.truth, len(self.predictions.classes))
        return ranking_contributions(split, self.predictions)

    @cached_property
    def of_classes(self) -> pd.DataFrame:
        return per_class_table(self.predictions)


_OF_CLASSES: dict[str, tuple[str, Average]] = {
    **_CLASS_AVERAGES,
    **dict.fromkeys(AGREEMENTS, ("agreement", "present")),
    **{name: (name.removesuffix("_macro"), "present") for name in RANKINGS},
}
"""Keys of the limits above, and weights of the classes."""


def _unless_interrupted(
    contributions: Callable[[ClassSplit, ScoredRun], Contributions], split: ClassSplit, run: ScoredRun
) -> Contributions:
    interrupts.check()
    return contributions(split, run)


def _too_few_errors(name: str, runs: Sequence[ScoredRun]) -> str | None:
    """The log loss hangs on the images with wrong predictions."""
    if name == "log_loss" and np.mean([np.count_nonzero(~run.right) for run in runs]) < FEWEST_ERRORS:
        return f"fewer than {FEWEST_ERRORS} wrong predictions"
    return None


def _too_biased(name: str, parts: Sequence[Contributions]) -> str | None:
    """The correction of a large bias is itself too small, for networks that hardly tell many small classes apart."""
    if name != "average_precision_macro":
        return None
    deviation = np.sqrt(np.square(np.mean([part.images for part in parts], axis=0)).sum())
    if np.mean([part.bias for part in parts]) > MOST_BIAS * deviation:
        return "chance raises it too much with so few test images per class"
    return None


def _of_mean(split: ClassSplit, run: ScoredRun, *, name: str) -> Contributions:
    return mean_contributions(run.right.astype(np.float64) if name == "accuracy" else run.of_images[name])


def _of_class_average(split: ClassSplit, run: ScoredRun, *, name: str) -> Contributions:
    return class_contributions(split, run.predicted, *_CLASS_AVERAGES[name])


def _of_agreement(split: ClassSplit, run: ScoredRun, *, name: Agreement) -> Contributions:
    return agreement_contributions(split, run.predicted, name)


def _of_ranking(split: ClassSplit, run: ScoredRun, *, name: str) -> Contributions:
    return run.of_rankings[name]


def _of_calibration(split: ClassSplit, run: ScoredRun) -> Contributions:
    return calibration_contributions(run.predictions.probabilities.max(axis=1), run.right)


_CONTRIBUTIONS: dict[str, Callable[[ClassSplit, ScoredRun], Contributions]] = {
    **{name: partial(_of_mean, name=name) for name in MEANS},
    **{name: partial(_of_class_average, name=name) for name in CLASS_AVERAGES},
    **{name: partial(_of_agreement, name=name) for name in AGREEMENTS},
    **{name: partial(_of_ranking, name=name) for name in RANKINGS},
    CALIBRATION: _of_calibration,
}
