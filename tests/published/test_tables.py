from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.imagenet import letters_and_digits
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import read_document
from tandem.published.tables import published_tables
from tandem.rendering.tables import Estimate, Table, number_of, render_csv, render_latex, render_markdown
from tandem.tracking.reader import RunRecord
from tests.published.numbers import DATA_SETS, FAMILIES, FROZEN, SCRATCH

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

IMAGES = 200
OUR_NAMES = ("mnist", "cifar10", "cifar100", "fashion_mnist", "labelme", "sdss17", "vegetables", "caltech101")


def tables(name: str, groups: tuple[GroupComparison, ...] = ()) -> dict[str, Table]:
    return {table.name: table for table in published_tables(read_document(name), groups)}


def rows(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def right(share: float) -> list[bool]:
    return [index < share * IMAGES for index in range(IMAGES)]


@pytest.fixture
def eight(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., tuple[GroupComparison, ...]]:
    """Groups of runs on the eight data sets from (backbone, regime): accuracy; with predictions."""

    def make(
        accuracies: dict[tuple[str, str], float],
        data: tuple[str, ...] = OUR_NAMES,
        *,
        predicted: bool = True,
        **tags: str,
    ) -> tuple[GroupComparison, ...]:
        final, runs = {}, []
        for name in data:
            for (backbone, regime), accuracy in accuracies.items():
                run = make_run(
                    regime=regime,
                    accuracy=accuracy,
                    params={"backbone": backbone},
                    tags={"tandem.data": name, "tandem.test_hash": name, **tags},
                )
                final[run.run_id] = make_predictions(right(accuracy))
                runs.append(run)
        return compare_runs(runs, lambda cells: SavedPredictions(final=final if predicted else {})).groups

    return make


def test_each_document_has_the_tables_that_it_fills() -> None:
    assert set(tables("eight_datasets")) == {
        *("published_claims", "published_families", "published_transfer", "published_data_sets", "published")
    }
    assert set(tables("imagenette")) == {
        *("published_claims", "published_classes_efficientnet_b0_scratch", "published_classes_efficientnet_b0_frozen"),
        *("published", "published_training", "published_images"),
    }
    for name in ("birds", "cifar100_lightweight", "mobilenet_vs_efficientnetv2"):
        assert set(tables(name)) == {"published_claims", "published", "published_training"}


def test_family_means_are_those_of_the_published_rows() -> None:
    table = tables("eight_datasets")["published_families"]
    found = {row["family"]: row for row in rows(table)}
    assert {family: row["backbones"].split(", ") for family, row in found.items()} == FAMILIES
    for family, members in FAMILIES.items():
        mean = np.mean([FROZEN[member] for member in members])
        assert found[family]["accuracy_published"] == pytest.approx(mean, abs=1e-12)
    # The single backbones whose means the document gives for their families.
    for family, backbone, stated in (("resnet", "resnet152", 0.8619), ("densenet", "densenet161", 0.8991)):
        assert (found[family]["accuracy_stated"], found[family]["stated_is"]) == (stated, backbone)
        assert FROZEN[backbone].mean() == pytest.approx(stated, abs=5e-5)
    assert "resnet: 86.39 % over the family; the document states 86.19 %, that of resnet152 alone." in table.notes
    assert "densenet: 88.32 % over the family; the document states 89.91 %, that of densenet161 alone." in table.notes


def test_transfer_marks_eight_negative_pairs_and_one_tie() -> None:
    table = tables("eight_datasets")["published_transfer"]
    found = rows(table)
    expected = {
        (data, backbone): round(float(FROZEN[backbone][index] - SCRATCH[backbone][index]), 10)
        for backbone in SCRATCH
        for index, data in enumerate(DATA_SETS)
    }
    assert len(found) == len(expected) == 24
    assert {
        (row["data"], row["backbone"]): pytest.approx(row["difference_published"], abs=1e-9) for row in found
    } == expected
    marks = {(row["data"], row["backbone"]): row["mark_published"] for row in found}
    assert {pair for pair, mark in marks.items() if mark == "negative"} == {
        pair for pair, difference in expected.items() if difference < 0
    }
    assert [pair for pair, mark in marks.items() if mark == "tie"] == [("Caltech 101", "alexnet")]
    assert list(marks.values()).count("negative") == 8
    assert table.notes[0] == "Of 24 published pairs 8 are negative and 1 is a tie."
    # The most negative first; nothing of ours.
    assert [row["difference_published"] for row in found] == sorted(row["difference_published"] for row in found)
    assert all(row["row"] is row["difference"] is row["mark"] is None for row in found)


def test_our_pairs_stand_beside_the_published_ones(eight: Callable[..., tuple[GroupComparison, ...]]) -> None:
    accuracies = {
        ("vgg16", "scratch"): 0.9,
        ("vgg16", "frozen"): 0.5,
        ("alexnet", "scratch"): 0.9,
        ("alexnet", "frozen"): 0.91,
    }
    table = tables("eight_datasets", eight(accuracies, data=("cifar10",)))["published_transfer"]
    found = {(row["data"], row["backbone"]): row for row in rows(table)}
    ours = found["CIFAR-10", "vgg16"]
    assert (ours["row"], ours["scratch"], ours["frozen"], ours["mark"]) == ("torch", 0.9, 0.5, "negative")
    assert isinstance(ours["difference"], Estimate) and ours["difference"].value == pytest.approx(-0.4)
    assert found["CIFAR-10", "alexnet"]["mark"] == "tie"  # 2 of 200 images
    assert found["MNIST", "vgg16"]["row"] is None


def test_backbones_and_data_sets_are_laid_out_as_in_the_document(
    eight: Callable[..., tuple[GroupComparison, ...]],
) -> None:
    ours = eight({("alexnet", "frozen"): 0.75}, data=("cifar10", "vegetables"), **{"tandem.budget": "small"})
    table = tables("eight_datasets", ours)["published_data_sets"]
    found = {(row["regime"], row["backbone"], row["whose"]): row for row in rows(table)}
    for regime, published in (("scratch", SCRATCH), ("frozen", FROZEN)):
        for backbone, accuracies in published.items():
            row = found.pop((regime, backbone, "published"))
            assert [row[data] for data in DATA_SETS] == accuracies.tolist()
            assert row["mean"] == pytest.approx(accuracies.mean())
    ((key, row),) = found.items()
    assert key == ("frozen", "alexnet", "ours, torch (small budget)")
    assert {data: row[data] for data in DATA_SETS if row[data] is not None} == {
        "CIFAR-10": 0.75,
        "Vegetable Image Dataset": 0.75,
    }
    assert row["mean"] is None


def test_families_of_ours_need_every_backbone_on_every_data_set(
    eight: Callable[..., tuple[GroupComparison, ...]],
) -> None:
    accuracies = {("densenet121", "frozen"): 0.8, ("densenet161", "frozen"): 0.9, ("resnet50", "frozen"): 0.9}
    found = {row["family"]: row for row in rows(tables("eight_datasets", eight(accuracies))["published_families"])}
    mean = found["densenet"]["accuracy_torch"]
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.85)
    # Two backbones of one family on the same images go together, eight data sets do not.
    half = np.mean([1.96 * np.sqrt(share * (1 - share) / IMAGES) for share in (0.8, 0.9)]) / np.sqrt(8)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.05)
    assert found["resnet"]["accuracy_torch"] is None
    less = {
        row["family"]: row
        for row in rows(
            tables("eight_datasets", eight(accuracies, OUR_NAMES[1:], predicted=False))["published_families"]
        )
    }
    assert less["densenet"]["accuracy_torch"] is None
    small = eight(accuracies, predicted=False, **{"tandem.budget": "small"})
    assert "accuracy_torch" not in rows(tables("eight_datasets", small)["published_families"])[0]


