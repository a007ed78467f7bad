from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.page import make_page
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.imagenet import letters_and_digits
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import Document, PublishedResult, read_document
from tandem.published.tables import published_tables
from tandem.rendering.tables import Estimate, Table, number_of, render_csv, render_latex, render_markdown
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, right_images, rows_of
from tests.published.judged import documented
from tests.published.numbers import DATA_SETS, FAMILIES, FROZEN, SCRATCH

IMAGES = 200
NAMES = ("birds", "cifar100_lightweight", "eight_datasets", "imagenette", "mobilenet_vs_efficientnetv2")
right = partial(right_images, images=IMAGES)

OUR_NAMES = ("mnist", "cifar10", "cifar100", "fashion_mnist", "labelme", "sdss17", "vegetables", "caltech101")


def tables(name: str, groups: tuple[GroupComparison, ...] = ()) -> dict[str, Table]:
    return {table.name: table for table in published_tables(read_document(name), groups)}


def published_table(document: Document, groups: Sequence[GroupComparison]) -> Table:
    """The results one by one."""
    return next(table for table in published_tables(document, groups) if table.name == "published")


def row_of(name: str, **wanted: str) -> dict[str, Any]:
    """The one row of a document's table, made without runs, that has these values."""
    (row,) = [row for row in rows_of(published_table(read_document(name), ())) if wanted.items() <= row.items()]
    return row


def training_row_of(name: str, **wanted: str) -> dict[str, Any]:
    (table,) = [table for table in published_tables(read_document(name), ()) if table.name == "published_training"]
    (row,) = [row for row in rows_of(table) if wanted.items() <= row.items()]
    return row


def document(*results: PublishedResult) -> Document:
    return Document(name="study", source="A study.", notes=("Lost: a figure.",), results=results)


def our_rows(runs: list[RunRecord], *results: PublishedResult) -> list[tuple[str | None, object]]:
    table = published_table(document(*results), compare_runs(runs).groups)
    return [(row["row"], row["accuracy"]) for row in rows_of(table)]


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
                    params=documented("eight_datasets", backbone, regime, name),
                    tags={"tandem.data": name, "tandem.test_hash": name, **tags},
                )
                final[run.run_id] = make_predictions(right(accuracy))
                runs.append(run)
        return compare_runs(runs, lambda _: SavedPredictions(final=final if predicted else {})).groups

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


# Typed by hand from the documents' own tables.
@pytest.mark.parametrize(
    ("name", "data", "backbone", "regime", "accuracy"),
    [
        ("eight_datasets", "MNIST", "alexnet", "frozen", 0.9465),
        ("eight_datasets", "MNIST", "alexnet", "scratch", 0.9453),
        ("eight_datasets", "Vegetable Image Dataset", "vgg19", "scratch", 0.7885),
        ("eight_datasets", "Caltech 101", "resnet50", "frozen", 0.9962),
        ("eight_datasets", "CIFAR-10", "densenet121", "frozen", 0.8263),
        ("eight_datasets", "SDSS17", "densenet161", "frozen", 0.9818),
        ("cifar100_lightweight", "CIFAR-100", "alexnet", "scratch", 0.61),
        ("imagenette", "Imagenette", "efficientnet_b0", "frozen", 0.91),
        ("imagenette", "Imagenette", "resnet50", "off_the_shelf", 0.827),
    ],
)
def test_published_accuracies(name: str, data: str, backbone: str, regime: str, accuracy: float) -> None:
    assert row_of(name, data=data, backbone=backbone, regime=regime)["accuracy_published"] == accuracy


def test_published_scores_and_times_beside_accuracy() -> None:
    scratch = row_of("imagenette", regime="scratch")
    assert [scratch[f"{name}_published"] for name in ("precision", "recall", "f1")] == [0.75, 0.73, 0.73]
    alexnet = row_of("cifar100_lightweight", backbone="alexnet")
    assert (alexnet["recall_published"], alexnet["train_seconds_published"]) == (0.57, 55 * 60)
    thawed = row_of("birds", regime="two_stage", framework="torch")
    assert (thawed["accuracy_published"], thawed["train_seconds_published"]) == (None, 53 * 60)
    keras = row_of("birds", regime="scratch", framework="keras")
    assert keras["train_seconds_published"] == pytest.approx(27 * 60 + 42)


