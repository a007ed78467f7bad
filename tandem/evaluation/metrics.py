"""Scores of a network on its test images, defined once for both frameworks.

With c_ik the number of images of class i that were predicted as class k:

    precision  P_k = c_kk / sum_i c_ik
    recall     R_k = c_kk / sum_j c_kj
    F1         F_k = 2 P_k R_k / (P_k + R_k)

each 0 if its denominator is 0. Macro is the mean over all classes, min the minimum, weighted the mean weighted by each
class's number of images.

Balanced accuracy is the mean recall of the classes with test images: macro recall, unless a class has none. Cohen's
kappa and Matthews' correlation (of several classes, Gorodkin 2004) are 0 where they are undefined: if all images have
one class and it alone was predicted. ROC-AUC and average precision tell each class apart from the rest
(tandem.evaluation.ranking); their macro is the mean over the classes with test images, and they do not exist if all
images have one class.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import ranking_table

TOP = 5
CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", table 1

# Smaller probabilities are raised to this in the log loss, so that one image cannot make it infinite: the smallest that
# float32 holds with all of its digits. Above it, the log loss is the cross entropy of the logits.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)

SCORE_NAMES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "cohen_kappa": "Cohen's kappa",
    "matthews_correlation": "Matthews' correlation",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_macro": "macro F1",
    "precision_weighted": "weighted precision",
    "recall_weighted": "weighted recall",
    "f1_weighted": "weighted F1",
    "precision_min": "worst-class precision",
    "recall_min": "worst-class recall",
    "f1_min": "worst-class F1",
    "roc_auc_macro": "macro ROC-AUC",
    "average_precision_macro": "macro average precision",
    "recall_at_half": "recall at 0.5",
    "calibration_error": "calibration error",
    "rms_calibration_error": "RMS calibration error",
    "log_loss": "log loss",
}
"""Names of the scores for people, in the order of tables."""


def scores(predictions: Predictions) -> dict[str, float]:
    """Computes all scores of a network, by the names they are logged under.

    Returns:
        accuracy; top5_accuracy (truth among the 5 classes with the highest probabilities, or all if there are fewer);
        precision, recall and f1, each as _macro, _weighted and _min;
        log_loss (natural logarithm, mean over images);
        calibration_error (expected calibration error of the highest probability, 15 bins of equal width);
        rms_calibration_error (root-mean-square calibration error, debiased: see `calibration_pairs`);
        recall_at_half (share of images whose true class has a probability above one half, as keras.metrics.Recall
        computes from one-hot labels);
        balanced_accuracy (mean recall of the classes with test images);
        cohen_kappa and matthews_correlation, -1..1;
        roc_auc_macro and average_precision_macro (means over the classes with test images; missing if all images have
        one class).
    """
    table = per_class_table(predictions)
    of_images = image_scores(predictions)
    result = {name: float(of_images[name].mean()) for name in ("accuracy", "top5_accuracy")}
    for score in ("precision", "recall", "f1"):
        of_classes = table[score].to_numpy()
        result[f"{score}_macro"] = float(of_classes.mean())
        result[f"{score}_weighted"] = float(np.average(of_classes, weights=table["support"]))
        result[f"{score}_min"] = float(of_classes.min())
    result["log_loss"] = float(of_images["log_loss"].mean())
    result["calibration_error"] = calibration_error(predictions)
    result["rms_calibration_error"] = rms_calibration_error(predictions)
    result["recall_at_half"] = float(of_images["recall_at_half"].mean())
    result["balanced_accuracy"] = float(table["recall"][table["support"] > 0].mean())
    result |= _agreement(predictions)
    if np.count_nonzero(table["support"]) > 1:
        for name, mean in ranking_table(predictions)[["roc_auc", "average_precision"]].mean().items():
            result[f"{name}_macro"] = float(mean)
    return result


def _agreement(predictions: Predictions) -> dict[str, float]:
    truth, predicted = predictions.truth, predictions.predicted
    if len(np.union1d(truth, predicted)) == 1:  # scikit-learn warns, and has nan for kappa
        return {"cohen_kappa": 0.0, "matthews_correlation": 0.0}
    return {
        "cohen_kappa": float(sklearn_metrics.cohen_kappa_score(truth, predicted)),
        "matthews_correlation": float(sklearn_metrics.matthews_corrcoef(truth, predicted)),
    }


def image_scores(predictions: Predictions) -> dict[str, np.ndarray]:
    """Scores of each image, of which the network's scores are the means.

    Returns:
        accuracy, top5_accuracy, log_loss and recall_at_half, each float64 of shape (images,).
    """
    truth, probabilities = predictions.truth, predictions.probabilities
    of_truth = probabilities[np.arange(len(truth)), truth]
    # Of classes with equal probabilities, the one with the lowest index comes first, as in `predicted`.
    lower_index = np.arange(probabilities.shape[1]) < truth[:, None]
    before = (probabilities > of_truth[:, None]) | ((probabilities == of_truth[:, None]) & lower_index)
    of_truth = of_truth.astype(np.float64)
    return {
        "accuracy": (predictions.predicted == truth).astype(np.float64),
        "top5_accuracy": (before.sum(axis=1) < TOP).astype(np.float64),
        "log_loss": -np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)),
        "recall_at_half": (of_truth > 0.5).astype(np.float64),
    }


def calibration_gaps(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Confidence bin and calibration gap of each image.

    The bins are open on the left and closed on the right: (0, 1/15], ..., (14/15, 1].

    Returns:
        bins, int64 of shape (images,), 0..14; gaps, float64 of shape (images,): 1 for a right and 0 for a wrong
        prediction, minus the highest probability.
    """
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    return bins, (predictions.predicted == predictions.truth) - confidence


