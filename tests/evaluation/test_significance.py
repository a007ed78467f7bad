from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.errors import UserError
from tandem.evaluation.intervals import Interval
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import ScoredFolds, ScoredRows
from tandem.evaluation.significance import (
    PairedTest,
    holm,
    paired_tests,
    rank_over_data_sets,
    tied_groups,
)

MakeRun = Callable[..., Predictions]

# Demšar 2006, table 6: AUC of C4.5 and three variants of it on 14 data sets. One value is 0.975 in print, as is the one
# beside it, but has the better rank.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


IMAGES = 400


@pytest.fixture
def outcomes() -> Callable[..., ScoredRows]:
    """Makes rows from which of 400 images, of one class each half, each run gets right."""

    def make(*rows: Sequence[np.ndarray]) -> ScoredRows:
        truth = np.repeat([0, 1], IMAGES // 2)
        names = tuple(f"{image:03}" for image in range(IMAGES))
        return ScoredRows(
            [
                [
                    Predictions(
                        keys=names,
                        hashes=names,
                        truth=truth,
                        probabilities=np.eye(2, dtype=np.float32)[np.where(right, truth, 1 - truth)],
                        classes=("a", "b"),
                    )
                    for right in runs
                ]
                for runs in rows
            ]
        )

    return make


def wrong(*images: int) -> np.ndarray:
    """All images but these are right."""
    right = np.ones(IMAGES, dtype=bool)
    right[list(images)] = False
    return right


def with_accuracies(outcomes: Callable[..., ScoredRows], accuracies: Sequence[float]) -> ScoredRows:
    return outcomes(*([np.arange(IMAGES) < accuracy * IMAGES] for accuracy in accuracies))


def made_tests(rows: int, different: set[tuple[int, int]]) -> list[PairedTest]:
    return [
        PairedTest(
            first=first,
            second=second,
            score="accuracy",
            difference=Interval(estimate=0, low=0, high=0),
            p_value=0.001,
            p_holm=0.01 if (first, second) in different else 0.2,
            p_equivalence=1.0,
            p_equivalence_holm=1.0,
            margin=0.01,
            of_networks=True,
        )
        for first, second in itertools.combinations(range(rows), 2)
    ]


@pytest.mark.parametrize(
    "p_values", [[0.01, 0.04, 0.03, 0.005], [0.2], [], [0.5, 0.6, 0.9], [0.01, 0.01, 0.01], [1e-9, 0.02, 0.02, 0.3, 1]]
)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values).tolist() == pytest.approx(list(expected))


def test_holm_keeps_the_order_and_never_lowers_a_p_value() -> None:
    p_values = np.random.default_rng(0).random(60) ** 4
    corrected = holm(p_values)
    assert (corrected >= p_values).all()
    assert corrected.max() <= 1
    assert (np.diff(corrected[np.argsort(p_values)]) >= 0).all()
    assert corrected.min() == pytest.approx(60 * p_values.min())


def test_accuracy_of_single_runs_is_tested_with_mcnemar_and_corrected_over_all_pairs(make_run: MakeRun) -> None:
    runs = [make_run(seed, skill=skill) for seed, skill in enumerate((1.0, 2.0, 2.1, 3.5))]
    tests = paired_tests(ScoredRows([[run] for run in runs]), "accuracy")
    assert [(test.first, test.second) for test in tests] == list(itertools.combinations(range(4), 2))
    expected = []
    for first, second in itertools.combinations(runs, 2):
        right = [(run.predicted == run.truth) for run in (first, second)]
        table = [[0, (right[0] & ~right[1]).sum()], [(~right[0] & right[1]).sum(), 0]]
        expected.append(mcnemar(table, exact=False, correction=False).pvalue)
    assert [test.p_value for test in tests] == pytest.approx(expected)
    assert [test.p_holm for test in tests] == pytest.approx(multipletests(expected, method="holm")[1].tolist())
    assert {test.significant for test in tests} == {True, False}
    difference = np.mean(runs[0].predicted == runs[0].truth) - np.mean(runs[3].predicted == runs[3].truth)
    assert tests[2].difference.estimate == pytest.approx(difference)
    assert all(test.of_networks for test in tests)