def test_published_training_is_shown() -> None:
    resnet = training_row_of("cifar100_lightweight", backbone="resnet50")
    names = ("train_accuracy", "val_accuracy", "train_loss", "val_loss", "epochs")
    assert [resnet[f"{name}_published"] for name in names] == [0.7429, 0.7077, 0.8459, 1.0027, 25]
    scratch = training_row_of("imagenette", regime="scratch")
    assert [scratch[f"{name}_published"] for name in ("epochs", "best_epoch", "train_accuracy")] == [40, 5, 1.0]
    article = training_row_of("mobilenet_vs_efficientnetv2", backbone="efficientnet_v2_b0")
    assert (article["epochs_published"], article["parameters_published"]) == (25, 7.2e6)
    assert row_of("mobilenet_vs_efficientnetv2", backbone="mobilenet_v2")["test_loss_published"] == 0.1215


def test_every_number_of_a_result_is_in_a_table() -> None:
    hidden = {"data", "backbone", "regime", "framework", "accuracy", "classes", "note"}
    in_seconds = {"train_minutes": "train_seconds", "phase_2_minutes": "phase_2_seconds"}
    for name in NAMES:
        found = read_document(name)
        columns = {column.key for table in published_tables(found, ()) for column in table.columns}
        for result in found.results:
            for field in set(vars(result)) - hidden:
                if getattr(result, field) is not None:
                    key = in_seconds.get(field, field)
                    assert {f"{key}_published", key} <= columns


def test_published_images_are_a_table() -> None:
    tench = rows_of(tables("imagenette")["published_images"])[0]
    assert (tench["class"], tench["train"], tench["mean_bytes"], tench["max_bytes"]) == ("tench", 963, 121188, 7295320)


def test_our_row_is_beside_the_published_result(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="frozen", accuracy=accuracy, seed=seed, tags={"tandem.data": "cifar10"})
        for seed, accuracy in enumerate((0.84, 0.86))
    ]
    published = PublishedResult(
        data="CIFAR-10", backbone="mobilenet_v2", regime="frozen", accuracy=0.9, train_minutes=2
    )
    (row,) = rows_of(published_table(document(published), compare_runs(runs).groups))
    assert row["row"] == "frozen torch"
    assert row["accuracy"] == pytest.approx(0.85)
    assert row["accuracy_difference"] == pytest.approx(-0.05)
    assert (row["train_seconds_published"], row["train_seconds"]) == (120, 60)


def test_each_published_number_has_ours_beside_it(make_run: MakeRun) -> None:
    metrics = {
        **{f"test/{name}_macro": value for name, value in (("precision", 0.7), ("recall", 0.71), ("f1", 0.72))},
        **{"test/log_loss": 0.5, "train/accuracy": 0.99, "val/accuracy": 0.8, "train/loss": 0.1, "val/loss": 0.6},
        **{"cost/epochs": 12.0, "phase_1/cost/best_epoch": 4.0},
    }
    run = make_run(regime="frozen", metrics=metrics, tags={"tandem.data": "MNIST"})
    of_theirs = {
        **{"precision": 0.6, "recall": 0.61, "f1": 0.62, "test_loss": 0.4, "train_accuracy": 0.9, "val_accuracy": 0.7},
        **{"train_loss": 0.2, "val_loss": 0.3, "epochs": 10, "best_epoch": 3, "parameters": 1e6},
    }
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="frozen", **of_theirs)
    tables = published_tables(document(result), compare_runs([run]).groups)
    shown: dict[str, Any] = {}
    headings: dict[str, str] = {}
    for table in tables:
        if table.name in ("published", "published_training"):
            shown |= rows_of(table)[0]
            headings |= {column.key: column.heading for column in table.columns}
    assert {headings[f"{name}_published"].split()[0] for name in of_theirs} == {"published"}
    assert {headings[name].split()[0] for name in of_theirs} == {"our"}
    assert {name: shown[f"{name}_published"] for name in of_theirs} == of_theirs
    assert {name: shown[name] for name in of_theirs} == {
        **{"precision": 0.7, "recall": 0.71, "f1": 0.72, "test_loss": 0.5, "train_accuracy": 0.99, "val_accuracy": 0.8},
        **{"train_loss": 0.1, "val_loss": 0.6, "epochs": 12, "best_epoch": 5, "parameters": 2_200_000},
    }


