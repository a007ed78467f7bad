from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tandem.comparison.comparison import compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import read_document
from tandem.published.entries import Entry
from tandem.published.ours import our_results
from tandem.published.tables import published_tables
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, rows_of
from tests.published.judged import OPEN, claims_of, documented

# Written by hand from the documents: 42,622 + 1,500 + 1,500 birds split 70/10/20; CIFAR-100 with 10,000 of its training
# images to validate; Imagenette's 9,469 training images, of which ours validate with an eighth, and 3,925 test images.
IMAGES = {
    "birds300": ("300", "31935", "4562", "9125"),
    "cifar100": ("100", "40000", "10000", "10000"),
    "imagenette": ("10", "8285", "1184", "3925"),
    "mnist": ("10", "50000", "10000", "10000"),
    "caltech101": ("101", "6074", "868", "1735"),
    "vegetables": ("15", "14700", "3150", "3150"),
    "labelme": ("13", "30000", "10000", "10000"),
}
COUNTS = ("num_classes", "num_train_images", "num_val_images", "num_test_images")


def counts(data: str, **others: str) -> dict[str, str]:
    return {**dict(zip(COUNTS, IMAGES[data], strict=True)), **others}


def entries_of(document: str, runs: Sequence[RunRecord]) -> tuple[Entry, ...]:
    return our_results(read_document(document), compare_runs(runs).groups).entries


def departure_of(make_run: MakeRun, document: str, data: str, regime: str = "scratch", **values: Any) -> str:
    """What a run of resnet50, or on Imagenette of efficientnet_b0, differs in from the document's experiment."""
    backbone = {"imagenette": "efficientnet_b0", "eight_datasets": "vgg16"}.get(document, "resnet50")
    params = {**documented(document, backbone, regime, data), **counts(data), **values.pop("params", {})}
    run = make_run(regime=regime, params=params, tags={"tandem.data": data, **values.pop("tags", {})}, **values)
    (entry,) = entries_of(document, [run])
    return ", ".join(one.words for one in entry.departures)


# ------------------------------------------------------------------------------------------ a scrap of the data


@pytest.fixture
def scrap(make_run: MakeRun, make_predictions: MakePredictions) -> tuple[list[RunRecord], dict[str, Predictions]]:
    """EfficientNet-B0 from scratch on 5 of Imagenette's classes, 60 photographs each, at 32 pixels for 8 epochs."""
    params = {
        "backbone": "efficientnet_b0",
        **dict(zip(COUNTS, ("5", "210", "30", "60"), strict=True)),
        "data.image_size": "32",
        "max_epochs": "8",
    }
    metrics = {"cost/epochs": 8.0, "phase_1/cost/best_epoch": 7.0, "train/accuracy": 0.3, "val/accuracy": 0.2}
    runs = [
        make_run("keras", regime, 0.205, params=params, metrics=metrics, tags={"tandem.data": "imagenette2"})
        for regime in ("scratch", "frozen")
    ]
    predictions = make_predictions([index % 5 == 0 for index in range(60)], num_classes=5)
    return runs, {run.run_id: predictions for run in runs}


def test_run_on_a_scrap_of_the_data_decides_no_claim(
    scrap: tuple[list[RunRecord], dict[str, Predictions]],
) -> None:
    found = claims_of("imagenette", *scrap)
    assert {one["ours"] for one in found} == {OPEN}
    assert all(one["ours_because"].startswith("only stand-ins on Imagenette: ") for one in found)
    for words in ("5 of 10 classes", "240 of 9,469 training images", "60 of 3,925 test images", "8 of 40 epochs"):
        assert words in found[0]["ours_because"]


def test_run_on_a_scrap_of_the_data_is_marked_where_it_is_shown(
    scrap: tuple[list[RunRecord], dict[str, Predictions]],
) -> None:
    runs, final = scrap
    groups = compare_runs(runs, lambda _: SavedPredictions(final=final)).groups
    tables = {table.name: table for table in published_tables(read_document("imagenette"), groups)}
    words = (
        "5 of 10 classes, 240 of 9,469 training images, 60 of 3,925 test images, data.image_size 32 instead of 224, "
        "8 of 40 epochs"
    )
    (row,) = [row for row in rows_of(tables["published"]) if row["regime"] == "scratch"]
    assert (row["row"], row["accuracy_difference"]) == (f"scratch keras ({words})", pytest.approx(-0.53))
    assert f"Ours: scratch keras ({words})." in tables["published_classes_efficientnet_b0_scratch"].notes
    assert any("they decide no claim" in note for note in tables["published"].notes)


