"""Shorthands for tests of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tandem.comparison.comparison import compare_runs
from tandem.evaluation.predictions import Predictions
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]


def right_images(share: float, start: int = 0, *, images: int) -> list[bool]:
    """True for each image that a network gets right: a share of the images, from one of them on."""
    return [(index - start) % images < share * images for index in range(images)]


def reordered(predictions: Predictions, order: Sequence[int]) -> Predictions:
    """The same predictions with the classes in another order."""
    return Predictions(
        keys=predictions.keys,
        hashes=predictions.hashes,
        truth=np.array([list(order).index(label) for label in predictions.truth], dtype=np.int64),
        probabilities=predictions.probabilities[:, list(order)],
        classes=tuple(predictions.classes[place] for place in order),
    )


def rows_of(table: Table) -> list[dict[str, Any]]:
    """The rows of a table by the keys of its columns."""
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


IMAGES = 200
right = partial(right_images, images=IMAGES)


def table_of(runs: Sequence[RunRecord], name: str) -> Table:
    """A table of the only group of these runs, without predictions."""
    (group,) = compare_runs(runs).groups
    return group.tables[name]


OUTCOMES = {
    ("torch", "scratch"): right(0.7),
    ("torch", "two_stage"): right(0.9),
    ("keras", "two_stage"): right(0.88, 10),
    ("torch", "finetune"): right(0.4),
}
"""Right and wrong images by framework and regime."""
