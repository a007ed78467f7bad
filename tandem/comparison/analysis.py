"""The statistics of a group: intervals, tests, ties and transfer, computed from saved predictions.

This is the only place that addresses the arrays of tandem.evaluation by index; everything else uses rows and pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from tandem.comparison.configurations import ACCURACY, FIRST_PHASE, Configuration
from tandem.comparison.pairing import framework_pairs, scratch_pairs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.rows import ClassDifference, Ensemble, Pair, PairedDifference, Row, estimate_of
from tandem.evaluation.ensemble import ensemble
from tandem.evaluation.intervals import score_interval
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import ResampledScores, align, resample_scores, resamples_for
from tandem.evaluation.significance import ALPHA, PairedTest, paired_tests, tied_groups
from tandem.evaluation.ties import highest, merge_ties
from tandem.evaluation.transfer import compare_with_scratch

# 496 pairs: their tests take seconds, and corrected for so many they find little.
MOST_TESTED = 32
TESTED_SCORES = ("accuracy", "f1_macro")
POWER = 0.8  # Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.4


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The rows of a group and the pairs of them that are compared."""

    rows: tuple[Row, ...]
    """One per configuration, in the order of the tables."""
    ranking: tuple[Row, ...] = ()
    """The rows with predictions, the most accurate first."""
    pairs: tuple[Pair, ...] = ()
    """Every pair of rows with predictions; tests are corrected over all of them."""
    frameworks: tuple[Pair, ...] = ()
    """Keras minus PyTorch; tests are corrected over these pairs."""
    thawing: tuple[Pair, ...] = ()
    """Rows of two_stage minus what they were after the first phase; tests are corrected over these pairs."""
    first_phases: tuple[Pair, ...] = ()
    """The most accurate row minus each other row of two_stage after its first phase; tests are corrected over these
    pairs."""
    transfer: tuple[Pair, ...] = ()
    """Pretrained minus from scratch; tests are corrected over these pairs."""
    ensembles: tuple[Ensemble, ...] = ()
    """All runs together, the two rows of each pair of frameworks, and the runs of each row with several."""
    num_images: int = 0
    """Number of test images; 0 without predictions."""
    disagreement: float | None = None
    """Share of images that only one of the two most accurate rows gets right, by the first run of each; None if fewer
    than two rows have predictions."""

    @property
    def tested(self) -> tuple[Row, ...]:
        """The rows with predictions, in the order of the tables."""
        return tuple(row for row in self.rows if row.predictions)

    def difference(self, first: Row, second: Row) -> PairedDifference | None:
        """Accuracy of one row minus that of another, tested; None without a test of the two.

        The test is that of the table where a reader sees the two side by side: thawing, transfer, or all pairs.
        """
        for pair in (*self.thawing, *self.transfer, *self.pairs):
            if pair.tested and {pair.first, pair.second} == {first, second}:
                tested = pair.tested["accuracy"]
                return tested if pair.first is first else tested.reversed
        return None


def choose_tested(configurations: Sequence[Configuration]) -> list[Configuration]:
    """The most accurate configurations, at most 32, in their order: those whose predictions are read and tested."""
    accuracies = merge_ties([configuration.accuracy for configuration in configurations])
    order = sorted(range(len(configurations)), key=lambda index: -accuracies[index])
    return [configurations[index] for index in sorted(order[:MOST_TESTED])]


