"""Intervals and tests of scores between 0 and 1 and of their differences, by one family each.

Each of them is the exact or score interval of independent images with an effective number of images in place of their
number: as many as would give the variance that the runs and images show (Korn and Graubard 1998, "Confidence intervals
for proportions with small expected number of positive counts estimated from survey data"). For the accuracy of single
runs this is the number of images itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from tandem.evaluation.crossed import Crossed, p_value, quantile


def _effective_images(crossed: Crossed, variance_of_images: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """Number of independent images with the interval's width.

    Args:
        crossed: Scores or differences.
        variance_of_images: Variance of the mean of `crossed.size.images` independent images.
        alpha: One minus the level.
    """
    # A variance of few errors is itself hardly known. Both get that of one error more.
    one_more = np.square(crossed.size.step)
    variance = (crossed.half_width(alpha) / quantile(alpha, np.inf)) ** 2
    return crossed.size.images * (variance_of_images + one_more) / (variance + one_more)


def share_limits(share: Crossed, alpha: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Limits of scores between 0 and 1: the exact binomial ones (Clopper and Pearson 1934) of the effective images.

    Args:
        share: Scores.
        alpha: One minus the level.
    """
    value = np.clip(share.value, 0.0, 1.0)
    images = _effective_images(share, value * (1 - value) / share.size.images, alpha)
    right = images * value
    wrong = images - right
    low = special.betaincinv(np.maximum(right, 1e-12), wrong + 1, np.asarray(alpha) / 2)
    high = special.betaincinv(right + 1, np.maximum(wrong, 1e-12), 1 - np.asarray(alpha) / 2)
    return np.where(value > 0, low, 0.0), np.where(value < 1, high, 1.0)


@dataclass(frozen=True, eq=False)
class ShareDifference:
    """Differences of two scores between 0 and 1 on the same images: Tango's score method.

    With one run on each side the test of no difference is McNemar's without continuity correction (Tango 1998,
    "Equivalence test and confidence interval for the difference in proportions for the paired-sample design").
    """

    crossed: Crossed

    @cached_property
    def disagreement(self) -> np.ndarray:
        """Share of images that only one of two runs gets right, or what would give a score its variance."""
        value = self.crossed.value
        of_images = self.crossed.of_one_run * self.crossed.size.images
        return np.clip(of_images + value**2, np.abs(value), 1.0)

    def rejected(self, difference: float, alpha: np.ndarray | float) -> np.ndarray:
        """True where a two-sided test at this level rejects this difference.

        Args:
            difference: -1..1.
            alpha: Level of the test.
        """
        images, stretch = self._images(alpha)
        nearer = self.crossed.value + (difference - self.crossed.value) / stretch
        return np.sqrt(images) * self._deviation(nearer) > quantile(alpha, np.inf)

    def p_value(self, difference: float) -> np.ndarray:
        """Two-sided p values of this difference.

        Args:
            difference: -1..1.
        """
        return p_value(lambda alpha: self.rejected(difference, alpha), self.crossed.value.shape)

    def limits(self, alpha: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest difference that a two-sided test at this level does not reject."""
        images, stretch = self._images(alpha)
        largest_deviation = quantile(alpha, np.inf) / np.sqrt(images)
        value = self.crossed.value
        low, high = (value + (self._limit(end, largest_deviation) - value) * stretch for end in (-1.0, 1.0))
        return np.maximum(low, -1.0), np.minimum(high, 1.0)

    def _images(self, alpha: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Effective number of images, and factor by which Tango's limits are stretched.

        Where seeds make the number smaller than that of the images, limits are those of all images, stretched: few
        effective images would have few effective disagreements, and limits as if these were known no better.
        """
        variance = self.disagreement - self.crossed.value**2
        images = _effective_images(self.crossed, variance / self.crossed.size.images, alpha)
        at_least = np.maximum(images, self.crossed.size.images)
        return at_least, np.sqrt(at_least / images)

    def _limit(self, end: float, largest_deviation: np.ndarray) -> np.ndarray:
        inside, outside = self.crossed.value, np.full_like(self.crossed.value, end)
        for _ in range(50):
            middle = (inside + outside) / 2
            rejected = self._deviation(middle) > largest_deviation
            inside, outside = np.where(rejected, inside, middle), np.where(rejected, middle, outside)
        return inside

    def _deviation(self, difference: np.ndarray | float) -> np.ndarray:
        """Distance from the observed difference in standard deviations that one image has under this difference.

        The variance under it is Tango's, from the restricted maximum likelihood of the share of images that only the
        second run gets right.
        """
        observed = self.crossed.value
        only_second = (self.disagreement - observed) / 2
        linear = (2 - observed) * difference - self.disagreement
        constant = -only_second * difference * (1 - difference)
        restricted = (np.sqrt(np.maximum(linear**2 - 8 * constant, 0.0)) - linear) / 4
        variance = np.maximum(2 * restricted + difference * (1 - difference), 0.0)
        distance = np.abs(observed - difference)
        with np.errstate(divide="ignore"):
            return np.divide(distance, np.sqrt(variance), out=np.zeros_like(distance), where=distance > 0)