def test_chosen_pairs_alone_are_tested_and_corrected(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(seed, skill=1 + seed)] for seed in range(4)])
    every = {(test.first, test.second): test for test in paired_tests(rows, "accuracy")}
    (chosen,) = paired_tests(rows, "accuracy", [(2, 0)])
    assert (chosen.first, chosen.second) == (2, 0)
    assert chosen.p_holm == chosen.p_value == pytest.approx(every[0, 2].p_value)
    assert chosen.difference.estimate == pytest.approx(-every[0, 2].difference.estimate)
    assert paired_tests(rows, "accuracy", []) == ()


@pytest.mark.parametrize("score", ["accuracy", "f1_macro", "recall_macro"])
def test_test_and_interval_never_contradict_each_other(make_run: MakeRun, score: str) -> None:
    cells = [[make_run(8 * row + seed, skill=2 + 0.3 * row) for seed in range(1 + row % 3)] for row in range(7)]
    tests = paired_tests(ScoredRows(cells), score, margin=0.1)
    seen = set()
    for test in tests:
        assert test.difference.low is not None and test.difference.high is not None and test.p_value is not None
        assert (test.p_value < 0.05) == (not test.difference.low <= 0 <= test.difference.high)
        within = test.difference.low > -0.1 and test.difference.high < 0.1
        assert test.p_equivalence is not None
        assert (test.p_equivalence < 0.05) == within
        seen.add(test.p_value < 0.05)
    assert seen == {True, False}


@pytest.mark.parametrize("score", ["accuracy", "f1_macro"])
def test_identical_runs_do_not_differ_but_might_on_other_images(make_run: MakeRun, score: str) -> None:
    (test,) = paired_tests(ScoredRows([[make_run(0)], [make_run(0)]]), score)
    assert (test.p_value, test.p_holm, test.significant) == (1, 1, False)
    assert test.difference.estimate == 0
    assert test.difference.low is not None and test.difference.low == pytest.approx(-test.difference.high, abs=1e-6)
    assert test.difference.low < -0.01
    assert test.verdict == "undecided"


def test_verdicts_by_hand(outcomes: Callable[..., ScoredRows]) -> None:
    # Of 400 images: 2 wrong, other 2 wrong, 40 wrong.
    rows = outcomes([wrong(0, 1)], [wrong(1, 2)], [wrong(*range(40))])
    first, second, third = paired_tests(rows, "accuracy", margin=0.03)
    assert (first.verdict, second.verdict, third.verdict) == ("equivalent", "better", "better")
    assert not first.significant and not second.equivalent
    assert paired_tests(rows, "accuracy", [(2, 0)], margin=0.03)[0].verdict == "worse"
    # Ten images are 0.025 of 400, which these images cannot tell from 0.01 or 0.05.
    close = outcomes([wrong(*range(3))], [wrong(*range(2, 8))])
    assert paired_tests(close, "accuracy", margin=0.01)[0].verdict == "undecided"


def test_small_but_certain_difference_is_equivalent_within_a_large_margin(outcomes: Callable[..., ScoredRows]) -> None:
    rows = outcomes([wrong(0)], [wrong(*range(9))])
    (test,) = paired_tests(rows, "accuracy", margin=0.06)
    assert test.significant and test.equivalent
    assert test.verdict == "equivalent"
    assert paired_tests(rows, "accuracy", margin=0.02)[0].verdict == "better"


def test_equivalence_is_corrected_over_all_pairs(outcomes: Callable[..., ScoredRows]) -> None:
    rows = outcomes(*([wrong(row, row + 1)] for row in range(10)))
    alone = paired_tests(rows, "accuracy", [(0, 1)], margin=0.017)[0]
    together = paired_tests(rows, "accuracy", margin=0.017)[0]
    assert alone.equivalent and not together.equivalent
    tests = paired_tests(rows, "accuracy", margin=0.017)
    expected = multipletests([test.p_equivalence for test in tests], method="holm")[1]
    assert [test.p_equivalence_holm for test in tests] == pytest.approx(expected.tolist())


