"""Tables of classes over the rows of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd

from tandem.comparison.analysis import Analysis
from tandem.comparison.configurations import some
from tandem.comparison.rows import Row
from tandem.evaluation.metrics import confusion_matrix
from tandem.evaluation.ties import is_above, merge_ties
from tandem.rendering.tables import Column, Field, Table, table_of

EXTREME_CLASSES = 10  # listed at either end, if there are more than twice as many
MOST_CONFUSIONS = 20

_ClassF1 = tuple[str, pd.Series]
"""Name of a class, and its F1 by the label of a row."""


@dataclass(frozen=True, kw_only=True)
class _Confusion:
    """Images of one class that were predicted as another."""

    truth: str
    predicted: str
    num_images: int
    share: float
    """Share of the images of the true class, 0..1."""
    of_rows: Mapping[str, int]
    """Number of these images by the label of a row."""


def class_f1(rows: Sequence[Row]) -> pd.DataFrame:
    """F1 of the classes with test images, lowest mean first.

    Args:
        rows: With predictions; at least one.

    Returns:
        One row per class and one column per label of a row; each value is the mean over the seeds, 0..1.
    """
    f1 = pd.DataFrame({row.label: row.f1_of_classes for row in rows}, index=rows[0].predictions[0].classes)
    f1 = f1[_num_images(rows) > 0]
    return f1.iloc[np.argsort(merge_ties(f1.mean(axis=1).tolist()), kind="stable")]


def class_tables(analysis: Analysis) -> list[Table]:
    """F1 of each class in each row; for many classes also a table of the hardest and easiest ones."""
    rows = analysis.tested
    if not rows:
        return []
    f1 = class_f1(rows)
    num_images = dict(zip(rows[0].predictions[0].classes, _num_images(rows).tolist(), strict=True))
    classes: list[_ClassF1] = [(str(name), values) for name, values in f1.iterrows()]
    start: tuple[Field[_ClassF1], ...] = (
        (Column(key="class", heading="class"), lambda one: one[0]),
        (Column(key="images", heading="images", kind="number"), lambda one: num_images[one[0]]),
        (Column(key="f1", heading="mean F1", kind="score"), lambda one: float(one[1].mean())),
    )
    extremes: tuple[Field[_ClassF1], ...] = (
        *start,
        (Column(key="f1_lowest", heading="lowest", kind="score"), lambda one: float(one[1].min())),
        (Column(key="lowest_in", heading="in"), lambda one: _rows_with_highest(-one[1])),
        (Column(key="f1_highest", heading="highest", kind="score"), lambda one: float(one[1].max())),
        (Column(key="highest_in", heading="in"), lambda one: _rows_with_highest(one[1])),
    )
    shown, title = classes, "Classes, hardest first"
    if len(classes) > 2 * EXTREME_CLASSES:
        shown = [*classes[:EXTREME_CLASSES], *classes[-EXTREME_CLASSES:]]
        title = f"The {EXTREME_CLASSES} hardest and the {EXTREME_CLASSES} easiest classes"
    return [
        table_of(shown, extremes, name="class_extremes", title=title),
        table_of(
            classes, (*start, *map(_f1_field, f1.columns)), name="classes", title="F1 of each class, hardest first"
        ),
    ]


def _f1_field(label: str) -> Field[_ClassF1]:
    return Column(key=f"f1 {label}", heading=label, kind="score"), lambda one: float(one[1][label])


def _rows_with_highest(values: pd.Series) -> str:
    """Labels of the rows with the highest value; "all" if several rows have the same one."""
    labels = [str(label) for label in values.index if not is_above(values.max(), values[label])]
    return "all" if len(labels) == len(values) > 1 else some(labels)


def confusion_table(analysis: Analysis) -> Table:
    """The pairs of classes that are confused most often, over all runs."""
    rows = analysis.tested
    found: list[_Confusion] = []
    if rows:
        of_rows = {
            row.label: np.sum([confusion_matrix(run).to_numpy() for run in row.predictions], axis=0) for row in rows
        }
        total = np.sum(list(of_rows.values()), axis=0)
        support = total.sum(axis=1)
        classes = rows[0].predictions[0].classes
        errors = total * (1 - np.eye(len(total), dtype=total.dtype))
        for flat in np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSIONS]:
            truth, predicted = np.unravel_index(flat, errors.shape)
            if errors[truth, predicted]:
                found.append(
                    _Confusion(
                        truth=classes[truth],
                        predicted=classes[predicted],
                        num_images=int(errors[truth, predicted]),
                        share=float(errors[truth, predicted] / support[truth]),
                        of_rows={label: int(counts[truth, predicted]) for label, counts in of_rows.items()},
                    )
                )
    return table_of(
        found,
        (
            (Column(key="truth", heading="true class"), attrgetter("truth")),
            (Column(key="predicted", heading="predicted class"), attrgetter("predicted")),
            (Column(key="images", heading="images", kind="number"), attrgetter("num_images")),
            (Column(key="share", heading="share of the class", kind="score"), attrgetter("share")),
            (
                Column(key="cells", heading="in rows", kind="number"),
                lambda confusion: sum(count > 0 for count in confusion.of_rows.values()),
            ),
            (
                Column(key="most_in", heading="most often in"),
                lambda confusion: _rows_with_highest(pd.Series(confusion.of_rows)),
            ),
        ),
        name="confusions",
        title="Most confused pairs of classes",
        notes=(f"Summed over {sum(len(row.predictions) for row in rows)} runs.",),
    )


def _num_images(rows: Sequence[Row]) -> np.ndarray:
    """Number of test images of each class, int64 of shape (classes,)."""
    predictions = rows[0].predictions[0]
    return np.bincount(predictions.truth, minlength=len(predictions.classes))
