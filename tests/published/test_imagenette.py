from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tandem.evaluation.predictions import Predictions
from tandem.published.documents import ClassScores
from tandem.published.entries import Results
from tests.compared import MakeRun
from tests.published.judged import FAILS, HOLDS, OPEN, claim, claims_of, documented, entry, published

CLASSES = ("tench", "cassette player", "chain saw", "garbage truck", "gas pump")


def imagenette(errors: dict[str, dict[str, int]], images_per_class: int = 100) -> Predictions:
    """Predictions with so many images of a class predicted as another."""
    truth = np.repeat(np.arange(len(CLASSES)), images_per_class)
    predicted = truth.copy()
    for name, taken in errors.items():
        start = CLASSES.index(name) * images_per_class
        for other, number in taken.items():
            predicted[start : start + number] = CLASSES.index(other)
            start += number
    return Predictions(
        keys=tuple(f"{index}.png" for index in range(len(truth))),
        hashes=tuple(f"{index:05d}" for index in range(len(truth))),
        truth=truth.astype(np.int64),
        probabilities=np.eye(len(CLASSES), dtype=np.float32)[predicted],
        classes=CLASSES,
    )


@pytest.mark.parametrize(
    ("errors", "images", "hardest", "taken"),
    [
        ({"gas pump": {"garbage truck": 40}, "chain saw": {"cassette player": 40}}, 100, HOLDS, HOLDS),
        ({"gas pump": {"tench": 40}, "chain saw": {"cassette player": 40}}, 100, HOLDS, FAILS),
        # Without errors in gas pump and chain saw, nothing shows what they are taken for.
        ({"tench": {"garbage truck": 60, "gas pump": 10}}, 100, FAILS, OPEN),
        # 4 errors against 3 may be chance.
        (
            {"gas pump": {"garbage truck": 4, "tench": 3}, "chain saw": {"cassette player": 4, "tench": 3}},
            20,
            OPEN,
            OPEN,
        ),
    ],
)
def test_hard_classes_of_ours_are_judged_by_resamples(
    make_run: MakeRun, errors: dict[str, dict[str, int]], images: int, hardest: str, taken: str
) -> None:
    predictions = imagenette(errors, images)
    run = make_run(
        regime="scratch",
        accuracy=float(np.mean(predictions.predicted == predictions.truth)),
        params=documented("imagenette", "efficientnet_b0", "scratch"),
        tags={"tandem.data": "imagenette"},
    )
    found = claims_of("imagenette", [run], {run.run_id: predictions})
    assert (found[1]["ours"], found[2]["ours"]) == (hardest, taken)
    assert "% of resamples" in found[1]["ours_because"]


def test_hard_classes_are_judged_over_all_seeds(make_run: MakeRun) -> None:
    """By the first run alone, gas pump and chain saw are the hardest and are confused with the two others."""
    by_seed = [
        imagenette({"gas pump": {"garbage truck": 40}, "chain saw": {"cassette player": 40}}),
        imagenette({"tench": {"gas pump": 90}, "gas pump": {"tench": 60}, "chain saw": {"cassette player": 5}}),
    ]
    runs = [
        make_run(
            regime="scratch",
            seed=seed,
            params=documented("imagenette", "efficientnet_b0", "scratch"),
            tags={"tandem.data": "imagenette"},
        )
        for seed in range(len(by_seed))
    ]
    alone = claims_of("imagenette", runs[:1], {runs[0].run_id: by_seed[0]})
    assert (alone[1]["ours"], alone[2]["ours"]) == (HOLDS, HOLDS)
    final = {run.run_id: predictions for run, predictions in zip(runs, by_seed, strict=True)}
    both = claims_of("imagenette", runs, final)
    assert (both[1]["ours"], both[2]["ours"]) == (FAILS, FAILS)
    # 40 + 60 errors of gas pump, 40 + 5 of chain saw.
    assert "gas pump for tench in 60 of 100 errors" in both[2]["ours_because"]
    assert "chain saw for cassette player in 45 of 45 errors" in both[2]["ours_because"]


def test_class_without_errors_is_taken_for_none(make_run: MakeRun) -> None:
    predictions = imagenette({"chain saw": {"cassette player": 40}})
    params = documented("imagenette", "efficientnet_b0", "scratch")
    run = make_run(regime="scratch", accuracy=0.92, params=params, tags={"tandem.data": "imagenette"})
    found = claims_of("imagenette", [run], {run.run_id: predictions})[2]
    assert (found["ours"], found["ours_because"]) == (
        OPEN,
        "torch: scratch: no errors in gas pump, chain saw for cassette player in 40 of 40 errors",
    )
    # Of equally many errors, every class is named.
    tied = imagenette({"gas pump": {"tench": 5, "garbage truck": 5}, "chain saw": {"cassette player": 40}})
    found = claims_of("imagenette", [run], {run.run_id: tied})[2]
    assert "gas pump for tench and garbage truck in 5 of 10 errors each" in found["ours_because"]


def test_no_class_is_the_hardest_if_all_are_equal(make_run: MakeRun) -> None:
    params = documented("imagenette", "efficientnet_b0", "scratch")
    run = make_run(regime="scratch", accuracy=1.0, params=params, tags={"tandem.data": "imagenette"})
    found = claims_of("imagenette", [run], {run.run_id: imagenette({})})[1]
    assert (found["ours"], found["ours_because"]) == (OPEN, "torch: scratch: F1 1.00 of every class")