def test_scores_of_a_network_off_the_shelf_are_over_all_imagenet_classes(make_run: MakeRun) -> None:
    metrics = {"test/precision_macro": 0.98, "test/imagenet_precision_macro": 0.04, "test/imagenet_accuracy": 0.8}
    params = documented("imagenette", "resnet50", "off_the_shelf")
    run = make_run(regime="off_the_shelf", metrics=metrics, params=params, tags={"tandem.data": "imagenette"})
    table = published_table(read_document("imagenette"), compare_runs([run]).groups)
    assert any(note.startswith("Our precision, recall and F1 are means over the classes") for note in table.notes)
    first = rows_of(table)[0]
    assert (first["row"], first["precision_published"], first["precision"]) == ("off_the_shelf torch", 0.0359, 0.04)


def test_our_interval_is_that_of_the_summary(make_run: MakeRun, make_predictions: Callable[..., Predictions]) -> None:
    run = make_run(accuracy=0.75, tags={"tandem.data": "MNIST"})
    saved = SavedPredictions(final={run.run_id: make_predictions([True, True, True, False] * 25)})
    comparison = compare_runs([run], lambda _: saved)
    published = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune", accuracy=0.8)
    (row,) = rows_of(published_table(document(published), comparison.groups))
    assert isinstance(row["accuracy"], Estimate)
    (summary,) = rows_of(comparison.groups[0].tables["summary"])
    assert row["accuracy"] == summary["accuracy"]
    assert row["accuracy_difference"] == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("published", "ours", "matches"),
    [
        ("MNIST", "mnist", True),
        ("CIFAR-10", "cifar10", True),
        ("300 Bird Species", "300_bird_species", True),
        ("MNIST", "Fashion MNIST", False),
        ("CIFAR-10", "CIFAR-100", False),
    ],
)
def test_data_sets_match_by_their_letters_and_digits(
    make_run: MakeRun, published: str, ours: str, matches: bool
) -> None:
    result = PublishedResult(data=published, backbone="mobilenet_v2", regime="finetune", accuracy=0.5)
    expected = ("finetune torch", 0.9) if matches else (None, None)
    assert our_rows([make_run(tags={"tandem.data": ours})], result) == [expected]


def test_backbone_and_regime_must_match(make_run: MakeRun) -> None:
    run = make_run(regime="frozen", tags={"tandem.data": "MNIST"})
    others = [("resnet50", "frozen"), ("mobilenet_v2", "finetune"), ("resnet50", None)]
    results = [PublishedResult(data="MNIST", backbone=backbone, regime=regime) for backbone, regime in others]
    assert our_rows([run], *results) == [(None, None)] * 3


def test_result_without_a_regime_is_shown_beside_each_of_ours(make_run: MakeRun) -> None:
    runs = [
        make_run(regime=regime, accuracy=accuracy, tags={"tandem.data": "MNIST"})
        for regime, accuracy in (("scratch", 0.6), ("finetune", 0.9))
    ]
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", accuracy=0.7)
    table = published_table(document(result), compare_runs(runs).groups)
    assert [(row["regime"], row["row"]) for row in rows_of(table)] == [
        (None, "scratch torch"),
        (None, "finetune torch"),
    ]
    assert [row["accuracy_difference"] for row in rows_of(table)] == [pytest.approx(-0.1), pytest.approx(0.2)]
    assert any(note.startswith("Where the document does not name the regime") for note in table.notes)


def test_result_without_a_data_set_is_shown_beside_each_of_ours_without_a_difference(make_run: MakeRun) -> None:
    result = PublishedResult(backbone="mobilenet_v2", regime="finetune", accuracy=0.8)
    runs = [make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("flowers", "leaves")]
    table = published_table(document(result), compare_runs(runs).groups)
    assert {row["row"] for row in rows_of(table)} == {"flowers: finetune torch", "leaves: finetune torch"}
    assert all(row["accuracy"] == 0.9 and row["accuracy_difference"] is None for row in rows_of(table))
    assert any(note.startswith("Where the document does not name the data set") for note in table.notes)
    # The row says which images it is of where there is no other one, too.
    assert our_rows(runs[:1], result) == [("flowers: finetune torch", 0.9)]


