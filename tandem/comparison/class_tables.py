"""Tables of classes, over the runs of a group that share their test images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tandem.comparison.analysis import Analysis
from tandem.comparison.cells import Group
from tandem.evaluation.metrics import confusion_matrix, per_class_table
from tandem.rendering.tables import Column, Table, Value

EXTREME_CLASSES = 10  # of either end, where there are more than twice as many
MOST_CONFUSIONS = 20


def class_f1(analysis: Analysis) -> pd.DataFrame:
    """F1 by class, down the rows, and cell, across the columns: the mean over a cell's runs."""
    return pd.DataFrame(
        {
            label: np.mean([per_class_table(run).set_index("class")["f1"] for run in runs], axis=0)
            for label, runs in analysis.predictions.items()
        },
        index=_classes(analysis),
    )


def class_tables(group: Group, analysis: Analysis) -> list[Table]:
    """F1 of all classes in all cells; where there are many, also the hardest and easiest of them."""
    if not analysis.predictions:
        return []
    f1 = class_f1(analysis)
    truth = next(iter(analysis.predictions.values()))[0].truth
    support = np.bincount(truth, minlength=len(f1))
    # A class without test images has no F1.
    order = [place for place in np.argsort(f1.mean(axis=1).to_numpy(), kind="stable") if support[place]]
    columns = (
        Column(key="class", heading="class"),
        Column(key="images", heading="images", kind="number"),
        Column(key="f1", heading="mean F1", kind="score"),
        Column(key="f1_lowest", heading="lowest", kind="score"),
        Column(key="lowest_in", heading="in"),
        Column(key="f1_highest", heading="highest", kind="score"),
        Column(key="highest_in", heading="in"),
    )
    rows: list[tuple[Value, ...]] = []
    full: list[tuple[Value, ...]] = []
    for place in order:
        values = f1.iloc[place]
        start = f1.index[place], int(support[place]), float(values.mean())
        lowest, highest = (float(values.min()), str(values.idxmin())), (float(values.max()), str(values.idxmax()))
        rows.append((*start, *lowest, *highest))
        full.append((*start, *values.tolist()))
    each = tuple(Column(key=f"f1 {label}", heading=label, kind="score") for label in f1.columns)
    if len(rows) > 2 * EXTREME_CLASSES:
        rows = [*rows[:EXTREME_CLASSES], *rows[-EXTREME_CLASSES:]]
        title = f"The {EXTREME_CLASSES} hardest and the {EXTREME_CLASSES} easiest classes"
    else:
        title = "Classes, the hardest first"
    return [
        Table(name="class_extremes", title=title, columns=columns, rows=tuple(rows)),
        Table(
            name="classes", title="F1 of each class, the hardest first", columns=(*columns[:3], *each), rows=tuple(full)
        ),
    ]


def confusion_table(group: Group, analysis: Analysis) -> Table:
    """The pairs of classes that are confused most often, over all runs."""
    columns = (
        Column(key="truth", heading="true class"),
        Column(key="predicted", heading="taken for"),
        Column(key="images", heading="images", kind="number"),
        Column(key="share", heading="share of the class", kind="score"),
        Column(key="cells", heading="in rows", kind="number"),
        Column(key="most_in", heading="most often in"),
    )
    if not analysis.predictions:
        return Table(name="confusions", title="Most confused pairs", columns=columns, rows=())
    shares, total, support = {}, np.zeros(()), np.zeros(())
    for label, runs in analysis.predictions.items():
        counts = np.sum([confusion_matrix(run).to_numpy() for run in runs], axis=0)
        support = support + counts.sum(axis=1)
        np.fill_diagonal(counts, 0)
        total = total + counts
        shares[label] = counts
    labels = list(shares)
    classes = _classes(analysis)
    rows: list[tuple[Value, ...]] = []
    for flat in np.argsort(-total, axis=None, kind="stable")[:MOST_CONFUSIONS]:
        truth, predicted = np.unravel_index(flat, total.shape)
        if total[truth, predicted] == 0:
            break
        of_cells = [int(shares[label][truth, predicted]) for label in labels]
        rows.append(
            (
                classes[truth],
                classes[predicted],
                int(total[truth, predicted]),
                float(total[truth, predicted] / support[truth]),
                sum(count > 0 for count in of_cells),
                labels[int(np.argmax(of_cells))],
            )
        )
    return Table(
        name="confusions",
        title="Most confused pairs",
        columns=columns,
        rows=tuple(rows),
        notes=(f"Summed over {sum(map(len, analysis.predictions.values()))} runs.",),
    )


def _classes(analysis: Analysis) -> tuple[str, ...]:
    return next(iter(analysis.predictions.values()))[0].classes
