from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tandem.evaluation.contributions import (
    ClassSplit,
    agreement_contributions,
    calibration_contributions,
    class_contributions,
    f1_of_classes,
    mean_contributions,
    recall_of_classes,
)
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions

MakeRun = Callable[..., Predictions]
STEP = 1e-6


def drawn(random: np.random.Generator, sizes: list[int], recall: float) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of a test set with these numbers of images."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    right = random.random(len(truth)) < recall
    others = (truth + random.integers(1, len(sizes), len(truth))) % len(sizes)
    return truth, np.where(right, truth, others)


def test_contributions_of_accuracy_give_the_binomial_variance() -> None:
    right = np.array([1.0] * 30 + [0.0] * 10)
    found = mean_contributions(right)
    assert found.score == 0.75
    assert found.images.sum() == pytest.approx(0)
    assert np.square(found.images).sum() == pytest.approx(0.75 * 0.25 / 40)


@pytest.mark.parametrize("measure", ["precision", "recall", "f1"])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_class_averages_agree_with_scikit_learn(make_run: MakeRun, measure: str, average: str) -> None:
    run = make_run(0, images=90)
    found = class_contributions(ClassSplit(run.truth, 6), run.predicted, measure, average)  # type: ignore[arg-type]
    assert found.score == pytest.approx(scores(run)[f"{measure}_{average}"])


@pytest.mark.parametrize("measure", ["recall", "f1"])
def test_contribution_is_what_more_weight_of_an_image_does(make_run: MakeRun, measure: str) -> None:
    run = make_run(0, images=400)
    split = ClassSplit(run.truth, 6)
    found = class_contributions(split, run.predicted, measure, "macro")  # type: ignore[arg-type]

    def score(weights: np.ndarray) -> float:
        return sklearn_metrics.precision_recall_fscore_support(
            run.truth, run.predicted, average="macro", sample_weight=weights
        )[["precision", "recall", "f1"].index(measure)]

    # With the class's total weight unchanged, since the number of images per class is fixed.
    for image in (0, 7, 113):
        of_class = run.truth == run.truth[image]
        weights = np.ones(400) - STEP * of_class / of_class.sum()
        weights[image] += STEP
        scale = (of_class.sum() / (of_class.sum() - 1)) ** 0.5
        assert found.images[image] == pytest.approx((score(weights) - score(np.ones(400))) / STEP * scale, rel=1e-3)


@pytest.mark.parametrize("measure", ["cohen_kappa", "matthews_correlation"])
def test_contribution_to_agreement_is_what_more_weight_of_an_image_does(make_run: MakeRun, measure: str) -> None:
    run = make_run(0, images=400)
    split = ClassSplit(run.truth, 6)
    found = agreement_contributions(split, run.predicted, measure)  # type: ignore[arg-type]

    def score(weights: np.ndarray) -> float:
        """From the definitions, with weighted counts, on the scale from 0 to 1."""
        counts = np.zeros((6, 6))
        np.add.at(counts, (run.truth, run.predicted), weights)
        total, rows, columns = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
        beyond = total * np.trace(counts) - rows @ columns
        if measure == "cohen_kappa":
            return (1 + beyond / (total**2 - rows @ columns)) / 2
        return (1 + beyond / np.sqrt((total**2 - rows @ rows) * (total**2 - columns @ columns))) / 2

    assert found.score == pytest.approx(score(np.ones(400)))
    assert found.score == pytest.approx((1 + scores(run)[measure]) / 2)
    for image in (0, 7, 113):
        of_class = run.truth == run.truth[image]
        weights = np.ones(400) - STEP * of_class / of_class.sum()
        weights[image] += STEP
        scale = (of_class.sum() / (of_class.sum() - 1)) ** 0.5
        assert found.images[image] == pytest.approx((score(weights) - score(np.ones(400))) / STEP * scale, rel=1e-3)


@pytest.mark.parametrize("measure", ["cohen_kappa", "matthews_correlation"])
@pytest.mark.parametrize("predicted", [0, 1])
def test_undefined_agreement_is_zero_without_variance(measure: str, predicted: int) -> None:
    found = agreement_contributions(ClassSplit(np.zeros(5, np.int64), 2), np.full(5, predicted), measure)  # type: ignore[arg-type]
    assert found.score == 0.5  # halfway from -1 to 1
    assert not found.images.any()