def test_part_of_the_images_is_in_no_mean_and_has_no_mark_of_transfer(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    def rows(test_images: str) -> tuple[dict[str, Any], dict[str, Any]]:
        runs, final = [], {}
        for regime, share in (("scratch", 0.9), ("frozen", 0.5)):
            params = {**documented("eight_datasets", "vgg16", regime, "mnist"), "num_train_images": test_images}
            runs.append(make_run(regime=regime, accuracy=share, params=params, tags={"tandem.data": "mnist"}))
            final[runs[-1].run_id] = make_predictions([index < share * 200 for index in range(200)])
        groups = compare_runs(runs, lambda _: SavedPredictions(final=final)).groups
        tables = {table.name: table for table in published_tables(read_document("eight_datasets"), groups)}
        (pair,) = [row for row in rows_of(tables["published_transfer"]) if row["row"]]
        (matrix,) = [
            row
            for row in rows_of(tables["published_data_sets"])
            if row["whose"].startswith("ours") and row["regime"] == "frozen"
        ]
        return pair, matrix

    whole, of_whole = rows("49000")
    part, of_part = rows("500")
    assert (whole["mark"], of_whole["whose"]) == ("negative", "ours, torch")
    assert part["mark"] is None and part["difference"].value == pytest.approx(-0.4)
    assert part["row"] == "torch (21,500 of 70,000 images)"
    assert of_part["whose"] == "ours, torch (21,500 of 70,000 images)" and of_part["MNIST"] == 0.5


# ------------------------------------------------------------------------------- every way in which a run can differ


@pytest.mark.parametrize(
    ("document", "data", "params", "words"),
    [
        ("imagenette", "imagenette", {}, ""),
        ("imagenette", "imagenette", {"num_classes": "9"}, "9 of 10 classes"),
        ("imagenette", "imagenette", {"num_classes": "20"}, "20 classes instead of 10"),
        # Copies and unreadable files are left out.
        ("imagenette", "imagenette", {"num_train_images": "8100"}, ""),
        ("imagenette", "imagenette", {"num_train_images": "1000"}, "2,184 of 9,469 training images"),
        (
            "imagenette",
            "imagenette",
            {"num_train_images": "9375", "num_val_images": "1339", "num_test_images": "2680"},
            "split into 10,714 training images and 2,680 test images instead of 9,469 training images and 3,925 test "
            "images",
        ),
        ("imagenette", "imagenette", {"num_test_images": ""}, "number of classes or images not recorded"),
        ("imagenette", "imagenette", {"max_epochs": "8"}, "8 of 40 epochs"),
        ("imagenette", "imagenette", {"max_epochs": "60"}, "60 epochs instead of 40"),
        ("imagenette", "imagenette", {"data.image_size": "128"}, "data.image_size 128 instead of 224"),
        ("imagenette", "imagenette", {"precision": "bfloat16"}, "precision bfloat16 instead of float32"),
        ("birds", "birds300", {}, ""),
        ("birds", "birds300", {"batch_size": "32"}, "batch_size 32 instead of 128"),
        ("birds", "birds300", {"learning_rate": "0.01"}, "learning_rate 0.01 instead of 0.0001"),
        ("birds", "birds300", {"learning_rate": "1e-04"}, ""),
        ("birds", "birds300", {"early_stopping.patience": "null"}, "early_stopping.patience null instead of 3"),
        ("birds", "birds300", {"num_train_images": "3193"}, "3,193 of 31,935 training images"),
        ("cifar100_lightweight", "cifar100", {"max_epochs": "5"}, "5 of 25 epochs"),
        ("cifar100_lightweight", "cifar100", {"num_classes": "10"}, "10 of 100 classes"),
        ("cifar100_lightweight", "cifar100", {"num_train_images": "20000"}, "20,000 of 40,000 training images"),
        ("cifar100_lightweight", "cifar100", {"head.hidden": "[384]"}, "head.hidden [384] instead of [384, 384, 384]"),
        ("eight_datasets", "mnist", {"num_train_images": "1000"}, "21,000 of 70,000 images"),
        ("eight_datasets", "caltech101", {}, ""),
        ("eight_datasets", "caltech101", {"num_classes": "102", "num_train_images": "6541"}, ""),
        ("eight_datasets", "labelme", {"num_classes": "12"}, ""),
        ("eight_datasets", "vegetables", {}, ""),
        ("eight_datasets", "vegetables", {"num_test_images": "1000"}, "1,000 of 3,150 test images"),
    ],
)
def test_images_and_settings_that_differ_are_named(
    make_run: MakeRun, document: str, data: str, params: dict[str, str], words: str
) -> None:
    assert departure_of(make_run, document, data, params=params) == words


@pytest.mark.parametrize(
    ("params", "tags", "words"),
    [
        ({}, {"tandem.weights_origin": "imagenet"}, ""),
        ({}, {"tandem.weights_origin": "random"}, "random weights"),
        ({}, {"tandem.weights_origin": "random (imagenet could not be downloaded)"}, "random weights"),
        ({"weights": "runs:/abc"}, {}, "weights of an earlier run"),
        ({"weights": "/w/resnet50.pth"}, {"tandem.weights_origin": "sha256:00"}, ""),
        ({}, {"tandem.budget": "small"}, "small budget"),
        ({"max_epochs": "1", "num_train_images": "7"}, {"tandem.budget": "small"}, "small budget"),
        ({"num_devices": "2"}, {}, "num_devices 2 instead of 1"),
    ],
)
def test_weights_budget_and_devices_that_differ_are_named(
    make_run: MakeRun, params: dict[str, str], tags: dict[str, str], words: str
) -> None:
    assert departure_of(make_run, "birds", "birds300", "finetune", params=params, tags=tags) == words


@pytest.mark.parametrize(
    ("regime", "params", "metrics", "words"),
    [
        ("frozen", {"cache_features": "true"}, {}, "cached features"),
        ("frozen", {"cache_features": "true"}, {"cost/feature_seconds": 3.0}, "cached features"),
        ("frozen", {"cache_features": "false"}, {}, ""),
        # Augmented images without views to keep pass through the backbone in every epoch, whatever the setting.
        ("frozen", {"cache_features": "true", "augmentation.horizontal_flip": "true"}, {}, ""),
        (
            "frozen",
            {"cache_features": "true", "augmentation.horizontal_flip": "true", "cache_views": "4"},
            {},
            "cached features",
        ),
        ("two_stage", {"cache_features": "true"}, {}, "cached features"),
        ("two_stage", {"cache_features": "true"}, {"cost/feature_seconds": 0.0}, ""),
        ("finetune", {"cache_features": "true"}, {}, ""),
        ("scratch", {"cache_features": "true"}, {}, ""),
    ],
)
def test_features_that_are_cached_differ_from_every_document(
    make_run: MakeRun, regime: str, params: dict[str, str], metrics: dict[str, float], words: str
) -> None:
    assert departure_of(make_run, "birds", "birds300", regime, params=params, metrics=metrics) == words


@pytest.mark.parametrize(
    ("subject", "params"),
    [
        ("classes", {"num_classes": "150"}),
        ("images", {"num_train_images": "3000"}),
        ("image size", {"data.image_size": "96"}),
        ("batch size", {"batch_size": "16"}),
        ("epochs", {"max_epochs": "5"}),
        ("precision", {"precision": "bfloat16"}),
        ("weights", {"weights": "runs:/abc"}),
    ],
)
def test_row_that_differs_in_anything_decides_no_claim(make_run: MakeRun, subject: str, params: dict[str, str]) -> None:
    """The claim about the order of the regimes asks for the other regimes if the row counts."""

    def because(others: dict[str, str]) -> str:
        own = {**documented("birds", "resnet50", "finetune"), **others}
        run = make_run(regime="finetune", params=own, tags={"tandem.data": "birds300"})
        return claims_of("birds", [run])[0]["ours_because"]

    assert because({}).startswith("resnet50 torch: not in our runs: accuracy of")
    assert because(params).startswith("only stand-ins on 300 Bird Species: ")


def test_facts_of_documents_are_in_their_own_words() -> None:
    """Typed by hand: what each document, or the publisher of its images, says."""
    birds = read_document("birds").facts["300 Bird Species"]
    total = 42_622 + 1_500 + 1_500
    assert birds.images == (total,) and birds.classes == (300,)
    assert [birds.train, birds.val, birds.test] == pytest.approx(np.array([0.7, 0.1, 0.2]) * total, abs=1)
    cifar = read_document("cifar100_lightweight").facts["CIFAR-100"]
    assert (cifar.classes, cifar.train, cifar.val, cifar.test) == ((100,), 40_000, 10_000, 10_000)
    imagenette = read_document("imagenette")
    facts = imagenette.facts["Imagenette"]
    assert facts.train == sum(of.train for of in imagenette.images.values()) == 9_469
    assert facts.test == sum(of.val for of in imagenette.images.values()) == 3_925
    assert facts.images == (facts.train + facts.test,) and facts.classes == (len(imagenette.images),)
    vegetables = read_document("eight_datasets").facts["Vegetable Image Dataset"]
    assert (vegetables.images, vegetables.classes) == ((21_000,), (15,))
    assert (vegetables.train, vegetables.val, vegetables.test) == (14_700, 3_150, 3_150)
    assert set(read_document("eight_datasets").facts) == set(read_document("eight_datasets").data_sets)
    article = read_document("mobilenet_vs_efficientnetv2").facts[None]
    assert (article.classes, article.images) == ((5,), (7_000,))
