from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.compared import MakePredictions, MakeRun, right_images
from tests.published.judged import FAILS, HOLDS, OPEN, claims_of, documented

right = partial(right_images, images=300)


# Judged by hand from the documents.
@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("birds", [OPEN, FAILS, HOLDS, HOLDS, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN]),
        ("cifar100_lightweight", [HOLDS, HOLDS, OPEN, OPEN, HOLDS, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN]),
        ("eight_datasets", [FAILS, FAILS, HOLDS, FAILS, HOLDS, OPEN, OPEN, HOLDS]),
        ("imagenette", [HOLDS, HOLDS, OPEN, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, OPEN]),
        ("mobilenet_vs_efficientnetv2", [HOLDS, HOLDS, HOLDS]),
    ],
)
def test_claims_on_the_published_numbers(name: str, verdicts: list[str]) -> None:
    found = claims_of(name)
    assert [one["published"] for one in found] == verdicts
    assert all(one["ours"] == OPEN and one["ours_because"].startswith("no runs on ") for one in found)
    assert all(one["published_because"] for one in found)


@pytest.mark.parametrize(
    ("name", "start", "because"),
    [
        ("birds", "frozen takes about 3 times less", "resnet50: 37.0 min of 53.0 min, 1.4 times less"),
        ("birds", "two_stage", "resnet50, efficientnet_v2_b0: not published: the accuracies"),
        ("cifar100_lightweight", "EfficientNet-B0 trains", "training: 7.45 times that of resnet50; training: 5.69"),
        ("eight_datasets", "there is negative", "8 of 24 pairs, a tie in 1 (alexnet on Caltech 101)"),
        ("eight_datasets", "the average", "densenet 88.32 %, stated 89.91 %, which is densenet161 alone"),
        (
            "imagenette",
            "gas_pump and chain_saw are the",
            "frozen: lowest F1 chain_saw 0.83, gas_pump 0.87, French_horn",
        ),
        ("mobilenet_vs_efficientnetv2", "EfficientNetV2 has a quarter", "7.2M of 25.6M, 0.28"),
    ],
)
def test_verdicts_name_the_numbers_that_decide(name: str, start: str, because: str) -> None:
    (found,) = [one for one in claims_of(name) if one["claim"].startswith(start)]
    assert because in found["published_because"]


def test_our_significant_differences_decide(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    def judge(frozen: list[bool]) -> dict[str, Any]:
        outcomes = {
            ("efficientnet_b0", "scratch"): right(0.6),
            ("efficientnet_b0", "frozen"): frozen,
            ("resnet50", "off_the_shelf"): right(0.8),
        }
        runs = {
            key: make_run(
                regime=key[1],
                accuracy=float(np.mean(outcome)),
                params=documented("imagenette", key[0], key[1]),
                tags={"tandem.data": "imagenette"},
            )
            for key, outcome in outcomes.items()
        }
        final = {runs[key].run_id: make_predictions(outcome) for key, outcome in outcomes.items()}
        return claims_of("imagenette", list(runs.values()), final)[0]

    better = judge(right(0.95))
    assert better["ours"] == HOLDS
    assert better["ours_because"].startswith("torch: frozen minus scratch +0.3500 [")
    assert judge(right(0.65))["ours"] == FAILS
    near = judge(right(0.82, start=50))
    assert near["ours"] == OPEN and near["ours_because"].endswith(", not significant")


@pytest.mark.parametrize(
    ("tags", "because"),
    [
        ({"tandem.budget": "small"}, "only stand-ins on Imagenette: small budget"),
        ({"tandem.weights_origin": "random"}, "only stand-ins on Imagenette: random weights"),
    ],
)
def test_stand_ins_decide_no_claim(make_run: MakeRun, tags: dict[str, str], because: str) -> None:
    params = documented("imagenette", "efficientnet_b0", "frozen")
    runs = [make_run(regime="frozen", params=params, tags={"tandem.data": "imagenette", **tags})]
    found = claims_of("imagenette", runs)
    assert {(one["ours"], one["ours_because"]) for one in found} == {(OPEN, because)}


def test_missing_results_of_ours_are_named(make_run: MakeRun) -> None:
    params = documented("imagenette", "efficientnet_b0", "frozen")
    runs = [make_run(regime="frozen", params=params, tags={"tandem.data": "imagenette"})]
    found = claims_of("imagenette", runs)[0]
    assert (found["ours"], found["ours_because"]) == (
        OPEN,
        "not in our runs: accuracy of scratch; not in our runs: accuracy of off_the_shelf",
    )
