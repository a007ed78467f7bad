from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from tandem.evaluation.metrics import (
    SCORE_NAMES,
    SMALLEST_PROBABILITY,
    calibration_pairs,
    classification_report,
    confusion_matrix,
    image_scores,
    per_class_table,
    reliability_bins,
    scores,
)
from tandem.evaluation.predictions import Predictions, softmax


def make_predictions(truth: list[int] | np.ndarray, probabilities: list[list[float]] | np.ndarray) -> Predictions:
    probabilities = np.asarray(probabilities, np.float32)
    images, num_classes = probabilities.shape
    return Predictions(
        keys=tuple(str(index) for index in range(images)),
        hashes=tuple(str(index) for index in range(images)),
        truth=np.asarray(truth, np.int64),
        probabilities=probabilities,
        classes=tuple("abcdefghijklmnopqrstuvwxyz"[:num_classes]),
    )


def from_counts(counts: list[list[int]]) -> Predictions:
    """Predictions with a given confusion matrix: row i holds the images of class i."""
    pairs = [(i, k) for i, row in enumerate(counts) for k, number in enumerate(row) for _ in range(number)]
    return make_predictions([i for i, _ in pairs], np.eye(len(counts))[[k for _, k in pairs]])


def make_random_predictions(seed: int, num_classes: int, images: int) -> Predictions:
    """Some classes have no images, others are never predicted."""
    random = np.random.default_rng(seed)
    truth = random.integers(1, num_classes, images)
    logits = random.normal(size=(images, num_classes)) * 2
    logits[np.arange(images), truth] += 2
    logits[:, 2] = -50
    return make_predictions(truth, softmax(logits))


def test_precision_recall_and_f1_of_a_table_computed_by_hand() -> None:
    predictions = from_counts([[5, 1, 0], [2, 3, 1], [0, 0, 4]])
    table = per_class_table(predictions)
    # P_k: column sums 7, 4, 5; R_k: row sums 6, 6, 4; F_k = 2 c_kk / (row sum + column sum).
    assert table["precision"].tolist() == pytest.approx([5 / 7, 3 / 4, 4 / 5])
    assert table["recall"].tolist() == pytest.approx([5 / 6, 3 / 6, 4 / 4])
    assert table["f1"].tolist() == pytest.approx([10 / 13, 6 / 10, 8 / 9])
    assert table["support"].tolist() == [6, 6, 4]
    assert table["class"].tolist() == ["a", "b", "c"]

    result = scores(predictions)
    assert result["accuracy"] == pytest.approx(12 / 16)
    assert result["precision_macro"] == pytest.approx((5 / 7 + 3 / 4 + 4 / 5) / 3)
    assert result["recall_macro"] == pytest.approx((5 / 6 + 3 / 6 + 1) / 3)
    assert result["f1_macro"] == pytest.approx((10 / 13 + 6 / 10 + 8 / 9) / 3)
    assert result["precision_weighted"] == pytest.approx((6 * 5 / 7 + 6 * 3 / 4 + 4 * 4 / 5) / 16)
    assert result["recall_weighted"] == pytest.approx(12 / 16)
    assert result["f1_weighted"] == pytest.approx((6 * 10 / 13 + 6 * 6 / 10 + 4 * 8 / 9) / 16)
    assert result["precision_min"] == pytest.approx(5 / 7)
    assert result["recall_min"] == pytest.approx(1 / 2)
    assert result["f1_min"] == pytest.approx(6 / 10)


def test_balanced_accuracy_kappa_and_correlation_of_a_table_computed_by_hand() -> None:
    result = scores(from_counts([[5, 1, 0], [2, 3, 1], [0, 0, 4]]))
    # 12 of 16 are right; row sums 6, 6, 4 and column sums 7, 4, 5, whose products add up to 86 of 256.
    assert result["balanced_accuracy"] == pytest.approx((5 / 6 + 3 / 6 + 1) / 3)
    assert result["cohen_kappa"] == pytest.approx((12 * 16 - 86) / (16**2 - 86))
    squares = (256 - 7**2 - 4**2 - 5**2) * (256 - 6**2 - 6**2 - 4**2)
    assert result["matthews_correlation"] == pytest.approx((12 * 16 - 86) / squares**0.5)


