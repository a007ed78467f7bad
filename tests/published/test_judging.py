from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from tandem.published.judging import all_of, faster_or_slower, judged, rounds_to, undecided
from tests.compared import MakePredictions, MakeRun, right_images
from tests.published.judged import FAILS, HOLDS, claim, claims_of, documented, entry, published

right = partial(right_images, images=300)


def test_judgements_are_combined() -> None:
    yes, no, open_ = judged(True, "a"), judged(False, "b"), undecided("c")
    assert all_of([yes, yes]) == yes
    assert all_of([yes, open_]) == open_
    assert all_of([open_, no, yes]) == no


def test_more_than_four_reasons_are_counted() -> None:
    assert all_of([judged(True, str(number)) for number in range(6)]).because == "0; 1; 2; 3; and 2 more"


@pytest.mark.parametrize(
    ("value", "stated", "digits", "expected"),
    [
        (0.86194, 0.8619, 4, True),
        (0.8620, 0.8619, 4, False),
        # A mean of eight accuracies of four digits can be halfway between two numbers: it is both of them, whatever
        # the last bit of its sum.
        (0.86185, 0.8619, 4, True),
        (0.86185, 0.8618, 4, True),
        (0.86185 + 1e-16, 0.8618, 4, True),
        (0.86185 - 1e-16, 0.8619, 4, True),
        (0.8 - 0.65, 0.1, 1, True),
        (0.16, 0.1, 1, False),
    ],
)
def test_value_rounds_to_a_stated_number(value: float, stated: float, digits: int, expected: bool) -> None:
    assert rounds_to(value, stated, digits) == expected


@pytest.mark.parametrize(
    ("ratio", "order"), [(0.5, -1), (27 / 30, -1), (0.91, 0), (1, 0), (1.09, 0), (33 / 30, 1), (3, 1)]
)
def test_times_that_differ_by_less_than_a_tenth_are_equal(ratio: float, order: int) -> None:
    assert faster_or_slower(ratio) == order


def test_equal_published_accuracies_are_not_ranked() -> None:
    """0.3 and 0.1 + 0.2 differ in the last bit."""
    first, second = (
        entry(name, "frozen", accuracy=value)
        for name, value in (("efficientnet_v2_b0", 0.1 + 0.2), ("mobilenet_v2", 0.3))
    )
    judge = claim("mobilenet_vs_efficientnetv2", "EfficientNetV2 is more accurate than MobileNetV2")
    assert judge(published("mobilenet_vs_efficientnetv2", first, second)).verdict == FAILS


def test_sets_of_test_images_are_judged_separately() -> None:
    """The most accurate entry of one fold is not compared with those of another fold."""
    first, second = (
        [
            entry(backbone, "frozen", accuracy=accuracy, test_set=fold)
            for backbone, accuracy in zip(("efficientnet_v2_b0", "mobilenet_v2"), accuracies, strict=True)
        ]
        for fold, accuracies in (("fold 0", (0.9, 0.8)), ("fold 1", (0.7, 0.75)))
    )
    ours = replace(published("mobilenet_vs_efficientnetv2", *first, *second), published=False)
    judge = claim("mobilenet_vs_efficientnetv2", "EfficientNetV2 is more accurate than MobileNetV2")
    found = judge(ours)
    assert found.verdict == FAILS and found.because.startswith("fold 1 torch: ")
    assert judge(replace(ours, entries=tuple(first))).verdict == HOLDS


@pytest.mark.parametrize(("frameworks", "start"), [(("torch", "keras"), ""), (("torch", "torch"), "torch: ")])
def test_frameworks_are_judged_together_if_none_has_all_backbones(
    make_run: MakeRun, make_predictions: MakePredictions, frameworks: Sequence[str], start: str
) -> None:
    runs, final = [], {}
    for backbone, framework, share in zip(("resnet50", "efficientnet_v2_b0"), frameworks, (0.6, 0.9), strict=True):
        for regime in ("scratch", "two_stage", "finetune"):
            tags = {"tandem.data": "birds300"}
            params = documented("birds", backbone, regime)
            runs.append(make_run(framework, regime, share, params=params, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(share))
    (found,) = [one for one in claims_of("birds", runs, final) if one["claim"].startswith("EfficientNet is more")]
    assert found["ours"] == HOLDS
    assert found["ours_because"].startswith(f"{start}scratch: 1.00 times the training, accuracy +0.3000 [")


def test_framework_with_all_results_decides_alone() -> None:
    of_torch = [
        entry(backbone, regime, minutes=minutes)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, minutes in (("frozen", 10), ("two_stage", 30))
    ]
    more = entry("resnet50", "frozen", minutes=5, framework="keras")
    ours = replace(published("birds", *of_torch, more), published=False)
    assert claim("birds", "frozen takes about")(ours).verdict == HOLDS


def test_claim_without_a_data_set_is_judged_on_each(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs, final = [], {}
    for data, accuracies in {"flowers": (0.95, 0.7), "leaves": (0.6, 0.9)}.items():
        for backbone, accuracy in zip(("efficientnet_v2_b0", "mobilenet_v2"), accuracies, strict=True):
            tags = {"tandem.data": data, "tandem.test_hash": data}
            params = documented("mobilenet_vs_efficientnetv2", backbone, "frozen")
            runs.append(make_run(regime="frozen", accuracy=accuracy, params=params, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(accuracy))
    found = claims_of("mobilenet_vs_efficientnetv2", runs, final)[0]
    assert found["ours"] == FAILS and found["ours_because"].startswith("leaves torch: efficientnet_v2_b0 minus")
    found = claims_of("mobilenet_vs_efficientnetv2", runs[:2], final)[0]
    assert found["ours"] == HOLDS and found["ours_because"].startswith("torch: ")
