from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.proportion import proportion_confint

from tandem.evaluation.intervals import (
    NOT_SMOOTH,
    bootstrap_interval,
    difference_interval,
    score_interval,
)
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import resample_scores

MakeRun = Callable[..., Predictions]


@pytest.mark.parametrize("score", ["accuracy", "recall_at_half", "log_loss", "f1_macro"])
def test_intervals_of_smooth_scores_agree_with_scipy(make_run: MakeRun, score: str) -> None:
    run = make_run(0, images=300)
    of_truth = run.probabilities[np.arange(300), run.truth]

    def statistic(rows: np.ndarray) -> float:
        if score == "f1_macro":
            return float(sklearn_metrics.f1_score(run.truth[rows], run.predicted[rows], average="macro"))
        of_images = {"accuracy": run.predicted == run.truth, "recall_at_half": of_truth > 0.5}
        return float((of_images[score] if score in of_images else -np.log(of_truth))[rows].mean())

    # scipy's BCa also corrects the skew, which at 300 images is small.
    expected = stats.bootstrap(
        (np.arange(300),), statistic, vectorized=False, n_resamples=1500, rng=np.random.default_rng(0), method="BCa"
    ).confidence_interval
    interval = score_interval(resample_scores([[run]], num_resamples=8000), score, 0)
    tolerance = 0.08 * (expected.high - expected.low)
    assert interval.low == pytest.approx(expected.low, abs=tolerance)
    assert interval.high == pytest.approx(expected.high, abs=tolerance)
    assert interval.estimate == pytest.approx(scores(run)[score])
    assert (interval.smooth, interval.level) == (True, 0.95)


def test_interval_of_a_mean_is_the_normal_one_for_many_images(make_run: MakeRun) -> None:
    run = make_run(0, images=3000)
    interval = score_interval(resample_scores([[run]], num_resamples=4000), "accuracy", 0)
    low, high = proportion_confint(int((run.predicted == run.truth).sum()), 3000, method="normal")
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_bias_of_resamples_is_corrected() -> None:
    # Normal values of which 69.15 % lie below the estimate, half a standard deviation: Efron's limits are the
    # percentiles at Phi(2 * 0.5 - 1.96) and Phi(2 * 0.5 + 1.96), that is 1.96 deviations around one above the center.
    values = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000) * 0.01 + 0.5
    interval = bootstrap_interval(0.505, values, score="f1_macro", smallest=0)
    assert (interval.low, interval.high) == pytest.approx((0.51 - 0.0196, 0.51 + 0.0196), abs=1e-4)


def test_rough_scores_have_percentiles_mirrored_at_the_estimate() -> None:
    values = np.linspace(0.20, 0.40, 1001)  # percentiles 0.205 and 0.395
    interval = bootstrap_interval(0.38, values, score="f1_min", smallest=0)
    assert (interval.low, interval.high) == pytest.approx((2 * 0.38 - 0.395, 2 * 0.38 - 0.205))
    assert not interval.smooth


def test_limits_hold_the_estimate_and_stay_within_the_scores_range() -> None:
    values = np.linspace(0.20, 0.40, 1001)
    assert bootstrap_interval(0.5, values, score="f1_min", smallest=0).low == 0.5
    assert bootstrap_interval(0.5, values, score="f1_macro", smallest=0).high == 0.5
    assert bootstrap_interval(0.8, values, score="f1_min", smallest=0).high == 1
    assert bootstrap_interval(0.05, values, score="calibration_error", smallest=0).low == 0
    assert bootstrap_interval(0.05, values, score="calibration_error", smallest=-1).low == pytest.approx(-0.295)
    assert bootstrap_interval(2.0, values + 1.7, score="log_loss", smallest=0).high > 2


def test_every_score_has_an_interval_that_holds_it(make_run: MakeRun) -> None:
    resampled = resample_scores([[make_run(0)], [make_run(1), make_run(2)]], num_resamples=300)
    for score in scores(make_run(0)):
        for cell in (0, 1):
            interval = score_interval(resampled, score, cell)
            assert interval.low <= interval.estimate <= interval.high
            assert interval.low < interval.high
            assert interval.smooth == (score not in NOT_SMOOTH)
    assert {"f1_min", "precision_min", "recall_min"} < NOT_SMOOTH


