from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from tandem import interrupts
from tandem.evaluation import scored_rows
from tandem.evaluation.contributions import Contributions
from tandem.evaluation.intervals import (
    MINIMA,
    Interval,
    chosen_interval,
    difference_interval,
    difference_intervals,
    score_interval,
    score_intervals,
)
from tandem.evaluation.metrics import SCORE_NAMES, per_class_table, scores
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import (
    AGREEMENTS,
    CALIBRATION,
    CLASS_AVERAGES,
    MEANS,
    RANKINGS,
    ScoredFolds,
    ScoredRows,
)

MakeRun = Callable[..., Predictions]


def limits(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None and interval.high is not None
    return interval.low, interval.high


@pytest.mark.parametrize("score", ["accuracy", "f1_macro", "roc_auc_macro", "recall_min"])
def test_signal_ends_intervals_before_the_next_score(
    score: str, make_run: MakeRun, interrupted: Callable[[], None]
) -> None:
    rows = ScoredRows([[make_run(0, images=60)]])
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        score_interval(rows, "log_loss", 0)
        interrupted()
        score_interval(rows, score, 0)
        raise AssertionError("the score was computed")


def test_signal_ends_scores_of_many_rows_after_one_run(
    make_run: MakeRun, interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def compute(split: object, run: object) -> Contributions:
        computed.append(1)
        interrupted()
        return Contributions(score=0.5, bias=0.0, images=np.zeros(60))

    monkeypatch.setitem(scored_rows._CONTRIBUTIONS, "accuracy", compute)
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        ScoredRows([[make_run(seed, images=60)] for seed in range(3)]).score("accuracy")
    assert len(computed) == 1


def test_accuracy_of_one_run_has_the_exact_binomial_interval(make_run: MakeRun) -> None:
    run = make_run(0, images=400)
    right = int((run.predicted == run.truth).sum())
    interval = score_interval(ScoredRows([[run]]), "accuracy", 0)
    assert limits(interval) == pytest.approx(proportion_confint(right, 400, method="beta"))
    assert (interval.estimate, interval.level) == (right / 400, 0.95)


def test_share_without_an_error_has_the_exact_binomial_interval(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0, images=40, skill=60)]])
    low, high = proportion_confint(40, 40, method="beta")
    for score in ("accuracy", "top5_accuracy", "recall_at_half"):
        interval = score_interval(rows, score, 0)
        assert (interval.estimate, *limits(interval)) == pytest.approx((1, low, high))


def test_top5_of_five_classes_is_surely_right(make_run: MakeRun) -> None:
    interval = score_interval(ScoredRows([[make_run(0, num_classes=5)]]), "top5_accuracy", 0)
    assert (interval.estimate, *limits(interval)) == (1, 1, 1)


def test_macro_f1_agrees_with_the_bootstrap_where_classes_are_large(make_run: MakeRun) -> None:
    run = make_run(0, images=1500, num_classes=4)
    random = np.random.default_rng(0)
    of_classes = [np.flatnonzero(run.truth == index) for index in range(4)]
    resampled = []
    for _ in range(400):
        drawn = np.concatenate([random.choice(own, len(own)) for own in of_classes])
        one = replace(run, truth=run.truth[drawn], probabilities=run.probabilities[drawn])
        resampled.append(per_class_table(one)["f1"].mean())
    low, high = limits(score_interval(ScoredRows([[run]]), "f1_macro", 0))
    assert high - low == pytest.approx(2 * 1.96 * np.std(resampled), rel=0.12)


def test_every_score_has_an_interval_that_holds_it_or_a_reason(make_run: MakeRun) -> None:
    one, two = make_run(0, images=240), [make_run(1, images=240), make_run(2, images=240)]
    rows = ScoredRows([[one], two])
    for score in scores(one):
        for row in (0, 1):
            interval = score_interval(rows, score, row)
            if score == "calibration_error" or (score in MINIMA and row == 1):
                assert interval.why_not and interval.low is None and interval.high is None
                assert interval.estimate == pytest.approx(np.mean([scores(run)[score] for run in ([one], two)[row]]))
            else:
                low, high = limits(interval)
                assert low <= interval.estimate <= high
                assert low < high


