"""Shorthands for tests of comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tandem.evaluation.predictions import Predictions
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]


def right_images(share: float, start: int = 0, *, images: int) -> list[bool]:
    """True for each image that a network gets right: a share of the images, from one of them on."""
    return [(index - start) % images < share * images for index in range(images)]


def rows_of(table: Table) -> list[dict[str, Any]]:
    """The rows of a table by the keys of its columns."""
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]
