"""How sure a score is: intervals over test images, and over seeds.

Intervals over test images come from the scores on resamples (tandem.evaluation.resampling), by one of two rules.

Smooth scores have the bias-corrected percentile interval (Efron 1987, "Better bootstrap confidence intervals"):
resamples hold fewer distinct images than the test set, which moves macro and weighted precision and F1, and plain
percentiles with them.

The minima over classes and the calibration error, a sum of absolute values, are not smooth: resampling, noise on noise,
lowers a minimum and raises an absolute value, often beyond all correction. They have the basic interval, which mirrors
the percentiles at the estimate, and are marked as rough.

Either is widened to hold the estimate and cut at the ends of the score's range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tandem.evaluation.metrics import TOP
from tandem.evaluation.resampling import ResampledScores

LEVEL = 0.95
NOT_SMOOTH = frozenset({"precision_min", "recall_min", "f1_min", "calibration_error"})
DECIMALS = 6  # below this a difference between scores is rounding: log losses are summed in float32


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number, and limits drawn so that in the share `level` of all test sets like this they hold the true value.

    Args:
        estimate: the score on the test images as they are, or a difference of two.
        low: lower limit.
        high: upper limit.
        level: confidence level, 0..1.
        smooth: False where the interval is a rough indication only.
    """

    estimate: float
    low: float
    high: float
    level: float = LEVEL
    smooth: bool = True


def score_interval(resampled: ResampledScores, score: str, cell: int) -> Interval:
    """The interval of one cell's score.

    Shares of images that are exactly 0 or 1 have the exact binomial interval (Clopper and Pearson 1934) instead:
    resamples of images that are all right cannot hold an error.

    Args:
        resampled: from tandem.evaluation.resampling.
        score: a name of tandem.evaluation.metrics.scores.
        cell: index of the cell.
    """
    estimate = float(resampled.estimates[score][cell])
    if estimate in (0, 1) and _is_share(score, resampled.num_classes):
        images = resampled.correct[cell].shape[1]
        limits = stats.binomtest(round(estimate * images), images).proportion_ci(LEVEL, method="exact")
        return Interval(estimate=estimate, low=float(limits.low), high=float(limits.high))
    return bootstrap_interval(estimate, resampled.resampled[score][cell], score=score, smallest=0)


def difference_interval(resampled: ResampledScores, score: str, first: int, second: int) -> Interval:
    """The interval of the first cell's score minus the second's, on the same resamples.

    Args:
        resampled: from tandem.evaluation.resampling.
        score: a name of tandem.evaluation.metrics.scores.
        first: index of a cell.
        second: index of a cell.
    """
    estimates, values = resampled.estimates[score], resampled.resampled[score]
    estimate = float(estimates[first] - estimates[second])
    return bootstrap_interval(estimate, values[first] - values[second], score=score, smallest=-1)


def bootstrap_interval(estimate: float, values: np.ndarray, *, score: str, smallest: int) -> Interval:
    """The interval of a score, or of a difference of two, from its values on resamples.

    Args:
        estimate: on the images as they are.
        values: on resamples, of shape (resamples,).
        score: a name of tandem.evaluation.metrics.scores, or of a score of a class.
        smallest: 0 for a score, -1 for a difference; the largest is 1. The log loss has no limits.
    """
    smooth = score not in NOT_SMOOTH
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if smooth:
        # Values equal to the estimate, of which a share of few images has many, count half to each side. Sums in
        # another order differ in the last bits.
        above = np.round(values - estimate, DECIMALS)
        share_below = np.mean(above < 0) + np.mean(above == 0) / 2
        # Never 0 or 1, whose normal quantiles are infinite.
        bias = stats.norm.ppf(np.clip(share_below, 1 / (len(values) + 1), len(values) / (len(values) + 1)))
        low, high = np.quantile(values, stats.norm.cdf(2 * bias + stats.norm.ppf(tails)))
    else:
        low, high = 2 * estimate - np.quantile(values, tails[::-1])
    if score != "log_loss":
        low, high = np.clip([low, high], smallest, 1)
    return Interval(estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate), smooth=smooth)


def _is_share(score: str, num_classes: int) -> bool:
    """Whether a score is a share of images that could have been less than 1."""
    return score in ("accuracy", "recall_at_half") or (score == "top5_accuracy" and num_classes > TOP)