def test_score_without_enough_images_has_a_reason_and_no_limits(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0, images=30, num_classes=10)], [make_run(1, images=30, num_classes=10)]])
    for interval in (score_interval(rows, "f1_macro", 0), difference_interval(rows, "f1_macro", 0, 1)):
        assert (interval.low, interval.high) == (None, None)
        assert interval.why_not == "fewer than 4 test images per class"


def test_lowest_class_by_hand() -> None:
    # Class 0: 18 of 20 right, 4 images of class 1 taken for it; class 1: 6 of 10 right, 2 taken for it.
    truth = np.repeat([0, 1], [20, 10])
    predicted = np.concatenate([np.zeros(18), np.ones(2), np.zeros(4), np.ones(6)]).astype(int)
    probabilities = np.where(np.eye(2)[predicted] > 0, 0.8, 0.2).astype(np.float32)
    names = tuple(f"{image:02}" for image in range(30))
    run = Predictions(keys=names, hashes=names, truth=truth, probabilities=probabilities, classes=("a", "b"))
    rows = ScoredRows([[run]])
    recall = score_interval(rows, "recall_min", 0)
    assert recall.estimate == pytest.approx(0.6)
    low, _ = proportion_confint(6, 10, method="beta", alpha=0.05)
    _, high = proportion_confint(6, 10, method="beta", alpha=0.025)
    assert limits(recall) == pytest.approx((low, high))
    precision = score_interval(rows, "precision_min", 0)
    assert limits(precision)[0] == pytest.approx(proportion_confint(6, 8, method="beta")[0])
    # F1 of class 1 is 12 / 18; 6 images are right of 12 that are of the class or taken for it.
    f1 = score_interval(rows, "f1_min", 0)
    assert f1.estimate == pytest.approx(2 / 3)
    low, _ = proportion_confint(6, 12, method="beta", alpha=0.05)
    _, high = proportion_confint(6, 12, method="beta", alpha=0.025)
    assert limits(f1) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_log_loss_has_students_interval_of_its_logarithm(make_run: MakeRun) -> None:
    run = make_run(0, images=300)
    losses = -np.log(run.probabilities[np.arange(300), run.truth].astype(np.float64))
    factor = np.exp(1.959964 * losses.std() / 300**0.5 / losses.mean())
    interval = score_interval(ScoredRows([[run]]), "log_loss", 0)
    assert limits(interval) == pytest.approx((losses.mean() / factor, losses.mean() * factor))


def test_interval_of_several_runs_holds_what_differs_from_seed_to_seed(make_run: MakeRun) -> None:
    alike = [make_run(seed, images=1000) for seed in range(4)]
    unlike = [make_run(seed, images=1000, skill=skill) for seed, skill in enumerate((1.2, 1.8, 2.2, 2.8))]
    rows = ScoredRows([alike, unlike])
    first, second = (limits(score_interval(rows, "accuracy", row)) for row in (0, 1))
    assert second[1] - second[0] > 3 * (first[1] - first[0])
    spread = np.std([scores(run)["accuracy"] for run in unlike], ddof=1) / 2
    student = 2 * stats.t.ppf(0.975, 3) * spread
    assert second[1] - second[0] == pytest.approx(student, rel=0.1)


def test_difference_changes_its_sign_with_the_order(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0)], [make_run(1, skill=2.5), make_run(2)]])
    for score in (*MEANS, *CLASS_AVERAGES):
        forward, backward = difference_interval(rows, score, 0, 1), difference_interval(rows, score, 1, 0)
        assert forward.estimate == pytest.approx(-backward.estimate)
        assert limits(forward) == pytest.approx((-limits(backward)[1], -limits(backward)[0]), abs=1e-9)


