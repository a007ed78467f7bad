from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.compared import MakePredictions, MakeRun, right_images
from tests.published.judged import HOLDS, OPEN, claims_of
from tests.published.numbers import FAMILIES, FROZEN

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
            run = make_run(regime=regime, accuracy=accuracy, params={"backbone": "vgg16"}, tags=tags)
            final[run.run_id] = make_predictions(right(accuracy))
            runs.append(run)
    found = claims_of("eight_datasets", runs, final)[4]
    assert (found["ours"], found["ours_because"]) == (verdict, because)
