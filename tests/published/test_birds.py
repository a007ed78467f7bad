from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tandem.published.entries import Entry
from tests.compared import MakePredictions, MakeRun
from tests.published.judged import FAILS, HOLDS, OPEN, claim, claims_of, documented, entry, published


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


@pytest.mark.parametrize(("minutes", "verdict"), [(20, HOLDS), (21, FAILS), (40, FAILS), (None, OPEN)])
def test_finetune_takes_much_less_time_at_half_of_it(minutes: float | None, verdict: str) -> None:
    of_both = [
        entry(backbone, regime, minutes=value)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, value in (("finetune", minutes), ("two_stage", 40))
    ]
    assert claim("birds", "finetune takes much less")(published("birds", *of_both)).verdict == verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(180, HOLDS), (170, HOLDS), (120, FAILS), (300, FAILS), (None, OPEN)])
def test_epoch_of_the_frozen_network(seconds: float | None, verdict: str) -> None:
    """3 minutes against 70 seconds."""
    of_both = [entry("resnet50", "frozen", epoch_seconds=70), entry("resnet50", "finetune", epoch_seconds=seconds)]
    found = claim("birds", "an epoch of the frozen ResNet-50")(published("birds", *of_both))
    assert found.verdict == verdict


@pytest.mark.parametrize(("parameters", "verdict"), [(24e6, HOLDS), (7.2e6, FAILS), (None, OPEN)])
def test_equally_many_parameters(parameters: float | None, verdict: str) -> None:
    of_both = [entry("resnet50", parameters=25.6e6), entry("efficientnet_v2_b0", parameters=parameters)]
    judge = claim("birds", "ResNet-50 and EfficientNetV2-B0 have about as many")
    assert judge(published("birds", *of_both)).verdict == verdict


def test_splits_are_compared_over_different_test_images(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    def judge(shares: tuple[float, float]) -> dict[str, str]:
        runs, final = [], {}
        images = {"fractions": ("31935", "4562", "9125"), "publisher": ("42622", "1500", "1500")}
        for (split, numbers), share in zip(images.items(), shares, strict=True):
            counts = dict(zip(("num_train_images", "num_val_images", "num_test_images"), numbers, strict=True))
            params = documented("birds", "resnet50", "two_stage", **counts, **{"data.split": split})
            tags = {"tandem.data": "birds300", "tandem.test_hash": split}
            runs.append(make_run(regime="two_stage", accuracy=share, params=params, tags=tags))
            final[runs[-1].run_id] = make_predictions([index < share * 1000 for index in range(1000)])
        (found,) = [one for one in claims_of("birds", runs, final) if one["claim"].startswith("a 70/10/20 split")]
        return found

    found = judge((0.9, 0.8))
    assert found["ours"] == HOLDS
    assert found["ours_because"].startswith(
        "resnet50 two_stage torch, 70/10/20 minus the publisher's split +0.1000 [+0.0"
    )
    assert judge((0.8, 0.9))["ours"] == FAILS
    assert judge((0.8, 0.805))["ours"] == OPEN


# ---------------------------------------------------------------------------------------------- like things by time


def timed(regime: str, minutes: float, accuracy: float = 0.9, **values: Any) -> list[Entry]:
    return [
        entry(backbone, regime, minutes=minutes, accuracy=accuracy, **values)
        for backbone in ("resnet50", "efficientnet_v2_b0")
    ]


def with_size(pixels: int) -> dict[str, Any]:
    return {"settings": (("data.image_size", str(pixels)),)}


def test_rows_with_equal_settings_are_compared_by_time() -> None:
    """Frozen at 128 pixels is the more accurate one, and took a third of its time at 224."""
    judge = claim("birds", "frozen takes about")
    whole = [*timed("two_stage", 29, **with_size(224)), *timed("frozen", 10, 0.85, **with_size(224))]
    assert judge(published("birds", *whole)).verdict == HOLDS
    more = [*timed("two_stage", 9, 0.84, **with_size(128)), *timed("frozen", 3.3, 0.89, **with_size(128))]
    found = judge(replace(published("birds", *whole, *more), published=False))
    assert found.verdict == HOLDS and found.because.endswith("10.0 min of 29.0 min, 2.9 times less")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("data.image_size", ("128", "224")),
        ("batch_size", ("16", "64")),
        ("precision", ("bfloat16", "float32")),
        ("max_epochs", ("5", "100")),
        ("early_stopping.patience", ("1", "3")),
        ("augmentation.horizontal_flip", ("false", "true")),
        ("data.train_images_per_class", ("10", "null")),
    ],
)
def test_times_of_rows_with_settings_that_change_them_decide_nothing(name: str, values: tuple[str, str]) -> None:
    of_both = [
        *timed("frozen", 10, settings=((name, values[0]),)),
        *timed("two_stage", 30, settings=((name, values[1]),)),
    ]
    found = claim("birds", "frozen takes about")(replace(published("birds", *of_both), published=False))
    assert found.verdict == OPEN
    assert f"unlike: {name} {values[1]} and {values[0]}" in found.because


def test_other_settings_that_differ_are_named_with_the_verdict() -> None:
    rate = "learning_rate"
    of_both = [*timed("frozen", 10, settings=((rate, "0.1"),)), *timed("two_stage", 30, settings=((rate, "0.01"),))]
    found = claim("birds", "frozen takes about")(replace(published("birds", *of_both), published=False))
    assert found.verdict == HOLDS
    assert found.because.endswith("3.0 times less (settings differ: learning_rate 0.1 and 0.01)")


def test_accuracies_of_rows_with_equal_settings_are_compared() -> None:
    """The most accurate two_stage has the rate 1; frozen with the same rate is better, the best frozen is not."""

    def one(regime: str, rate: str, accuracy: float) -> list[Entry]:
        return timed(regime, 10, accuracy, settings=(("learning_rate", rate),))

    order = (("two_stage", 0.95), ("frozen", 0.96), ("finetune", 0.7), ("scratch", 0.5))
    entries = [entry for regime, accuracy in order for entry in one(regime, "1", accuracy)]
    entries += one("frozen", "2", 0.945)
    found = claim("birds", "two_stage is the most accurate")(published("birds", *entries))
    assert found.verdict == FAILS


@pytest.mark.parametrize(("cache", "verdict"), [("false", HOLDS), ("true", OPEN)])
def test_cached_features_decide_no_claim_about_time(make_run: MakeRun, cache: str, verdict: str) -> None:
    runs = [
        make_run(
            regime="two_stage",
            accuracy=0.9,
            params={**documented("birds", backbone, "two_stage"), "cache_features": cache},
            metrics={"phase_1/test/accuracy": 0.85, "phase_1/cost/train_seconds": 20.0, "cost/train_seconds": 60.0},
            tags={"tandem.data": "birds300"},
        )
        for backbone in ("resnet50", "efficientnet_v2_b0")
    ]
    found = {one["claim"]: one for one in claims_of("birds", runs)}
    time = found["frozen takes about 3 times less time than two_stage"]
    assert time["ours"] == verdict
    assert ("only stand-ins on 300 Bird Species: cached features" in time["ours_because"]) == (verdict == OPEN)
    # Scores do not depend on the cache.
    order = found["two_stage is the most accurate, frozen at most 1 % behind it, then finetune, then scratch"]
    assert "cached" not in order["ours_because"]


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