def calibration_pairs(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The part of each image in the squared calibration error, debiased.

    Images are sorted into 15 bins with as many images each, those of equal confidence into one. The mean gap of a bin,
    squared, holds the square of each image's gap, which is chance; the mean product of the gaps of two different images
    does not (Kumar et al. 2019, "Verified uncertainty calibration", section 4).

    Args:
        confidence: Highest probability of each image, of shape (images,).
        right: True where the predicted class is the true one, of shape (images,).

    Returns:
        float64 of shape (images,): the image's gap times the mean gap of the other images of its bin. Its mean is the
        squared calibration error, whose average over test sets is 0 for a calibrated network.
    """
    confidence = confidence.astype(np.float64)
    gaps = right - confidence
    limits = np.quantile(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    bins = np.searchsorted(limits, confidence, side="left")
    images, sums = np.bincount(bins), np.bincount(bins, weights=gaps)
    return gaps * (sums[bins] - gaps) / np.maximum(images[bins] - 1, 1)


def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error: the mean distance of accuracy from confidence over 15 bins of equal width.

    Chance raises it: that of a calibrated network is above 0 too, the more so the fewer the images.
    """
    bins, gaps = calibration_gaps(predictions)
    # |accuracy - confidence| of a bin, weighted by its share of images, is its summed gap over the number of images.
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=CALIBRATION_BINS)).sum() / len(bins))


def rms_calibration_error(predictions: Predictions) -> float:
    """Root-mean-square calibration error, debiased; 0 where the debiased mean square is negative."""
    right = predictions.predicted == predictions.truth
    return float(np.sqrt(max(calibration_pairs(predictions.probabilities.max(axis=1), right).mean(), 0.0)))


def reliability_bins(predictions: Predictions) -> pd.DataFrame:
    """The points of a reliability diagram, which compares accuracy with confidence.

    Returns:
        One row for each of the 15 bins of `calibration_error`, with low and high (the bin's limits), images (their
        number), confidence (mean of the highest probability) and accuracy; the last two are NaN in an empty bin.
    """
    bins, gaps = calibration_gaps(predictions)
    correct = predictions.predicted == predictions.truth
    images = np.bincount(bins, minlength=CALIBRATION_BINS)
    divisor = np.where(images > 0, images, np.nan)
    limits = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return pd.DataFrame(
        {
            "low": limits[:-1],
            "high": limits[1:],
            "images": images,
            "confidence": np.bincount(bins, weights=correct - gaps, minlength=CALIBRATION_BINS) / divisor,
            "accuracy": np.bincount(bins, weights=correct, minlength=CALIBRATION_BINS) / divisor,
        }
    )


def per_class_table(predictions: Predictions) -> pd.DataFrame:
    """One row per class, with class, precision, recall, f1 and support (number of test images)."""
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        predictions.truth, predictions.predicted, labels=np.arange(len(predictions.classes)), zero_division=0
    )
    return pd.DataFrame(
        {"class": list(predictions.classes), "precision": precision, "recall": recall, "f1": f1, "support": support}
    )


def classification_report(predictions: Predictions) -> str:
    """scikit-learn's table for people: precision, recall, F1 and support of each class, accuracy, and both averages.

    It is rounded to two digits, as studies print it; per_class_table has all digits.
    """
    return sklearn_metrics.classification_report(
        predictions.truth,
        predictions.predicted,
        labels=np.arange(len(predictions.classes)),
        target_names=list(predictions.classes),
        digits=2,
        zero_division=0,
    )


def confusion_matrix(predictions: Predictions) -> pd.DataFrame:
    """Numbers of images, with one row per true class and one column per predicted class."""
    counts = sklearn_metrics.confusion_matrix(
        predictions.truth, predictions.predicted, labels=np.arange(len(predictions.classes))
    )
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.classes, name="truth"),
        columns=pd.Index(predictions.classes, name="predicted"),
    )
