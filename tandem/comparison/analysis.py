"""The statistics of a group: intervals, tests, ties and transfer, computed from saved predictions.

This is the only place that addresses the arrays of tandem.evaluation by index; everything else uses rows and pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tandem.comparison.configurations import ACCURACY, FIRST_PHASE, Configuration
from tandem.comparison.pairing import framework_pairs, scratch_pairs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.rows import ClassDifference, Ensemble, Pair, PairedDifference, Row, estimate_of, reversed_verdict
from tandem.evaluation.ensemble import ensemble
from tandem.evaluation.intervals import chosen_interval, score_interval, score_intervals
from tandem.evaluation.margin import MARGIN
from tandem.evaluation.power import PairPower
from tandem.evaluation.predictions import Predictions, align
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.significance import PairedTest, TiedGroups, Verdict, paired_tests, tied_groups
from tandem.evaluation.ties import highest, merge_ties
from tandem.evaluation.transfer import compare_with_scratch
from tandem.rendering.tables import Estimate

# 496 pairs: corrected for so many, tests find little.
MOST_TESTED = 32
TESTED_SCORES = ("accuracy", "f1_macro")


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """A row that these images cannot tell from the best."""

    disagreement: float
    """Share of images that only one of the two gets right, on average over their runs."""
    images_needed: int | None
    """Number of test images with which the tests of all pairs find a difference of the margin in four of five test
    sets. None without disagreement, and where more images alone do not help."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """Statements about the most accurate row that depend on the other rows."""

    num_candidates: int
    """Number of rows that might be the best in another test set: it and those not significantly worse."""
    interval: Estimate | None
    """Interval of the accuracy that allows for the choice of the best of these. None where it would be too wide to be
    of use."""
    disagreement: float
    """Share of images that only one of the two most accurate rows gets right, on average over their runs."""
    detectable: float | None
    """Difference in accuracy between these two that the tests of all pairs find in four of five such test sets. None
    where no difference is found so often."""
    undecided: Mapping[Row, Undecided]
    """The rows that these images cannot tell from the best."""


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
    margin: float = MARGIN
    """Rows whose accuracy differs by less are equivalent."""
    best: Best | None = None
    """None if fewer than two rows have predictions."""

    @property
    def tested(self) -> tuple[Row, ...]:
        """The rows with predictions, in the order of the tables."""
        return tuple(row for row in self.rows if row.predictions)

    def against_best(self, verdict: Verdict) -> list[Row]:
        """The rows with a verdict against the most accurate one, the most accurate of them first."""
        return [row for row in self.ranking if row.against_best == verdict]

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


def analyse(configurations: Sequence[Configuration], saved: SavedPredictions, margin: float = MARGIN) -> Analysis:
    """Computes all intervals and tests of a group.

    Args:
        configurations: All configurations of the group.
        saved: Predictions of some or all of its runs. A configuration with a run without predictions becomes a row
            without intervals and tests.
        margin: Rows whose accuracy differs by less are equivalent; above 0.
    """
    known = [one for one in configurations if all(run.run_id in saved.final for run in one.runs)]
    predictions = _align([[saved.final[run.run_id] for run in one.runs] for one in known])
    if not known:
        rows = tuple(Row(configuration=one) for one in configurations)
        return Analysis(
            rows=rows,
            frameworks=_test(framework_pairs(rows), margin),
            thawing=_thawing(rows, saved, margin),
            transfer=_test(scratch_pairs(rows), margin),
            margin=margin,
        )

    scored = ScoredRows(predictions)
    tests = {score: paired_tests(scored, score, margin=margin) for score in TESTED_SCORES}
    ties = {score: tied_groups(scored, of_pairs) for score, of_pairs in tests.items() if of_pairs}
    ranking = ties["accuracy"].ranking if ties else (0,)
    tested = [
        Row(
            configuration=configuration,
            predictions=of_runs,
            intervals=intervals,
            without_interval=reasons,
            letters=ties["accuracy"].letters[place] if ties else None,
            tied_with_best=frozenset(score for score, tied in ties.items() if place in tied.tied_with_best),
            against_best=_against_best(tests["accuracy"], place, ranking[0]),
        )
        for place, (configuration, of_runs) in enumerate(zip(known, predictions, strict=True))
        for intervals, reasons in [_intervals(scored, place)]
    ]
    row_of = {row.label: row for row in tested}
    rows = tuple(row_of.get(one.label, Row(configuration=one)) for one in configurations)
    thawing = _thawing(rows, saved, margin)
    frameworks = _test(framework_pairs(rows), margin, tested, scored)
    return Analysis(
        rows=rows,
        ranking=tuple(tested[place] for place in ranking),
        pairs=_every_pair(tested, tests),
        frameworks=frameworks,
        thawing=thawing,
        first_phases=_first_phases(tested[ranking[0]], thawing, margin),
        ensembles=_ensembles(tested, frameworks),
        transfer=tuple(map(_with_classes, _test(scratch_pairs(rows), margin, tested, scored, ("accuracy",)))),
        num_images=scored.num_images,
        margin=margin,
        best=_best(scored, tested, ties["accuracy"], len(tests["accuracy"]), margin) if ties else None,
    )


def _intervals(scored: ScoredRows, place: int) -> tuple[dict[str, Estimate], dict[str, str]]:
    """The scores of a row that have an interval, and the reasons why others have none."""
    found = score_intervals(scored, place)
    return (
        {name: estimate_of(interval) for name, interval in found.items() if interval.why_not is None},
        {name: interval.why_not for name, interval in found.items() if interval.why_not is not None},
    )


def _against_best(tests: Sequence[PairedTest], place: int, best: int) -> Verdict | Literal["best"] | None:
    """The verdict of one row against the most accurate one, of tests of all pairs."""
    if place == best and tests:
        return "best"
    for test in tests:
        if {test.first, test.second} == {place, best}:
            return test.verdict if test.first == place else reversed_verdict(test.verdict)
    return None


def _best(scored: ScoredRows, rows: Sequence[Row], ties: TiedGroups, num_tests: int, margin: float) -> Best:
    best, second = ties.ranking[:2]
    num_candidates = len(ties.tied_with_best)
    interval = chosen_interval(scored, "accuracy", best, num_candidates)
    return Best(
        num_candidates=num_candidates,
        interval=None if interval is None else estimate_of(interval),
        disagreement=scored.disagreement(best, second),
        detectable=PairPower(scored, best, second, num_tests).detectable(),
        undecided={
            row: Undecided(disagreement=power.disagreement, images_needed=power.images_needed(margin))
            for place, row in enumerate(rows)
            if row.against_best == "undecided"
            for power in [PairPower(scored, best, place, num_tests)]
        },
    )


def _every_pair(rows: Sequence[Row], tests: Mapping[str, Sequence[PairedTest]]) -> tuple[Pair, ...]:
    return tuple(
        _pair(rows[of_scores[0].first], rows[of_scores[0].second], of_scores)
        for of_scores in zip(*tests.values(), strict=True)
    )


def _pair(first: Row, second: Row, tests: Sequence[PairedTest]) -> Pair:
    """A pair with its tests, one per score."""
    return Pair(
        first=first,
        second=second,
        tested={test.score: PairedDifference.of(test) for test in tests if test.difference.why_not is None},
        untested={test.score: test.difference.why_not for test in tests if test.difference.why_not is not None},
    )


def _align(predictions: Sequence[Sequence[Predictions]]) -> list[tuple[Predictions, ...]]:
    """The predictions of each configuration's runs with the images of all runs in one order."""
    aligned = iter(align([of_run for of_runs in predictions for of_run in of_runs]))
    return [tuple(next(aligned) for _ in of_runs) for of_runs in predictions]


