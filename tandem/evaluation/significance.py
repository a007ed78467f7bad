"""Which differences between runs are more than chance, and which runs are tied.

Accuracy of two runs is compared with McNemar's exact test, every other score with the paired bootstrap. The p values of
all pairs are corrected together by Holm's method.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from tandem.errors import UserError
from tandem.evaluation.intervals import DECIMALS, Interval, difference_interval
from tandem.evaluation.resampling import ResampledScores

ALPHA = 0.05
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error"})

# On two data sets, not even the first and the last of models that are ranked alike on both differ by the critical
# difference.
SMALLEST_NUM_DATA_SETS = 3
SMALLEST_NUM_MODELS = 3
# Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", section 3.2.2: Friedman's chi-square
# holds for more than 10 data sets and more than 5 models.
ENOUGH_DATA_SETS, ENOUGH_MODELS = 11, 6


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """The comparison of two cells on the same test images.

    Args:
        first: index of a cell.
        second: index of another.
        score: which score.
        difference: of the score, first minus second.
        p_value: two-sided, of no difference; 0..1, never 0.
        p_holm: the same corrected for all tests that were made together.
        test: what the p value comes from.
    """

    first: int
    second: int
    score: str
    difference: Interval
    p_value: float
    p_holm: float
    test: Literal["mcnemar", "bootstrap"]

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is below 0.05."""
        return self.p_holm < ALPHA


@dataclass(frozen=True, kw_only=True)
class TiedGroups:
    """Which cells are statistically tied.

    Args:
        ranking: indices of the cells, the best first.
        tied_with_best: indices of the cells that are not significantly worse than the best, the best first.
        letters: for each cell, in the order of the cells, the letters of its groups; two cells differ significantly
            exactly if they share no letter. "a" is the group of the best.
    """

    ranking: tuple[int, ...]
    tied_with_best: tuple[int, ...]
    letters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageRanks:
    """How models rank over data sets.

    Args:
        average_ranks: float64 of shape (models,), 1 for the best; ties have their mean rank.
        num_data_sets: that the ranks are averaged over.
        friedman_p_value: of all models being alike.
        p_values: Nemenyi's, of each pair of models, float64 of shape (models, models), 1 on the diagonal.
        critical_difference: of two average ranks, at 0.05.
        cliques: indices of models, by rank, for the bars of a critical-difference diagram: the largest sets of two or
            more in which no two average ranks differ by the critical difference.
        approximate: True for so few data sets or models that Friedman's chi-square is an approximation (Demšar 2006).
    """

    average_ranks: np.ndarray
    num_data_sets: int
    friedman_p_value: float
    p_values: np.ndarray
    critical_difference: float
    cliques: tuple[tuple[int, ...], ...]
    approximate: bool


