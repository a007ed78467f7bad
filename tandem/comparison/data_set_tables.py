"""The tables over several data sets: models by data sets, and averages of families of backbones; models by folds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tandem.comparison.cells import (
    ACCURACY,
    Cell,
    Group,
    family_of,
)
from tandem.comparison.group_tables import NAME_COLUMNS
from tandem.evaluation.significance import (
    SMALLEST_NUM_DATA_SETS,
    SMALLEST_NUM_MODELS,
    AverageRanks,
    rank_over_data_sets,
)
from tandem.rendering.tables import Column, Table, Value

_MEAN = Column(key="mean", heading="mean", kind="score", better="higher")

_Model = tuple
"""Backbone, regime, framework, and the settings in which cells differ, without those of the data."""


def data_set_matrix(
    groups: Sequence[Group],
) -> tuple[tuple[Table, ...], tuple[tuple[str, ...], AverageRanks] | None]:
    """Accuracy by model, down the rows, and data set, across the columns; with averages of each family of backbones.

    The folds of a data set are one column, their mean, and have a table of their own. They are no data sets: any two of
    five are trained on images of which they share three quarters.

    Args:
        groups: of an experiment; those with another budget than the first are left out.

    Returns:
        The tables, none with one data set without folds; and average ranks of the models with a result on every data
        set, where there are at least three of either and no two columns are of the same data set.
    """
    left_out = [group.name for group in groups if group.budget != groups[0].budget]
    groups = [group for group in groups if group.budget == groups[0].budget]
    left_out_note = [f"Left out, for their budget was another: {'; '.join(left_out)}."] if left_out else []
    columns: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        columns[group.name if group.fold is None else f"{group.data_set}, mean of folds"].append(group)
    columns = {of[0].name if len(of) == 1 else name: of for name, of in columns.items()}
    found, cells = _accuracies(groups)
    models = sorted(found, key=lambda model: cells[model].sort_key)

    tables: list[Table] = []
    for folds in columns.values():
        if len(folds) > 1:
            table = _fold_table(folds, {model: found[model] for model in models}, left_out_note)
            tables.append(replace(table, name=f"folds_{len(tables) + 1}") if tables else table)
    if len(columns) < 2:
        return tuple(tables), None

    of_columns: dict[_Model, dict[str, float]] = {}
    for model in models:
        means = {name: _mean_of([found[model].get(group.name) for group in of]) for name, of in columns.items()}
        of_columns[model] = {name: mean for name, mean in means.items() if mean is not None}
    names = sorted(columns)
    complete = [model for model in models if len(of_columns[model]) == len(names)]
    ranks, notes = (
        None,
        ["Accuracy on each data set's test images; means and ranks only where there is a result on each."],
    )
    notes += left_out_note
    if len(names) >= SMALLEST_NUM_DATA_SETS and len(complete) >= SMALLEST_NUM_MODELS:
        if len({of[0].data_set for of in columns.values()}) == len(names):
            scores = np.array([[of_columns[model][name] for model in complete] for name in names])
            ranks = tuple(_name_of(model) for model in complete), rank_over_data_sets(scores)
            notes.append(_describe_ranks(ranks[1]))
        else:
            notes.append("No ranks: they take data sets that share no images, and several of these bear one name.")
    average_ranks = dict(zip(complete, ranks[1].average_ranks.tolist(), strict=True)) if ranks else {}

    by_data_set = _score_columns(names)
    rank = Column(key="rank", heading="mean rank", kind="number", better="lower")
    rows = [
        (
            *(of_columns[model].get(name) for name in names),
            _mean_of([of_columns[model].get(name) for name in names]),
            *([average_ranks.get(model)] if ranks else []),
        )
        for model in models
    ]
    tables.append(
        _model_table(
            name="data_sets",
            title="Models and data sets",
            models=models,
            columns=(*by_data_set, _MEAN, *([rank] if ranks else [])),
            rows=rows,
            notes=notes,
        )
    )
    families: dict[tuple, list[dict[str, float]]] = defaultdict(list)
    for model in models:
        families[family_of(model[0]), *model[1:3]].append(of_columns[model])
    if any(len(members) > 1 for members in families.values()):
        tables.append(_family_table(families, names))
    return tuple(tables), ranks


def _accuracies(groups: Sequence[Group]) -> tuple[dict[_Model, dict[str, float]], dict[_Model, Cell]]:
    """Of each model the accuracies by the groups' names, and one of its cells."""
    found: dict[_Model, dict[str, float]] = defaultdict(dict)
    cells: dict[_Model, Cell] = {}
    for group in groups:
        for cell in group.cells:
            # Settings of the data are what the columns stand for.
            own = tuple(item for item in cell.settings if not item[0].startswith("data") and item[0] != "split")
            model = (cell.backbone, cell.regime, cell.framework, own)
            accuracy = cell.mean(ACCURACY)
            # Of several cells in one place, which differ in their hardware or their data settings, the best.
            if accuracy is not None:
                found[model][group.name] = max(accuracy, found[model].get(group.name, 0.0))
                cells[model] = cell
    return found, cells


