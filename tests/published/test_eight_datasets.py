from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tandem.rendering.tables import Estimate
from tests.compared import MakePredictions, MakeRun, right_images
from tests.published.judged import FAILS, HOLDS, OPEN, claim, claims_of, documented, entry, published
from tests.published.numbers import DATA_SETS, FAMILIES, FROZEN, SCRATCH

right = partial(right_images, images=300)


def test_best_families_are_compared_by_their_means() -> None:
    (found,) = [one for one in claims_of("eight_datasets") if one["claim"].startswith("ResNet and DenseNet")]
    means = {family: np.mean([FROZEN[member] for member in members]) for family, members in FAMILIES.items()}
    assert means["densenet"] > means["alexnet"] > means["resnet"] > means["vgg"]
    best = {family: max(FROZEN[member].mean() for member in members) for family, members in FAMILIES.items()}
    assert found["published_because"] == (
        f"resnet {means['resnet']:.2%}, alexnet {means['alexnet']:.2%} "
        f"(the best of each {best['resnet']:.2%} and {best['alexnet']:.2%})"
    ).replace("%", " %")


def published_claim(start: str) -> tuple[str, str]:
    (found,) = [one for one in claims_of("eight_datasets") if one["claim"].startswith(start)]
    return found["published"], found["published_because"]


def test_pretrained_is_more_effective_on_average_over_all_pairs() -> None:
    frozen = np.mean([FROZEN[backbone] for backbone in SCRATCH])
    scratch = np.mean(list(SCRATCH.values()))
    assert (round(frozen, 4), round(scratch, 4)) == (0.8615, 0.8577)
    assert published_claim("training from pretrained weights") == (
        HOLDS,
        "frozen 0.8615, scratch 0.8577 over 24 pairs",
    )


def test_depth_and_density_are_judged_by_means_over_the_data_sets() -> None:
    means = {backbone: accuracies.mean() for backbone, accuracies in FROZEN.items()}
    assert means["resnet50"] > means["resnet152"] > means["resnet101"]
    assert means["densenet161"] > means["densenet121"]
    assert published_claim("deeper ResNets and DenseNets") == (
        FAILS,
        f"resnet101 {means['resnet101']:.2%}, resnet50 {means['resnet50']:.2%}".replace("%", " %"),
    )
    assert published_claim("DenseNet was more effective")[0] == HOLDS


@pytest.mark.parametrize(("frozen", "verdict"), [(0.8, HOLDS), (0.705, OPEN), (0.6, FAILS)])
def test_mean_over_all_pairs_of_ours_needs_all_pairs(frozen: float, verdict: str) -> None:
    entries = [
        entry(backbone, regime, data=data, accuracy=Estimate(value=share, low=share - 0.03, high=share + 0.03))
        for data in DATA_SETS
        for backbone in SCRATCH
        for regime, share in (("scratch", 0.7), ("frozen", frozen))
    ]
    judge = claim("eight_datasets", "training from pretrained weights")
    ours = replace(published("eight_datasets", *entries), published=False)
    found = judge(ours)
    assert found.verdict == verdict
    # Backbones share test images, eight data sets do not: 0.03 by the root of 8, for each of the two means.
    assert isinstance(frozen, float) and f"[{frozen - 0.7 - 0.015:+.4f}, {frozen - 0.7 + 0.015:+.4f}]" in found.because
    less = judge(replace(ours, entries=tuple(entries[1:])))
    assert (less.verdict, less.because) == (
        OPEN,
        "torch: not in our runs: frozen and scratch of alexnet, vgg16, vgg19 on every data set",
    )


@pytest.mark.parametrize(
    ("pairs", "verdict", "because"),
    [
        ({"mnist": (0.9, 0.6), "cifar10": (0.5, 0.8)}, HOLDS, "frozen below scratch in 1 of 2 pairs"),
        # The other pairs of the document have no runs.
        ({"mnist": (0.6, 0.9)}, OPEN, "frozen below scratch in 0 of 1 pairs"),
        ({"mnist": (0.6, 0.61)}, OPEN, "frozen below scratch in 0 of 1 pairs, a tie in 1 (not significant)"),
    ],
)
def test_one_significant_pair_is_enough_for_negative_transfer(
    make_run: MakeRun, make_predictions: MakePredictions, pairs: dict, verdict: str, because: str
) -> None:
    runs, final = [], {}
    for data, accuracies in pairs.items():
        for regime, accuracy in zip(("scratch", "frozen"), accuracies, strict=True):
            tags = {"tandem.data": data, "tandem.test_hash": data}
            params = documented("eight_datasets", "vgg16", regime, data)
            run = make_run(regime=regime, accuracy=accuracy, params=params, tags=tags)
            final[run.run_id] = make_predictions(right(accuracy))
            runs.append(run)
    found = claims_of("eight_datasets", runs, final)[-1]
    assert (found["ours"], found["ours_because"]) == (verdict, because)