def mcnemar_p_value(first_correct: np.ndarray, second_correct: np.ndarray) -> float:
    """McNemar's exact test of equal accuracy: are the images that only one run gets right shared evenly?

    Args:
        first_correct: whether a run was right, bool of shape (images,).
        second_correct: the same of another run on the same images.

    Returns:
        The two-sided p value; 1 where the runs are right on the same images.
    """
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(~first_correct & second_correct))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def bootstrap_p_values(estimates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Two-sided p values of no difference, from differences on B resamples.

    The spread of the resamples around the estimate stands for that of the estimate around 0: p is (c + 1) / (B + 1),
    where c counts the resamples that are as far from the estimate as the estimate is from 0. The 1 keeps it from being
    0 (Phipson and Smyth 2010, "Permutation p-values should never be zero").

    Args:
        estimates: differences on the images as they are, of shape (...).
        values: differences on resamples, of shape (..., B).

    Returns:
        float64 of shape (...), 1 / (B + 1) to 1.
    """
    distance = np.abs(values - estimates[..., None])
    far = np.round(distance - np.abs(estimates)[..., None], DECIMALS) >= 0
    return (far.sum(axis=-1) + 1) / (values.shape[-1] + 1)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Corrects p values of tests that are made together (Holm 1979, "A simple sequentially rejective procedure").

    Args:
        p_values: of shape (tests,).

    Returns:
        float64 of shape (tests,): below alpha where the test is significant with the chance of any false one at alpha.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0)


def paired_tests(
    resampled: ResampledScores, score: str, pairs: Sequence[tuple[int, int]] | None = None
) -> tuple[PairedTest, ...]:
    """Tests pairs of cells for a difference in a score, corrected together.

    Accuracy of cells of one run each is tested with McNemar's exact test; other scores, and cells of several runs, with
    the paired bootstrap, whose resamples hold what differs from seed to seed.

    Args:
        resampled: with `resamples_for(number of pairs)` resamples; with fewer the bootstrap may find nothing.
        score: a name of tandem.evaluation.metrics.scores.
        pairs: of indices of cells; by default every pair.

    Returns:
        One test a pair, in their order.
    """
    if pairs is None:
        pairs = tuple(itertools.combinations(range(len(resampled.correct)), 2))
    results = [_p_value(resampled, score, first, second) for first, second in pairs]
    corrected = holm([p_value for p_value, _ in results])
    return tuple(
        PairedTest(
            first=first,
            second=second,
            score=score,
            difference=difference_interval(resampled, score, first, second),
            p_value=p_value,
            p_holm=float(p_holm),
            test=test,
        )
        for (first, second), (p_value, test), p_holm in zip(pairs, results, corrected, strict=True)
    )


def _p_value(
    resampled: ResampledScores, score: str, first: int, second: int
) -> tuple[float, Literal["mcnemar", "bootstrap"]]:
    if score == "accuracy" and len(resampled.correct[first]) == len(resampled.correct[second]) == 1:
        return mcnemar_p_value(resampled.correct[first][0], resampled.correct[second][0]), "mcnemar"
    estimates, values = resampled.estimates[score], resampled.resampled[score]
    p_value = bootstrap_p_values(estimates[first] - estimates[second], values[first] - values[second])
    return float(p_value), "bootstrap"


def tied_groups(resampled: ResampledScores, tests: Sequence[PairedTest]) -> TiedGroups:
    """Groups cells that do not differ significantly.

    Two cells share a letter exactly if their corrected p value is 0.05 or more: a compact letter display by insertion
    and absorption (Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons").

    Args:
        resampled: that the tests were made from.
        tests: of every pair of cells, in one score.
    """
    score = tests[0].score if tests else "accuracy"
    estimates = resampled.estimates[score]
    ranking = np.argsort(estimates if score in LOWER_IS_BETTER else -estimates, kind="stable").tolist()
    different = {frozenset((test.first, test.second)) for test in tests if test.significant}

    groups = [frozenset(ranking)]
    for pair in sorted(different, key=sorted):
        split = [part for group in groups for part in ((group - {one} for one in pair) if pair <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: [rank for rank, cell in enumerate(ranking) if cell in group])
    return TiedGroups(
        ranking=tuple(ranking),
        tied_with_best=tuple(cell for cell in ranking if frozenset((cell, ranking[0])) not in different),
        letters=tuple(
            " ".join(_letter(number) for number, group in enumerate(groups) if cell in group)
            for cell in range(len(ranking))
        ),
    )


def _letter(number: int) -> str:
    repeats, index = divmod(number, 26)
    return string.ascii_lowercase[index] * (repeats + 1)


def rank_over_data_sets(scores: np.ndarray) -> AverageRanks:
    """Friedman's test of models over several data sets, with Nemenyi's test of each pair (Demšar 2006).

    Args:
        scores: float64 of shape (data sets, models), higher is better; a score where lower is better has to be negated.

    Raises:
        UserError: fewer than 3 data sets or 3 models.
        ValueError: a score is missing.
    """
    data_sets, models = scores.shape
    if data_sets < SMALLEST_NUM_DATA_SETS or models < SMALLEST_NUM_MODELS:
        raise UserError(
            f"ranks over data sets need at least {SMALLEST_NUM_DATA_SETS} data sets and {SMALLEST_NUM_MODELS} models "
            f"with a result on each. Received: {data_sets} data sets and {models} models; train on more of them, or "
            "compare on each data set by itself"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"every model needs a score on every data set. Received: {scores.tolist()}")
    average = stats.rankdata(-scores, axis=1).mean(axis=0)
    all_tied = bool((scores == scores[:, :1]).all())  # 0 / 0 in the statistic
    friedman = 1.0 if all_tied else float(stats.friedmanchisquare(*scores.T).pvalue)

    # Nemenyi's statistic is distributed like the studentized range of `models` normal variables, over the root of 2.
    unit = np.sqrt(models * (models + 1) / (6 * data_sets))
    differences = np.abs(average[:, None] - average)
    p_values = stats.studentized_range.sf(differences / unit * np.sqrt(2), models, np.inf)
    critical = float(stats.studentized_range.ppf(1 - ALPHA, models, np.inf) / np.sqrt(2) * unit)
    return AverageRanks(
        average_ranks=average,
        num_data_sets=data_sets,
        friedman_p_value=friedman,
        p_values=np.minimum(p_values, 1.0),
        critical_difference=critical,
        cliques=_cliques(average, critical),
        approximate=data_sets < ENOUGH_DATA_SETS or models < ENOUGH_MODELS,
    )


def _cliques(average_ranks: np.ndarray, critical_difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(average_ranks, kind="stable")
    ranks = average_ranks[order]
    cliques: list[tuple[int, ...]] = []
    last_end = 0
    for start in range(len(ranks)):
        end = int(np.searchsorted(ranks, ranks[start] + critical_difference, side="left"))
        if end > last_end and end - start > 1:
            cliques.append(tuple(order[start:end].tolist()))
            last_end = end
    return tuple(cliques)
