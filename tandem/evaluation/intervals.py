"""Intervals of scores and of their differences, over test images and seeds.

Accuracy and other scores between 0 and 1 have the intervals of tandem.evaluation.shares, and so have Cohen's kappa and
Matthews' correlation on a scale from 0 to 1; the log loss and the
calibration error, whose variance alone is known, have Student's, the log loss on a logarithmic scale. The smallest
score of the classes has one that is sure but wide. Where no interval was found to keep its level
(benchmarks/calibration.py), there is a reason instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tandem import interrupts
from tandem.evaluation.metrics import TOP, calibration_error
from tandem.evaluation.scored_rows import (
    AGREEMENTS,
    CALIBRATION,
    CLASS_AVERAGES,
    MEANS,
    RANKINGS,
    ScoredFolds,
    ScoredRows,
)
from tandem.evaluation.shares import ShareDifference, share_limits

LEVEL = 0.95
MINIMA = ("precision_min", "recall_min", "f1_min")
SCORES = (*MEANS, *CLASS_AVERAGES, *AGREEMENTS, *RANKINGS, *MINIMA, "calibration_error", CALIBRATION)
"""The names of tandem.evaluation.metrics.scores."""

# From so many runs on, or with one, an interval that allows for the choice of the row is not too wide to be of use.
FEWEST_RUNS_FOR_CHOICE = 5


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number, and limits that hold the true value in the share `level` of all test sets like this, or a reason."""

    estimate: float
    """The score on the test images, or a difference of two."""
    low: float | None = None
    high: float | None = None
    """Both None where no interval keeps its promise."""
    why_not: str | None = None
    """Why there are no limits, in words that can follow a colon."""
    level: float = LEVEL


def score_intervals(rows: ScoredRows, row: int) -> dict[str, Interval]:
    """The interval of each score of one row, by name; without those that do not exist for these test images."""
    one_class = np.count_nonzero(rows.split.support) == 1
    return {name: score_interval(rows, name, row) for name in SCORES if not (one_class and name in RANKINGS)}


def score_interval(rows: ScoredRows | ScoredFolds, score: str, row: int) -> Interval:
    """The interval of one row's score.

    With one run it is about that trained network, with several about the mean of such runs.

    Args:
        rows: All rows.
        score: A name of tandem.evaluation.metrics.scores that exists for the test images; over folds one of MEANS or
            CLASS_AVERAGES.
        row: Index of the row.
    """
    return _interval(rows, score, row, alpha=1 - LEVEL, lower_alpha=1 - LEVEL)


def chosen_interval(rows: ScoredRows | ScoredFolds, score: str, row: int, num_candidates: int) -> Interval | None:
    """The interval of a row that was chosen because its score is the best of several.

    The best score is too good by chance: its lower limit has the error of the level over the number of candidates
    (Benjamini, Hechtlinger and Stark 2019, "Confidence intervals for selected parameters").

    Args:
        rows: All rows.
        score: A share, of which more is better.
        row: Index of the row.
        num_candidates: Number of rows that might have been chosen in another test set, this one included.

    Returns:
        None for rows of two to four runs, whose limit would be too low to be of use.
    """
    if 1 < rows.num_runs(row) < FEWEST_RUNS_FOR_CHOICE:
        return None
    return _interval(rows, score, row, alpha=1 - LEVEL, lower_alpha=(1 - LEVEL) / num_candidates)


def difference_interval(rows: ScoredRows | ScoredFolds, score: str, first: int, second: int) -> Interval:
    """The interval of the first row's score minus the second's, on the same images.

    Args:
        rows: All rows.
        score: A name of MEANS or CLASS_AVERAGES.
        first: Index of a row.
        second: Index of a row.
    """
    return difference_intervals(rows, score, [(first, second)])[0]


