"""Runs crossed with test images: the variance of a mean score over runs, and of differences of two.

Runs of one configuration that differ in their seed are to test images what readers are to cases in studies of
diagnostic images: every run judges every image, and both are samples. For R runs and n images the variance of their
mean score is

    (images + runs x images / R) / n + runs / R.

Three numbers estimate its parts. `images` is the sum of the squares of the images' contributions
(tandem.evaluation.contributions), averaged over the runs: the first term. `spread` is the sample variance of the runs'
scores over R: the second term, and runs x images / (R n). `noise` is that last part by itself, from what is left of the
contributions without the means over runs. So images - noise + spread estimates the variance without bias: the one-shot
estimate of Gallas 2006 ("One-shot estimate of MRMC variance: AUC"), and by other means that of Obuchowski and Rockette
1995. For a difference, contributions are subtracted image by image, and each side has its own spread and noise.

Few runs hardly show how far runs spread, so Student's distribution replaces the normal one. Hillis 2007 ("A comparison
of denominator degrees of freedom methods for multiple observer ROC analysis") gives the whole variance Satterthwaite's
degrees of freedom. With two or three runs that is too optimistic where the runs spread as far as the images do, or more
(docs/statistics.md). Here the spread alone has degrees of freedom, and the quantile is the mean of Student's and the
normal one, weighted by the two parts of the variance (Cochran and Cox 1950, "Experimental Designs", section 4.14). The
sum of two spreads has Satterthwaite's (Welch 1938, "The significance of the difference between two means when the
population variances are unequal"), at most twice those of the side with fewer runs.

A side with one run has no spread: the statement is about that trained network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from tandem.evaluation.contributions import Size

# Scores move in steps of one image, and a few runs may agree by chance. The variance of rounding to whole steps
# (Sheppard 1898) is added to their spread.
ROUNDING = 1 / 12

_SMALLEST_LOG_P = -200.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The runs of rows, as one side of a difference."""

    num_runs: np.ndarray
    """1 or more."""
    spread: np.ndarray
    """Sample variance of the runs' scores over their number; 0 for one run."""
    noise: np.ndarray
    """Variance of the mean due to images on which the runs differ; 0 for one run."""

    def at(self, places: np.ndarray) -> Side:
        """The rows at some places."""
        return Side(num_runs=self.num_runs[places], spread=self.spread[places], noise=self.noise[places])


def side_of_runs(values: Sequence[np.ndarray], contributions: Sequence[np.ndarray]) -> Side:
    """The runs of several rows.

    Args:
        values: For each row the scores of its runs, of shape (runs,).
        contributions: For each row the images' contributions to them, of shape (runs, images).
    """
    num_runs = np.array([len(own) for own in values])
    divisors = np.maximum(num_runs - 1, 1) * num_runs
    spread = [np.square(own - own.mean()).sum() for own in values]
    noise = [np.square(own - own.mean(axis=0)).sum() for own in contributions]
    return Side(num_runs=num_runs, spread=np.array(spread) / divisors, noise=np.array(noise) / divisors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossed:
    """Mean scores over runs, or differences of two, with the parts of their variance; arrays of one shape."""

    value: np.ndarray
    images: np.ndarray
    """Variance over test images of the mean over these runs."""
    sides: tuple[Side, ...]
    """One for a score, two for a difference."""
    size: Size

    @property
    def noise(self) -> np.ndarray:
        """Part of `images` that would differ with other runs."""
        return np.sum([side.noise for side in self.sides], axis=0)

    @property
    def of_one_run(self) -> np.ndarray:
        """Variance over test images with one run on each side, averaged over the runs."""
        return self.images + np.sum([(side.num_runs - 1) * side.noise for side in self.sides], axis=0)

    @property
    def spreads(self) -> list[np.ndarray]:
        """The spread on each side, with that of rounding; 0 for one run."""
        rounding = ROUNDING * np.square(self.size.step)
        return [np.where(side.num_runs > 1, side.spread + rounding / side.num_runs, 0.0) for side in self.sides]

    @cached_property
    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """The sum of the spreads and its degrees of freedom, 0 with one run on each side."""
        spreads, dfs = self.spreads, [np.asarray(side.num_runs) - 1 for side in self.sides]
        total = np.sum(spreads, axis=0)
        squares = np.sum([spread**2 / np.maximum(df, 1) for spread, df in zip(spreads, dfs, strict=True)], axis=0)
        satterthwaite = np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)
        several = np.sum([df > 0 for df in dfs], axis=0)
        fewest = np.min([np.where(df > 0, df, np.max(dfs, axis=0)) for df in dfs], axis=0)
        return total, np.minimum(satterthwaite, several * fewest)

    def half_width(self, alpha: np.ndarray | float) -> np.ndarray:
        """Distance between value and truth that is exceeded with probability alpha, for scores without limits."""
        spread, df = self._spread
        images = np.where(df > 0, np.maximum(self.images - self.noise, 0.0), self.images)
        total = images + spread
        parts = quantile(alpha, self.size.df) * images + quantile(alpha, np.maximum(df, 1.0)) * spread
        return np.divide(parts, np.sqrt(total), out=np.zeros_like(total), where=total > 0)


def mean_of_independent(parts: Sequence[Crossed]) -> Crossed:
    """The mean of scores, or of differences, that have no images and no runs in common: those of folds.

    Args:
        parts: Of one shape; at least one.
    """
    share = 1 / len(parts)
    return Crossed(
        value=np.mean([part.value for part in parts], axis=0),
        images=np.sum([part.images for part in parts], axis=0) * share**2,
        sides=tuple(
            Side(num_runs=side.num_runs, spread=side.spread * share**2, noise=side.noise * share**2)
            for part in parts
            for side in part.sides
        ),
        size=Size(
            images=len(parts) ** 2 / sum(1 / part.size.images for part in parts),
            step=max(part.size.step for part in parts) * share,
            df=min(part.size.df for part in parts),
        ),
    )


def quantile(alpha: np.ndarray | float, df: np.ndarray | float) -> np.ndarray:
    """The two-sided quantile of Student's distribution; of the normal one where `df` is infinite."""
    return -special.stdtrit(df, np.asarray(alpha) / 2)


def p_value(rejected: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The smallest level at which a test rejects, by bisection.

    Args:
        rejected: Takes levels and says where the test rejects at them; it rejects at any level above one at which it
            rejects.
        shape: Of the levels and of the result.
    """
    low, high = np.full(shape, _SMALLEST_LOG_P), np.zeros(shape)
    for _ in range(50):
        middle = (low + high) / 2
        where = rejected(np.exp(middle))
        low, high = np.where(where, low, middle), np.where(where, middle, high)
    return np.exp(high)