def test_correlation_of_two_classes_is_that_of_matthews() -> None:
    # Matthews 1975: (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)).
    result = scores(from_counts([[30, 10], [5, 15]]))
    assert result["matthews_correlation"] == pytest.approx((15 * 30 - 10 * 5) / (25 * 20 * 40 * 35) ** 0.5)
    assert result["cohen_kappa"] == pytest.approx((0.75 - (40 * 35 + 20 * 25) / 3600) / (1 - (1400 + 500) / 3600))


@pytest.mark.filterwarnings("error")
def test_class_without_images_does_not_lower_balanced_accuracy_and_areas() -> None:
    with_class, without = from_counts([[4, 1, 0], [2, 3, 0], [0, 0, 0]]), from_counts([[4, 1], [2, 3]])
    one, other = scores(with_class), scores(without)
    for name in (
        "balanced_accuracy",
        "cohen_kappa",
        "matthews_correlation",
        "roc_auc_macro",
        "average_precision_macro",
    ):
        assert one[name] == pytest.approx(other[name]), name
    assert one["recall_macro"] == pytest.approx(other["recall_macro"] * 2 / 3)


@pytest.mark.filterwarnings("error")
def test_wrong_class_without_images_counts_as_an_error() -> None:
    # Half of the images are taken for a class that has none: recalls 1/2 and 1/2.
    result = scores(from_counts([[2, 0, 2], [0, 2, 2], [0, 0, 0]]))
    assert result["balanced_accuracy"] == 0.5
    # The products of row sums 4, 4, 0 and column sums 2, 2, 4 add up to 16 of 64.
    assert result["cohen_kappa"] == pytest.approx((4 * 8 - 16) / (64 - 16))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 5])
def test_constant_predictions_have_no_agreement_beyond_chance(num_classes: int) -> None:
    truth = list(range(num_classes)) * 4
    result = scores(make_predictions(truth, [[1 / num_classes] * num_classes] * len(truth)))
    assert (result["cohen_kappa"], result["matthews_correlation"]) == (0, 0)
    assert result["balanced_accuracy"] == pytest.approx(1 / num_classes)
    assert result["roc_auc_macro"] == 0.5
    assert result["average_precision_macro"] == pytest.approx(1 / num_classes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("counts", "balanced"), [([[5, 0], [0, 0]], 1.0), ([[3, 2], [0, 0]], 0.6), ([[5]], 1.0)])
def test_images_of_one_class_have_no_areas_and_no_agreement(counts: list[list[int]], balanced: float) -> None:
    result = scores(from_counts(counts))
    assert result["balanced_accuracy"] == pytest.approx(balanced)
    assert (result["cohen_kappa"], result["matthews_correlation"]) == (0, 0)
    assert not {"roc_auc_macro", "average_precision_macro"} & set(result)


def test_areas_are_means_over_the_classes() -> None:
    predictions = make_random_predictions(4, 6, 80)
    present = np.unique(predictions.truth)
    areas, precisions = [], []
    for index in present:
        positive, score = predictions.truth == index, predictions.probabilities[:, index].astype(float)
        won = np.sign(score[positive][:, None] - score[~positive]) / 2 + 0.5
        areas.append(won.mean())
        precisions.append(np.mean([positive[score >= own].mean() for own in score[positive]]))
    result = scores(predictions)
    assert 0 not in present and len(set(areas)) == len(present)
    assert result["roc_auc_macro"] == pytest.approx(np.mean(areas))
    assert result["average_precision_macro"] == pytest.approx(np.mean(precisions))