def of_both(scratch: dict[str, Any], frozen: dict[str, Any]) -> Results:
    return published("imagenette", entry("efficientnet_b0", **scratch), entry("efficientnet_b0", "frozen", **frozen))


@pytest.mark.parametrize(("val", "verdict"), [(0.92, HOLDS), (0.75, FAILS), (0.5, FAILS), (None, OPEN)])
def test_overfitting_less(val: float | None, verdict: str) -> None:
    scratch = {"train_accuracy": 1.0, "val_accuracy": 0.75}
    found = claim("imagenette", "the fine-tuned network overfits less")(
        of_both(scratch, {"train_accuracy": 1.0, "val_accuracy": val})
    )
    assert found.verdict == verdict


def test_published_gaps_are_those_of_the_document() -> None:
    (found,) = [one for one in claims_of("imagenette") if one["claim"].startswith("the fine-tuned network overfits")]
    assert found["published_because"] == "gap of 0.065 for frozen, 0.250 for scratch"


@pytest.mark.parametrize(("losses", "verdict"), [((0.1, 0.3), HOLDS), ((0.1, 1.2), FAILS), ((0.9, 0.3), FAILS)])
def test_both_losses_are_lower(losses: tuple[float, float], verdict: str) -> None:
    results = of_both({"train_loss": 0.5, "val_loss": 1.0}, {"train_loss": losses[0], "val_loss": losses[1]})
    assert claim("imagenette", "the fine-tuned network has the lower")(results).verdict == verdict


def test_published_f1_of_the_hard_classes_rises() -> None:
    (found,) = [one for one in claims_of("imagenette") if one["claim"].startswith("fine-tuning raises F1")]
    assert (found["published"], found["published_because"]) == (
        HOLDS,
        "chain_saw 0.58 to 0.83, gas_pump 0.59 to 0.87",
    )


@pytest.mark.parametrize(
    ("frozen", "hard", "every"),
    [
        ({}, HOLDS, HOLDS),
        ({"tench": {"gas pump": 60}}, HOLDS, FAILS),
        ({"gas pump": {"tench": 70}}, FAILS, FAILS),
        ({"gas pump": {"tench": 39}, "chain saw": {"cassette player": 39}}, OPEN, OPEN),
    ],
)
def test_f1_of_classes_rises_in_resamples(
    make_run: MakeRun, frozen: dict[str, dict[str, int]], hard: str, every: str
) -> None:
    errors = {"gas pump": {"tench": 40}, "chain saw": {"cassette player": 40}, "garbage truck": {"gas pump": 20}}
    runs = [
        make_run(
            regime=regime,
            params=documented("imagenette", "efficientnet_b0", regime),
            tags={"tandem.data": "imagenette"},
        )
        for regime in ("scratch", "frozen")
    ]
    final = {run.run_id: imagenette(of) for run, of in zip(runs, (errors, frozen), strict=True)}
    found = {one["claim"]: one["ours"] for one in claims_of("imagenette", runs, final)}
    assert found["fine-tuning raises F1 of chain_saw (0.58 to 0.83) and of gas_pump (0.59 to 0.87)"] == hard
    assert found["fine-tuning is significantly better in all classes"] == every


@pytest.mark.parametrize(("church", "verdict"), [(0.9, HOLDS), (0.6, FAILS), (0.5, FAILS)])
def test_hard_classes_of_a_document_are_below_all_others(church: float, verdict: str) -> None:
    f1 = {"gas_pump": 0.5, "chain_saw": 0.6, "church": church, "tench": 0.95}
    classes = {name: ClassScores(precision=0.5, recall=0.5, f1=value, support=10) for name, value in f1.items()}
    judge = claim("imagenette", "gas_pump and chain_saw are the hardest")
    assert judge(published("imagenette", entry("efficientnet_b0", classes=classes))).verdict == verdict


@pytest.mark.parametrize(("val", "verdict"), [(0.6, HOLDS), (0.95, FAILS)])
def test_overfitting_from_scratch(val: float, verdict: str) -> None:
    of_one = entry("efficientnet_b0", train_accuracy=0.99, val_accuracy=val, num_images={"train": 9000, "val": 900})
    assert claim("imagenette", "from scratch it overfits")(published("imagenette", of_one)).verdict == verdict


@pytest.mark.parametrize(
    ("train", "val", "verdict"),
    # 0.95 - 0.85 is 0.09999999999999998.
    [(0.95, 0.85, HOLDS), (0.95, 0.86, FAILS), (0.94, 0.5, FAILS)],
)
def test_limits_of_overfitting_are_included(train: float, val: float, verdict: str) -> None:
    of_one = entry("efficientnet_b0", train_accuracy=train, val_accuracy=val)
    assert claim("imagenette", "from scratch it overfits")(published("imagenette", of_one)).verdict == verdict


@pytest.mark.parametrize(
    ("best", "epochs", "max_epochs", "verdict"),
    [
        (5, 40, 40, HOLDS),
        (30, 40, 40, FAILS),
        (5, 40, None, HOLDS),  # published
        (5, 8, 40, OPEN),
        (2, 5, 40, OPEN),
    ],
)
def test_loss_that_rises_early_shows_only_without_early_stopping(
    best: float, epochs: float, max_epochs: int | None, verdict: str
) -> None:
    of_one = entry("efficientnet_b0", best_epoch=best, epochs=epochs, max_epochs=max_epochs)
    found = claim("imagenette", "from scratch the validation loss")(published("imagenette", of_one))
    assert found.verdict == verdict
    assert ("stopped early" in found.because) == (verdict == OPEN)