def test_folds_of_a_data_set_are_averaged_and_none_is_picked(make_run: MakeRun) -> None:
    def make(folds: dict[tuple[str, str], float]) -> dict[str, Table]:
        """With runs from (fold, learning rate): accuracy."""
        runs = [
            make_run(
                regime="frozen",
                accuracy=accuracy,
                params={"backbone": "alexnet", "learning_rate": rate},
                tags={"tandem.data": "cifar10", "tandem.test_hash": fold},
            )
            for (fold, rate), accuracy in folds.items()
        ]
        return tables("eight_datasets", compare_runs(runs).groups)

    def in_matrix(found: dict[str, Table]) -> object:
        (ours,) = [row for row in rows(found["published_data_sets"]) if row["whose"] == "ours, torch"]
        return ours["CIFAR-10"]

    assert in_matrix(make({("0", "a"): 0.9, ("1", "a"): 0.7})) == pytest.approx(0.8)
    # The better settings, and not the better of each fold.
    both = {("0", "a"): 0.9, ("1", "a"): 0.7, ("0", "b"): 0.6, ("1", "b"): 0.8}
    assert in_matrix(make(both)) == pytest.approx(0.8)


def test_family_means_take_the_mean_over_folds(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    shares = {"0": 0.9, "1": 0.7}
    runs, final = [], {}
    for name in OUR_NAMES:
        for fold, share in shares.items():
            tags = {"tandem.data": name, "tandem.test_hash": f"{name} {fold}"}
            runs.append(make_run(regime="frozen", accuracy=share, params={"backbone": "alexnet"}, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(share))
    groups = compare_runs(runs, lambda cells: SavedPredictions(final=final)).groups
    (alexnet,) = [
        row for row in rows(tables("eight_datasets", groups)["published_families"]) if row["family"] == "alexnet"
    ]
    mean = alexnet["accuracy_torch"]
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.8)
    # Folds share training images, so their intervals are averaged; those of eight data sets shrink by the root of 8.
    half = np.mean([1.96 * np.sqrt(share * (1 - share) / IMAGES) for share in shares.values()]) / np.sqrt(8)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.05)