@pytest.mark.parametrize(
    ("name", "source", "backbones", "matched"),
    [
        ("cifar100_lightweight", "cifar100", ("efficientnet_b0", "resnet50", "alexnet"), 2),
        ("mobilenet_vs_efficientnetv2", "flowers", ("mobilenet_v2", "efficientnet_v2_b0", "resnet50_v2"), 3),
    ],
)
def test_frozen_runs_match_the_results_of_documents(
    make_run: MakeRun, name: str, source: str, backbones: tuple[str, ...], matched: int
) -> None:
    runs = [
        make_run(regime="frozen", params={"backbone": backbone}, tags={"tandem.data": source}) for backbone in backbones
    ]
    found = rows_of(published_table(read_document(name), compare_runs(runs).groups))
    assert [row["row"] is not None for row in found] == [True] * matched + [False] * (3 - matched)


def test_framework_must_match_if_the_document_names_it(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.7, tags={"tandem.data": "MNIST"}),
        make_run("keras", accuracy=0.8, tags={"tandem.data": "MNIST"}),
        make_run("keras", accuracy=0.9, backend="jax", tags={"tandem.data": "MNIST"}),
    ]
    named = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune", framework="keras")
    assert our_rows(runs, named) == [("finetune keras", 0.8), ("finetune keras (jax)", 0.9)]
    assert our_rows(runs, replace(named, framework="torch")) == [("finetune torch", 0.7)]
    assert len(our_rows(runs, replace(named, framework=None))) == 3


def test_different_settings_are_separate_rows_and_matched_rows_come_first(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=accuracy, params={"learning_rate": rate}, tags={"tandem.data": "MNIST"})
        for rate, accuracy in (("0.001", 0.9), ("0.01", 0.8))
    ]
    results = [
        PublishedResult(data="MNIST", backbone=backbone, regime="finetune") for backbone in ("alexnet", "mobilenet_v2")
    ]
    assert our_rows(runs, *results) == [
        ("finetune torch (learning_rate 0.001)", 0.9),
        ("finetune torch (learning_rate 0.01)", 0.8),
        (None, None),
    ]


def test_rows_of_several_data_sets_name_theirs(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=accuracy, tags={"tandem.data": data, "tandem.test_hash": data})
        for data, accuracy in (("MNIST", 0.9), ("LabelMe", 0.8))
    ]
    result = PublishedResult(data="LabelMe", backbone="mobilenet_v2", regime="finetune")
    assert our_rows(runs, result) == [("LabelMe: finetune torch", 0.8)]


def test_stand_ins_are_marked_and_explained(make_run: MakeRun) -> None:
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune")
    run = make_run(tags={"tandem.data": "MNIST", "tandem.budget": "small"})
    assert our_rows([run], result) == [("finetune torch (small budget)", 0.9)]
    table = published_table(document(result), compare_runs([run]).groups)
    assert any(note.startswith("In brackets behind the name of our row") for note in table.notes)


def test_first_phase_of_two_stage_is_shown_beside_a_published_frozen(make_run: MakeRun) -> None:
    run = make_run(
        regime="two_stage", tags={"tandem.data": "MNIST"}, metrics={"phase_1/test/accuracy": 0.7}, accuracy=0.8
    )
    results = [
        PublishedResult(data="MNIST", backbone="mobilenet_v2", regime=regime) for regime in ("frozen", "two_stage")
    ]
    assert our_rows([run], *results) == [("two_stage torch, first phase", 0.7), ("two_stage torch", 0.8)]


def test_notes_say_how_rows_were_matched_and_what_is_lost() -> None:
    result = PublishedResult(data="MNIST", backbone="alexnet", regime="frozen", accuracy=0.5, note="rounded")
    first, matched, differ, *rest = published_table(document(result), ()).notes
    assert first == "A study."
    assert matched.startswith("Rows are matched by backbone, and by data set, regime and framework if")
    assert differ.startswith("Protocol and images differ")
    assert rest == ["Lost: a figure.", "MNIST alexnet frozen: rounded."]