def test_share_without_an_error_has_the_exact_binomial_interval(make_run: MakeRun) -> None:
    run = make_run(0, images=40, skill=60)
    resampled = resample_scores([[run]], num_resamples=20)
    low, high = proportion_confint(40, 40, method="beta")
    for score in ("accuracy", "top5_accuracy", "recall_at_half"):
        interval = score_interval(resampled, score, 0)
        assert (interval.estimate, interval.low, interval.high) == pytest.approx((1, low, high))
    assert low == pytest.approx(0.025 ** (1 / 40))


def test_top5_of_five_classes_is_surely_right(make_run: MakeRun) -> None:
    resampled = resample_scores([[make_run(0, num_classes=5)]], num_resamples=20)
    interval = score_interval(resampled, "top5_accuracy", 0)
    assert (interval.estimate, interval.low, interval.high) == (1, 1, 1)


def test_difference_of_a_run_to_itself_is_surely_zero(make_run: MakeRun) -> None:
    resampled = resample_scores([[make_run(0)], [make_run(0)]], num_resamples=100)
    for score in resampled.estimates:
        interval = difference_interval(resampled, score, 0, 1)
        assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_difference_changes_its_sign_with_the_order(make_run: MakeRun) -> None:
    resampled = resample_scores([[make_run(0)], [make_run(1, skill=2.5)]], num_resamples=2000)
    for score in ("accuracy", "f1_macro", "f1_min", "log_loss"):
        forward, backward = difference_interval(resampled, score, 0, 1), difference_interval(resampled, score, 1, 0)
        assert forward.estimate == pytest.approx(-backward.estimate)
        assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low), abs=1e-3)


def test_difference_of_accuracies_agrees_with_the_paired_standard_error(make_run: MakeRun) -> None:
    first, second = make_run(0, images=2000), make_run(1, images=2000, skill=2.3)
    resampled = resample_scores([[first], [second]], num_resamples=4000)
    of_images = (first.predicted == first.truth).astype(float) - (second.predicted == second.truth)
    low, high = stats.norm.interval(0.95, of_images.mean(), of_images.std(ddof=1) / 2000**0.5)
    interval = difference_interval(resampled, "accuracy", 0, 1)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    # Unpaired, the interval would be wider: the runs fail on the same images.
    unpaired = np.hypot(
        *(score_interval(resampled, "accuracy", cell).high - resampled.estimates["accuracy"][cell] for cell in (0, 1))
    )
    assert high - low < 0.95 * 2 * unpaired


def test_intervals_hold_the_true_score_nearly_as_often_as_they_say(make_run: MakeRun) -> None:
    truth = scores(make_run(0, images=100_000, num_classes=4, test_set=99))
    hits: dict[str, list[bool]] = {score: [] for score in ("accuracy", "f1_macro", "precision_weighted", "log_loss")}
    for number in range(200):
        run = make_run(number, images=120, num_classes=4, test_set=100 + number)
        resampled = resample_scores([[run]], num_resamples=200)
        for score, found in hits.items():
            interval = score_interval(resampled, score, 0)
            found.append(interval.low <= truth[score] <= interval.high)
    for score, found in hits.items():
        # Three standard errors of 200 trials at 0.95 are 0.046; 200 resamples give limits that are a little narrow.
        assert 0.89 < np.mean(found) <= 0.995, score


def test_intervals_of_cells_hold_what_differs_from_seed_to_seed(make_run: MakeRun) -> None:
    alike = [make_run(seed, images=1000) for seed in range(4)]
    unlike = [make_run(seed, images=1000, skill=skill) for seed, skill in enumerate((1.2, 1.8, 2.2, 2.8))]
    resampled = resample_scores([alike, unlike], num_resamples=2000)
    first, second = (score_interval(resampled, "accuracy", cell) for cell in (0, 1))
    spread = np.std([scores(run)["accuracy"] for run in unlike], ddof=1) / 2
    assert resampled.resampled["accuracy"][1].std() == pytest.approx(spread, rel=0.05)
    assert resampled.resampled["accuracy"][1].std() > spread  # the images differ as well
    assert second.high - second.low > 2 * (first.high - first.low)