def difference_intervals(
    rows: ScoredRows | ScoredFolds, score: str, pairs: Sequence[tuple[int, int]]
) -> list[Interval]:
    """The intervals of several differences, first minus second.

    Differences of averages over classes are corrected for the bias of small classes, so that they may differ in their
    last digits from the difference of the scores.
    """
    scored = rows.score(score)
    reasons = [scored.why_not[first] or scored.why_not[second] for first, second in pairs]
    found = [
        Interval(estimate=float(scored.estimates[first] - scored.estimates[second]), why_not=reason)
        for (first, second), reason in zip(pairs, reasons, strict=True)
    ]
    known = [place for place, reason in enumerate(reasons) if reason is None]
    differences = scored.differences([pairs[place][0] for place in known], [pairs[place][1] for place in known])
    if score == "log_loss":
        half = differences.half_width(1 - LEVEL)
        low, high = differences.value - half, differences.value + half
    else:
        low, high = ShareDifference(differences).limits(1 - LEVEL)
    for place, *numbers in zip(known, differences.value, low, high, strict=True):
        found[place] = _around(*numbers)
    return found


def _interval(rows: ScoredRows | ScoredFolds, score: str, row: int, *, alpha: float, lower_alpha: float) -> Interval:
    interrupts.check()
    if isinstance(rows, ScoredRows):
        if score in MINIMA:
            return _lowest_class(rows, score.removesuffix("_min"), row)
        if score == "calibration_error":
            estimate = float(np.mean([calibration_error(run.predictions) for run in rows.runs[row]]))
            return Interval(estimate=estimate, why_not="chance raises it, unlike the RMS calibration error")
        if score == "top5_accuracy" and rows.split.num_classes <= TOP:
            return Interval(estimate=1.0, low=1.0, high=1.0)
    scored = rows.score(score)
    estimate = float(scored.estimates[row])
    if score == CALIBRATION:
        estimate = float(np.sqrt(max(estimate, 0.0)))
    elif score in AGREEMENTS:
        estimate = 2 * estimate - 1
    if scored.why_not[row] is not None:
        return Interval(estimate=estimate, why_not=scored.why_not[row])
    of_row = scored.of([row])
    if score == CALIBRATION:
        half = of_row.half_width(alpha)
        low, high = np.sqrt(np.maximum([of_row.value - half, of_row.value + half], 0.0))
    elif score == "log_loss":
        factor = np.exp(of_row.half_width(alpha) / estimate)
        low, high = estimate / factor, estimate * factor
    else:
        low, high = share_limits(of_row, lower_alpha)[0], share_limits(of_row, alpha)[1]
        if score in AGREEMENTS:
            low, high = 2 * low - 1, 2 * high - 1
    return _around(estimate, low[0], high[0])


def _around(estimate: float, low: float, high: float) -> Interval:
    """Limits on either side of the estimate: corrected for its bias, they might both be on one."""
    return Interval(estimate=float(estimate), low=float(min(low, estimate)), high=float(max(high, estimate)))


def _lowest_class(rows: ScoredRows, measure: str, row: int) -> Interval:
    """The interval of the smallest score of the classes, for one run.

    The lower limit is the lowest lower limit of a class, the upper one the lowest upper limit with the error divided by
    the number of classes (Bonferroni). Each class's limits are exact binomial ones (Clopper and Pearson 1934): of the
    images of the class for recall, of those predicted as it for precision, and for F1 of those that are either, of
    which the share s that is both gives F1 = 2 s / (1 + s).
    """
    tables = [run.of_classes for run in rows.runs[row]]
    estimate = float(np.mean([table[measure].min() for table in tables]))
    if len(tables) > 1:
        return Interval(estimate=estimate, why_not="the worst class may be another in each run")
    (run,), support = rows.runs[row], rows.split.support
    right = np.bincount(rows.split.truth[run.right], minlength=len(support)).astype(np.float64)
    predicted = np.bincount(run.predicted, minlength=len(support))
    images = {"recall": support, "precision": predicted, "f1": support + predicted - right}[measure]
    right, images = right[support > 0], images[support > 0]
    alpha = (1 - LEVEL) / 2
    low = special.betaincinv(np.maximum(right, 1e-12), images - right + 1, alpha).min()
    high = special.betaincinv(right + 1, np.maximum(images - right, 1e-12), 1 - alpha / len(images)).min()
    if measure == "f1":
        low, high = 2 * low / (1 + low), 2 * high / (1 + high)
    return _around(estimate, low, high)