def test_differences_of_no_pairs_are_none(make_run: MakeRun) -> None:
    assert difference_intervals(ScoredRows([[make_run(0)]]), "accuracy", []) == []


def test_chosen_row_has_a_lower_limit_that_allows_for_the_choice(make_run: MakeRun) -> None:
    run = make_run(0, images=400)
    right = int((run.predicted == run.truth).sum())
    rows = ScoredRows([[run], [make_run(1, images=400)]])
    plain, chosen = score_interval(rows, "accuracy", 0), chosen_interval(rows, "accuracy", 0, 8)
    assert chosen is not None and chosen.high == plain.high
    assert chosen.low == pytest.approx(proportion_confint(right, 400, alpha=0.05 / 8, method="beta")[0])
    assert chosen_interval(rows, "accuracy", 0, 1) == plain


@pytest.mark.parametrize(("runs", "known"), [(1, True), (2, False), (4, False), (5, True)])
def test_chosen_row_of_few_runs_has_no_interval(make_run: MakeRun, runs: int, known: bool) -> None:
    rows = ScoredRows([[make_run(seed) for seed in range(runs)]])
    assert (chosen_interval(rows, "accuracy", 0, 3) is not None) == known


def test_mean_over_folds_is_known_better_than_each_fold(make_run: MakeRun) -> None:
    folds = [ScoredRows([[make_run(0, test_set=fold)], [make_run(1, test_set=fold)]]) for fold in range(5)]
    together = limits(score_interval(ScoredFolds(tuple(folds)), "accuracy", 0))
    alone = [limits(score_interval(fold, "accuracy", 0)) for fold in folds]
    widths = np.mean([high - low for low, high in alone])
    assert together[1] - together[0] == pytest.approx(widths / 5**0.5, rel=0.1)
    difference = difference_interval(ScoredFolds(tuple(folds)), "accuracy", 0, 1)
    own = [difference_interval(fold, "accuracy", 0, 1).estimate for fold in folds]
    assert difference.estimate == pytest.approx(np.mean(own))


def test_calibrated_network_may_have_no_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 2000)
    intervals = []
    for shift in (0.0, 0.2):
        right = random.random(2000) < confidence - shift
        predicted = np.where(right, 0, 1)
        probabilities = np.zeros((2000, 2), np.float32)
        probabilities[np.arange(2000), predicted] = confidence
        probabilities[np.arange(2000), 1 - predicted] = 1 - confidence
        names = tuple(f"{image:04}" for image in range(2000))
        run = Predictions(
            keys=names, hashes=names, truth=np.zeros(2000, int), probabilities=probabilities, classes=("a", "b")
        )
        intervals.append(score_interval(ScoredRows([[run]]), CALIBRATION, 0))
    assert intervals[0].low == 0
    assert limits(intervals[1])[0] < 0.2 < limits(intervals[1])[1]
    assert limits(intervals[1])[0] > 0.15


def test_one_image_against_thousands_is_a_reason_and_no_overflow(make_run: MakeRun) -> None:
    runs = []
    for seed in (0, 1):
        run = make_run(seed, images=3000, num_classes=2)
        kept = np.concatenate([np.flatnonzero(run.truth == 0), np.flatnonzero(run.truth == 1)[:1]])
        names = tuple(f"{image:04}" for image in kept)
        runs.append(
            [replace(run, keys=names, hashes=names, truth=run.truth[kept], probabilities=run.probabilities[kept])]
        )
    rows = ScoredRows(runs)
    for score in CLASS_AVERAGES:
        of_row, of_pair = score_interval(rows, score, 0), difference_interval(rows, score, 0, 1)
        assert (of_row.why_not is None) == (of_pair.why_not is None) == score.endswith("weighted"), score


def test_balanced_accuracy_has_the_interval_of_macro_recall(make_run: MakeRun) -> None:
    rows = ScoredRows([[make_run(0)]])
    assert score_interval(rows, "balanced_accuracy", 0) == score_interval(rows, "recall_macro", 0)


