"""Shorthands for tests of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
