"""The scores of a network on its test images: one definition for both frameworks.

With c_ik the number of images of class i that were taken for class k:

    precision  P_k = c_kk / sum_i c_ik
    recall     R_k = c_kk / sum_j c_kj
    F1         F_k = 2 P_k R_k / (P_k + R_k)

each 0 where its denominator is 0. Macro is the mean over all classes, min the minimum, weighted the mean weighted by
each class's number of images.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from tandem.evaluation.predictions import Predictions

TOP = 5
CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", table 1

# Below this a probability counts as this much in the log loss, so that one image cannot make it infinite; scikit-learn
# clips float32 probabilities at the same place.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def scores(predictions: Predictions) -> dict[str, float]:
    """All scores of a network under the names they are logged as.

    Returns:
        accuracy; top5_accuracy (among the 5 classes, or all if there are fewer, with the highest probabilities);
        precision, recall and f1, each as _macro, _weighted and _min;
        log_loss (natural logarithm, mean over images);
        calibration_error (expected calibration error of the highest probability, 15 bins of equal width);
        recall_at_half (share of images whose true class has a probability above one half: what keras.metrics.Recall
        computes from one-hot labels).
    """
    truth, predicted = predictions.truth, predictions.predicted
    table = per_class_table(predictions)
    of_truth = predictions.probabilities[np.arange(len(truth)), truth].astype(np.float64)
    # A stable sort: of equal probabilities the class with the lowest index comes first, as in `predicted`.
    ranking = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :TOP]
    result = {
        "accuracy": float(np.mean(predicted == truth)),
        "top5_accuracy": float(np.mean((ranking == truth[:, None]).any(axis=1))),
    }
    for score in ("precision", "recall", "f1"):
        of_classes = table[score].to_numpy()
        result[f"{score}_macro"] = float(of_classes.mean())
        result[f"{score}_weighted"] = float(np.average(of_classes, weights=table["support"]))
        result[f"{score}_min"] = float(of_classes.min())
    result["log_loss"] = float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean())
    result["calibration_error"] = _calibration_error(predictions)
    result["recall_at_half"] = float(np.mean(of_truth > 0.5))
    return result


def _calibration_error(predictions: Predictions) -> float:
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    correct = predictions.predicted == predictions.truth
    # The bins are open on the left and closed on the right: (0, 1/15], ..., (14/15, 1].
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # |accuracy - confidence| of a bin, weighted by its share of the images, is the gap of the sums over all images.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def per_class_table(predictions: Predictions) -> pd.DataFrame:
    """One row a class: class, precision, recall, f1, support (its number of test images)."""
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        predictions.truth, predictions.predicted, labels=np.arange(len(predictions.classes)), zero_division=0
    )
    return pd.DataFrame(
        {"class": list(predictions.classes), "precision": precision, "recall": recall, "f1": f1, "support": support}
    )


def confusion_matrix(predictions: Predictions) -> pd.DataFrame:
    """Numbers of images: the true class down the rows, the predicted class across the columns."""
    counts = sklearn_metrics.confusion_matrix(
        predictions.truth, predictions.predicted, labels=np.arange(len(predictions.classes))
    )
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.classes, name="truth"),
        columns=pd.Index(predictions.classes, name="predicted"),
    )
