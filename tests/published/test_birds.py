from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.published.judged import FAILS, HOLDS, OPEN, claim, entry, published


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.95, 0.945, 0.9, 0.5), HOLDS),
        ((0.95, 0.94, 0.9, 0.5), HOLDS),  # 0.95 - 0.94 is 0.010000000000000009
        ((0.95, 0.93, 0.9, 0.5), FAILS),  # frozen is too far behind
        ((0.95, 0.955, 0.9, 0.5), FAILS),  # frozen first
        ((0.95, 0.945, 0.5, 0.9), FAILS),
        ((0.95, 0.945, 0.9, None), OPEN),
    ],
)
def test_order_of_regimes(accuracies: Sequence[float | None], verdict: str) -> None:
    of_one = {
        regime: entry("resnet50", regime, accuracy=accuracy)
        for regime, accuracy in zip(("two_stage", "frozen", "finetune", "scratch"), accuracies, strict=True)
    }
    of_other = [replace(one, backbone="efficientnet_v2_b0") for one in of_one.values()]
    judge = claim("birds", "two_stage is the most accurate")
    assert judge(published("birds", *of_one.values(), *of_other)).verdict == verdict
    # The claim is about both backbones.
    assert judge(published("birds", *of_one.values())).verdict == (FAILS if verdict == FAILS else OPEN)


@pytest.mark.parametrize(("minutes", "verdict"), [(26, HOLDS), (34, HOLDS), (24, FAILS), (36, FAILS), (None, OPEN)])
def test_three_times_less_is_rounded_to_a_whole_number(minutes: float | None, verdict: str) -> None:
    of_both = [
        entry(backbone, regime, minutes=value)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, value in (("frozen", 10), ("two_stage", minutes))
    ]
    assert claim("birds", "frozen takes about")(published("birds", *of_both)).verdict == verdict


def test_times_of_two_machines_are_not_compared() -> None:
    of_both = [
        entry(backbone, regime, minutes=minutes, machine=regime)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, minutes in (("frozen", 10), ("two_stage", 30))
    ]
    assert claim("birds", "frozen takes about")(published("birds", *of_both)).verdict == OPEN


@pytest.mark.parametrize(
    ("minutes", "accuracy", "verdict"),
    [
        (5, 0.9, HOLDS),
        (5, 0.8, HOLDS),  # as accurate in less time
        (10.5, 0.9, HOLDS),
        (5, 0.7, OPEN),
        (20, 0.9, OPEN),
        (10.5, 0.8, OPEN),
        (20, 0.8, FAILS),
        (20, 0.7, FAILS),
    ],
)
def test_efficient_means_better_in_one_and_worse_in_none(minutes: float, accuracy: float, verdict: str) -> None:
    of_all = [
        one
        for regime in ("scratch", "two_stage", "finetune")
        for one in (
            entry("resnet50", regime, minutes=10, accuracy=0.8),
            entry("efficientnet_v2_b0", regime, minutes=minutes, accuracy=accuracy),
        )
    ]
    assert claim("birds", "EfficientNet is more")(published("birds", *of_all)).verdict == verdict


@pytest.mark.parametrize(
    ("keras", "verdict"), [(0.7, HOLDS), (0.87, HOLDS), (0.65, HOLDS), (0.79, FAILS), (0.6, FAILS), (None, OPEN)]
)
def test_difference_of_frameworks(keras: float | None, verdict: str) -> None:
    of_both = [entry("resnet50", accuracy=0.8), entry("resnet50", accuracy=keras, framework="keras")]
    assert claim("birds", "the accuracy of ResNet-50")(published("birds", *of_both)).verdict == verdict


def test_frameworks_are_compared_on_the_same_test_images() -> None:
    """torch 0.8 and 0.6 on two folds, keras 0.7 and 0.5: the same difference of 0.1 on each."""
    of_folds = [
        entry("resnet50", accuracy=accuracy, framework=framework, test_set=fold)
        for fold, accuracies in (("fold 0", (0.8, 0.7)), ("fold 1", (0.6, 0.5)))
        for framework, accuracy in zip(("torch", "keras"), accuracies, strict=True)
    ]
    found = claim("birds", "the accuracy of ResNet-50")(published("birds", *of_folds))
    assert found.verdict == HOLDS


def test_image_sizes() -> None:
    judge = claim("birds", "a network should be given")
    large = [entry(backbone, accuracy=0.9, image_size=224) for backbone in ("resnet50", "efficientnet_v2_b0")]
    assert judge(published("birds", *large)).verdict == OPEN
    for accuracy, verdict in ((0.8, HOLDS), (0.95, FAILS)):
        small = [replace(one, accuracy=accuracy, image_size=96) for one in large]
        assert judge(published("birds", *large, *small)).verdict == verdict


@pytest.mark.parametrize(("frozen", "verdict"), [(0.88, HOLDS), (0.5, FAILS), (None, OPEN)])
def test_overfitting_is_the_gap_of_accuracies(frozen: float | None, verdict: str) -> None:
    images = {"train": 10_000, "val": 2_000}
    of_both = [
        entry(backbone, regime, train_accuracy=0.9, val_accuracy=accuracy, num_images=images)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, accuracy in (("finetune", 0.7), ("frozen", frozen))
    ]
    assert claim("birds", "freezing all layers")(published("birds", *of_both)).verdict == verdict


def test_gap_within_chance_decides_nothing() -> None:
    images = {"train": 100, "val": 40}
    of_both = [
        entry(backbone, regime, train_accuracy=0.9, val_accuracy=accuracy, num_images=images)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, accuracy in (("finetune", 0.8), ("frozen", 0.85))
    ]
    found = claim("birds", "freezing all layers")(published("birds", *of_both))
    assert found.verdict == OPEN and "not significant" in found.because