def _fold_table(
    folds: Sequence[Group], found: Mapping[_Model, Mapping[str, float]], more_notes: Sequence[str]
) -> Table:
    names = sorted((fold.name for fold in folds), key=lambda name: (len(name), name))  # fold 9 before fold 10
    models = [model for model, of_groups in found.items() if any(name in of_groups for name in names)]
    rows: list[tuple[Value, ...]] = []
    for model in models:
        values = [found[model].get(name) for name in names]
        known = [value for value in values if value is not None]
        deviation = statistics.stdev(known) if len(known) == len(names) else None
        rows.append((*values, _mean_of(values), deviation))
    return _model_table(
        name="folds",
        title=f"Models and folds: {folds[0].data_set}",
        models=models,
        columns=(*_score_columns(names), _MEAN, Column(key="deviation", heading="standard deviation", kind="score")),
        rows=rows,
        notes=(
            "Accuracy on each fold's test images; mean and standard deviation (n - 1) only where there is a result on "
            "each.",
            "No ranks and no test over folds: they share most of their training images.",
            *more_notes,
        ),
    )


def _model_table(
    *,
    name: str,
    title: str,
    models: Sequence[_Model],
    columns: Sequence[Column],
    rows: Sequence[tuple[Value, ...]],
    notes: Sequence[str],
) -> Table:
    """A table with a row for each model: its names, the settings in which the models differ, and these values."""
    settings = list(dict.fromkeys(name for model in models for name, _ in model[3]))
    return Table(
        name=name,
        title=title,
        columns=(*NAME_COLUMNS, *(Column(key=setting, heading=setting) for setting in settings), *columns),
        rows=tuple(
            (*model[:3], *(dict(model[3]).get(setting) or None for setting in settings), *values)
            for model, values in zip(models, rows, strict=True)
        ),
        notes=tuple(notes),
    )


def _family_table(families: Mapping[tuple, Sequence[Mapping[str, float]]], names: Sequence[str]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for family, members in families.items():
        means = [_mean_of([own.get(name) for own in members]) for name in names]
        rows.append((*family, len(members), *means, _mean_of(means)))
    return Table(
        name="families",
        title="Averages of families of backbones",
        columns=(
            replace(NAME_COLUMNS[0], key="family", heading="family"),
            *NAME_COLUMNS[1:],
            Column(key="members", heading="models", kind="number"),
            *_score_columns(names),
            _MEAN,
        ),
        rows=tuple(rows),
    )


def _score_columns(names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(key=name, heading=name, kind="score", better="higher") for name in names)


def _mean_of(values: Sequence[float | None]) -> float | None:
    """None unless there are all of them."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _describe_ranks(ranks: AverageRanks) -> str:
    return (
        f"Friedman's test of all models being alike: p = {ranks.friedman_p_value:.4f}; by Nemenyi's test mean ranks "
        f"{ranks.critical_difference:.2f} apart differ significantly"
        + (" (an approximation for so few)." if ranks.approximate else ".")
    )


def _name_of(model: _Model) -> str:
    return " ".join([*model[:3], *(f"{name} {value}" for name, value in model[3] if value)])
