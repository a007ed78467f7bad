from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.comparison.analysis import MOST_CELLS, Analysis, analyse, choose_cells, detectable_difference
from tandem.comparison.cells import group_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

IMAGES = 200


def right(share: float, start: int = 0) -> list[bool]:
    """Which images are right: that share of them, from one of them on."""
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


def oracle(first: Sequence[bool], second: Sequence[bool]) -> float:
    a, b = np.array(first), np.array(second)
    return float(mcnemar([[0, np.sum(a & ~b)], [np.sum(~a & b), 0]], exact=False, correction=False).pvalue)


@pytest.fixture
def analysed(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Analysis]:
    """Analyses runs from which images each gets right; with a second list after the first phase."""

    def run(outcomes: dict[tuple[str, str], list[bool]], before: dict[tuple[str, str], list[bool]]) -> Analysis:
        records = {key: make_run(*key, float(np.mean(outcome))) for key, outcome in outcomes.items()}
        (group,), _ = group_runs(list(records.values()))
        saved = SavedPredictions(
            final={records[key].run_id: make_predictions(outcome) for key, outcome in outcomes.items()},
            first_phase={records[key].run_id: make_predictions(outcome) for key, outcome in before.items()},
        )
        return analyse(group.cells, saved)

    return run


OUTCOMES = {
    ("torch", "scratch"): right(0.70),
    ("keras", "scratch"): right(0.72, 10),
    ("torch", "finetune"): right(0.90),
    ("keras", "finetune"): right(0.75, 30),
    ("torch", "frozen"): right(0.40),
}


def test_framework_differences_are_tested_by_mcnemar_and_corrected_over_their_pairs(
    analysed: Callable[..., Analysis],
) -> None:
    tests = analysed(OUTCOMES, {}).frameworks["accuracy"]
    assert list(tests) == [("scratch torch", "scratch keras"), ("finetune torch", "finetune keras")]
    expected = [oracle(OUTCOMES["torch", regime], OUTCOMES["keras", regime]) for regime in ("scratch", "finetune")]
    assert [test.p_value for test in tests.values()] == pytest.approx(expected)
    assert [test.p_holm for test in tests.values()] == pytest.approx(multipletests(expected, method="holm")[1])
    # Keras minus PyTorch
    assert [test.difference.estimate for test in tests.values()] == pytest.approx([0.02, -0.15])


def test_transfer_is_pretrained_minus_scratch(analysed: Callable[..., Analysis]) -> None:
    analysis = analysed(OUTCOMES, {})
    assert {pair: round(test.difference.estimate, 6) for pair, test in analysis.transfer.items()} == {
        ("frozen torch", "scratch torch"): -0.3,
        ("finetune torch", "scratch torch"): 0.2,
        ("finetune keras", "scratch keras"): 0.03,
    }
    assert analysis.transfer_of_classes["frozen torch", "scratch torch"].negative
    assert analysis.transfer["frozen torch", "scratch torch"].p_value == pytest.approx(
        oracle(OUTCOMES["torch", "frozen"], OUTCOMES["torch", "scratch"])
    )


def test_pairs_that_differ_are_named_with_the_better_first(analysed: Callable[..., Analysis]) -> None:
    analysis = analysed({key: OUTCOMES[key] for key in [("torch", "frozen"), ("torch", "finetune")]}, {})
    assert analysis.significantly_better("accuracy") == {("finetune torch", "frozen torch")}
    assert analysis.tied_with_best("accuracy") == ["finetune torch"]
    assert (analysis.letters("finetune torch"), analysis.letters("frozen torch")) == ("a", "b")


def test_thawing_is_the_end_minus_the_first_phase(analysed: Callable[..., Analysis]) -> None:
    key = ("torch", "two_stage")
    after, before = right(0.9), right(0.6, 15)
    analysis = analysed({key: after, ("torch", "frozen"): right(0.5)}, {key: before})
    test = analysis.thawing["accuracy"]["two_stage torch"]
    assert test.difference.estimate == pytest.approx(0.3)
    assert test.p_value == pytest.approx(oracle(after, before))
    assert analysis.before_thawing["two_stage torch"].estimate == pytest.approx(0.6)


def test_cell_with_a_run_without_predictions_is_left_out(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs = [make_run(seed=0), make_run(seed=1), make_run("keras")]
    (group,), _ = group_runs(runs)
    predictions = make_predictions(right(0.5))
    analysis = analyse(group.cells, SavedPredictions(final={runs[0].run_id: predictions, runs[2].run_id: predictions}))
    assert analysis.labels == ["finetune keras"]
    assert analysis.interval("accuracy", "finetune torch") is None
    assert not analysis.tied


def test_without_predictions_there_is_nothing(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(), make_run("keras")])
    analysis = analyse(group.cells, SavedPredictions())
    assert analysis.labels == [] and not analysis.tests and analysis.disagreement() is None


def test_predictions_are_read_of_the_most_accurate_cells(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=number / 100, params={"learning_rate": str(number)}) for number in range(MOST_CELLS + 5)]
    (group,), _ = group_runs(runs)
    chosen = choose_cells(group.cells)
    assert [dict(cell.settings)["learning_rate"] for cell in chosen] == [str(n) for n in range(5, MOST_CELLS + 5)]


@pytest.mark.parametrize(("images", "disagreement"), [(200, 0.24), (1000, 0.1)])
def test_detectable_difference_is_found_four_times_in_five(images: int, disagreement: float) -> None:
    difference = detectable_difference(images, disagreement)
    assert difference is not None
    only_first, only_second = (disagreement + difference) / 2, (disagreement - difference) / 2
    counts = np.random.default_rng(0).multinomial(images, [only_first, only_second, 1 - disagreement], 2000)[:, :2]
    # McNemar's asymptotic test, for which the formula is; the exact one is a little weaker.
    found = (counts[:, 0] - counts[:, 1]) ** 2 / counts.sum(axis=1) > 1.959964**2
    assert found.mean() == pytest.approx(0.8, abs=0.03)