@pytest.mark.parametrize(("measure", "images", "sign"), [("precision", 20, 1), ("f1", 5, -1)])
def test_bias_and_variance_are_those_of_many_drawn_test_sets(measure: str, images: int, sign: int) -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        truth, predicted = drawn(random, [images] * 120, 0.7)
        found.append(class_contributions(ClassSplit(truth, 120), predicted, measure, "macro"))  # type: ignore[arg-type]
    estimates = np.array([one.score for one in found])
    spread = estimates.std()
    # With very many images, precision and F1 of every class are 0.7.
    bias = estimates.mean() - 0.7
    assert sign * bias > 3 * spread / 1000**0.5
    assert np.mean([one.bias for one in found]) == pytest.approx(bias, abs=0.2 * abs(bias) + 2 * spread / 1000**0.5)
    assert np.mean([np.square(one.images).sum() for one in found]) ** 0.5 == pytest.approx(spread, rel=0.1)


def test_classes_with_one_image_are_pooled() -> None:
    truth, predicted = np.arange(40), np.where(np.arange(40) % 4, np.arange(40), (np.arange(40) + 1) % 40)
    found = class_contributions(ClassSplit(truth, 40), predicted, "recall", "macro")
    assert np.square(found.images).sum() == pytest.approx(0.75 * 0.25 / 39)


def test_sizes_by_hand() -> None:
    equal = ClassSplit(np.repeat(np.arange(10), 50), 10).size("macro")
    assert (equal.images, equal.step) == pytest.approx((500, 1 / 500))
    assert equal.df == pytest.approx(490 / 2)
    # Of 2 classes an image of the small one counts a quarter of an image of 2: variances 1/8 and 1/392.
    unequal = ClassSplit(np.repeat([0, 1], [98, 2]), 2).size("macro")
    assert (unequal.images, unequal.step) == pytest.approx((1 / (1 / 8 + 1 / 392), 1 / 4))
    assert unequal.df == pytest.approx((1 / 8 + 1 / 392) ** 2 / (1 / 64 + 1 / 392**2 / 97) / 2)
    weighted = ClassSplit(np.repeat([0, 1], [98, 2]), 2).size("weighted")
    assert (weighted.images, weighted.step) == pytest.approx((100, 1 / 100))


def test_class_without_images_is_left_out_of_the_size() -> None:
    assert ClassSplit(np.repeat([0, 2], 50), 3).size("macro").images == pytest.approx(9 / (2 / 50))


@pytest.mark.parametrize("of_classes", [recall_of_classes, f1_of_classes])
def test_classes_by_themselves_agree_with_scikit_learn(make_run: MakeRun, of_classes: Callable) -> None:
    run = make_run(0, images=200)
    found, contributions = of_classes(ClassSplit(run.truth, 6), run.predicted)
    place = 1 if of_classes is recall_of_classes else 2

    def score(weights: np.ndarray) -> np.ndarray:
        return sklearn_metrics.precision_recall_fscore_support(run.truth, run.predicted, sample_weight=weights)[place]

    assert found.tolist() == pytest.approx(score(np.ones(200)).tolist())
    for image in (3, 50):
        weights = np.ones(200)
        weights[image] += STEP
        expected = (score(weights) - score(np.ones(200))) / STEP
        assert contributions[:, [image]].toarray().ravel().tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_contributions_to_the_squared_calibration_error_give_its_variance() -> None:
    random = np.random.default_rng(0)
    values, variances = [], []
    for _ in range(300):
        confidence = random.uniform(0.5, 1, 1500)
        found = calibration_contributions(confidence, random.random(1500) < confidence - 0.15)
        values.append(found.score)
        variances.append(np.square(found.images).sum())
    assert np.mean(values) == pytest.approx(0.15**2, rel=0.03)
    assert np.mean(variances) ** 0.5 == pytest.approx(np.std(values), rel=0.15)
