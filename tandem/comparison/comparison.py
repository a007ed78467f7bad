"""The tables that compare the runs of an experiment, and the words that sum them up.

One row stands for one cell (tandem.comparison.cells): everything that was the same but the seed. A row is the mean over
its seeds; intervals and tests come from the saved predictions (tandem.comparison.analysis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tandem.comparison.analysis import MOST_CELLS, Analysis, analyse, choose_cells
from tandem.comparison.cells import Cell, Group, group_runs
from tandem.comparison.class_tables import class_tables, confusion_table
from tandem.comparison.data_set_tables import data_set_matrix
from tandem.comparison.group_tables import (
    cost_table,
    framework_table,
    scores_table,
    summary_table,
    thawing_table,
    transfer_class_table,
    transfer_table,
)
from tandem.comparison.off_the_shelf_table import off_the_shelf_table
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.recommendation import recommend
from tandem.evaluation.significance import AverageRanks
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupComparison:
    """What is said of cells that were tested on the same images.

    Args:
        group: the cells.
        analysis: of their predictions.
        recommendation: sentences (tandem.comparison.recommendation).
        tables: by their names without the group's suffix; `summary` is always there, others where they have rows.
    """

    group: Group
    analysis: Analysis
    recommendation: tuple[str, ...]
    tables: dict[str, Table]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What is said of an experiment.

    Args:
        groups: the largest first.
        over_data_sets: tables of all groups together; none with one group.
        ranks: of the cells that have a result on every data set, by their names; None where there are too few.
        notes: lines that say which runs stand in none of the tables, and what could not be computed.
        published: tables of a document's results beside these, where they were asked for
            (tandem.published.tables).
    """

    groups: tuple[GroupComparison, ...]
    over_data_sets: tuple[Table, ...]
    ranks: tuple[tuple[str, ...], AverageRanks] | None
    notes: tuple[str, ...]
    published: tuple[Table, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables; their names are unique."""
        of_groups = (table for group in self.groups for table in group.tables.values())
        return (*of_groups, *self.over_data_sets, *self.published)


def _nothing_saved(cells: Sequence[Cell]) -> SavedPredictions:
    return SavedPredictions()


def compare_runs(
    runs: Sequence[RunRecord], read: Callable[[Sequence[Cell]], SavedPredictions] = _nothing_saved
) -> Comparison:
    """Compares the runs of an experiment.

    Args:
        runs: of one experiment, in any order and of any status.
        read: gives the predictions of the cells of one group; it is asked for those that are compared, at most 32 a
            group. Without any there are neither intervals nor tests.

    Returns:
        For each group of runs that were tested on the same images the tables that there are runs for.
    """
    groups, notes = group_runs(runs)
    compared, more_notes = [], []
    for group in groups:
        chosen = choose_cells(group.cells)
        if len(chosen) < len(group.cells):
            more_notes.append(
                f"Intervals and tests of {group.name} are of its {MOST_CELLS} most accurate rows of {len(group.cells)}."
            )
        saved = read(chosen)
        more_notes += saved.notes
        compared.append(_compare_group(group, analyse(chosen, saved)))
    matrix, ranks = data_set_matrix(groups)
    return Comparison(
        groups=tuple(compared), over_data_sets=matrix, ranks=ranks, notes=(*notes, *dict.fromkeys(more_notes))
    )


def _compare_group(group: Group, analysis: Analysis) -> GroupComparison:
    made = [
        summary_table(group, analysis),
        scores_table(group, analysis),
        framework_table(group, analysis),
        off_the_shelf_table(group, analysis),
        thawing_table(group, analysis),
        transfer_table(group, analysis),
        transfer_class_table(group, analysis),
        cost_table(group),
        *class_tables(group, analysis),
        confusion_table(group, analysis),
    ]
    tables = {
        table.name: replace(table, name=table.name + group.suffix, title=f"{table.title}: {group.title}")
        for table in made
        if table.rows
    }
    return GroupComparison(
        group=group, analysis=analysis, recommendation=recommend(group.cells, analysis), tables=tables
    )
