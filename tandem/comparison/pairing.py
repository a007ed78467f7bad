"""Pairs of rows that are compared with each other: of two frameworks, and with and without pretraining."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tandem.comparison.rows import Row
from tandem.evaluation.ties import highest


def framework_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of Keras and of PyTorch with the same backbone, regime and settings.

    Returns:
        (Keras, PyTorch). Of several PyTorch rows, the one with the same hardware and settings of speed, else the first.
    """
    found = defaultdict(list)
    for row in rows:
        found[row.configuration.backbone, row.configuration.regime, row.configuration.settings].append(row)
    pairs = []
    for members in found.values():
        of_torch = [row for row in members if row.configuration.framework == "torch"]
        for keras in members:
            if of_torch and keras.configuration.framework != "torch":
                same_costs = (row for row in of_torch if row.configuration.costs == keras.configuration.costs)
                pairs.append((keras, next(same_costs, of_torch[0])))
    return pairs


def scratch_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pretrained rows, each with one of the same backbone, framework and data that was trained from scratch.

    Networks off the shelf were trained on none of the images, so nothing was transferred, and they have no partner.

    Returns:
        (pretrained, scratch). Of several rows from scratch, the one with the most equal settings, then the most
        accurate one.
    """
    pairs = []
    for row in rows:
        if row.configuration.regime in ("scratch", "off_the_shelf") or row.configuration.random_weights:
            continue
        choice = [
            other
            for other in rows
            if other.configuration.regime == "scratch"
            and other.configuration.backbone == row.configuration.backbone
            and other.configuration.framework == row.configuration.framework
            and _data_settings(other) == _data_settings(row)
        ]
        most_equal = max((_num_equal_settings(other, row) for other in choice), default=0)
        candidates = [other for other in choice if _num_equal_settings(other, row) == most_equal]
        scratch = highest(candidates, lambda other: other.accuracy)
        if scratch is not None:
            pairs.append((row, scratch))
    return pairs


def _data_settings(row: Row) -> list[tuple[str, str]]:
    return [(name, value) for name, value in row.configuration.settings if name == "split" or name.startswith("data")]


def _num_equal_settings(first: Row, second: Row) -> int:
    one, two = first.configuration, second.configuration
    equal = sum(mine == other for mine, other in zip(one.settings, two.settings, strict=True))
    return equal + (one.costs == two.costs)
