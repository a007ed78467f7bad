"""Tables that are made from predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tandem.comparison.cells import Cell
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.rendering.tables import Estimate, Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

IMAGES = 200


def right(share: float, start: int = 0) -> list[bool]:
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


def rows(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


@pytest.fixture
def compared(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Comparison]:
    def run(outcomes: dict[tuple[str, str], list[bool]], without: Sequence[tuple[str, str]] = ()) -> Comparison:
        records = {
            key: make_run(
                *key,
                float(np.mean(outcome)),
                metrics={"phase_1/test/accuracy": 0.5, "phase_1/test/f1_macro": 0.5, "phase_1/cost/train_seconds": 20.0}
                if key[1] == "two_stage"
                else {},
            )
            for key, outcome in outcomes.items()
        }
        final = {records[key].run_id: make_predictions(outcomes[key]) for key in outcomes if key not in without}
        first = {records[key].run_id: make_predictions(right(0.5)) for key in outcomes if key[1] == "two_stage"}

        def read(cells: Sequence[Cell]) -> SavedPredictions:
            return SavedPredictions(final=final, first_phase=first, notes=("a note",))

        return compare_runs(list(records.values()), read)

    return run


OUTCOMES = {
    ("torch", "scratch"): right(0.7),
    ("torch", "two_stage"): right(0.9),
    ("keras", "two_stage"): right(0.88, 10),
    ("torch", "finetune"): right(0.4),
}


def test_summary_has_intervals_letters_and_marks_of_ties(compared: Callable[..., Comparison]) -> None:
    summary = compared(OUTCOMES).groups[0].tables["summary"]
    of_rows = rows(summary)
    assert [row["tied"] for row in of_rows] == ["b", "a", "a", "c"]
    assert {number for number, key in summary.tied if key == "accuracy"} == {1, 2}
    accuracy = of_rows[1]["accuracy"]
    assert isinstance(accuracy, Estimate)
    # Percentiles of a binomial share, which the bootstrap of a mean of 0s and 1s is.
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx(
        (0.9, *(stats.binom(IMAGES, 0.9).ppf([0.025, 0.975]) / IMAGES)), abs=0.011
    )
    assert "0.05, corrected over 6 pairs" in " ".join(summary.notes)


def test_row_without_predictions_has_its_score_and_no_interval(compared: Callable[..., Comparison]) -> None:
    comparison = compared(OUTCOMES, without=[("keras", "two_stage")])
    of_rows = rows(comparison.groups[0].tables["summary"])
    assert of_rows[2]["accuracy"] == pytest.approx(0.88) and of_rows[2]["tied"] is None
    (pair,) = rows(comparison.groups[0].tables["frameworks"])
    assert pair["accuracy_difference"] == pytest.approx(-0.02)
    assert comparison.notes == ("a note",)


def test_frameworks_say_what_differs_between_the_two(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["frameworks"]
    (row,) = rows(table)
    assert row["accuracy_difference"].value == pytest.approx(-0.02)
    # torch is right on images 0 to 179, keras on 10 to 185: 10 and 6 of them alone
    assert row["p_value"] == pytest.approx(2 * stats.norm.sf(4 / 16**0.5))
    assert any(note.startswith("mobilenet_v2 differs between the two: stride-2") for note in table.notes)


def test_settings_that_differ_within_a_pair_are_named(make_run: MakeRun) -> None:
    runs = [make_run("torch", params={"weights": "a.pth"}), make_run("keras", params={"weights": "a.h5"})]
    table = compare_runs(runs).groups[0].tables["frameworks"]
    assert "Settings that differ between the two: weights; all others are the same." in table.notes


def test_thawing_has_intervals_and_times(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["thawing"]
    torch, keras = rows(table)
    assert torch["accuracy_difference"].value == pytest.approx(0.4)
    assert torch["train_seconds_ratio"] == 3
    assert keras["p_value_holm"] >= keras["p_value"]
    assert table.notes[0].startswith("Thawing changed accuracy by +0.3800 to +0.4000 for 3.0 times the training time")


def test_negative_transfer_is_found_with_its_classes(compared: Callable[..., Comparison]) -> None:
    tables = compared(OUTCOMES).groups[0].tables
    of_rows = {(row["regime"], row["framework"]): row for row in rows(tables["transfer"])}
    assert of_rows["finetune", "torch"]["verdict"] == "negative"
    assert of_rows["two_stage", "torch"]["verdict"] == "positive"
    worse = of_rows["finetune", "torch"]
    assert worse["classes_worse"] == 4 and worse["worse"] == "class 0, class 1, class 2, class 3"
    assert {row["class"] for row in rows(tables["transfer_classes"])} == {f"class {number}" for number in range(4)}


def test_classes_hold_f1_of_every_row(compared: Callable[..., Comparison]) -> None:
    outcomes = {("torch", "scratch"): [True] * 8, ("torch", "finetune"): [index != 0 for index in range(8)]}
    tables = compared(outcomes).groups[0].tables
    # Of two images of class 0 one is taken for class 1: F1 2 x 1 / (2 + 1) and 2 x 2 / (2 + 3).
    of_class = {row["class"]: row for row in rows(tables["classes"])}
    assert of_class["class 0"]["f1 finetune torch"] == pytest.approx(2 / 3)
    assert of_class["class 1"]["f1 finetune torch"] == pytest.approx(4 / 5)
    assert of_class["class 1"]["f1"] == pytest.approx((1 + 4 / 5) / 2)
    assert rows(tables["class_extremes"])[0]["lowest_in"] == "finetune torch"
    (confusion,) = rows(tables["confusions"])
    assert confusion == {
        **{"truth": "class 0", "predicted": "class 1", "images": 1, "share": 0.25, "cells": 1},
        "most_in": "finetune torch",
    }


def test_three_hundred_classes_have_a_short_table_beside_the_long_one(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    runs = [make_run("torch"), make_run("keras")]
    random = np.random.default_rng(0)
    saved = SavedPredictions(
        final={run.run_id: make_predictions(random.random(600) < 0.7, num_classes=300) for run in runs}
    )
    tables = compare_runs(runs, lambda cells: saved).groups[0].tables
    assert (len(tables["class_extremes"].rows), len(tables["classes"].rows)) == (20, 300)


def test_cost_has_the_seconds_of_each_phase_and_the_hardware(make_run: MakeRun) -> None:
    phases = {"phase_1/cost/train_seconds": 20.0, "phase_2/cost/train_seconds": 40.0, "cost/epochs": 12.0}
    runs = [make_run(regime="two_stage", metrics=phases, tags={"tandem.device": "cpu"}), make_run(regime="scratch")]
    _, row = rows(compare_runs(runs).groups[0].tables["cost"])
    assert (row["train_seconds_phase_1"], row["train_seconds_phase_2"], row["epochs"]) == (20, 40, 12)
    assert row["hardware"] == "2 cores, cpu"


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
    of_rows = {row["backbone"]: row for row in rows(matrix)}
    assert [of_rows["resnet50"][f"data {number}"] for number in range(3)] == [0.9, 0.8, 0.7]
    assert of_rows["resnet50"]["mean"] == pytest.approx(0.8)
    assert of_rows["mobilenet_v2"]["data 2"] is None and of_rows["mobilenet_v2"]["mean"] is None
    # Among the three with a result on each: ranks 1 2 1, 2 1 2, 3 3 3
    assert [of_rows[name]["rank"] for name in list(accuracies)[:3]] == pytest.approx([4 / 3, 5 / 3, 3])
    expected = stats.friedmanchisquare(*(accuracies[name] for name in list(accuracies)[:3])).pvalue
    assert f"p = {expected:.4f}" in matrix.notes[1]
    of_families = {row["family"]: row for row in rows(families)}
    assert of_families["resnet"]["members"] == 2
    assert of_families["resnet"]["data 0"] == pytest.approx(0.8)


def test_one_data_set_has_no_matrix(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), make_run("keras")])
    assert comparison.over_data_sets == () and comparison.ranks is None