def analyse(configurations: Sequence[Configuration], saved: SavedPredictions) -> Analysis:
    """Computes all intervals and tests of a group.

    Args:
        configurations: All configurations of the group.
        saved: Predictions of some or all of its runs. A configuration with a run without predictions becomes a row
            without intervals and tests.
    """
    known = [one for one in configurations if all(run.run_id in saved.final for run in one.runs)]
    predictions = _align([[saved.final[run.run_id] for run in one.runs] for one in known])
    if not known:
        rows = tuple(Row(configuration=one) for one in configurations)
        return Analysis(
            rows=rows,
            frameworks=_test(framework_pairs(rows)),
            thawing=_thawing(rows, saved),
            transfer=_test(scratch_pairs(rows)),
        )

    resampled = resample_scores(predictions, num_resamples=resamples_for(math.comb(len(known), 2)))
    tests = {score: paired_tests(resampled, score) for score in TESTED_SCORES}
    ties = {score: tied_groups(resampled, of_pairs) for score, of_pairs in tests.items() if of_pairs}
    ranking = ties["accuracy"].ranking if ties else (0,)
    tested = [
        Row(
            configuration=configuration,
            predictions=of_runs,
            intervals={name: estimate_of(score_interval(resampled, name, place)) for name in resampled.estimates},
            letters=ties["accuracy"].letters[place] if ties else None,
            tied_with_best=frozenset(score for score, tied in ties.items() if place in tied.tied_with_best),
        )
        for place, (configuration, of_runs) in enumerate(zip(known, predictions, strict=True))
    ]
    row_of = {row.label: row for row in tested}
    rows = tuple(row_of.get(one.label, Row(configuration=one)) for one in configurations)
    thawing = _thawing(rows, saved)
    frameworks = _test(framework_pairs(rows), tested, resampled)
    return Analysis(
        rows=rows,
        ranking=tuple(tested[place] for place in ranking),
        pairs=_every_pair(tested, tests),
        frameworks=frameworks,
        thawing=thawing,
        first_phases=_first_phases(tested[ranking[0]], thawing),
        ensembles=_ensembles(tested, frameworks),
        transfer=tuple(map(_with_classes, _test(scratch_pairs(rows), tested, resampled, ("accuracy",)))),
        num_images=resampled.correct[0].shape[1],
        disagreement=_disagreement([resampled.correct[place][0] for place in ranking[:2]]),
    )


def _every_pair(rows: Sequence[Row], tests: Mapping[str, Sequence[PairedTest]]) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            first=rows[of_scores[0].first],
            second=rows[of_scores[0].second],
            tested={test.score: PairedDifference.of(test) for test in of_scores},
        )
        for of_scores in zip(*tests.values(), strict=True)
    )


def _disagreement(correct: Sequence[np.ndarray]) -> float | None:
    """Share of images that one of two runs gets right and the other wrong; None for a single run."""
    return float(np.mean(correct[0] != correct[1])) if len(correct) == 2 else None


def _align(predictions: Sequence[Sequence[Predictions]]) -> list[tuple[Predictions, ...]]:
    """The predictions of each configuration's runs with the images of all runs in one order."""
    aligned = iter(align([of_run for of_runs in predictions for of_run in of_runs]))
    return [tuple(next(aligned) for _ in of_runs) for of_runs in predictions]


def _test(
    pairs: Sequence[tuple[Row, Row]],
    tested: Sequence[Row] = (),
    resampled: ResampledScores | None = None,
    scores: Sequence[str] = TESTED_SCORES,
) -> tuple[Pair, ...]:
    """Tests the pairs whose rows both have predictions and corrects these tests together; other pairs have no tests.

    Args:
        pairs: (first, second); differences are the first minus the second.
        tested: The rows with predictions, in the order of `resampled`.
        resampled: None without such rows.
        scores: Each is a family of tests of its own.
    """
    place = {row: index for index, row in enumerate(tested)}
    known = [(first, second) for first, second in pairs if first in place and second in place]
    found: dict[tuple[Row, Row], dict[str, PairedDifference]] = {pair: {} for pair in pairs}
    if resampled is not None:
        for score in scores:
            tests = paired_tests(resampled, score, [(place[first], place[second]) for first, second in known])
            for pair, test in zip(known, tests, strict=True):
                found[pair][score] = PairedDifference.of(test)
    return tuple(Pair(first=first, second=second, tested=found[first, second]) for first, second in pairs)


def _with_classes(pair: Pair) -> Pair:
    """The pair with the differences of each class, if both rows have predictions."""
    if not pair.tested:
        return pair
    transfer = compare_with_scratch(pair.first.predictions, pair.second.predictions)
    return replace(pair, classes=tuple(ClassDifference.of(one) for one in transfer.classes))


