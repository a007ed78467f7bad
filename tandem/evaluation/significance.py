"""Verdicts on pairs of rows: different, equivalent, or undecided on these test images.

The tests of a score come from the intervals of its differences: a difference is significant at 0.05 exactly if its
95 % interval excludes 0, before p values are corrected for testing many pairs. Of the accuracies of two runs this is
McNemar's test without continuity correction.

Two rows are equivalent if the interval of their difference lies within a margin on both sides of 0: two one-sided
tests (Schuirmann 1987), each at half the level. Both kinds of statement are corrected by Holm's method, each over all
pairs: the chance of any wrong "better" is at most 0.05, and that of any wrong "equivalent".
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
from tandem.evaluation.intervals import Interval, difference_intervals
from tandem.evaluation.margin import MARGIN
from tandem.evaluation.scored_rows import ScoredFolds, ScoredRows
from tandem.evaluation.shares import ShareDifference
from tandem.evaluation.ties import merge_ties_along

ALPHA = 0.05

Verdict = Literal["better", "worse", "equivalent", "undecided"]
"""Of one row compared with another; docs/statistics.md explains them."""

# On two data sets, not even the first and the last of models that are ranked alike on both differ by the critical
# difference.
SMALLEST_NUM_DATA_SETS = 3
SMALLEST_NUM_MODELS = 3
# Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", section 3.2.2: Friedman's chi-square
# holds for more than 10 data sets and more than 5 models.
ENOUGH_DATA_SETS, ENOUGH_MODELS = 11, 6


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """The comparison of two rows on the same test images."""

    first: int
    second: int
    """Indices of the rows."""
    score: str
    difference: Interval
    """First minus second. Without limits there is no test."""
    p_value: float | None
    """Two-sided, of no difference."""
    p_holm: float | None
    """The same, corrected over all tests that were made together."""
    p_equivalence: float | None
    """Of a difference of the margin or more: below 0.05 exactly if the 95 % interval lies within the margin."""
    p_equivalence_holm: float | None
    """The same, corrected over all tests that were made together."""
    margin: float
    of_networks: bool
    """True where a side has one run: the statement is about that trained network, not about its configuration."""

    @property
    def significant(self) -> bool:
        """True if the corrected p value of no difference is below 0.05."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def equivalent(self) -> bool:
        """True if the corrected p value of a difference of the margin or more is below 0.05."""
        return self.p_equivalence_holm is not None and self.p_equivalence_holm < ALPHA

    @property
    def verdict(self) -> Verdict:
        """The first row compared with the second.

        A difference may be both significant and shown to be smaller than the margin: then the rows are equivalent.
        """
        if self.equivalent:
            return "equivalent"
        if self.significant:
            return "better" if self.difference.estimate > 0 else "worse"
        return "undecided"


@dataclass(frozen=True, kw_only=True)
class TiedGroups:
    """Groups of rows without a significant difference."""

    ranking: tuple[int, ...]
    """Indices of the rows, the best first."""
    tied_with_best: tuple[int, ...]
    """Indices of the rows that are not significantly worse than the best, the best first."""
    letters: tuple[str, ...]
    """For each row the letters of its groups, "a" for that of the best: two rows differ significantly exactly if they
    share no letter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageRanks:
    """Ranks of models over data sets, and tests of their differences."""

    average_ranks: np.ndarray
    """float64 of shape (models,), 1 for the best; ties have their mean rank."""
    num_data_sets: int
    friedman_p_value: float
    """Of all models being equal."""
    p_values: np.ndarray
    """Nemenyi's, of each pair of models, float64 of shape (models, models), 1 on the diagonal."""
    critical_difference: float
    """Smallest significant difference of two average ranks, at 0.05."""
    cliques: tuple[tuple[int, ...], ...]
    """Indices of models, by rank, for the bars of a critical-difference diagram: the largest sets of two or more models
    whose average ranks differ by less than the critical difference."""
    approximate: bool
    """True for so few data sets or models that Friedman's chi-square is an approximation (Demšar 2006)."""


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Corrects p values of tests that are made together (Holm 1979, "A simple sequentially rejective procedure").

    Args:
        p_values: Of shape (tests,).

    Returns:
        float64 of shape (tests,). Calling those below alpha significant has a chance of at most alpha to be wrong in
        any of them.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0)


