"""Pairs of rows that are compared with each other: of two frameworks, and with and without pretraining."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from tandem.comparison.initial_weights import AN_EARLIER_RUN, CLASSES
from tandem.comparison.recorded_settings import same_costs
from tandem.comparison.rows import Row
from tandem.evaluation.ties import highest

# Settings that may differ between two frameworks although both rows are trained in the same way.
_OF_EACH_FRAMEWORK = ("weights", CLASSES)


def framework_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of Keras and of PyTorch with the same backbone, regime and settings.

    The order of the classes may differ, and so may files of weights and earlier runs, which each framework has of its
    own, unless both frameworks have several of them.

    Returns:
        (Keras, PyTorch). Of several PyTorch rows, the one with the same hardware and settings of speed, else the first;
        one pair per file of weights where only one of the two frameworks has several files.
    """
    found = defaultdict(list)
    for row in rows:
        settings = tuple((name, value) for name, value in row.configuration.settings if name not in _OF_EACH_FRAMEWORK)
        found[row.configuration.backbone, row.configuration.regime, settings].append(row)
    pairs = []
    for members in found.values():
        of_torch = [row for row in members if row.configuration.framework == "torch"]
        for keras in members:
            if keras.configuration.framework != "torch":
                alike = [row for row in members if row.configuration.framework == keras.configuration.framework]
                pairs += [(keras, torch) for torch in _partners(keras, of_torch, alike)]
    return pairs


def _partners(keras: Row, of_torch: Sequence[Row], of_keras: Sequence[Row]) -> list[Row]:
    """The PyTorch rows that a Keras row is compared with.

    Args:
        keras: The row.
        of_torch: The PyTorch rows that differ from it in weights, order of classes and costs at most.
        of_keras: The rows of its own framework of which the same is true.
    """
    same_weights = [row for row in of_torch if _weights(row) == _weights(keras)]
    if not same_weights and (kind := _kind_of_own_weights(keras)):
        same_kind, own = ([row for row in rows if _kind_of_own_weights(row) == kind] for rows in (of_torch, of_keras))
        if min(len(set(map(_weights, rows))) for rows in (same_kind, own)) > 1:
            return []  # Nothing says which of them belong together.
        same_weights = same_kind
    chosen = []
    for weights in dict.fromkeys(map(_weights, same_weights)):
        choice = [row for row in same_weights if _weights(row) == weights]
        alike = (row for row in choice if same_costs((row.configuration.costs, keras.configuration.costs)))
        chosen.append(next(alike, choice[0]))
    return chosen


def _weights(row: Row) -> str:
    return dict(row.configuration.settings).get("weights", "")


def _kind_of_own_weights(row: Row) -> Literal["file", "run", ""]:
    """Kind of weights that each framework has of its own: a file, or an earlier run of which nothing is known here."""
    kind = row.configuration.weights_kind
    if kind == "file":
        return "file"
    unknown = _weights(row) == AN_EARLIER_RUN or _weights(row).startswith("runs:/")
    return "run" if kind == "run" and unknown else ""


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
    return equal + same_costs((one.costs, two.costs))
