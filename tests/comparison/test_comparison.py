from __future__ import annotations

from collections.abc import Sequence

from tandem.comparison.analysis import MOST_TESTED
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.configurations import Configuration
from tandem.comparison.predictions import SavedPredictions
from tandem.rendering.tables import Table
from tests.compared import MakeRun
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