def _thawing(rows: Sequence[Row], saved: SavedPredictions) -> tuple[Pair, ...]:
    """Each two_stage row that has scores after the first phase, paired with a row of these."""
    thawed = [
        row for row in rows if row.configuration.regime == "two_stage" and row.mean(FIRST_PHASE + ACCURACY) is not None
    ]
    before = {row: Row(configuration=row.configuration, after_first_phase=True) for row in thawed}
    known = [
        row
        for row in thawed
        if row.predictions and all(run.run_id in saved.first_phase for run in row.configuration.runs)
    ]
    if not known:
        return _test(list(before.items()))
    of_first_phases = [[saved.first_phase[run.run_id] for run in row.configuration.runs] for row in known]
    predictions = _align([*(row.predictions for row in known), *of_first_phases])
    resampled = resample_scores(predictions, num_resamples=resamples_for(len(known)))
    for place, row in enumerate(known, start=len(known)):
        interval = estimate_of(score_interval(resampled, "accuracy", place))
        before[row] = replace(before[row], predictions=predictions[place], intervals={"accuracy": interval})
    return _test(list(before.items()), [*known, *(before[row] for row in known)], resampled)


def _first_phases(best: Row, thawing: Sequence[Pair]) -> tuple[Pair, ...]:
    """The most accurate row, paired with each other two_stage row after its first phase, if that has predictions."""
    others = [pair.second for pair in thawing if pair.tested and pair.first is not best]
    if not others:
        return ()
    tested = [best, *others]
    resampled = resample_scores(_align([row.predictions for row in tested]), num_resamples=resamples_for(len(others)))
    return _test([(best, other) for other in others], tested, resampled, ("accuracy",))


def _ensembles(rows: Sequence[Row], frameworks: Sequence[Pair]) -> tuple[Ensemble, ...]:
    """Ensembles of rows with predictions: each set of two or more runs once, with its accuracy tested."""
    choices = [("all runs", tuple(rows))]
    choices += [
        (f"{pair.second.label} and {pair.first.label}", (pair.second, pair.first)) for pair in frameworks if pair.tested
    ]
    choices += [(f"runs of {row.label}", (row,)) for row in rows]
    found: dict[frozenset[Row], tuple[str, tuple[Row, ...]]] = {}
    for label, members in choices:
        if sum(len(row.predictions) for row in members) > 1:
            found.setdefault(frozenset(members), (label, members))
    if not found:
        return ()
    best = [highest(members, lambda row: row.accuracy) or members[0] for _, members in found.values()]
    together = [ensemble([run for row in members for run in row.predictions]) for _, members in found.values()]
    singles = list(dict.fromkeys(best))
    resampled = resample_scores(
        _align([*((one,) for one in together), *(row.predictions for row in singles)]),
        num_resamples=resamples_for(len(found)),
    )
    pairs = [(place, len(together) + singles.index(row)) for place, row in enumerate(best)]
    return tuple(
        Ensemble(
            members=members,
            label=label,
            predictions=together[place],
            intervals={name: estimate_of(score_interval(resampled, name, place)) for name in resampled.estimates},
            best=best[place],
            gain=PairedDifference.of(test),
        )
        for place, ((label, members), test) in enumerate(
            zip(found.values(), paired_tests(resampled, "accuracy", pairs), strict=True)
        )
    )


def detectable_difference(num_images: int, disagreement: float) -> float | None:
    """Difference in accuracy that McNemar's test at 0.05 finds with a probability of 0.8.

    Solves n d^2 = (z_0.975 sqrt(p) + z_0.8 sqrt(p - d^2))^2 for the difference d, where n is the number of images and p
    the share of images that only one of two runs gets right (Connor 1987, "Sample size for testing differences in
    proportions for the paired-sample design", equation 3). It holds for one pair that was chosen beforehand; the
    correction for many pairs makes it larger.

    Args:
        num_images: Size of the test set.
        disagreement: The share p, 0..1.

    Returns:
        The difference; None if there is no disagreement, or if the difference is larger, which none can be.
    """
    z_alpha, z_power = stats.norm.ppf(1 - ALPHA / 2), stats.norm.ppf(POWER)
    a, b = z_alpha * math.sqrt(disagreement), num_images + z_power**2
    root = math.sqrt(max(a**2 * num_images - b * (a**2 - z_power**2 * disagreement), 0.0))
    difference = float((a * math.sqrt(num_images) + root) / b)
    return difference if 0 < difference <= disagreement else None
