"""Compares the runs of an experiment in tables and sentences.

Each row is a configuration (tandem.comparison.configurations): its numbers are means over the seeds; its intervals and
tests come from saved predictions (tandem.comparison.analysis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tandem.comparison.analysis import MOST_TESTED, Analysis, analyse, choose_tested
from tandem.comparison.class_tables import class_tables, confusion_table
from tandem.comparison.configurations import Configuration, Group, group_runs
from tandem.comparison.data_set_tables import ModelRanks, data_set_tables
from tandem.comparison.group_tables import (
    cost_table,
    ensemble_table,
    off_the_shelf_table,
    scores_table,
    summary_table,
    views_table,
)
from tandem.comparison.initial_weights import CLASSES
from tandem.comparison.pair_tables import framework_table, thawing_table, transfer_class_table, transfer_table
from tandem.comparison.predictions import Images, SavedPredictions, images_of
from tandem.comparison.recommendation import recommend
from tandem.evaluation.margin import MARGIN
from tandem.rendering.tables import Table
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupComparison:
    """The comparison of runs with the same test images."""

    group: Group
    analysis: Analysis
    recommendation: tuple[str, ...]
    """Sentences (tandem.comparison.recommendation)."""
    tables: dict[str, Table]
    """By name without the group's suffix; `summary` always, the others if they have rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The comparison of an experiment."""

    groups: tuple[GroupComparison, ...]
    """Largest first."""
    over_data_sets: tuple[Table, ...]
    """Tables over all groups; empty for a single group."""
    ranks: ModelRanks | None
    """Ranks of the models with a result on every data set; None if there are too few."""
    notes: tuple[str, ...]
    """Runs that are in none of the tables, and what could not be computed."""
    published: tuple[Table, ...] = ()
    """Tables of a document's results beside these, if asked for (tandem.published.tables)."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables; their names are unique."""
        of_groups = (table for group in self.groups for table in group.tables.values())
        return (*of_groups, *self.over_data_sets, *self.published)


def _no_predictions(configurations: Sequence[Configuration]) -> SavedPredictions:
    return SavedPredictions()


def compare_runs(
    runs: Sequence[RunRecord],
    read: Callable[[Sequence[Configuration]], SavedPredictions] = _no_predictions,
    *,
    margin: float = MARGIN,
    more_scores: Sequence[str] = (),
) -> Comparison:
    """Compares the runs of an experiment.

    Args:
        runs: Runs of one experiment, in any order and of any status.
        read: Reads the predictions of configurations of one group. Called once per group, with at most 32 of them; by
            default there are no predictions, and so neither intervals nor tests.
        margin: Rows whose accuracy differs by less are equivalent; above 0.
        more_scores: Names of scores for further columns of the summary.

    Returns:
        The tables that the runs can fill, for each group of runs with the same test images and over all groups.
    """
    groups, notes = group_runs(runs)
    if same_images := _same_images(groups, read):
        groups, notes = group_runs(runs, same_images)
    compared, more_notes = [], []
    for group in groups:
        chosen = choose_tested(group.configurations)
        if len(chosen) < len(group.configurations):
            more_notes.append(
                f"Intervals and tests of {group.name} cover only its {MOST_TESTED} most accurate rows of "
                f"{len(group.configurations)}."
            )
        saved = read(chosen).with_equal_classes()
        more_notes += saved.notes
        compared.append(_compare_group(group, analyse(group.configurations, saved, margin), more_scores))
    over_data_sets, ranks = data_set_tables(groups)
    return Comparison(
        groups=tuple(compared), over_data_sets=over_data_sets, ranks=ranks, notes=(*notes, *dict.fromkeys(more_notes))
    )


def _same_images(
    groups: Sequence[Group], read: Callable[[Sequence[Configuration]], SavedPredictions]
) -> dict[str, str]:
    """Hashes of test images that stand for the same ones, each with the hash to take in its place.

    The hash of a run depends on the order of data.classes. Only where this may be the reason for two groups are
    predictions read: one run per hash, whose images and classes are compared by their hashes and names.
    """
    alike: dict[tuple, dict[str, Configuration]] = {}
    for group in groups:
        for one in group.configurations:
            run = one.runs[0]
            numbers = (run.params.get(name) for name in (vocabulary.NUM_CLASSES, vocabulary.NUM_IMAGES["test"]))
            alike.setdefault(tuple(numbers), {}).setdefault(run.tags[vocabulary.TEST_HASH], one)
    found: dict[str, str] = {}
    for by_hash in alike.values():
        if len(by_hash) < 2 or all(one.runs[0].params.get(CLASSES, "null") == "null" for one in by_hash.values()):
            continue
        first: dict[Images, str] = {}
        for tag, one in by_hash.items():
            run_id = one.runs[0].run_id
            saved = read([replace(one, runs=one.runs[:1])]).final
            if run_id in saved:
                found[tag] = first.setdefault(images_of(saved[run_id]), tag)
    return {tag: other for tag, other in found.items() if tag != other}


def _compare_group(group: Group, analysis: Analysis, more_scores: Sequence[str]) -> GroupComparison:
    made = [
        summary_table(analysis, more_scores),
        scores_table(analysis),
        framework_table(analysis),
        off_the_shelf_table(analysis),
        thawing_table(analysis),
        transfer_table(analysis),
        transfer_class_table(analysis),
        ensemble_table(analysis),
        views_table(analysis),
        cost_table(analysis),
        *class_tables(analysis),
        confusion_table(analysis),
    ]
    tables = {
        table.name: replace(table, name=table.name + group.suffix, title=f"{table.title}: {group.title}")
        for table in made
        if table.rows
    }
    return GroupComparison(group=group, analysis=analysis, recommendation=recommend(analysis), tables=tables)
