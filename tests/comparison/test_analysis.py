from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.comparison.analysis import MOST_TESTED, Analysis, analyse, choose_tested
from tandem.comparison.configurations import group_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.rows import Pair, PairedDifference, Row
from tandem.evaluation.power import PairPower
from tandem.evaluation.scored_rows import ScoredRows
from tandem.rendering.tables import Estimate
from tests.compared import MakePredictions, MakeRun, right_images

IMAGES = 200
right = partial(right_images, images=IMAGES)


def labels(pair: Pair) -> tuple[str, str]:
    return pair.first.label, pair.second.label


def row_of(analysis: Analysis, label: str) -> Row:
    (row,) = [row for row in analysis.rows if row.label == label]
    return row


def accuracy(pairs: Sequence[Pair]) -> list[PairedDifference]:
    return [pair.tested["accuracy"] for pair in pairs]


def oracle(first: Sequence[bool], second: Sequence[bool]) -> float:
    a, b = np.array(first), np.array(second)
    return float(mcnemar([[0, np.sum(a & ~b)], [np.sum(~a & b), 0]], exact=False, correction=False).pvalue)


@pytest.fixture
def analysed(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Analysis]:
    """Analyses runs from which images each gets right; with a second list after the first phase."""

    def run(outcomes: dict[tuple[str, str], list[bool]], before: dict[tuple[str, str], list[bool]]) -> Analysis:
        records = {
            key: make_run(
                *key,
                float(np.mean(outcome)),
                metrics={"phase_1/test/accuracy": float(np.mean(before[key]))} if key in before else {},
            )
            for key, outcome in outcomes.items()
        }
        (group,), _ = group_runs(list(records.values()))
        saved = SavedPredictions(
            final={records[key].run_id: make_predictions(outcome) for key, outcome in outcomes.items()},
            first_phase={records[key].run_id: make_predictions(outcome) for key, outcome in before.items()},
        )
        return analyse(group.configurations, saved)

    return run


OUTCOMES = {
    ("torch", "scratch"): right(0.70),
    ("keras", "scratch"): right(0.72, 10),
    ("torch", "finetune"): right(0.90),
    ("keras", "finetune"): right(0.75, 30),
    ("torch", "frozen"): right(0.40),
}


def test_rows_are_in_the_order_of_the_tables_and_the_ranking_by_accuracy(analysed: Callable[..., Analysis]) -> None:
    analysis = analysed(OUTCOMES, {})
    assert [row.label for row in analysis.rows] == [
        *("scratch torch", "scratch keras", "frozen torch", "finetune torch", "finetune keras")
    ]
    assert analysis.tested == analysis.rows
    assert [row.label for row in analysis.ranking] == [
        *("finetune torch", "finetune keras", "scratch keras", "scratch torch", "frozen torch")
    ]
    assert analysis.num_images == IMAGES


def test_each_row_has_its_own_predictions_and_intervals(analysed: Callable[..., Analysis]) -> None:
    for row in analysed(OUTCOMES, {}).rows:
        outcome = OUTCOMES[row.configuration.framework, row.configuration.regime]
        (run,) = row.predictions
        assert (run.predicted == run.truth).tolist() == outcome
        interval = row.intervals["accuracy"]
        assert interval.value == pytest.approx(np.mean(outcome))
        assert interval.low < interval.value < interval.high


def test_every_pair_is_tested_and_corrected_together(analysed: Callable[..., Analysis]) -> None:
    pairs = analysed(OUTCOMES, {}).pairs
    assert len(pairs) == 10
    outcomes = [
        [OUTCOMES[row.configuration.framework, row.configuration.regime] for row in (pair.first, pair.second)]
        for pair in pairs
    ]
    expected = [oracle(*of_pair) for of_pair in outcomes]
    assert [test.p_value for test in accuracy(pairs)] == pytest.approx(expected)
    assert [test.p_holm for test in accuracy(pairs)] == pytest.approx(multipletests(expected, method="holm")[1])
    assert [test.value.value for test in accuracy(pairs)] == pytest.approx(
        [np.mean(a) - np.mean(b) for a, b in outcomes]
    )
    assert all(set(pair.tested) == {"accuracy", "f1_macro"} for pair in pairs)


