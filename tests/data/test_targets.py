from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tandem.data.targets import Targets, serves_soft_targets, weights_of_classes
from tandem.errors import UserError
from tandem.protocol.settings import LossSettings, MixingSettings, Settings

LABELS = np.array([2, 0, 1])
PARTNERS = np.array([1, 2, 1])
SHARES = np.array([0.75, 0.25, 0.5])


def test_labels_are_served_unchanged_by_default() -> None:
    (targets,) = Targets(num_classes=4).of(LABELS)
    assert targets is LABELS


def test_soft_targets_of_single_images_are_one_hot() -> None:
    (targets,) = Targets(num_classes=4, soft=True).of(LABELS)
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]


def test_smoothing_spreads_a_part_of_each_label_over_all_classes() -> None:
    (targets,) = Targets(num_classes=4, soft=True, smoothing=0.2).of(LABELS)
    # 0.2 / 4 for each class, and 0.8 more for the label
    expected = [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)


def test_mixed_labels_have_both_images_shares() -> None:
    (targets,) = Targets(num_classes=3, soft=True).of(LABELS, PARTNERS, SHARES)
    assert targets.tolist() == [[0, 0.25, 0.75], [0.25, 0, 0.75], [0, 1, 0]]


def test_mixed_labels_are_smoothed_as_a_whole() -> None:
    (targets,) = Targets(num_classes=3, soft=True, smoothing=0.3).of(LABELS, PARTNERS, SHARES)
    np.testing.assert_allclose(targets, [[0.1, 0.275, 0.625], [0.275, 0.1, 0.625], [0.1, 0.8, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_an_image_weighs_the_mean_of_its_classes(smoothing: float) -> None:
    weights = np.array([1.0, 2.0, 4.0])
    for soft in (False, True):
        form = Targets(num_classes=3, soft=soft, smoothing=smoothing if soft else 0.0, class_weights=weights)
        assert form.of(LABELS)[1].tolist() == [4, 1, 2]
    mixed = form.of(LABELS, PARTNERS, SHARES)[1]
    assert mixed.dtype == np.float32
    assert mixed.tolist() == [0.75 * 4 + 0.25 * 2, 0.25 * 1 + 0.75 * 4, 2]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [7, 2, 21])
    weights = weights_of_classes(LossSettings(class_weights="balanced"), labels, ("a", "b", "c"))
    assert weights is not None
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    # all classes together weigh the same, and an image weighs 1 on average
    np.testing.assert_allclose(weights * np.bincount(labels), 10)


def test_classes_without_a_given_weight_weigh_one() -> None:
    weights = weights_of_classes(LossSettings(class_weights={"c": 5, "a": 0.5}), np.arange(3), ("a", "b", "c"))
    assert weights is not None and weights.tolist() == [0.5, 1, 5]
    assert weights_of_classes(LossSettings(), np.arange(3), ("a", "b", "c")) is None


def test_weight_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        weights_of_classes(LossSettings(class_weights={"a": 2, "Cat": 3}), np.arange(3), ("a", "b", "cat"))
    assert str(refused.value) == (
        "loss.class_weights: received a weight for Cat, allowed: classes of the data, a, b, cat"
    )


@pytest.mark.parametrize(
    ("settings", "soft"),
    [
        (Settings(), False),
        (Settings(sampling="balanced", loss=LossSettings(class_weights="balanced")), False),
        (Settings(loss=LossSettings(label_smoothing=0.1)), True),
        (Settings(mixing=MixingSettings(mixup_alpha=0.2)), True),
        (Settings(mixing=MixingSettings(cutmix_alpha=1.0)), True),
    ],
)
def test_targets_are_soft_only_where_labels_are_smoothed_or_mixed(settings: Settings, soft: bool) -> None:
    assert serves_soft_targets(settings) == soft
