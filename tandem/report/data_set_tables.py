"""The tables over several data sets: models by data sets, and averages of families of backbones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tandem.evaluation.significance import (
    SMALLEST_NUM_DATA_SETS,
    SMALLEST_NUM_MODELS,
    AverageRanks,
    rank_over_data_sets,
)
from tandem.report.cells import (
    ACCURACY,
    Cell,
    Group,
    family_of,
)
from tandem.report.group_tables import NAME_COLUMNS
from tandem.report.tables import Column, Table, Value


def data_set_matrix(
    groups: Sequence[Group],
) -> tuple[tuple[Table, ...], tuple[tuple[str, ...], AverageRanks] | None]:
    """Accuracy by model, down the rows, and data set, across the columns; with averages of each family of backbones.

    Args:
        groups: of an experiment; those with another budget than the first are left out.

    Returns:
        The tables, none with one data set; and average ranks of the models with a result on every data set, where there
        are at least three of either.
    """
    left_out = [group.name for group in groups if group.budget != groups[0].budget]
    groups = [group for group in groups if group.budget == groups[0].budget]
    if len(groups) < 2:
        return (), None
    found: dict[tuple, dict[str, float]] = defaultdict(dict)
    cells: dict[tuple, Cell] = {}
    for group in groups:
        for cell in group.cells:
            # Settings of the data are what the columns stand for.
            own = tuple(item for item in cell.settings if not item[0].startswith("data") and item[0] != "split")
            key = (cell.backbone, cell.regime, cell.framework, own)
            accuracy = cell.mean(ACCURACY)
            # Of several cells in one place, which differ in their hardware or their data settings, the best.
            if accuracy is not None:
                found[key][group.name] = max(accuracy, found[key].get(group.name, 0.0))
                cells[key] = cell
    names = sorted(group.name for group in groups)
    keys = sorted(found, key=lambda key: cells[key].sort_key)
    complete = [key for key in keys if len(found[key]) == len(names)]
    ranks = None
    if len(names) >= SMALLEST_NUM_DATA_SETS and len(complete) >= SMALLEST_NUM_MODELS:
        scores = np.array([[found[key][name] for key in complete] for name in names])
        ranks = tuple(_matrix_name(key) for key in complete), rank_over_data_sets(scores)
    average_ranks = dict(zip(complete, ranks[1].average_ranks.tolist(), strict=True)) if ranks else {}

    by_data_set = tuple(Column(key=name, heading=name, kind="score", better="higher") for name in names)
    mean = Column(key="mean", heading="mean", kind="score", better="higher")
    rank = Column(key="rank", heading="mean rank", kind="number", better="lower")
    setting_names = list(dict.fromkeys(name for key in keys for name, _ in key[3]))
    columns = (
        *NAME_COLUMNS,
        *(Column(key=name, heading=name) for name in setting_names),
        *by_data_set,
        mean,
        *([rank] if ranks else []),
    )
    rows = tuple(
        (
            *key[:3],
            *(dict(key[3]).get(name) or None for name in setting_names),
            *(found[key].get(name) for name in names),
            sum(found[key].values()) / len(names) if key in complete else None,
            *([average_ranks.get(key)] if ranks else []),
        )
        for key in keys
    )
    notes = ["Accuracy on each data set's test images; means and ranks only where there is a result on each."]
    if left_out:
        notes.append(f"Left out, for their budget was another: {'; '.join(left_out)}.")
    if ranks:
        of_ranks = ranks[1]
        notes.append(
            f"Friedman's test of all models being alike: p = {of_ranks.friedman_p_value:.4f}; by Nemenyi's test mean "
            f"ranks {of_ranks.critical_difference:.2f} apart differ significantly"
            + (" (an approximation for so few)." if of_ranks.approximate else ".")
        )
    tables = [
        Table(name="data_sets", title="Models and data sets", columns=columns, rows=rows, notes=tuple(notes)),
    ]
    families: dict[tuple, list[dict[str, float]]] = defaultdict(list)
    for key in keys:
        families[family_of(key[0]), *key[1:3]].append(found[key])
    if all(len(members) == 1 for members in families.values()):
        return tuple(tables), ranks
    of_families: list[tuple[Value, ...]] = []
    for family, members in families.items():
        means = [
            sum(own[name] for own in members) / len(members) if all(name in own for own in members) else None
            for name in names
        ]
        present = [value for value in means if value is not None]
        of_families.append(
            (*family, len(members), *means, sum(present) / len(names) if len(present) == len(names) else None)
        )
    members_column = Column(key="members", heading="models", kind="number")
    family_columns = (
        replace(NAME_COLUMNS[0], key="family", heading="family"),
        *NAME_COLUMNS[1:],
        members_column,
        *by_data_set,
        mean,
    )
    tables.append(
        Table(
            name="families",
            title="Averages of families of backbones",
            columns=family_columns,
            rows=tuple(of_families),
        )
    )
    return tuple(tables), ranks


def _matrix_name(key: tuple) -> str:
    return " ".join([*key[:3], *(f"{name} {value}" for name, value in key[3] if value)])