def test_classification_report_holds_the_table_computed_by_hand() -> None:
    lines = classification_report(from_counts([[5, 1, 0], [2, 3, 1], [0, 0, 4]])).splitlines()
    rows = [line.split() for line in lines if line]
    assert rows == [
        ["precision", "recall", "f1-score", "support"],
        ["a", "0.71", "0.83", "0.77", "6"],
        ["b", "0.75", "0.50", "0.60", "6"],
        ["c", "0.80", "1.00", "0.89", "4"],
        ["accuracy", "0.75", "16"],
        ["macro", "avg", "0.75", "0.78", "0.75", "16"],
        ["weighted", "avg", "0.75", "0.75", "0.74", "16"],
    ]


def test_confusion_matrix_has_the_truth_down_the_rows() -> None:
    counts = [[5, 1, 0], [2, 3, 1], [0, 0, 4]]
    matrix = confusion_matrix(from_counts(counts))
    assert matrix.to_numpy().tolist() == counts
    assert matrix.loc["b", "a"] == 2
    assert (matrix.index.name, matrix.columns.name) == ("truth", "predicted")


def test_class_never_predicted_and_class_without_images_count_as_zero() -> None:
    predictions = from_counts([[4, 0, 0], [2, 0, 0], [0, 0, 0]])
    table = per_class_table(predictions)
    assert table["precision"].tolist() == pytest.approx([4 / 6, 0, 0])
    assert table["recall"].tolist() == pytest.approx([1, 0, 0])
    assert table["f1"].tolist() == pytest.approx([8 / 10, 0, 0])
    assert table["support"].tolist() == [4, 2, 0]
    assert scores(predictions)["f1_macro"] == pytest.approx(0.8 / 3)
    assert scores(predictions)["f1_min"] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("seed", "num_classes", "images"), [(0, 5, 30), (1, 20, 300), (2, 26, 40)])
def test_class_scores_agree_with_their_definition(seed: int, num_classes: int, images: int) -> None:
    predictions = make_random_predictions(seed, num_classes, images)
    counts = np.zeros((num_classes, num_classes))
    for truth, row in zip(predictions.truth, predictions.probabilities.tolist(), strict=True):
        counts[truth, row.index(max(row))] += 1
    precision = [counts[k, k] / (counts[:, k].sum() or 1) for k in range(num_classes)]
    recall = [counts[k, k] / (counts[k].sum() or 1) for k in range(num_classes)]
    f1 = [2 * p * r / ((p + r) or 1) for p, r in zip(precision, recall, strict=True)]
    share = counts.sum(axis=1) / images

    result = scores(predictions)
    assert result["accuracy"] == pytest.approx(np.trace(counts) / images)
    for name, of_classes in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert result[f"{name}_macro"] == pytest.approx(sum(of_classes) / num_classes)
        assert result[f"{name}_weighted"] == pytest.approx(np.dot(of_classes, share))
        assert result[f"{name}_min"] == pytest.approx(min(of_classes))
    np.testing.assert_array_equal(confusion_matrix(predictions), counts)


def test_scores_agree_with_scikit_learn() -> None:
    predictions = make_random_predictions(5, 10, 500)
    labels = np.arange(10)
    truth, predicted, probabilities = predictions.truth, predictions.predicted, predictions.probabilities
    result = scores(predictions)
    assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    top5 = sklearn_metrics.top_k_accuracy_score(truth, probabilities, k=5, labels=labels)
    assert result["top5_accuracy"] == pytest.approx(top5)
    assert 0 < result["accuracy"] < top5 < 1
    # Scikit-learn clips at the epsilon of the type that it is given, so only images above that of float64 compare.
    above = probabilities[np.arange(500), truth] > 1e-15
    assert 300 < above.sum() < 500
    in_float64 = probabilities[above].astype(np.float64)
    in_float64 /= in_float64.sum(axis=1, keepdims=True)
    log_loss = sklearn_metrics.log_loss(truth[above], in_float64, labels=labels)
    part = make_predictions(truth[above].tolist(), probabilities[above].tolist())
    assert scores(part)["log_loss"] == pytest.approx(log_loss, rel=1e-5)
    for average in ("macro", "weighted"):
        f1 = sklearn_metrics.f1_score(truth, predicted, labels=labels, average=average, zero_division=0)
        assert result[f"f1_{average}"] == pytest.approx(f1)