def test_columns_are_those_that_the_document_fills() -> None:
    keys = {name: [column.key for column in published_table(read_document(name), ()).columns] for name in NAMES}
    assert keys["eight_datasets"] == [
        *("data", "backbone", "regime", "accuracy_published", "row", "accuracy", "accuracy_difference")
    ]
    assert "framework" in keys["birds"] and "train_seconds_published" in keys["birds"]
    assert "recall_published" in keys["cifar100_lightweight"] and "f1_published" not in keys["cifar100_lightweight"]


def test_table_is_written_in_every_format() -> None:
    table = published_table(read_document("eight_datasets"), ())
    read = list(csv.DictReader(io.StringIO(render_csv(table))))
    assert len(read) == 88
    assert {"data": "MNIST", "backbone": "alexnet", "regime": "frozen", "accuracy_published": "0.9465"}.items() <= read[
        24
    ].items()
    assert "| MNIST " in render_markdown(table)
    assert r"\begin{longtable}" in render_latex(table)


def test_table_is_a_section_of_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare_runs([make_run()])
    table = published_table(read_document("birds"), comparison.groups)
    shown = replace(comparison, published=(table,))
    assert shown.tables == (*comparison.tables, table)
    page = make_page(shown, [{}], experiment="demo", folder=tmp_path)
    assert [section.blocks for section in page.sections if section.title == "Published results"] == [(table,)]
    page = make_page(comparison, [{}], experiment="demo", folder=tmp_path)
    assert "Published results" not in [section.title for section in page.sections]


def test_family_means_are_those_of_the_published_rows() -> None:
    table = tables("eight_datasets")["published_families"]
    found = {row["family"]: row for row in rows_of(table)}
    assert {family: row["backbones"].split(", ") for family, row in found.items()} == FAMILIES
    for family, members in FAMILIES.items():
        mean = np.mean([FROZEN[member] for member in members])
        assert found[family]["accuracy_published"] == pytest.approx(mean, abs=1e-12)
    # The single backbones whose means the document gives for their families.
    for family, backbone, stated in (("resnet", "resnet152", 0.8619), ("densenet", "densenet161", 0.8991)):
        assert (found[family]["accuracy_stated"], found[family]["stated_is"]) == (stated, backbone)
        assert FROZEN[backbone].mean() == pytest.approx(stated, abs=5e-5)
    assert "resnet: 86.39 % over the family; the document states 86.19 %, the mean of resnet152 alone." in table.notes
    assert (
        "densenet: 88.32 % over the family; the document states 89.91 %, the mean of densenet161 alone." in table.notes
    )


def test_transfer_marks_eight_negative_pairs_and_one_tie() -> None:
    table = tables("eight_datasets")["published_transfer"]
    found = rows_of(table)
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
    # Most negative first, without ours.
    assert [row["difference_published"] for row in found] == sorted(row["difference_published"] for row in found)
    assert all(row["row"] is row["difference"] is row["mark"] is None for row in found)


def test_our_pairs_are_beside_the_published_ones(eight: Callable[..., tuple[GroupComparison, ...]]) -> None:
    accuracies = {
        ("vgg16", "scratch"): 0.9,
        ("vgg16", "frozen"): 0.5,
        ("alexnet", "scratch"): 0.9,
        ("alexnet", "frozen"): 0.91,
    }
    table = tables("eight_datasets", eight(accuracies, data=("cifar10",)))["published_transfer"]
    found = {(row["data"], row["backbone"]): row for row in rows_of(table)}
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
    found = {(row["regime"], row["backbone"], row["whose"]): row for row in rows_of(table)}
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
    found = {row["family"]: row for row in rows_of(tables("eight_datasets", eight(accuracies))["published_families"])}
    mean = found["densenet"]["accuracy_torch"]
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.85)
    # Two backbones of one family on the same images go together, eight data sets do not.
    half = np.mean([1.96 * np.sqrt(share * (1 - share) / IMAGES) for share in (0.8, 0.9)]) / np.sqrt(8)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.05)
    assert found["resnet"]["accuracy_torch"] is None
    less = {
        row["family"]: row
        for row in rows_of(
            tables("eight_datasets", eight(accuracies, OUR_NAMES[1:], predicted=False))["published_families"]
        )
    }
    assert less["densenet"]["accuracy_torch"] is None
    small = eight(accuracies, predicted=False, **{"tandem.budget": "small"})
    assert "accuracy_torch" not in rows_of(tables("eight_datasets", small)["published_families"])[0]


