from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tandem.comparison.cells import group_runs
from tandem.comparison.data_set_tables import data_set_matrix
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]


def rows(table: Table) -> dict[Any, dict[str, Any]]:
    """The rows by their backbones."""
    named = [dict(zip([column.key for column in table.columns], values, strict=True)) for values in table.rows]
    return {row["backbone"]: row for row in named}


def folds_of(make_run: MakeRun, data: str, accuracies: dict[str, list[float]]) -> list[RunRecord]:
    """A run a backbone and fold."""
    return [
        make_run(
            accuracy=accuracy,
            params={"backbone": backbone, "data.split": "folds", "data.fold": str(fold)},
            tags={"tandem.test_hash": f"{data} {fold}", "tandem.data": data},
        )
        for backbone, of_folds in accuracies.items()
        for fold, accuracy in enumerate(of_folds)
    ]


def test_data_sets_of_a_small_budget_are_no_columns_beside_full_ones(make_run: MakeRun) -> None:
    def on(data: str, budget: str, accuracy: float) -> RunRecord:
        tags = {"tandem.test_hash": data, "tandem.data": data, "tandem.budget": budget}
        return make_run(accuracy=accuracy, tags=tags)

    runs = [on("birds", "full", 0.8), on("mnist", "full", 0.6), on("birds", "small", 0.1), on("cifar", "small", 0.3)]
    groups, _ = group_runs(runs)
    (table,), _ = data_set_matrix(groups)
    (row,) = [dict(zip([column.key for column in table.columns], values, strict=True)) for values in table.rows]
    assert {name: row[name] for name in ("birds", "mnist", "mean")} == {"birds": 0.8, "mnist": 0.6, "mean": 0.7}
    assert not [name for name in row if "small budget" in name]
    assert [note for note in table.notes if note.startswith("Left out")] == [
        "Left out, for their budget was another: cifar, small budget; birds, small budget."
    ]
    (alone,), _ = data_set_matrix([group for group in groups if group.budget == "small"])
    assert {"birds, small budget", "cifar, small budget"} <= {column.key for column in alone.columns}


def test_one_full_data_set_makes_no_table_with_small_ones(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(tags={"tandem.budget": "small"})]
    assert data_set_matrix(group_runs(runs)[0]) == ((), None)


FOLDS = {"alexnet": [0.5, 0.6, 0.7], "vgg16": [0.8, 0.8, 0.8], "vgg19": [0.9, 0.7, 0.8], "resnet50": [0.9, 0.9]}


def test_folds_of_a_data_set_have_mean_and_deviation_and_no_ranks(make_run: MakeRun) -> None:
    (table,), ranks = data_set_matrix(group_runs(folds_of(make_run, "birds", FOLDS))[0])
    assert (table.name, table.title, ranks) == ("folds", "Models and folds: birds", None)
    found = rows(table)
    assert [found["vgg19"][f"birds, fold {fold}"] for fold in range(3)] == [0.9, 0.7, 0.8]
    assert (found["vgg19"]["mean"], found["vgg19"]["deviation"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (found["resnet50"]["mean"], found["resnet50"]["deviation"]) == (None, None)
    assert "rank" not in found["vgg19"]


def test_eleventh_fold_stands_last(make_run: MakeRun) -> None:
    (table,), _ = data_set_matrix(group_runs(folds_of(make_run, "birds", {"vgg16": [0.5] * 11}))[0])
    assert [column.key for column in table.columns if "fold" in column.key] == [f"birds, fold {n}" for n in range(11)]


def test_folds_are_one_data_set_beside_others(make_run: MakeRun) -> None:
    others = {"mnist": (0.9, 0.8, 0.7), "cifar10": (0.6, 0.5, 0.4)}
    runs = folds_of(make_run, "birds", FOLDS)
    runs += [
        make_run(accuracy=accuracy, params={"backbone": backbone}, tags={"tandem.test_hash": data, "tandem.data": data})
        for data, accuracies in others.items()
        for backbone, accuracy in zip(FOLDS, accuracies, strict=False)
    ]
    (folds, matrix, _), ranks = data_set_matrix(group_runs(runs)[0])
    assert (folds.name, matrix.name) == ("folds", "data_sets")
    found = rows(matrix)
    scores = [name for name, value in found["alexnet"].items() if isinstance(value, float)]
    assert scores == ["birds, mean of folds", "cifar10", "mnist", "mean", "rank"]
    assert found["alexnet"]["birds, mean of folds"] == pytest.approx(0.6)
    assert found["resnet50"]["birds, mean of folds"] is None
    # by birds 3, 1.5 and 1.5 (their means are equal), by the others 1, 2, 3
    assert ranks is not None and ranks[1].num_data_sets == 3
    expected = {"alexnet": (3 + 1 + 1) / 3, "vgg16": (1.5 + 2 + 2) / 3, "vgg19": (1.5 + 3 + 3) / 3}
    assert {name: found[name]["rank"] for name in expected} == pytest.approx(expected)


def test_other_test_images_of_one_data_set_make_no_ranks(make_run: MakeRun) -> None:
    runs = [
        make_run(params={"backbone": backbone}, tags={"tandem.test_hash": test_hash})
        for backbone in FOLDS
        for test_hash in "abc"
    ]
    (table, *_), ranks = data_set_matrix(group_runs(runs)[0])
    assert ranks is None and math.isclose(rows(table)["vgg16"]["mean"], 0.9)
    assert "No ranks: they take data sets that share no images, and several of these bear one name." in table.notes
