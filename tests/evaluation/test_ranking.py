from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tandem.evaluation.contributions import ClassSplit, ranking_contributions
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import CURVE_RATES, Ranking, rank, ranking_table

MakeRun = Callable[..., Predictions]
STEP = 1e-6


def of_two_classes(truth: list[int], probabilities: list[float]) -> Predictions:
    """Predictions from the probabilities of class 1."""
    keys = tuple(str(index) for index in range(len(truth)))
    second = np.array(probabilities, dtype=np.float32)
    return Predictions(
        keys=keys,
        hashes=keys,
        truth=np.array(truth),
        probabilities=np.stack([1 - second, second], axis=1),
        classes=("no", "yes"),
    )


def ranked(predictions: Predictions, index: int = 1) -> Ranking:
    ranking = rank(predictions, index)
    assert ranking is not None
    return ranking


def with_ties(run: Predictions) -> Predictions:
    """Probabilities in tenths: most images share theirs with others."""
    return replace(run, probabilities=np.round(run.probabilities, 1))


def roc_auc_by_definition(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of pairs in which the image of the class ranks above that of the rest."""
    won = np.sign(score[positive][:, None] - score[~positive][None, :]) / 2 + 0.5
    pairs = weights[positive][:, None] * weights[~positive][None, :]
    return float((won * pairs).sum() / pairs.sum())


def average_precision_by_definition(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean over the images of the class of the precision among the images that rank as high."""
    precision = [
        (weights * positive * (score >= own)).sum() / (weights * (score >= own)).sum() for own in score[positive]
    ]
    return float(np.average(precision, weights=weights[positive]))


def test_areas_by_hand() -> None:
    # Ranked: yes, no, yes, no, no. Above the negatives are 1, 2 and 2 of 2 positives; precision is 1 and 2/3.
    ranking = ranked(of_two_classes([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.4, 0.1]))
    assert ranking.roc_auc == pytest.approx((1 + 2 + 2) / (2 * 3))
    assert ranking.average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_tied_images_count_one_half_and_share_a_threshold() -> None:
    # Two positives and one negative at 0.7, one negative below.
    ranking = ranked(of_two_classes([1, 0, 1, 0], [0.7, 0.7, 0.7, 0.2]))
    assert ranking.roc_auc == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert ranking.average_precision == pytest.approx(2 / 3)


def test_constant_predictions_rank_by_chance() -> None:
    ranking = ranked(of_two_classes([1, 0, 0, 0], [0.5] * 4))
    assert ranking.roc_auc == 0.5
    assert ranking.average_precision == 1 / 4  # the share of the class
    assert ranking.roc_curve().tolist() == pytest.approx(CURVE_RATES.tolist())
    assert set(ranking.precision_recall_curve()) == {1 / 4}


def test_reversed_ranking_has_an_area_of_zero() -> None:
    ranking = ranked(of_two_classes([1, 0, 0], [0.1, 0.5, 0.9]))
    assert (ranking.roc_auc, ranking.average_precision) == (0, pytest.approx(1 / 3))


@pytest.mark.parametrize("tied", [False, True])
def test_areas_agree_with_their_definitions_and_with_scikit_learn(make_run: MakeRun, tied: bool) -> None:
    run = make_run(0, images=150)
    run = with_ties(run) if tied else run
    table = ranking_table(run)
    assert table["class"].tolist() == list(run.classes)
    for index in range(6):
        positive, score = run.truth == index, run.probabilities[:, index]
        assert table["roc_auc"][index] == pytest.approx(roc_auc_by_definition(positive, score, np.ones(150)))
        assert table["roc_auc"][index] == pytest.approx(sklearn_metrics.roc_auc_score(positive, score))
        found = table["average_precision"][index]
        assert found == pytest.approx(average_precision_by_definition(positive, score, np.ones(150)))
        assert found == pytest.approx(sklearn_metrics.average_precision_score(positive, score))
    assert table["roc_auc"].nunique() == 6


def test_class_without_images_or_with_all_of_them_has_no_areas() -> None:
    predictions = of_two_classes([1, 1, 1], [0.9, 0.2, 0.4])
    assert (rank(predictions, 0), rank(predictions, 1)) == (None, None)
    assert ranking_table(predictions)[["roc_auc", "average_precision"]].isna().all(axis=None)


def test_order_of_the_images_does_not_matter(make_run: MakeRun) -> None:
    run = with_ties(make_run(3))
    order = np.random.default_rng(0).permutation(len(run.keys))
    shuffled = replace(run, truth=run.truth[order], probabilities=run.probabilities[order])
    one, other = ranked(run), ranked(shuffled)
    assert (one.roc_auc, one.average_precision) == (other.roc_auc, other.average_precision)
    np.testing.assert_allclose(one.roc_auc_contributions()[order], other.roc_auc_contributions())
    np.testing.assert_allclose(one.average_precision_contributions()[order], other.average_precision_contributions())


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("roc_auc_macro", roc_auc_by_definition),
        ("average_precision_macro", average_precision_by_definition),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_contribution_is_what_more_weight_of_an_image_does(
    make_run: MakeRun, name: str, score: Callable[..., float], tied: bool
) -> None:
    run = make_run(0, images=90, num_classes=3, skill=1.0)
    run = with_ties(run) if tied else run
    found = ranking_contributions(ClassSplit(run.truth, 3), run)[name]

    def macro(weights: np.ndarray) -> float:
        of_classes = [score(run.truth == index, run.probabilities[:, index], weights) for index in range(3)]
        return float(np.mean(of_classes))

    assert found.score == pytest.approx(macro(np.ones(90)))
    assert found.images.sum() == pytest.approx(0)
    # With the class's total weight unchanged, since the number of images per class is fixed.
    for image in (0, 7, 40, 61, 88):
        of_class = run.truth == run.truth[image]
        weights = np.ones(90) - STEP * of_class / of_class.sum()
        weights[image] += STEP
        scale = (of_class.sum() / (of_class.sum() - 1)) ** 0.5
        change = (macro(weights) - macro(np.ones(90))) / STEP
        assert found.images[image] == pytest.approx(change * scale, rel=1e-3, abs=1e-7)


def test_macro_is_the_mean_over_the_classes_with_images(make_run: MakeRun) -> None:
    run = make_run(0, num_classes=4)
    more = replace(
        run,
        classes=(*run.classes, "never seen"),
        probabilities=np.concatenate([run.probabilities, np.zeros((len(run.keys), 1), np.float32)], axis=1),
    )
    of_four, of_five = (
        ranking_contributions(ClassSplit(run.truth, 4), run),
        ranking_contributions(ClassSplit(run.truth, 5), more),
    )
    for name in of_four:
        assert of_four[name].score == pytest.approx(of_five[name].score)


def test_average_precision_bias_is_that_of_many_drawn_test_sets() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(120) < 20

    def drawn(images: int) -> Ranking:
        truth = np.tile(positive, images // 120).astype(np.int64)
        score = random.normal(size=images) + 1.5 * truth
        return ranked(of_two_classes(truth.tolist(), (1 / (1 + np.exp(-score))).tolist()))

    sets = [drawn(120) for _ in range(600)]
    observed = np.array([one.average_precision for one in sets])
    bias = observed.mean() - drawn(240_000).average_precision
    error = observed.std() / 600**0.5
    assert bias > 4 * error  # there is something to correct
    assert np.mean([one.average_precision_bias() for one in sets]) == pytest.approx(bias, abs=3 * error)


def test_roc_curve_takes_the_highest_rate_at_each_false_positive_rate() -> None:
    # Ranked: yes, no, yes, no: rates (0, 1/2), (1/2, 1/2), (1/2, 1), (1, 1).
    curve = ranked(of_two_classes([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.4])).roc_curve()
    assert (curve[0], curve[25], curve[49], curve[50], curve[100]) == (0.5, 0.5, 0.5, 1, 1)


def test_precision_recall_curve_takes_the_highest_threshold_that_reaches_a_recall() -> None:
    # Ranked: yes, no, yes, no: precision 1 up to a recall of 1/2, then 2/3.
    curve = ranked(of_two_classes([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.4])).precision_recall_curve()
    assert curve.tolist() == pytest.approx([1.0] * 51 + [2 / 3] * 50)
    # The highest image is not of the class: no threshold has a recall of 0 and a precision that means anything.
    assert set(ranked(of_two_classes([0, 1], [0.9, 0.8])).precision_recall_curve()) == {0.5}


def test_curves_of_many_images_enclose_their_areas(make_run: MakeRun) -> None:
    ranking = ranked(make_run(0, images=3000))
    assert np.trapezoid(ranking.roc_curve(), CURVE_RATES) == pytest.approx(ranking.roc_auc, abs=0.005)
    assert ranking.precision_recall_curve()[1:].mean() == pytest.approx(ranking.average_precision, abs=0.01)