def test_folds_of_a_data_set_are_averaged(make_run: MakeRun) -> None:
    def make(folds: dict[tuple[str, str], float]) -> dict[str, Table]:
        """With runs from (fold, learning rate): accuracy."""
        runs = [
            make_run(
                regime="frozen",
                accuracy=accuracy,
                params=documented("eight_datasets", "alexnet", "frozen", "cifar10", learning_rate=rate),
                tags={"tandem.data": "cifar10", "tandem.test_hash": fold},
            )
            for (fold, rate), accuracy in folds.items()
        ]
        return tables("eight_datasets", compare_runs(runs).groups)

    def in_matrix(found: dict[str, Table]) -> object:
        (ours,) = [row for row in rows_of(found["published_data_sets"]) if row["whose"] == "ours, torch"]
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
            params = documented("eight_datasets", "alexnet", "frozen", name)
            runs.append(make_run(regime="frozen", accuracy=share, params=params, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(share))
    groups = compare_runs(runs, lambda _: SavedPredictions(final=final)).groups
    (alexnet,) = [
        row for row in rows_of(tables("eight_datasets", groups)["published_families"]) if row["family"] == "alexnet"
    ]
    mean = alexnet["accuracy_torch"]
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.8)
    # Folds share training images, so their intervals are averaged; those of eight data sets shrink by the root of 8.
    half = np.mean([1.96 * np.sqrt(share * (1 - share) / IMAGES) for share in shares.values()]) / np.sqrt(8)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.05)


def test_published_report_has_the_averages_of_its_classes() -> None:
    (result,) = [one for one in read_document("imagenette").results if one.regime == "scratch"]
    found = {row["class"]: row for row in rows_of(tables("imagenette")["published_classes_efficientnet_b0_scratch"])}
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
    params = documented("imagenette", "efficientnet_b0", "scratch")
    run = make_run(regime="scratch", accuracy=0.8, params=params, tags={"tandem.data": "imagenette"})
    return run, predictions


def test_our_report_is_beside_the_published_one(imagenette_run: tuple[RunRecord, Predictions]) -> None:
    run, predictions = imagenette_run
    groups = compare_runs([run], lambda _: SavedPredictions(final={run.run_id: predictions})).groups
    table = tables("imagenette", groups)["published_classes_efficientnet_b0_scratch"]
    found = {letters_and_digits(row["class"]): row for row in rows_of(table)}
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
    groups = compare_runs([run], lambda _: SavedPredictions(final={run.run_id: other})).groups
    table = tables("imagenette", groups)["published_classes_efficientnet_b0_scratch"]
    found = {row["class"]: row for row in rows_of(table)}
    assert found["tench"]["f1"] is found["macro average"]["f1"] is None
    assert number_of(found["church"]["f1"]) is not None
    assert "No averages of ours, because our classes lack tench." in table.notes


def test_each_of_our_rows_has_a_report_of_its_own(
    imagenette_run: tuple[RunRecord, Predictions], make_run: MakeRun
) -> None:
    run, predictions = imagenette_run
    keras = make_run("keras", "scratch", 0.8, params=run.params, tags={"tandem.data": "imagenette"})
    saved = SavedPredictions(final={run.run_id: predictions, keras.run_id: predictions})
    found = tables("imagenette", compare_runs([run, keras], lambda _: saved).groups)
    titles = [
        table.title for name, table in found.items() if name.startswith("published_classes_efficientnet_b0_scratch")
    ]
    assert [title.rpartition(" ")[2] for title in titles] == ["torch", "keras"]


@pytest.mark.parametrize("name", ["eight_datasets", "imagenette", "birds"])
def test_all_tables_are_written_in_every_format(name: str) -> None:
    for table in tables(name).values():
        assert len(render_csv(table).splitlines()) == len(table.rows) + 1
        assert table.title in render_markdown(table)
        assert rf"\label{{tab:{table.name}}}" in render_latex(table)