def test_published_report_has_the_averages_of_its_classes() -> None:
    (result,) = [one for one in read_document("imagenette").results if one.regime == "scratch"]
    found = {row["class"]: row for row in rows(tables("imagenette")["published_classes_efficientnet_b0_scratch"])}
    assert len(found) == 12
    assert list(found["gas_pump"].values()) == ["gas_pump", 0.87, 0.45, 0.59, 419]
    support = [scores.support for scores in result.classes.values()]
    assert sum(support) == 3925 == found["macro average"]["support_published"]
    for part in ("precision", "recall", "f1"):
        values = [getattr(scores, part) for scores in result.classes.values()]
        assert found["macro average"][f"{part}_published"] == pytest.approx(np.mean(values))
        assert found["weighted average"][f"{part}_published"] == pytest.approx(np.average(values, weights=support))
    # To the two digits of the document.
    assert round(found["macro average"]["precision_published"], 2) in (0.74, 0.75)
    assert round(found["weighted average"]["recall_published"], 2) == result.accuracy


@pytest.fixture
def imagenette_run(make_run: MakeRun, make_predictions: MakePredictions) -> tuple[RunRecord, Predictions]:
    names = read_document("imagenette").results[1].classes
    predictions = replace(
        make_predictions(right(0.8), num_classes=10), classes=tuple(name.replace("_", " ").lower() for name in names)
    )
    run = make_run(
        regime="scratch", accuracy=0.8, params={"backbone": "efficientnet_b0"}, tags={"tandem.data": "imagenette"}
    )
    return run, predictions


def test_our_report_stands_beside_the_published_one(imagenette_run: tuple[RunRecord, Predictions]) -> None:
    run, predictions = imagenette_run
    groups = compare_runs([run], lambda cells: SavedPredictions(final={run.run_id: predictions})).groups
    table = tables("imagenette", groups)["published_classes_efficientnet_b0_scratch"]
    found = {letters_and_digits(row["class"]): row for row in rows(table)}
    expected = precision_recall_fscore_support(predictions.truth, predictions.predicted)
    for index, name in enumerate(predictions.classes):
        row = found[letters_and_digits(name)]
        ours = [row[part] for part in ("precision", "recall", "f1", "support")]
        assert ours == pytest.approx([scores[index] for scores in expected])
    *macro, _ = precision_recall_fscore_support(predictions.truth, predictions.predicted, average="macro")
    assert [found["macroaverage"][part] for part in ("precision", "recall", "f1")] == pytest.approx(macro)
    assert found["weightedaverage"]["recall"] == pytest.approx(0.8)
    assert "Ours: scratch torch." in table.notes


def test_report_of_ours_without_one_of_the_classes_has_no_averages(
    imagenette_run: tuple[RunRecord, Predictions],
) -> None:
    run, predictions = imagenette_run
    other = replace(predictions, classes=("carp", *predictions.classes[1:]))
    groups = compare_runs([run], lambda cells: SavedPredictions(final={run.run_id: other})).groups
    table = tables("imagenette", groups)["published_classes_efficientnet_b0_scratch"]
    found = {row["class"]: row for row in rows(table)}
    assert found["tench"]["f1"] is found["macro average"]["f1"] is None
    assert number_of(found["church"]["f1"]) is not None
    assert "Not among our classes: tench; so without averages of ours." in table.notes


def test_each_of_our_rows_has_a_report_of_its_own(
    imagenette_run: tuple[RunRecord, Predictions], make_run: MakeRun
) -> None:
    run, predictions = imagenette_run
    keras = make_run("keras", "scratch", 0.8, params=run.params, tags={"tandem.data": "imagenette"})
    saved = SavedPredictions(final={run.run_id: predictions, keras.run_id: predictions})
    found = tables("imagenette", compare_runs([run, keras], lambda cells: saved).groups)
    titles = [
        table.title for name, table in found.items() if name.startswith("published_classes_efficientnet_b0_scratch")
    ]
    assert [title.rpartition(" ")[2] for title in titles] == ["torch", "keras"]


@pytest.mark.parametrize("name", ["eight_datasets", "imagenette", "birds"])
def test_tables_are_written_in_every_format(name: str) -> None:
    for table in tables(name).values():
        assert len(render_csv(table).splitlines()) == len(table.rows) + 1
        assert table.title in render_markdown(table)
        assert rf"\label{{tab:{table.name}}}" in render_latex(table)
