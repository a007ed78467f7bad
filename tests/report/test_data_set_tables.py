from __future__ import annotations

from collections.abc import Callable

from tandem.report.cells import group_runs
from tandem.report.data_set_tables import data_set_matrix
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]


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
