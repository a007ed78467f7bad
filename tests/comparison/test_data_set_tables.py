from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from tandem.comparison.comparison import compare_runs
from tandem.comparison.configurations import group_runs
from tandem.comparison.data_set_tables import data_set_tables
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakeRun, rows_of


def by_backbone(table: Table) -> dict[Any, dict[str, Any]]:
    return {row["backbone"]: row for row in rows_of(table)}


def folds_of(make_run: MakeRun, data: str, accuracies: dict[str, list[float]]) -> list[RunRecord]:
    """One run per backbone and fold."""
    return [
        make_run(
            accuracy=accuracy,
            params={"backbone": backbone, "data.split": "folds", "data.fold": str(fold)},
            tags={"tandem.test_hash": f"{data} {fold}", "tandem.data": data},
        )
        for backbone, of_folds in accuracies.items()
        for fold, accuracy in enumerate(of_folds)
    ]


def test_data_sets_are_columns_with_means_ranks_and_families(make_run: MakeRun) -> None:
    accuracies = {
        "resnet50": (0.9, 0.8, 0.7),
        "resnet101": (0.7, 0.9, 0.6),
        "densenet121": (0.5, 0.5, 0.5),
        "mobilenet_v2": (0.1, 0.2, None),
    }
    runs = [
        make_run(
            accuracy=accuracy,
            params={"backbone": backbone},
            tags={"tandem.test_hash": str(number), "tandem.data": f"data {number}"},
        )
        for backbone, of_backbone in accuracies.items()
        for number, accuracy in enumerate(of_backbone)
        if accuracy is not None
    ]
    comparison = compare_runs(runs)
    matrix, families = comparison.over_data_sets
    of_rows = by_backbone(matrix)
    assert [of_rows["resnet50"][f"data {number}"] for number in range(3)] == [0.9, 0.8, 0.7]
    assert of_rows["resnet50"]["mean"] == pytest.approx(0.8)
    assert of_rows["mobilenet_v2"]["data 2"] is None and of_rows["mobilenet_v2"]["mean"] is None
    # Among the three with a result on each: ranks 1 2 1, 2 1 2, 3 3 3
    assert [of_rows[name]["rank"] for name in list(accuracies)[:3]] == pytest.approx([4 / 3, 5 / 3, 3])
    expected = stats.friedmanchisquare(*(accuracies[name] for name in list(accuracies)[:3])).pvalue
    assert f"p = {expected:.4f}" in matrix.notes[1]
    of_families = {row["family"]: row for row in rows_of(families)}
    assert of_families["resnet"]["members"] == 2
    assert of_families["resnet"]["data 0"] == pytest.approx(0.8)


def test_single_data_set_has_no_table(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), make_run("keras")])
    assert comparison.over_data_sets == () and comparison.ranks is None


def test_data_sets_with_a_small_budget_are_left_out(make_run: MakeRun) -> None:
    def on(data: str, budget: str, accuracy: float) -> RunRecord:
        tags = {"tandem.test_hash": data, "tandem.data": data, "tandem.budget": budget}
        return make_run(accuracy=accuracy, tags=tags)

    runs = [on("birds", "full", 0.8), on("mnist", "full", 0.6), on("birds", "small", 0.1), on("cifar", "small", 0.3)]
    groups, _ = group_runs(runs)
    (table,), _ = data_set_tables(groups)
    (row,) = rows_of(table)
    assert {name: row[name] for name in ("birds", "mnist", "mean")} == {"birds": 0.8, "mnist": 0.6, "mean": 0.7}
    assert not [name for name in row if "small budget" in name]
    assert [note for note in table.notes if note.startswith("Left out")] == [
        "Left out because their budget differs: cifar, small budget; birds, small budget."
    ]
    (alone,), _ = data_set_tables([group for group in groups if group.budget == "small"])
    assert {"birds, small budget", "cifar, small budget"} <= {column.key for column in alone.columns}


def test_one_full_data_set_makes_no_table_with_small_ones(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(tags={"tandem.budget": "small"})]
    assert data_set_tables(group_runs(runs)[0]) == ((), None)


FOLDS = {"alexnet": [0.5, 0.6, 0.7], "vgg16": [0.8, 0.8, 0.8], "vgg19": [0.9, 0.7, 0.8], "resnet50": [0.9, 0.9]}


