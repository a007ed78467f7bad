from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tandem.comparison.analysis import MOST_TESTED
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.configurations import Configuration
from tandem.comparison.predictions import SavedPredictions
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, reordered
from tests.compared import rows_of as rows


def by_name(comparison: Comparison, name: str) -> Table:
    return {table.name: table for table in comparison.tables}[name]


def test_no_table_of_frameworks_with_one_framework(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), make_run(regime="frozen")])
    assert [table.name for table in comparison.tables] == ["summary", "scores", "cost"]


def test_runs_with_other_test_images_have_separate_tables(make_run: MakeRun) -> None:
    large = [make_run("torch", accuracy=0.7), make_run("keras", accuracy=0.6)]
    small = make_run("torch", run_id="other", tags={"tandem.test_hash": "x", "tandem.data": "digits 0-4"})
    comparison = compare_runs([*large, small])
    assert [table.name for table in comparison.tables if "cost" not in table.name and "scores" not in table.name] == [
        *("summary", "frameworks", "summary_2", "data_sets")
    ]
    assert [row["accuracy"] for row in rows(by_name(comparison, "summary"))] == [0.7, 0.6]
    assert "digits 0-4" in by_name(comparison, "summary_2").title
    (note,) = comparison.notes
    assert note.startswith(
        "In separate tables because their test images differ from those of the first tables (digits 0-4"
    )
    assert note.endswith(": mobilenet_v2-finetune-torch (other).")


ORDERS = {"torch": (0, 1, 2, 3), "keras": (2, 0, 3, 1)}


def in_two_orders(make_run: MakeRun, *, null: bool = False) -> list[RunRecord]:
    """A run of each framework on the same images, with the classes in another order."""
    names = {framework: json.dumps([f"class {place}" for place in order]) for framework, order in ORDERS.items()}
    if null:
        names["torch"] = "null"
    return [
        make_run(framework, params={"data.classes": text, "num_classes": "4"}, tags={"tandem.test_hash": framework})
        for framework, text in names.items()
    ]


@pytest.mark.parametrize("null", [False, True])
def test_same_images_are_one_group_whatever_the_order_of_the_classes(
    make_run: MakeRun, make_predictions: MakePredictions, null: bool
) -> None:
    runs = in_two_orders(make_run, null=null)
    whole = make_predictions([index % 10 != 0 for index in range(200)])
    final = {run.run_id: reordered(whole, order) for run, order in zip(runs, ORDERS.values(), strict=True)}
    comparison = compare_runs(runs, lambda _: SavedPredictions(final=final))
    (group,) = comparison.groups
    assert [row["accuracy"].value for row in rows(group.tables["summary"])] == pytest.approx([0.9, 0.9])
    # The same predictions, so no test can find a difference.
    (pair,) = rows(group.tables["frameworks"])
    assert pair["accuracy_difference"].value == 0 and pair["p_value"] == 1
    assert not any("test images differ" in note for note in comparison.notes)
    # Classes are matched by name.
    assert sorted(row["class"] for row in rows(group.tables["classes"])) == [f"class {place}" for place in range(4)]


@pytest.mark.parametrize("other", ["hashes", "classes"])
def test_other_images_or_classes_stay_apart(make_run: MakeRun, make_predictions: MakePredictions, other: str) -> None:
    runs = in_two_orders(make_run)
    whole = make_predictions([True] * 20)
    others = {
        "hashes": tuple(f"other {one}" for one in whole.hashes),
        "classes": ("another", *whole.classes[1:]),
    }
    final = {runs[0].run_id: whole, runs[1].run_id: replace(whole, **{other: others[other]})}
    assert len(compare_runs(runs, lambda _: SavedPredictions(final=final)).groups) == 2


def test_predictions_are_read_for_grouping_only_where_classes_are_chosen(make_run: MakeRun) -> None:
    asked: list[int] = []

    def read(configurations: Sequence[Configuration]) -> SavedPredictions:
        asked.append(len(configurations))
        return SavedPredictions()

    compare_runs([make_run(), make_run(tags={"tandem.test_hash": "other"})], read)
    assert asked == [1, 1]


def test_no_finished_run_gives_no_table(make_run: MakeRun) -> None:
    assert compare_runs([make_run(status="FAILED")]).tables == ()


def test_predictions_are_read_once_per_group_and_notes_are_kept(make_run: MakeRun) -> None:
    asked: list[list[str]] = []

    def read(configurations: Sequence[Configuration]) -> SavedPredictions:
        asked.append([one.label for one in configurations])
        return SavedPredictions(notes=("a note",))

    runs = [make_run(), make_run("keras"), make_run(tags={"tandem.test_hash": "other"})]
    comparison = compare_runs(runs, read)
    assert asked == [["finetune torch", "finetune keras"], ["finetune torch"]]
    assert comparison.notes.count("a note") == 1


def test_note_says_that_only_some_rows_are_tested(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=number / 100, params={"learning_rate": str(number)}) for number in range(MOST_TESTED + 5)]
    assert compare_runs(runs).notes == (
        "Intervals and tests of digits 5-9 cover only its 32 most accurate rows of 37.",
    )
