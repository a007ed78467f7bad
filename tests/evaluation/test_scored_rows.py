from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tandem.errors import UserError
from tandem.evaluation.contributions import ClassSplit, class_contributions
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import CALIBRATION, CLASS_AVERAGES, MEANS, ScoredFolds, ScoredRows

MakeRun = Callable[..., Predictions]


def take(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return replace(
        predictions,
        keys=tuple(predictions.keys[row] for row in rows),
        hashes=tuple(predictions.hashes[row] for row in rows),
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def test_estimates_are_the_means_of_the_runs_scores(make_run: MakeRun) -> None:
    runs = [make_run(seed) for seed in range(4)]
    rows = ScoredRows([runs[:3], runs[3:]])
    for name in (*MEANS, *CLASS_AVERAGES):
        own = [scores(run)[name] for run in runs]
        assert rows.score(name).estimates.tolist() == pytest.approx([np.mean(own[:3]), own[3]]), name
    squares = rows.score(CALIBRATION).estimates
    assert np.sqrt(max(squares[1], 0)) == pytest.approx(scores(runs[3])[CALIBRATION])


def test_rows_do_not_depend_on_other_rows_or_the_order_of_images(make_run: MakeRun) -> None:
    run, other = make_run(0), make_run(1)
    shuffled = take(run, np.random.default_rng(0).permutation(len(run.keys)))
    renamed = replace(shuffled, keys=tuple(f"moved/{key}" for key in shuffled.keys))
    alone, together = ScoredRows([[run]]).score("f1_macro"), ScoredRows([[other], [renamed]]).score("f1_macro")
    np.testing.assert_array_equal(alone.contributions[0], together.contributions[1])


def test_runs_of_other_images_are_refused(make_run: MakeRun) -> None:
    run = make_run(0)
    with pytest.raises(UserError, match=r"runs 1 and 3 were tested on different images \(120 and 119 images\)"):
        ScoredRows([[run], [run], [take(run, np.arange(119))]])


@pytest.mark.parametrize("rows", [[], [[]]])
def test_rows_without_runs_are_refused(rows: list) -> None:
    with pytest.raises(ValueError, match="rows with runs are needed"):
        ScoredRows(rows)


def test_difference_subtracts_image_by_image(make_run: MakeRun) -> None:
    first, second = make_run(0, images=2000), make_run(1, images=2000, skill=2.3)
    rows = ScoredRows([[first], [second]])
    found = rows.score("accuracy").differences([0], [1])
    of_images = (first.predicted == first.truth).astype(float) - (second.predicted == second.truth)
    assert found.value[0] == pytest.approx(of_images.mean())
    assert found.images[0] == pytest.approx(of_images.var() / 2000)
    # Unpaired, the variance would be larger: the runs fail on the same images.
    assert found.images[0] < 0.9 * rows.score("accuracy").of([0, 1]).images.sum()


def test_differences_of_many_pairs_are_those_of_each(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0), make_run(1)], [make_run(2)], [make_run(3), make_run(4), make_run(5)]])
    together = rows.score("f1_macro").differences([0, 2, 1], [1, 0, 2])
    for place, pair in enumerate([(0, 1), (2, 0), (1, 2)]):
        alone = rows.score("f1_macro").differences([pair[0]], [pair[1]])
        assert together.half_width(0.05)[place] == alone.half_width(0.05)[0]


def test_disagreement_is_the_share_of_images_that_one_alone_gets_right(make_run: MakeRun) -> None:
    runs = [make_run(seed) for seed in range(3)]
    right = [run.predicted == run.truth for run in runs]
    rows = ScoredRows([runs[:1], runs[1:2], runs[1:]])
    assert rows.disagreement(0, 1) == pytest.approx(np.mean(right[0] != right[1]))
    pairs = [np.mean(right[0] != right[place]) for place in (1, 2)]
    assert rows.disagreement(0, 2) == pytest.approx(np.mean(pairs))
    assert ScoredRows([runs[:1], runs[:1]]).disagreement(0, 1) == 0


def test_small_classes_are_a_reason_against_intervals(make_run: MakeRun) -> None:
    small = ScoredRows([[make_run(0, images=30, num_classes=10)]])
    assert small.score("f1_macro").why_not == ("fewer than 4 test images per class",)
    enough = ScoredRows([[make_run(0, images=120, num_classes=6)]])
    assert [enough.score(name).why_not[0] for name in ("f1_macro", "precision_macro")] == [None, None]
    fewer = ScoredRows([[make_run(0, images=80, num_classes=6)]])
    assert fewer.score("precision_macro").why_not == ("fewer than 15 test images per class",)
    assert fewer.score("f1_macro").why_not == (None,)


def test_one_small_class_of_two_is_a_reason_against_intervals(make_run: MakeRun) -> None:
    run = make_run(0, images=600, num_classes=2)
    kept = np.concatenate([np.flatnonzero(run.truth == 0)[:98], np.flatnonzero(run.truth == 1)[:3]])
    rows = ScoredRows([[take(run, kept)]])
    assert rows.score("recall_macro").why_not == ("a few small classes decide",)
    assert rows.score("accuracy").why_not == (None,)


def test_log_loss_and_calibration_need_errors_and_images(make_run: MakeRun) -> None:
    good, weak = make_run(0, images=200, skill=6.0), make_run(0, images=200, skill=1.0)
    rows = ScoredRows([[good], [weak]])
    assert rows.score("log_loss").why_not == ("fewer than 20 wrong predictions", None)
    assert rows.score(CALIBRATION).why_not == (None, None)
    assert ScoredRows([[make_run(0)]]).score(CALIBRATION).why_not == ("fewer than 150 test images",)


def test_folds_have_the_mean_of_their_scores(make_run: MakeRun) -> None:
    folds = [ScoredRows([[make_run(seed, test_set=fold)] for seed in range(2)]) for fold in range(3)]
    scored = ScoredFolds(tuple(folds))
    own = [fold.score("accuracy").estimates for fold in folds]
    assert scored.score("accuracy").estimates.tolist() == pytest.approx(np.mean(own, axis=0).tolist())
    assert scored.score("accuracy").why_not == (None, None)
    assert (len(scored), scored.num_runs(0)) == (2, 1)
    difference = scored.score("accuracy").differences([0], [1])
    parts = [fold.score("accuracy").differences([0], [1]).images[0] for fold in folds]
    assert difference.images[0] == pytest.approx(sum(parts) / 9)


def test_values_are_corrected_for_the_bias_of_small_classes() -> None:
    # F1 of five images per class is too low on average, so its correction is upwards.
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(60), 5)
    probabilities = random.random((300, 60)).astype(np.float32) * 0.01
    right = random.random(300) < 0.6
    probabilities[np.arange(300), np.where(right, truth, random.integers(0, 60, 300))] = 0.4
    names = tuple(f"{image:03}" for image in range(300))
    run = Predictions(
        keys=names,
        hashes=names,
        truth=truth,
        probabilities=probabilities,
        classes=tuple(f"class {index}" for index in range(60)),
    )
    found = ScoredRows([[run]]).score("f1_macro")
    bias = class_contributions(ClassSplit(truth, 60), run.predicted, "f1", "macro").bias
    assert bias < -0.002
    assert found.values[0] == pytest.approx(found.estimates[0] - bias)