def paired_tests(
    rows: ScoredRows | ScoredFolds,
    score: str,
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    margin: float = MARGIN,
) -> tuple[PairedTest, ...]:
    """Compares pairs of rows in a score, corrected together.

    Args:
        rows: All rows.
        score: A score between 0 and 1 of which more is better, no minimum over classes.
        pairs: Indices of rows; by default every pair.
        margin: Largest difference at which two rows count as equivalent, above 0.

    Returns:
        One test per pair, in their order.
    """
    if pairs is None:
        pairs = tuple(itertools.combinations(range(len(rows)), 2))
    intervals = difference_intervals(rows, score, pairs)
    tested = [place for place, interval in enumerate(intervals) if interval.why_not is None]
    first, second = ([pairs[place][side] for place in tested] for side in (0, 1))
    differences = ShareDifference(rows.score(score).differences(first, second))
    p_values = differences.p_value(0.0)
    inside = np.abs(differences.crossed.value) < margin
    p_equivalence = np.where(inside, np.maximum(differences.p_value(margin), differences.p_value(-margin)), 1.0)
    of_tested = dict(
        zip(tested, zip(p_values, holm(p_values), p_equivalence, holm(p_equivalence), strict=True), strict=True)
    )
    results = []
    for place, ((one, other), interval) in enumerate(zip(pairs, intervals, strict=True)):
        found = [float(value) for value in of_tested[place]] if place in of_tested else [None] * 4
        results.append(
            PairedTest(
                first=one,
                second=other,
                score=score,
                difference=interval,
                p_value=found[0],
                p_holm=found[1],
                p_equivalence=found[2],
                p_equivalence_holm=found[3],
                margin=margin,
                of_networks=min(rows.num_runs(one), rows.num_runs(other)) == 1,
            )
        )
    return tuple(results)


def tied_groups(rows: ScoredRows | ScoredFolds, tests: Sequence[PairedTest]) -> TiedGroups:
    """Groups rows that do not differ significantly.

    Two rows share a letter exactly if their corrected p value is 0.05 or more: a compact letter display by insertion
    and absorption (Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons").

    Args:
        rows: All rows.
        tests: Of every pair of rows, in one score.
    """
    score = tests[0].score if tests else "accuracy"
    ranking = np.argsort(-merge_ties_along(rows.score(score).estimates), kind="stable").tolist()
    different = {frozenset((test.first, test.second)) for test in tests if test.significant}

    groups = [frozenset(ranking)]
    for pair in sorted(different, key=sorted):
        split = [part for group in groups for part in ((group - {one} for one in pair) if pair <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: [rank for rank, row in enumerate(ranking) if row in group])
    return TiedGroups(
        ranking=tuple(ranking),
        tied_with_best=tuple(row for row in ranking if frozenset((row, ranking[0])) not in different),
        letters=tuple(
            " ".join(_letter(number) for number, group in enumerate(groups) if row in group)
            for row in range(len(ranking))
        ),
    )


def _letter(number: int) -> str:
    repeats, index = divmod(number, 26)
    return string.ascii_lowercase[index] * (repeats + 1)


def rank_over_data_sets(scores: np.ndarray) -> AverageRanks:
    """Friedman's test of models over several data sets, with Nemenyi's test of each pair (Demšar 2006).

    Args:
        scores: float64 of shape (data sets, models); higher is better.

    Raises:
        UserError: There are fewer than 3 data sets or 3 models.
        ValueError: A score is missing.
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
    merged = merge_ties_along(scores)
    average = stats.rankdata(-merged, axis=1).mean(axis=0)
    all_tied = bool((merged == merged[:, :1]).all())  # 0 / 0 in the statistic
    friedman = 1.0 if all_tied else float(stats.friedmanchisquare(*merged.T).pvalue)

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
    order = np.argsort(merge_ties_along(average_ranks), kind="stable")
    ranks = average_ranks[order]
    cliques: list[tuple[int, ...]] = []
    last_end = 0
    for start in range(len(ranks)):
        end = int(np.searchsorted(ranks, ranks[start] + critical_difference, side="left"))
        if end > last_end and end - start > 1:
            cliques.append(tuple(order[start:end].tolist()))
            last_end = end
    return tuple(cliques)