def test_rows_of_several_runs_are_tested_over_images_and_runs(make_run: MakeRun) -> None:
    weak = [make_run(seed, images=400, skill=skill) for seed, skill in enumerate((1.0, 2.0, 3.0))]
    strong = [make_run(10 + seed, images=400, skill=skill) for seed, skill in enumerate((2.2, 1.5, 3.4))]
    (test,) = paired_tests(ScoredRows([weak, strong]), "accuracy")
    accuracies = [[np.mean(run.predicted == run.truth) for run in cell] for cell in (weak, strong)]
    assert test.difference.estimate == pytest.approx(np.mean(accuracies[0]) - np.mean(accuracies[1]))
    assert not test.of_networks
    # The first runs alone differ clearly, but which row is ahead changes from seed to seed.
    (of_first,) = paired_tests(ScoredRows([weak[:1], strong[:1]]), "accuracy")
    assert of_first.significant
    assert not test.significant


def test_score_without_an_interval_is_not_tested(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(seed, images=30, num_classes=10, skill=1 + 3 * seed)] for seed in range(2)])
    (test,) = paired_tests(rows, "f1_macro")
    assert (test.p_value, test.p_holm, test.p_equivalence, test.significant, test.equivalent) == (None,) * 3 + (
        False,
    ) * 2
    assert test.verdict == "undecided"
    assert test.difference.why_not is not None


def test_rows_are_tested_over_folds(make_run: MakeRun) -> None:
    folds = [ScoredRows([[make_run(0, test_set=fold)], [make_run(1, test_set=fold, skill=2.9)]]) for fold in range(5)]
    (together,) = paired_tests(ScoredFolds(tuple(folds)), "accuracy")
    alone = [paired_tests(fold, "accuracy")[0] for fold in folds]
    assert together.significant and together.verdict == "worse"
    assert together.p_value is not None
    assert all(test.p_value is not None and together.p_value < test.p_value for test in alone)


def test_rows_share_a_letter_exactly_if_they_do_not_differ(outcomes: Callable[..., ScoredRows]) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        cells = int(random.integers(2, 9))
        pairs = list(itertools.combinations(range(cells), 2))
        different = {pair for pair in pairs if random.random() < 0.5}
        accuracies = random.permutation(np.arange(cells) * 0.1 + 0.1).tolist()
        groups = tied_groups(with_accuracies(outcomes, accuracies), made_tests(cells, different))
        letters = [set(own.split()) for own in groups.letters]
        assert all(letters)
        for first, second in pairs:
            assert bool(letters[first] & letters[second]) == ((first, second) not in different)
        best = int(np.argmax(accuracies))
        assert "a" in letters[best]
        assert set(groups.tied_with_best) == {
            cell for cell in range(cells) if tuple(sorted((cell, best))) not in different
        }


def test_letters_of_a_chain_by_hand(outcomes: Callable[..., ScoredRows]) -> None:
    # 0.9 and 0.8 are tied, 0.8 and 0.7 are, but 0.9 and 0.7 are not; 0.1 is worse than all.
    rows = with_accuracies(outcomes, [0.7, 0.9, 0.1, 0.8])
    different = {(0, 1), (0, 2), (1, 2), (2, 3)}
    groups = tied_groups(rows, made_tests(4, different))
    assert groups.ranking == (1, 3, 0, 2)
    assert groups.tied_with_best == (1, 3)
    assert groups.letters == ("b", "a", "c", "a b")


def test_one_row_is_tied_with_itself(outcomes: Callable[..., ScoredRows]) -> None:
    groups = tied_groups(with_accuracies(outcomes, [0.7]), [])
    assert (groups.ranking, groups.tied_with_best, groups.letters) == ((0,), (0,), ("a",))


def test_ranking_does_not_depend_on_the_last_bit(outcomes: Callable[..., ScoredRows]) -> None:
    # The mean of 0.9, 0.8 and 0.7 is 0.8, but sums in another order differ in the last bit.
    levels = [np.arange(IMAGES) < share * IMAGES for share in (0.9, 0.8, 0.7)]
    assert np.mean([0.9, 0.8, 0.7]) != np.mean([0.7, 0.8, 0.9])
    for order in itertools.permutations(range(3)):
        rows = outcomes(levels, [levels[place] for place in order], [levels[1]])
        assert tied_groups(rows, made_tests(3, set())).ranking == (0, 1, 2)


