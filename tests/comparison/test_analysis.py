from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.comparison.analysis import MOST_TESTED, Analysis, analyse, choose_tested, detectable_difference
from tandem.comparison.configurations import group_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.rows import Pair, PairedDifference, Row
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


def test_disagreement_is_of_the_two_most_accurate_rows(analysed: Callable[..., Analysis]) -> None:
    best, second = OUTCOMES["torch", "finetune"], OUTCOMES["keras", "finetune"]
    assert analysed(OUTCOMES, {}).disagreement == np.mean(np.array(best) != np.array(second))


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
    assert not analysis.tested and not analysis.pairs and analysis.disagreement is None
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


def test_smallest_detectable_difference_needs_disagreement() -> None:
    assert detectable_difference(100, 0.0) is None


@pytest.mark.parametrize(("images", "disagreement"), [(200, 0.24), (1000, 0.1)])
def test_detectable_difference_is_found_four_times_in_five(images: int, disagreement: float) -> None:
    difference = detectable_difference(images, disagreement)
    assert difference is not None
    only_first, only_second = (disagreement + difference) / 2, (disagreement - difference) / 2
    counts = np.random.default_rng(0).multinomial(images, [only_first, only_second, 1 - disagreement], 2000)[:, :2]
    # McNemar's asymptotic test, for which the formula is; the exact one is a little weaker.
    found = (counts[:, 0] - counts[:, 1]) ** 2 / counts.sum(axis=1) > 1.959964**2
    assert found.mean() == pytest.approx(0.8, abs=0.03)