def test_intervals_of_agreement_and_areas_agree_with_the_bootstrap(make_run: MakeRun) -> None:
    run = make_run(0, images=800, num_classes=4)
    random = np.random.default_rng(0)
    of_classes = [np.flatnonzero(run.truth == index) for index in range(4)]
    resampled = []
    for _ in range(100):
        drawn = np.concatenate([random.choice(own, len(own)) for own in of_classes])
        resampled.append(scores(replace(run, truth=run.truth[drawn], probabilities=run.probabilities[drawn])))
    rows = ScoredRows([[run]])
    for score in (*AGREEMENTS, *RANKINGS):
        of_score = [one[score] for one in resampled]
        interval = score_interval(rows, score, 0)
        assert interval.estimate == pytest.approx(scores(run)[score])
        low, high = limits(interval)
        # Three standard errors of the standard deviation of 100 resamples.
        assert (high - low) / 3.92 == pytest.approx(np.std(of_score), rel=0.21), score
        assert low < np.percentile(of_score, 25) and np.percentile(of_score, 75) < high


def test_kappa_of_perfect_predictions_has_the_limits_of_a_perfect_accuracy(make_run: MakeRun) -> None:
    run = make_run(0, images=60, num_classes=3, skill=60)
    shares = np.bincount(run.truth) / 60
    rows = ScoredRows([[run]])
    for score in AGREEMENTS:
        low, high = limits(score_interval(rows, score, 0))
        images = 2 * 60 * (1 - np.square(shares).sum())
        # Half of one plus the score is a share of so many images, none of them wrong.
        assert (1 + low) / 2 == pytest.approx(proportion_confint(images, images, method="beta")[0], rel=0.01)
        assert high == 1


def test_agreement_of_a_network_that_guesses_may_be_below_zero(make_run: MakeRun) -> None:
    run = make_run(0, images=600, skill=0, test_set=1)
    for score in AGREEMENTS:
        low, high = limits(score_interval(ScoredRows([[run]]), score, 0))
        assert -0.1 < low < 0 < high < 0.15


def test_every_score_has_an_interval_or_a_reason(make_run: MakeRun) -> None:
    run = make_run(0)
    found = score_intervals(ScoredRows([[run]]), 0)
    assert set(found) == set(SCORE_NAMES)
    for name, value in scores(run).items():
        assert found[name].estimate == pytest.approx(value), name
        assert (found[name].low is None) == (found[name].why_not is not None)


def test_images_of_one_class_have_no_areas(make_run: MakeRun) -> None:
    run = make_run(0, num_classes=2)
    one_class = replace(run, truth=np.zeros_like(run.truth))
    found = score_intervals(ScoredRows([[one_class]]), 0)
    assert set(found) == set(scores(one_class)) == set(SCORE_NAMES) - set(RANKINGS)
    for score in AGREEMENTS:
        assert found[score].estimate == 0 and found[score].why_not is not None


@pytest.mark.parametrize(
    ("num_classes", "of_each", "score", "why_not"),
    [
        (6, 14, "average_precision_macro", "fewer than 15 test images per class"),
        (6, 100, "average_precision_macro", None),
        (40, 15, "average_precision_macro", "chance raises it too much with so few test images per class"),
        (40, 15, "roc_auc_macro", None),
        (6, 1, "roc_auc_macro", "fewer than 2 test images per class"),
    ],
)
def test_areas_of_few_images_per_class_have_no_interval(
    num_classes: int, of_each: int, score: str, why_not: str | None
) -> None:
    random = np.random.default_rng(0)
    keys = tuple(f"{index:04}" for index in range(num_classes * of_each))
    run = Predictions(
        keys=keys,
        hashes=keys,
        truth=np.arange(len(keys)) % num_classes,
        probabilities=random.dirichlet(np.ones(num_classes), len(keys)).astype(np.float32),
        classes=tuple(f"class {index}" for index in range(num_classes)),
    )
    assert score_interval(ScoredRows([[run]]), score, 0).why_not == why_not
