from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.errors import UserError
from tandem.evaluation.intervals import Interval
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import ResampledScores, resample_scores, resamples_for
from tandem.evaluation.significance import (
    PairedTest,
    bootstrap_p_values,
    holm,
    mcnemar_p_value,
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


def right_and_wrong(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, only_first, only_second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def resampled_with(accuracies: list[float], log_losses: list[float]) -> ResampledScores:
    cells = len(accuracies)
    return ResampledScores(
        estimates={"accuracy": np.array(accuracies), "log_loss": np.array(log_losses)},
        resampled={"accuracy": np.zeros((cells, 1)), "log_loss": np.zeros((cells, 1))},
        correct=(np.ones((1, 1), bool),) * cells,
        num_classes=2,
    )


def made_tests(cells: int, different: set[tuple[int, int]], score: str = "accuracy") -> list[PairedTest]:
    nothing = Interval(estimate=0, low=0, high=0)
    return [
        PairedTest(
            first=first,
            second=second,
            score=score,
            difference=nothing,
            p_value=0.001,
            p_holm=0.01 if (first, second) in different else 0.2,
            test="mcnemar",
        )
        for first, second in itertools.combinations(range(cells), 2)
    ]


@pytest.mark.parametrize(
    "table", [(90, 1, 8, 5), (90, 8, 1, 5), (0, 3, 3, 0), (5, 0, 1, 0), (1000, 40, 70, 200), (3, 0, 12, 9)]
)
def test_mcnemar_agrees_with_statsmodels(table: tuple[int, int, int, int]) -> None:
    both, only_first, only_second, neither = table
    expected = mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue
    assert mcnemar_p_value(*right_and_wrong(*table)) == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    # Of 9 images that one run alone gets right, 1 or fewer, or 8 or more, fall to one of them: 2 * (1 + 9) / 2^9.
    assert mcnemar_p_value(*right_and_wrong(90, 1, 8, 5)) == pytest.approx(20 / 512)


def test_mcnemar_of_runs_that_are_right_on_the_same_images_is_one() -> None:
    assert mcnemar_p_value(*right_and_wrong(7, 0, 0, 3)) == 1


def test_bootstrap_p_value_counts_by_its_rule() -> None:
    random = np.random.default_rng(0)
    estimates, values = np.array([0.02, -0.01, 0.0]), random.normal(0.01, 0.02, (3, 400))
    for estimate, of_resamples, p_value in zip(estimates, values, bootstrap_p_values(estimates, values), strict=True):
        count = 0
        for value in of_resamples:
            count += abs(value - estimate) >= abs(estimate)
        assert p_value == (count + 1) / 401
        assert float(bootstrap_p_values(estimate, of_resamples)) == p_value
    assert bootstrap_p_values(estimates, values)[2] == 1


def test_bootstrap_p_value_is_never_zero_and_takes_rounding_for_a_tie() -> None:
    assert float(bootstrap_p_values(np.float64(0.5), np.full(999, 0.5))) == 1 / 1000
    assert float(bootstrap_p_values(np.float64(0.1 + 0.2), np.full(999, 0.6 - 1e-12))) == 1


def test_bootstrap_p_value_agrees_with_the_normal_test_for_many_images(make_run: MakeRun) -> None:
    first, second = make_run(0, images=2000), make_run(1, images=2000, skill=2.13)
    of_images = (first.predicted == first.truth).astype(float) - (second.predicted == second.truth)
    expected = 2 * stats.norm.sf(abs(of_images.mean()) / of_images.std() * 2000**0.5)
    values = resample_scores([[first], [second]], num_resamples=6000)
    estimates, resampled = values.estimates["accuracy"], values.resampled["accuracy"]
    assert 0.001 < expected < 0.2
    p_value = bootstrap_p_values(estimates[0] - estimates[1], resampled[0] - resampled[1])
    assert float(p_value) == pytest.approx(expected, abs=4 * (expected / 6000) ** 0.5 + 0.1 * expected)


def test_equally_skilled_runs_differ_significantly_about_one_time_in_twenty(make_run: MakeRun) -> None:
    found: dict[str, list[bool]] = {"f1_macro": [], "accuracy": []}
    for number in range(150):
        runs = [[make_run(1000 + 2 * number + which, images=120, num_classes=4, test_set=number)] for which in (0, 1)]
        resampled = resample_scores(runs, num_resamples=200)
        for score, significant in found.items():
            significant += [test.p_value < 0.05 for test in paired_tests(resampled, score)]
    # Three standard errors of 150 trials at 0.05 are 0.053; McNemar's exact test is on the safe side of 0.05.
    assert 0.01 < np.mean(found["f1_macro"]) < 0.104
    assert np.mean(found["accuracy"]) < 0.104


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
    tests = paired_tests(resample_scores([[run] for run in runs], num_resamples=200), "accuracy")
    assert [(test.first, test.second) for test in tests] == list(itertools.combinations(range(4), 2))
    expected = []
    for first, second in itertools.combinations(runs, 2):
        right = [(run.predicted == run.truth) for run in (first, second)]
        table = [[(right[0] & right[1]).sum(), (right[0] & ~right[1]).sum()], [(~right[0] & right[1]).sum(), 0]]
        expected.append(mcnemar(table, exact=True).pvalue)
    assert [test.p_value for test in tests] == pytest.approx(expected)
    assert [test.p_holm for test in tests] == pytest.approx(multipletests(expected, method="holm")[1].tolist())
    assert [test.significant for test in tests] == [test.p_holm < 0.05 for test in tests]
    assert {test.significant for test in tests} == {True, False}
    assert {test.test for test in tests} == {"mcnemar"}
    difference = np.mean(runs[0].predicted == runs[0].truth) - np.mean(runs[3].predicted == runs[3].truth)
    assert tests[2].difference.estimate == pytest.approx(difference)


def test_chosen_pairs_alone_are_tested_and_corrected(make_run: MakeRun) -> None:
    resampled = resample_scores([[make_run(seed, skill=1 + seed)] for seed in range(4)], num_resamples=200)
    every = {(test.first, test.second): test for test in paired_tests(resampled, "accuracy")}
    (chosen,) = paired_tests(resampled, "accuracy", [(2, 0)])
    assert (chosen.first, chosen.second) == (2, 0)
    assert chosen.p_holm == chosen.p_value == pytest.approx(every[0, 2].p_value)
    assert chosen.difference.estimate == pytest.approx(-every[0, 2].difference.estimate)


@pytest.mark.parametrize("score", ["accuracy", "f1_macro", "f1_min", "log_loss", "calibration_error"])
def test_identical_runs_do_not_differ(make_run: MakeRun, score: str) -> None:
    (test,) = paired_tests(resample_scores([[make_run(0)], [make_run(0)]], num_resamples=100), score)
    assert (test.p_value, test.p_holm, test.significant) == (1, 1, False)
    assert (test.difference.estimate, test.difference.low, test.difference.high) == (0, 0, 0)


def test_cells_of_several_runs_are_tested_over_images_and_runs(make_run: MakeRun) -> None:
    weak = [make_run(seed, images=400, skill=skill) for seed, skill in enumerate((1.0, 2.0, 3.0))]
    strong = [make_run(10 + seed, images=400, skill=skill) for seed, skill in enumerate((2.2, 1.5, 3.4))]
    (test,) = paired_tests(resample_scores([weak, strong]), "accuracy")
    assert test.test == "bootstrap"
    accuracies = [[np.mean(run.predicted == run.truth) for run in cell] for cell in (weak, strong)]
    assert test.difference.estimate == pytest.approx(np.mean(accuracies[0]) - np.mean(accuracies[1]))
    # The first runs alone differ clearly, but which cell is ahead changes from seed to seed.
    (of_first,) = paired_tests(resample_scores([weak[:1], strong[:1]]), "accuracy")
    assert of_first.significant
    assert not test.significant


def test_bootstrap_of_twelve_runs_can_survive_the_correction(make_run: MakeRun) -> None:
    cells = [[make_run(seed, num_classes=3, skill=0.2 if seed else 9.0)] for seed in range(12)]
    tests = paired_tests(resample_scores(cells, num_resamples=resamples_for(66)), "f1_macro")
    assert all(test.significant for test in tests if test.first == 0)


def test_cells_share_a_letter_exactly_if_they_do_not_differ() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        cells = int(random.integers(2, 9))
        pairs = list(itertools.combinations(range(cells), 2))
        different = {pair for pair in pairs if random.random() < 0.5}
        accuracies = random.random(cells).tolist()
        groups = tied_groups(resampled_with(accuracies, accuracies), made_tests(cells, different))
        letters = [set(own.split()) for own in groups.letters]
        assert all(letters)
        for first, second in pairs:
            assert bool(letters[first] & letters[second]) == ((first, second) not in different)
        best = int(np.argmax(accuracies))
        assert "a" in letters[best]
        assert set(groups.tied_with_best) == {
            cell for cell in range(cells) if tuple(sorted((cell, best))) not in different
        }


def test_letters_of_a_chain_by_hand() -> None:
    # 0.9 and 0.8 are tied, 0.8 and 0.7 are, but 0.9 and 0.7 are not; 0.1 is worse than all.
    resampled = resampled_with([0.7, 0.9, 0.1, 0.8], [0.5, 0.4, 0.9, 0.3])
    different = {(0, 1), (0, 2), (1, 2), (2, 3)}
    groups = tied_groups(resampled, made_tests(4, different))
    assert groups.ranking == (1, 3, 0, 2)
    assert groups.tied_with_best == (1, 3)
    assert groups.letters == ("b", "a", "c", "a b")


def test_of_losses_the_lowest_is_the_best() -> None:
    resampled = resampled_with([0.7, 0.9, 0.8], [0.5, 0.4, 0.3])
    groups = tied_groups(resampled, made_tests(3, {(0, 2)}, score="log_loss"))
    assert (groups.ranking, groups.tied_with_best, groups.letters) == ((2, 1, 0), (2, 1), ("b", "a b", "a"))


def test_one_cell_is_tied_with_itself() -> None:
    groups = tied_groups(resampled_with([0.7], [0.5]), [])
    assert (groups.ranking, groups.tied_with_best, groups.letters) == ((0,), (0,), ("a",))


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