def _test(
    pairs: Sequence[tuple[Row, Row]],
    margin: float,
    tested: Sequence[Row] = (),
    scored: ScoredRows | None = None,
    scores: Sequence[str] = TESTED_SCORES,
) -> tuple[Pair, ...]:
    """Tests the pairs whose rows both have predictions and corrects these tests together; other pairs have no tests.

    Args:
        pairs: (first, second); differences are the first minus the second.
        margin: Rows that differ by less are equivalent.
        tested: The rows with predictions, in the order of `scored`.
        scored: None without such rows.
        scores: Each is a family of tests of its own.
    """
    place = {row: index for index, row in enumerate(tested)}
    known = [(first, second) for first, second in pairs if first in place and second in place]
    found: dict[tuple[Row, Row], list[PairedTest]] = {pair: [] for pair in pairs}
    if scored is not None:
        places = [(place[first], place[second]) for first, second in known]
        for score in scores:
            for pair, test in zip(known, paired_tests(scored, score, places, margin=margin), strict=True):
                found[pair].append(test)
    return tuple(_pair(first, second, found[first, second]) for first, second in pairs)


def _with_classes(pair: Pair) -> Pair:
    """The pair with the differences of each class, if both rows have predictions."""
    if not pair.tested:
        return pair
    transfer = compare_with_scratch(pair.first.predictions, pair.second.predictions)
    return replace(pair, classes=tuple(ClassDifference.of(one) for one in transfer.classes))


def _thawing(rows: Sequence[Row], saved: SavedPredictions, margin: float) -> tuple[Pair, ...]:
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
        return _test(list(before.items()), margin)
    of_first_phases = [[saved.first_phase[run.run_id] for run in row.configuration.runs] for row in known]
    predictions = _align([*(row.predictions for row in known), *of_first_phases])
    scored = ScoredRows(predictions)
    for place, row in enumerate(known, start=len(known)):
        interval = estimate_of(score_interval(scored, "accuracy", place))
        before[row] = replace(before[row], predictions=predictions[place], intervals={"accuracy": interval})
    return _test(list(before.items()), margin, [*known, *(before[row] for row in known)], scored)


def _first_phases(best: Row, thawing: Sequence[Pair], margin: float) -> tuple[Pair, ...]:
    """The most accurate row, paired with each other two_stage row after its first phase, if that has predictions."""
    others = [pair.second for pair in thawing if pair.tested and pair.first is not best]
    if not others:
        return ()
    tested = [best, *others]
    scored = ScoredRows(_align([row.predictions for row in tested]))
    return _test([(best, other) for other in others], margin, tested, scored, ("accuracy",))


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
    scored = ScoredRows(_align([*((one,) for one in together), *(row.predictions for row in singles)]))
    pairs = [(place, len(together) + singles.index(row)) for place, row in enumerate(best)]
    return tuple(
        Ensemble(
            members=members,
            label=label,
            predictions=together[place],
            intervals=_intervals(scored, place)[0],
            best=best[place],
            gain=PairedDifference.of(test),
        )
        for place, ((label, members), test) in enumerate(
            zip(found.values(), paired_tests(scored, "accuracy", pairs), strict=True)
        )
    )