def test_folds_of_a_data_set_have_mean_and_deviation_and_no_ranks(make_run: MakeRun) -> None:
    (table,), ranks = data_set_tables(group_runs(folds_of(make_run, "birds", FOLDS))[0])
    assert (table.name, table.title, ranks) == ("folds", "Models and folds: birds", None)
    found = by_backbone(table)
    assert [found["vgg19"][f"birds, fold {fold}"] for fold in range(3)] == [0.9, 0.7, 0.8]
    assert (found["vgg19"]["mean"], found["vgg19"]["deviation"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (found["resnet50"]["mean"], found["resnet50"]["deviation"]) == (None, None)
    assert "rank" not in found["vgg19"]


def test_eleventh_fold_is_last(make_run: MakeRun) -> None:
    (table,), _ = data_set_tables(group_runs(folds_of(make_run, "birds", {"vgg16": [0.5] * 11}))[0])
    assert [column.key for column in table.columns if "fold" in column.key] == [f"birds, fold {n}" for n in range(11)]


def test_folds_are_one_data_set_beside_others(make_run: MakeRun) -> None:
    others = {"mnist": (0.9, 0.8, 0.7), "cifar10": (0.6, 0.5, 0.4)}
    runs = folds_of(make_run, "birds", FOLDS)
    runs += [
        make_run(accuracy=accuracy, params={"backbone": backbone}, tags={"tandem.test_hash": data, "tandem.data": data})
        for data, accuracies in others.items()
        for backbone, accuracy in zip(FOLDS, accuracies, strict=False)
    ]
    (folds, matrix, _), ranks = data_set_tables(group_runs(runs)[0])
    assert (folds.name, matrix.name) == ("folds", "data_sets")
    found = by_backbone(matrix)
    scores = [name for name, value in found["alexnet"].items() if isinstance(value, float)]
    assert scores == ["birds, mean of folds", "cifar10", "mnist", "mean", "rank"]
    assert found["alexnet"]["birds, mean of folds"] == pytest.approx(0.6)
    assert found["resnet50"]["birds, mean of folds"] is None
    # On birds 3, 1.5 and 1.5, because means of folds are equal there, on the others 1, 2, 3.
    assert ranks is not None
    expected = {"alexnet": (3 + 1 + 1) / 3, "vgg16": (1.5 + 2 + 2) / 3, "vgg19": (1.5 + 3 + 3) / 3}
    assert {name: found[name]["rank"] for name in expected} == pytest.approx(expected)


def test_several_sets_of_test_images_of_one_data_set_have_no_ranks(make_run: MakeRun) -> None:
    runs = [
        make_run(params={"backbone": backbone}, tags={"tandem.test_hash": test_hash})
        for backbone in FOLDS
        for test_hash in "abc"
    ]
    (table, *_), ranks = data_set_tables(group_runs(runs)[0])
    assert ranks is None and math.isclose(by_backbone(table)["vgg16"]["mean"], 0.9)
    assert "No ranks, because several columns have the same data set and may share images." in table.notes


@pytest.mark.parametrize("accuracies", [(0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3)])
def test_equal_accuracies_share_a_rank_whatever_their_last_bit(
    make_run: MakeRun, accuracies: tuple[float, float]
) -> None:
    scores = {"alexnet": accuracies[0], "vgg16": accuracies[1], "vgg19": 0.9}
    runs = [
        make_run(accuracy=accuracy, params={"backbone": backbone}, tags={"tandem.test_hash": data, "tandem.data": data})
        for data in ("birds", "cars", "cats")
        for backbone, accuracy in scores.items()
    ]
    (table, _), ranks = data_set_tables(group_runs(runs)[0])
    assert {name: row["rank"] for name, row in by_backbone(table).items()} == {"alexnet": 2.5, "vgg16": 2.5, "vgg19": 1}
    assert ranks is not None
    assert {model.backbone: rank for model, rank in ranks.average.items()} == {"alexnet": 2.5, "vgg16": 2.5, "vgg19": 1}


def test_cliques_are_named_by_their_models(make_run: MakeRun) -> None:
    scores = {"alexnet": 0.7, "vgg16": 0.8, "vgg19": 0.9}
    runs = [
        make_run(accuracy=accuracy, params={"backbone": backbone}, tags={"tandem.test_hash": data, "tandem.data": data})
        for data in "abcdefgh"
        for backbone, accuracy in scores.items()
    ]
    _, ranks = data_set_tables(group_runs(runs)[0])
    assert ranks is not None
    # Of three models on eight data sets, ranks 1.17 apart differ: the first and the last.
    assert ranks.critical_difference == pytest.approx(2.3437 * math.sqrt(3 * 4 / (6 * 8)), abs=1e-3)
    assert [[model.backbone for model in clique] for clique in ranks.cliques] == [
        ["vgg19", "vgg16"],
        ["vgg16", "alexnet"],
    ]
    assert [model.name for model in ranks.average] == [f"{backbone} finetune torch" for backbone in scores]