def test_ranks_of_a_published_table() -> None:
    ranks = rank_over_data_sets(DEMSAR)
    assert ranks.average_ranks.tolist() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ranks.critical_difference == pytest.approx(1.25, abs=5e-3)  # section 3.2.2: 2.569 * root(4 * 5 / (6 * 14))
    assert ranks.friedman_p_value < 0.05
    assert ranks.num_data_sets == 14
    assert ranks.cliques == ((3, 1, 2, 0),)
    assert ranks.approximate  # four models


def test_friedman_and_nemenyi_agree_with_other_implementations() -> None:
    scores = np.random.default_rng(4).normal(size=(12, 6)) + np.arange(6) * 0.7
    ranks = rank_over_data_sets(scores)
    np.testing.assert_allclose(ranks.p_values, scikit_posthocs.posthoc_nemenyi_friedman(scores), atol=1e-6)
    below = ranks.p_values < 0.05
    differences = np.abs(ranks.average_ranks[:, None] - ranks.average_ranks)
    np.testing.assert_array_equal(below, differences > ranks.critical_difference)
    assert below.any()
    # Without ties, Friedman's statistic from the average ranks (Demšar 2006, section 3.2.2).
    statistic = 12 * 12 / (6 * 7) * ((ranks.average_ranks**2).sum() - 6 * 7**2 / 4)
    assert ranks.friedman_p_value == pytest.approx(stats.chi2.sf(statistic, 5))
    assert not ranks.approximate


def test_cliques_are_the_largest_sets_within_the_critical_difference() -> None:
    # Ranks 1, 2, ..., 6 on all of 12 data sets; the critical difference is 2.85 * root(6 * 7 / (6 * 12)) = 2.18.
    ranks = rank_over_data_sets(np.tile([0.5, 0.9, 0.8, 0.4, 0.7, 0.6], (12, 1)))
    assert ranks.critical_difference == pytest.approx(2.850 * (42 / 72) ** 0.5, abs=1e-3)
    assert ranks.cliques == ((1, 2, 4), (2, 4, 5), (4, 5, 0), (5, 0, 3))


def test_model_far_from_all_others_is_in_no_clique() -> None:
    scores = np.tile([0.9, 0.5, 0.5], (60, 1))
    scores[::2, 1] += 0.1
    scores[1::2, 2] += 0.1
    assert rank_over_data_sets(scores).cliques == ((1, 2),)


def test_models_alike_on_all_data_sets_are_tied() -> None:
    ranks = rank_over_data_sets(np.full((4, 3), 0.8))
    assert (ranks.friedman_p_value, ranks.average_ranks.tolist(), ranks.cliques) == (1, [2, 2, 2], ((0, 1, 2),))
    np.testing.assert_allclose(ranks.p_values, 1)


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (1, 1)])
def test_too_few_data_sets_or_models_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"at least 3 data sets and 3 models.*Received: {shape[0]} data sets and"):
        rank_over_data_sets(np.zeros(shape))


def test_missing_score_is_refused() -> None:
    with pytest.raises(ValueError, match="every model needs a score"):
        rank_over_data_sets(np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3], [0.1, 0.2, 0.3]]))


def test_average_ranks_do_not_depend_on_the_last_bit() -> None:
    scores = np.array([[0.8, 0.7, 0.6], [0.5, 0.9, 0.2], [0.3, 0.3, 0.7], [0.1, 0.2, 0.2]])
    almost = scores.copy()
    almost[2, 1] = 0.1 + 0.2
    almost[3, 2] = np.nextafter(0.2, 1)
    assert not np.array_equal(scores, almost)
    exact, rounded = rank_over_data_sets(scores), rank_over_data_sets(almost)
    assert exact.average_ranks.tolist() == rounded.average_ranks.tolist()
    assert exact.friedman_p_value == rounded.friedman_p_value
    same = np.full((4, 3), 0.3)
    same[1, 2] = 0.1 + 0.2
    assert rank_over_data_sets(same).friedman_p_value == 1