def test_top5_counts_the_fifth_but_not_the_sixth() -> None:
    descending = [0.3, 0.25, 0.2, 0.1, 0.08, 0.07]
    result = scores(make_predictions([4, 5], [descending, descending]))
    assert result["top5_accuracy"] == 0.5


def test_top5_prefers_the_lowest_of_equal_classes() -> None:
    equal = [1 / 8] * 8
    result = scores(make_predictions(list(range(8)), [equal] * 8))
    assert result["top5_accuracy"] == 5 / 8


def test_top5_of_fewer_classes_is_always_right() -> None:
    assert scores(make_predictions([2], [[0.6, 0.3, 0.1]]))["top5_accuracy"] == 1


def test_log_loss_by_hand() -> None:
    result = scores(make_predictions([0, 1], [[0.5, 0.5], [0.75, 0.25]]))
    assert result["log_loss"] == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_probability_zero_of_the_true_class_keeps_the_log_loss_finite() -> None:
    result = scores(make_predictions([0, 1], [[1, 0], [1, 0]]))
    assert result["log_loss"] == pytest.approx(-math.log(SMALLEST_PROBABILITY) / 2)
    assert 43 < result["log_loss"] < 44


def test_log_loss_of_confident_errors_is_the_cross_entropy_of_their_logits() -> None:
    """Probabilities down to 1e-30, far below float32's epsilon."""
    random = np.random.default_rng(3)
    logits = random.normal(size=(300, 4)) * 12
    truth = random.integers(0, 4, 300)
    expected = np.mean(logsumexp(logits, axis=1) - logits[np.arange(300), truth])
    probabilities = softmax(logits)
    assert probabilities.min() < 1e-20
    assert scores(make_predictions(truth.tolist(), probabilities.tolist()))["log_loss"] == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Two images in the bin (9/15, 10/15]: confidences 0.61 and 0.65, one right; two in (14/15, 1]: 0.95 and 1, both
    # right; one at 0.5 in (7/15, 8/15], wrong.
    result = scores(
        make_predictions([0, 1, 0, 1, 1], [[0.61, 0.39], [0.65, 0.35], [0.95, 0.05], [0.0, 1.0], [0.5, 0.5]])
    )
    expected = (2 * abs(0.5 - 0.63) + 2 * abs(1 - 0.975) + 1 * abs(0 - 0.5)) / 5
    assert result["calibration_error"] == pytest.approx(expected, abs=1e-7)


def test_calibration_error_keeps_opposite_gaps_of_two_bins_apart() -> None:
    # Overconfident by 0.7 in one bin, underconfident by 0.3 in another: the mean is of absolute values.
    result = scores(make_predictions([1, 0, 0], [[0.7, 0.3], [0.9, 0.1], [0.9, 0.1]]))
    assert result["calibration_error"] == pytest.approx((0.7 + 2 * 0.1) / 3, abs=1e-7)


def test_calibration_error_of_sure_and_right_predictions_is_zero() -> None:
    assert scores(from_counts([[3, 0], [0, 3]]))["calibration_error"] == 0