def test_framework_differences_are_tested_by_mcnemar_and_corrected_over_their_pairs(
    analysed: Callable[..., Analysis],
) -> None:
    pairs = analysed(OUTCOMES, {}).frameworks
    assert [labels(pair) for pair in pairs] == [
        ("scratch keras", "scratch torch"),
        ("finetune keras", "finetune torch"),
    ]
    tests = accuracy(pairs)
    expected = [oracle(OUTCOMES["torch", regime], OUTCOMES["keras", regime]) for regime in ("scratch", "finetune")]
    assert [test.p_value for test in tests] == pytest.approx(expected)
    assert [test.p_holm for test in tests] == pytest.approx(multipletests(expected, method="holm")[1])
    # Keras minus PyTorch
    assert [test.value.value for test in tests] == pytest.approx([0.02, -0.15])


def test_transfer_is_pretrained_minus_scratch(analysed: Callable[..., Analysis]) -> None:
    analysis = analysed(OUTCOMES, {})
    assert {labels(pair): round(pair.tested["accuracy"].value.value, 6) for pair in analysis.transfer} == {
        ("frozen torch", "scratch torch"): -0.3,
        ("finetune torch", "scratch torch"): 0.2,
        ("finetune keras", "scratch keras"): 0.03,
    }
    frozen = analysis.transfer[0]
    assert frozen.better is frozen.second
    expected = oracle(OUTCOMES["torch", "frozen"], OUTCOMES["torch", "scratch"])
    assert frozen.tested["accuracy"].p_value == pytest.approx(expected)
    # A quarter of the images is in each class, and so is a quarter of the errors.
    assert [one.num_images for one in frozen.classes] == [IMAGES // 4] * 4
    assert [one.recall.value for one in frozen.classes] == pytest.approx([-0.3] * 4)
    assert {one.change for one in frozen.classes} == {"worse"}
    assert {one.change for one in analysis.transfer[1].classes} <= {"better", None}


def test_significant_pair_has_a_better_row_and_different_letters(analysed: Callable[..., Analysis]) -> None:
    analysis = analysed({key: OUTCOMES[key] for key in [("torch", "frozen"), ("torch", "finetune")]}, {})
    (pair,) = analysis.pairs
    better, worse = row_of(analysis, "finetune torch"), row_of(analysis, "frozen torch")
    assert (pair.better, pair.worse) == (better, worse)
    assert "accuracy" in better.tied_with_best and "accuracy" not in worse.tied_with_best
    assert (better.letters, worse.letters) == ("a", "b")


def test_thawing_is_the_end_minus_the_first_phase(analysed: Callable[..., Analysis]) -> None:
    key = ("torch", "two_stage")
    after, before = right(0.9), right(0.6, 15)
    analysis = analysed({key: after, ("torch", "frozen"): right(0.5)}, {key: before})
    (pair,) = analysis.thawing
    assert labels(pair) == ("two_stage torch", "two_stage torch, first phase")
    test = pair.tested["accuracy"]
    assert test.value.value == pytest.approx(0.3)
    assert test.p_value == pytest.approx(oracle(after, before))
    assert pair.second.intervals["accuracy"].value == pytest.approx(0.6)
    (run,) = pair.second.predictions
    assert (run.predicted == run.truth).tolist() == before


def test_difference_of_two_rows_is_that_of_the_table_that_shows_both(analysed: Callable[..., Analysis]) -> None:
    after, before = right(0.9), right(0.6, 15)
    key = ("torch", "two_stage")
    analysis = analysed({key: after, ("torch", "scratch"): right(0.7), ("keras", "scratch"): right(0.5)}, {key: before})
    two_stage, scratch, keras = (
        row_of(analysis, label) for label in ("two_stage torch", "scratch torch", "scratch keras")
    )
    (thawing,), (transfer,) = analysis.thawing, analysis.transfer
    assert analysis.difference(two_stage, thawing.second) == thawing.tested["accuracy"]
    assert analysis.difference(thawing.second, two_stage) == thawing.tested["accuracy"].reversed
    assert analysis.difference(two_stage, scratch) == transfer.tested["accuracy"]
    assert analysis.difference(scratch, two_stage) == transfer.tested["accuracy"].reversed
    (pair,) = [pair for pair in analysis.pairs if {pair.first, pair.second} == {scratch, keras}]
    # Not that of the table of frameworks, which is corrected over fewer tests.
    assert analysis.difference(pair.first, pair.second) == pair.tested["accuracy"]
    assert pair.tested["accuracy"].p_holm > analysis.frameworks[0].tested["accuracy"].p_holm
    assert analysis.difference(thawing.second, scratch) is None
    assert analysis.difference(scratch, scratch) is None


@pytest.mark.parametrize("accuracies", [(0.9, 0.5), (0.5, 0.9)])
def test_row_that_loses_is_worse_than_the_best_in_either_order(
    make_run: MakeRun, make_predictions: MakePredictions, accuracies: tuple[float, float]
) -> None:
    runs = [make_run("torch", accuracy=accuracies[0]), make_run("keras", accuracy=accuracies[1])]
    (group,), _ = group_runs(runs)
    final = {run.run_id: make_predictions(right_images(run.metrics["test/accuracy"], images=200)) for run in runs}
    analysis = analyse(group.configurations, SavedPredictions(final=final))
    best = "torch" if accuracies[0] > accuracies[1] else "keras"
    assert [(row.configuration.framework, row.against_best) for row in analysis.ranking] == [
        (best, "best"),
        ("keras" if best == "torch" else "torch", "worse"),
    ]


@pytest.mark.parametrize(
    ("images", "margin", "verdict"),
    [(400, 0.01, "equivalent"), (370, 0.01, "undecided"), (200, 0.02, "equivalent"), (180, 0.02, "undecided")],
)
def test_rows_right_on_the_same_images_are_equivalent_if_there_are_enough(
    make_run: MakeRun, make_predictions: MakePredictions, images: int, margin: float, verdict: str
) -> None:
    """Tango's limits are z^2 / (images + z^2) away: 0.0095 for 400 images, 0.0103 for 370, 0.0188, 0.0209."""
    predictions = make_predictions(right_images(0.8, images=images))
    runs = [make_run("torch"), make_run("keras")]
    (group,), _ = group_runs(runs)
    saved = SavedPredictions(final={run.run_id: predictions for run in runs})
    analysis = analyse(group.configurations, saved, margin)
    (pair,) = analysis.pairs
    assert (pair.verdict, analysis.margin) == (verdict, margin)
    assert analysis.frameworks[0].verdict == verdict
    assert [row.against_best for row in analysis.ranking] == ["best", verdict]
    assert analysis.best is not None and (analysis.best.disagreement, analysis.best.detectable) == (0, None)


def test_equivalence_is_corrected_over_all_pairs(analysed: Callable[..., Analysis]) -> None:
    same, other = right_images(0.8, images=400), right_images(0.3, images=400)
    analysis = analysed({("torch", "frozen"): same, ("keras", "frozen"): same, ("torch", "scratch"): other}, {})
    # Alone they are equivalent. z^2 / (400 + z^2) is 0.01 for z = 2.01, p = 0.0444, and three times this is above 0.05.
    assert [row.against_best for row in analysis.ranking] == ["best", "undecided", "worse"]
    (pair,) = analysis.frameworks
    assert pair.verdict == "equivalent"


def test_certain_difference_below_the_margin_is_equivalent(analysed: Callable[..., Analysis]) -> None:
    images = 10_000
    more, less = ([index < number for index in range(images)] for number in (9_000, 8_970))
    analysis = analysed({("torch", "frozen"): more, ("torch", "finetune"): less}, {})
    (pair,) = analysis.pairs
    # 30 images that only one row gets right: z = 5.5. The difference is 0.003.
    assert pair.tested["accuracy"].significant and {row.letters for row in analysis.rows} == {"a", "b"}
    assert pair.verdict == "equivalent" and pair.better is pair.worse is None
    assert analysis.against_best("equivalent") == [analysis.ranking[1]] and not analysis.against_best("worse")


def test_interval_of_the_best_row_allows_for_the_choice(analysed: Callable[..., Analysis]) -> None:
    outcomes = {
        ("torch", "frozen"): right(0.9),
        ("keras", "frozen"): right(0.89, 5),
        ("torch", "finetune"): right(0.88, 10),
        ("torch", "scratch"): right(0.3),
    }
    best = analysed(outcomes, {}).best
    assert best is not None and best.num_candidates == 3
    test = binomtest(round(0.9 * IMAGES), IMAGES)
    low = test.proportion_ci(1 - 0.05 / 3, method="exact").low
    assert best.interval == Estimate(
        value=0.9, low=pytest.approx(low), high=pytest.approx(test.proportion_ci(0.95, method="exact").high)
    )


def test_choice_among_rows_of_few_seeds_has_no_interval(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs = [make_run(framework, seed=seed) for framework in ("torch", "keras") for seed in range(2)]
    (group,), _ = group_runs(runs)
    final = {run.run_id: make_predictions(right(0.8, 7 * number)) for number, run in enumerate(runs)}
    best = analyse(group.configurations, SavedPredictions(final=final)).best
    assert best is not None and best.num_candidates == 2 and best.interval is None


def test_power_is_that_of_the_tests_of_all_pairs(
    analysed: Callable[..., Analysis], make_predictions: MakePredictions
) -> None:
    best = analysed(OUTCOMES, {}).best
    scored = ScoredRows([[make_predictions(OUTCOMES[key])] for key in (("torch", "finetune"), ("keras", "finetune"))])
    of_ten = PairPower(scored, 0, 1, num_tests=10)
    assert best is not None and best.detectable == of_ten.detectable() != PairPower(scored, 0, 1, 1).detectable()
    two = {key: OUTCOMES[key] for key in (("torch", "scratch"), ("keras", "scratch"))}
    analysis = analysed(two, {})
    scored = ScoredRows([[make_predictions(outcome)] for outcome in two.values()])
    assert analysis.best is not None
    ((row, undecided),) = analysis.best.undecided.items()
    assert row.label == "scratch torch" and undecided.disagreement == pytest.approx(0.12)
    assert undecided.images_needed == PairPower(scored, 0, 1, 1).images_needed(0.01)


def test_scores_without_an_interval_have_a_reason(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs = [make_run("torch"), make_run("keras")]
    (group,), _ = group_runs(runs)
    saved = SavedPredictions(final={run.run_id: make_predictions(right_images(0.5, images=8)) for run in runs})
    analysis = analyse(group.configurations, saved)
    row = analysis.rows[0]
    assert row.without_interval["f1_macro"] == "fewer than 4 test images per class"
    assert row.without_interval["precision_macro"] == "fewer than 15 test images per class"
    assert "accuracy" in row.intervals and not row.without_interval.keys() & row.intervals.keys()
    (pair,) = analysis.frameworks
    assert pair.tested.keys() == {"accuracy"} and pair.untested == {"f1_macro": "fewer than 4 test images per class"}


def test_disagreement_is_of_the_two_most_accurate_rows(analysed: Callable[..., Analysis]) -> None:
    first, second = OUTCOMES["torch", "finetune"], OUTCOMES["keras", "finetune"]
    best = analysed(OUTCOMES, {}).best
    assert best is not None and best.disagreement == np.mean(np.array(first) != np.array(second))


def test_row_with_a_run_without_predictions_has_no_tests(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs = [make_run(seed=0), make_run(seed=1), make_run("keras")]
    (group,), _ = group_runs(runs)
    predictions = make_predictions(right(0.5))
    analysis = analyse(
        group.configurations, SavedPredictions(final={runs[0].run_id: predictions, runs[2].run_id: predictions})
    )
    assert [row.label for row in analysis.rows] == ["finetune torch", "finetune keras"]
    assert [row.label for row in analysis.tested] == ["finetune keras"]
    assert row_of(analysis, "finetune torch").score("accuracy") == 0.9
    assert not analysis.pairs and row_of(analysis, "finetune keras").letters is None


def test_without_predictions_there_are_pairs_but_no_tests(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(), make_run("keras")])
    analysis = analyse(group.configurations, SavedPredictions())
    assert not analysis.tested and not analysis.pairs and analysis.best is None
    assert [(labels(pair), dict(pair.tested)) for pair in analysis.frameworks] == [
        (("finetune keras", "finetune torch"), {})
    ]


def test_most_accurate_configurations_are_tested(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=number / 100, params={"learning_rate": str(number)}) for number in range(MOST_TESTED + 5)]
    (group,), _ = group_runs(runs)
    chosen = choose_tested(group.configurations)
    assert [dict(one.settings)["learning_rate"] for one in chosen] == [str(n) for n in range(5, MOST_TESTED + 5)]


def test_ties_at_the_limit_are_chosen_in_their_order_whatever_the_last_bit(make_run: MakeRun) -> None:
    """All have the same accuracy on paper; in every second one its last bit is set."""
    accuracies = [0.3 if number % 2 else 0.1 + 0.2 for number in range(MOST_TESTED + 5)]
    runs = [make_run(accuracy=one, params={"learning_rate": str(number)}) for number, one in enumerate(accuracies)]
    (group,), _ = group_runs(runs)
    assert choose_tested(group.configurations) == list(group.configurations[:MOST_TESTED])
