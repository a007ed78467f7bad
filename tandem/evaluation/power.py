"""Power of the paired tests: the smallest difference in accuracy that is found reliably, and the images this needs.

Both come from the test itself. For two single runs the chance that it finds a difference is summed over all outcomes.
Rows with several runs are drawn: how far runs spread is itself known from few of them only, and another comparison
would see another spread.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import special, stats

from tandem import interrupts
from tandem.evaluation.contributions import Size
from tandem.evaluation.crossed import Side, quantile
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.shares import ShareDifference
from tandem.evaluation.significance import ALPHA

POWER = 0.8  # Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.4
LARGEST_DIFFERENCE = 0.5
MOST_IMAGES = 10_000_000

_NUM_DRAWS = 4000
_SEED = 0


class PairPower:
    """The chance that the test of two rows finds a difference in accuracy.

    Args:
        rows: All rows.
        first: Index of a row.
        second: Index of a row.
        num_tests: Number of pairs that are tested together. The chance is that of finding the difference even where it
            has the smallest p value of all, which Holm's method multiplies by this number.
    """

    def __init__(self, rows: ScoredRows, first: int, second: int, num_tests: int) -> None:
        accuracy = rows.score("accuracy")
        self._pair = accuracy.differences([first], [second])
        self._num_images = rows.num_images
        self._alpha = ALPHA / num_tests
        self._accuracy = float(accuracy.estimates[[first, second]].mean())
        self.disagreement = rows.disagreement(first, second)

    def chance(self, difference: float, num_images: int | None = None) -> float:
        """Probability that the test finds a true difference.

        Args:
            difference: Above 0 and below the accuracy.
            num_images: Of the test set; by default as many as there are.
        """
        interrupts.check()
        images = num_images or self._num_images
        if all(side.num_runs[0] == 1 for side in self._pair.sides):
            return mcnemar_power(images, self._disagreement_at(difference), difference, self._alpha)
        return self._chance_of_several_runs(difference, images)

    def detectable(self) -> float | None:
        """The difference that is found in four of five such test sets.

        Returns:
            None where even the largest difference would not be found, or where these images show no disagreement.
        """
        if self.disagreement == 0 or self.chance(self._largest) < POWER:
            return None
        low, high = 0.0, self._largest
        while high - low > 1e-5:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(middle) >= POWER else (middle, high)
        return high

    def images_needed(self, difference: float) -> int | None:
        """Number of test images with which a difference is found in four of five test sets.

        Args:
            difference: Above 0.

        Returns:
            None where ten million would not do, since the seeds differ too much, where these images show no
            disagreement, and where rows as accurate as these cannot differ so much.
        """
        if self.disagreement == 0 or difference > self._largest or self.chance(difference, MOST_IMAGES) < POWER:
            return None
        low, high = 0.0, float(np.log(MOST_IMAGES))
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(difference, round(np.exp(middle))) >= POWER else (middle, high)
        return round(np.exp(high))

    @property
    def _largest(self) -> float:
        return min(LARGEST_DIFFERENCE, 0.99 * self._accuracy)

    def _disagreement_at(self, difference: float) -> float:
        """The disagreement of one run as accurate as the two rows are on average, and one that is less so.

        A worse run is wrong on more images, of which the better one gets some right: runs that agree as these do have
        the tetrachoric correlation of their right images (Pearson 1900).
        """
        accuracies = self._accuracy, self._accuracy - difference
        return sum(accuracies) - 2 * _both_right(*accuracies, self._correlation)

    @cached_property
    def _correlation(self) -> float:
        low, high = 0.0, 0.999
        for _ in range(20):
            middle = (low + high) / 2
            agree = _both_right(self._accuracy, self._accuracy, middle) < self._accuracy - self.disagreement / 2
            low, high = (middle, high) if agree else (low, middle)
        return low

    def _chance_of_several_runs(self, difference: float, num_images: int) -> float:
        more_errors = (self._disagreement_at(difference) - difference**2) / self._disagreement_at(0.0)
        factor = more_errors * self._num_images / num_images
        sides, variance = [], (self._pair.images - self._pair.noise).clip(min=0) * factor
        for side, excess, new_spread in zip(self._pair.sides, self._excesses, self._new_spreads, strict=True):
            noise = side.noise * factor
            spread = noise + np.where(excess > 0, excess, excess * factor)
            variance = variance + spread
            sides.append(Side(num_runs=side.num_runs, spread=spread * new_spread, noise=noise))
        drawn = replace(
            self._pair,
            value=np.clip(difference + np.sqrt(variance) * self._normal, -1.0, 1.0),
            images=self._pair.images * factor,
            sides=tuple(sides),
            size=Size(images=num_images, step=1 / num_images),
        )
        return float(np.mean(ShareDifference(drawn).rejected(0.0, self._alpha)))

    @cached_property
    def _excesses(self) -> list[np.ndarray]:
        """For each side draws of the variance by which its runs may truly differ more than by noise.

        The observed spread is the true one times a chi-squared number over its degrees of freedom, so that the true one
        is drawn by dividing by such numbers (Fisher 1935, "The fiducial argument in statistical inference"). Draws
        below the noise are kept, although no true spread is: without them, more would be found than is said.
        """
        noise = float(self._pair.noise[0])
        df = sum(int(side.num_runs[0]) - 1 for side in self._pair.sides)
        shares = np.random.default_rng([_SEED, 1]).chisquare(df, _NUM_DRAWS) / df
        if noise == 0:
            return [spread / shares for spread in self._pair.spreads]
        drawn = float(np.sum(self._pair.spreads)) / noise / shares - 1
        return [side.noise * drawn for side in self._pair.sides]

    @cached_property
    def _new_spreads(self) -> list[np.ndarray]:
        """For each side draws of the spread that new runs show, as a share of the true one."""
        random = np.random.default_rng([_SEED, 2])
        dfs = [int(side.num_runs[0]) - 1 for side in self._pair.sides]
        return [random.chisquare(df, _NUM_DRAWS) / df if df else np.zeros(_NUM_DRAWS) for df in dfs]

    @cached_property
    def _normal(self) -> np.ndarray:
        return np.random.default_rng([_SEED, 0]).standard_normal(_NUM_DRAWS)


@lru_cache(maxsize=4096)
def _both_right(first: float, second: float, correlation: float) -> float:
    """Share of images that two runs get right whose chances of being right are correlated normal values."""
    limits = special.ndtri([first, second])
    return float(stats.multivariate_normal.cdf(limits, cov=[[1.0, correlation], [correlation, 1.0]]))


def mcnemar_power(num_images: int, disagreement: float, difference: float, alpha: float) -> float:
    """The chance that McNemar's test without continuity correction finds a difference of two runs' accuracies.

    Args:
        num_images: Of the test set.
        disagreement: Share of images that only one run gets right, above 0.
        difference: Of the accuracies, at most the disagreement.
        alpha: Two-sided level.
    """
    spread = np.sqrt(num_images * disagreement * (1 - disagreement))
    middle = num_images * disagreement
    # Numbers of images with one right run that are not rarer than one in 10^12.
    lowest, highest = max(int(middle - 7 * spread) - 10, 1), min(int(middle + 7 * spread) + 10, num_images)
    decided = np.arange(lowest, highest + 1)
    needed = np.floor((decided + quantile(alpha, np.inf) * np.sqrt(decided)) / 2) + 1
    ahead = (1 + difference / disagreement) / 2
    found = stats.binom.sf(needed - 1, decided, ahead) + stats.binom.cdf(decided - needed, decided, ahead)
    return float(stats.binom.pmf(decided, num_images, disagreement) @ found)