def test_debiased_calibration_error_by_hand() -> None:
    # All images have confidence 0.8 and are in one bin: 8 of 12 are right. By Kumar et al. 2019, section 4, the square
    # of the gap is (8/12 - 0.8)^2 less 8/12 * 4/12 / 11, which is below 0; with 4 of 12 right it is not.
    for right, expected in ((8, 0.0), (4, ((0.8 - 4 / 12) ** 2 - 4 / 12 * 8 / 12 / 11) ** 0.5)):
        truth = [0] * right + [1] * (12 - right)
        result = scores(make_predictions(truth, [[0.8, 0.2]] * 12))
        assert result["rms_calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_calibrated_network_has_a_debiased_calibration_error_near_zero() -> None:
    random = np.random.default_rng(0)
    usual, squares = [], []
    for _ in range(200):
        confidence = random.uniform(0.5, 1, 300)
        truth = (random.random(300) >= confidence).astype(int)
        predictions = make_predictions(truth.tolist(), np.column_stack([confidence, 1 - confidence]))
        usual.append(scores(predictions)["calibration_error"])
        squares.append(calibration_pairs(confidence, truth == 0).mean())
    # Of the usual error chance alone makes 0.07.
    assert np.mean(usual) > 0.05
    assert np.mean(squares) == pytest.approx(0, abs=3 * np.std(squares) / 200**0.5)
    assert abs(np.mean(squares)) ** 0.5 < 0.02


def test_images_of_equal_confidence_are_in_one_bin_whatever_their_order() -> None:
    confidence = np.repeat([0.6, 0.9, 1.0], [40, 50, 210])
    right = np.random.default_rng(0).random(300) < 0.8
    order = np.random.default_rng(1).permutation(300)
    assert calibration_pairs(confidence, right)[order].tolist() == pytest.approx(
        calibration_pairs(confidence[order], right[order]).tolist()
    )


def test_reliability_bins_by_hand() -> None:
    # 0.61 and 0.65 in (9/15, 10/15], one right; 0.95 and 1 in (14/15, 1], both right; 0.5 in (7/15, 8/15], wrong.
    bins = reliability_bins(
        make_predictions([0, 1, 0, 1, 1], [[0.61, 0.39], [0.65, 0.35], [0.95, 0.05], [0.0, 1.0], [0.5, 0.5]])
    )
    assert bins["images"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2]
    assert bins["low"].tolist() == pytest.approx([index / 15 for index in range(15)])
    assert bins["high"].tolist() == pytest.approx([(index + 1) / 15 for index in range(15)])
    filled = bins[bins["images"] > 0]
    assert filled["confidence"].tolist() == pytest.approx([0.5, 0.63, 0.975])
    assert filled["accuracy"].tolist() == [0, 0.5, 1]
    assert bins.loc[bins["images"] == 0, ["confidence", "accuracy"]].isna().all(axis=None)


def test_reliability_bins_agree_with_scikit_learn_and_with_the_calibration_error() -> None:
    predictions = make_random_predictions(3, 8, 400)
    bins = reliability_bins(predictions)
    filled = bins[bins["images"] > 0]
    accuracy, confidence = calibration_curve(
        predictions.predicted == predictions.truth, predictions.probabilities.max(axis=1), n_bins=15
    )
    assert filled["accuracy"].tolist() == pytest.approx(accuracy.tolist())
    assert filled["confidence"].tolist() == pytest.approx(confidence.tolist(), rel=1e-6)
    gaps = (filled["accuracy"] - filled["confidence"]).abs()
    assert scores(predictions)["calibration_error"] == pytest.approx((gaps * filled["images"]).sum() / 400)


def test_scores_of_images_have_the_scores_as_their_means() -> None:
    predictions = make_random_predictions(6, 9, 70)
    of_images = image_scores(predictions)
    result = scores(predictions)
    assert set(of_images) == {"accuracy", "top5_accuracy", "log_loss", "recall_at_half"}
    for name, values in of_images.items():
        assert values.shape == (70,)
        assert values.mean() == pytest.approx(result[name])
    assert of_images["accuracy"].tolist() == (predictions.predicted == predictions.truth).tolist()


def test_recall_at_half_needs_more_than_one_half() -> None:
    probabilities = [[0.5, 0.5, 0], [0.51, 0.49, 0], [0.4, 0.3, 0.3], [0.1, 0.9, 0]]
    result = scores(make_predictions([0, 0, 0, 0], probabilities))
    assert result["recall_at_half"] == 1 / 4
    assert result["accuracy"] == 3 / 4


def test_every_score_is_a_plain_finite_number() -> None:
    result = scores(make_random_predictions(7, 6, 50))
    assert all(type(value) is float and math.isfinite(value) for value in result.values())
    assert set(result) == set(SCORE_NAMES) and len(result) == 20


def test_evaluation_needs_no_framework() -> None:
    code = (
        "import sys, tandem.evaluation.transfer, tandem.recording.page, tandem.recording.summary;"
        "print([name for name in ('torch', 'keras', 'tensorflow', 'jax', 'lightning', 'pytorch_lightning')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
