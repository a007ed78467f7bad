from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tandem.errors import UserError
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import align, mean_of_drawn_runs, resample_scores, resamples_for, weight_blocks

MakeRun = Callable[..., Predictions]


def take(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return replace(
        predictions,
        keys=tuple(predictions.keys[row] for row in rows),
        hashes=tuple(predictions.hashes[row] for row in rows),
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def draw_rows(truth: np.ndarray, num_resamples: int, seed: int, *, within_class: bool) -> list[np.ndarray]:
    blocks = weight_blocks(truth, num_resamples, seed, within_class=within_class)
    weights = np.concatenate([weights for _, weights in blocks], axis=1).astype(np.int64)
    return [np.repeat(np.arange(len(truth)), column) for column in weights.T]


@pytest.mark.parametrize(("images", "num_classes", "skill"), [(120, 6, 2.0), (40, 12, 0.5), (30, 3, 8.0)])
def test_resampled_scores_are_the_scores_of_the_images_drawn(
    make_run: MakeRun, images: int, num_classes: int, skill: float
) -> None:
    run = make_run(5, images=images, num_classes=num_classes, skill=skill)
    (aligned,) = align([run])
    resampled = resample_scores([[run]], num_resamples=12, seed=3).resampled
    for index, rows in enumerate(draw_rows(aligned.truth, 12, 3, within_class=False)):
        for name, value in scores(take(aligned, rows)).items():
            if not name.endswith("_min"):
                assert resampled[name][0, index] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    for index, rows in enumerate(draw_rows(aligned.truth, 12, 3, within_class=True)):
        for name, value in scores(take(aligned, rows)).items():
            if name.endswith("_min"):
                assert resampled[name][0, index] == pytest.approx(value), name


def test_macro_f1_of_resamples_agrees_with_scikit_learn(make_run: MakeRun) -> None:
    run = make_run(1, images=50, num_classes=8)
    (aligned,) = align([run])
    resampled = resample_scores([[run]], num_resamples=30).resampled["f1_macro"][0]
    for value, rows in zip(resampled, draw_rows(aligned.truth, 30, 0, within_class=False), strict=True):
        expected = sklearn_metrics.f1_score(
            aligned.truth[rows], aligned.predicted[rows], labels=np.arange(8), average="macro", zero_division=0
        )
        assert value == pytest.approx(expected)


def test_estimates_are_the_scores_themselves(make_run: MakeRun) -> None:
    runs = [make_run(seed) for seed in range(3)]
    estimates = resample_scores([[run] for run in runs], num_resamples=2).estimates
    assert set(estimates) == set(scores(runs[0]))
    for name, values in estimates.items():
        assert values.tolist() == pytest.approx([scores(run)[name] for run in runs])


def test_spread_of_accuracy_agrees_with_scipy(make_run: MakeRun) -> None:
    run = make_run(2)
    correct = run.predicted == run.truth
    expected = stats.bootstrap((correct,), np.mean, n_resamples=5000, rng=np.random.default_rng(1))
    spread = resample_scores([[run]], num_resamples=5000).resampled["accuracy"].std(ddof=1)
    assert spread == pytest.approx(expected.standard_error, rel=0.05)


@pytest.mark.parametrize("within_class", [False, True])
def test_resamples_are_as_large_as_the_test_set_and_draw_each_image_equally_often(within_class: bool) -> None:
    truth = np.array([2, 0, 0, 1, 0, 2, 4, 0])
    weights = np.concatenate([block for _, block in weight_blocks(truth, 6000, 0, within_class=within_class)], axis=1)
    assert weights.shape == (8, 6000)
    assert (weights.sum(axis=0) == 8).all()
    # Multinomial weights have mean 1 and a variance below 1: five standard errors of 6,000 draws.
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=5 / 6000**0.5)
    class_sizes = np.array([weights[truth == index].sum(axis=0) for index in range(5)])
    always_the_same = (class_sizes == np.array([[4], [1], [2], [0], [1]])).all()
    assert always_the_same == within_class


def test_first_resamples_do_not_depend_on_how_many_are_drawn(make_run: MakeRun) -> None:
    run = make_run(0)
    few, many = (resample_scores([[run]], num_resamples=number).resampled for number in (260, 700))
    for name, values in few.items():
        np.testing.assert_array_equal(values, many[name][:, :260])
    other = resample_scores([[run]], num_resamples=260, seed=1).resampled
    assert not np.array_equal(few["accuracy"], other["accuracy"])


def test_resamples_of_a_run_do_not_depend_on_other_runs_or_the_order_of_its_rows(make_run: MakeRun) -> None:
    run, other = make_run(0), make_run(1)
    shuffled = take(run, np.random.default_rng(0).permutation(len(run.keys)))
    renamed = replace(shuffled, keys=tuple(f"moved/{key}" for key in shuffled.keys))
    alone = resample_scores([[run]], num_resamples=50)
    together = resample_scores([[other], [renamed]], num_resamples=50)
    for name in alone.resampled:
        np.testing.assert_array_equal(alone.resampled[name][0], together.resampled[name][1])
    np.testing.assert_array_equal(alone.correct[0], together.correct[1])


def test_aligned_runs_stand_row_by_row(make_run: MakeRun) -> None:
    run = make_run(0)
    shuffled = take(make_run(1), np.random.default_rng(0).permutation(len(run.keys)))
    first, second = align([run, shuffled])
    assert first.hashes == second.hashes == tuple(sorted(run.hashes))
    assert first.keys == second.keys
    row = first.keys.index("17.png")
    np.testing.assert_array_equal(first.probabilities[row], run.probabilities[17])
    np.testing.assert_array_equal(second.probabilities[row], make_run(1).probabilities[17])


def test_runs_of_other_images_or_classes_are_refused(make_run: MakeRun) -> None:
    run = make_run(0)
    with pytest.raises(UserError, match=r"runs 1 and 3 were tested on different images \(120 and 119 images\)"):
        resample_scores([[run], [run], [take(run, np.arange(119))]])
    with pytest.raises(UserError, match="different images"):
        align([run, make_run(0, test_set=1)])
    with pytest.raises(UserError, match="classes of runs 1 and 2 differ"):
        align([run, replace(run, classes=run.classes[::-1])])


@pytest.mark.parametrize("cells", [[], [[]]])
def test_cells_without_runs_are_refused(cells: list) -> None:
    with pytest.raises(ValueError, match="cells with runs are needed"):
        resample_scores(cells)


def test_cell_of_several_runs_has_their_mean(make_run: MakeRun) -> None:
    runs = [make_run(seed) for seed in range(3)]
    cell = resample_scores([runs, runs[:1]], num_resamples=10)
    for name, values in cell.estimates.items():
        assert values.tolist() == pytest.approx([np.mean([scores(run)[name] for run in runs]), scores(runs[0])[name]])
    assert [correct.shape for correct in cell.correct] == [(3, 120), (1, 120)]


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_drawn_runs_vary_as_the_mean_of_new_runs_would(runs: int) -> None:
    values = np.random.default_rng(runs).normal(size=runs)
    drawn = mean_of_drawn_runs(np.repeat(values[:, None], 40_000, axis=1), seed=0)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.02)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / runs, rel=0.03)


def test_one_run_is_drawn_always() -> None:
    values = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(mean_of_drawn_runs(values, seed=0), values[0])


def test_cells_of_equally_many_runs_draw_the_same_positions(make_run: MakeRun) -> None:
    runs = [make_run(seed) for seed in range(3)]
    values = resample_scores([runs, list(runs)], num_resamples=40).resampled["f1_macro"]
    np.testing.assert_array_equal(values[0], values[1])


def test_number_of_resamples_grows_with_the_number_of_tests() -> None:
    assert [resamples_for(tests) for tests in (0, 1, 20, 66, 200, 5000)] == [2000, 2000, 2000, 6600, 20_000, 20_000]
