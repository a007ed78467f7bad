"""Means over data sets, and pairs of scratch and frozen: of published rows and of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from tandem.comparison.cells import family_of
from tandem.published.documents import Document
from tandem.published.rows import Results, Row, accuracy_of
from tandem.rendering.tables import Estimate, number_of


def families_of(document: Document, regime: str) -> dict[str, list[str]]:
    """The document's backbones of a regime by their families, in its order."""
    families: dict[str, list[str]] = {}
    for backbone in dict.fromkeys(result.backbone for result in document.results if result.regime == regime):
        families.setdefault(family_of(backbone), []).append(backbone)
    return families


def mean_accuracy(
    results: Results, backbones: Sequence[str], *, regime: str, framework: str | None
) -> Estimate | float | None:
    """The mean accuracy of some backbones over all data sets of the document.

    Errors on different data sets are independent, those of backbones on the same images go together: the distances of
    the intervals' ends are averaged over backbones, and combined over data sets as roots of sums of squares.

    Args:
        results: published or ours.
        backbones: each needs a row on every data set, and on every set of test images that it has of one.
        regime: of the rows.
        framework: of the rows; None for published ones, which are not told apart by it.

    Returns:
        0..1, with an interval where all rows have one; None where a row is missing.
    """
    means: list[Estimate | float] = []
    wanted = {"regime": regime} if framework is None else {"regime": regime, "framework": framework}
    for data in results.document.data_sets:
        of_each = [best_accuracy(results.of(backbone=backbone, data=data, **wanted)) for backbone in backbones]
        scores = [score for score in of_each if score is not None]
        if len(scores) < len(backbones):
            return None
        means.append(_mean(scores, independent=False))
    return _mean(means, independent=True) if means else None


def best_accuracy(rows: Sequence[Row]) -> Estimate | float | None:
    """That of the best settings, as the mean over the sets of test images, such as folds, so that none is picked.

    Folds share training images, so the distances of the intervals' ends are averaged.

    Args:
        rows: of one backbone, regime, data set and framework, which differ in their settings and test images.

    Returns:
        0..1; None where no settings have a result on all the test images.
    """
    test_sets = {row.test_set for row in rows}
    by_settings: dict[tuple, dict[str, Estimate | float]] = {}
    for row in sorted(rows, key=accuracy_of):
        if row.accuracy is not None:
            by_settings.setdefault((row.framework, row.settings), {})[row.test_set] = row.accuracy
    means = [
        _mean(list(scores.values()), independent=False) for scores in by_settings.values() if set(scores) == test_sets
    ]
    return max(means, key=lambda mean: number_of(mean) or 0.0, default=None)


def _mean(scores: Sequence[Estimate | float], *, independent: bool) -> Estimate | float:
    mean = sum(score.value if isinstance(score, Estimate) else score for score in scores) / len(scores)
    estimates = [score for score in scores if isinstance(score, Estimate)]
    if len(estimates) < len(scores):
        return mean
    below, above = [one.value - one.low for one in estimates], [one.high - one.value for one in estimates]
    low, high = (math.hypot(*below), math.hypot(*above)) if independent else (sum(below), sum(above))
    return Estimate(value=mean, low=mean - low / len(scores), high=mean + high / len(scores))


def backbones_with_mean(published: Results, backbones: Sequence[str], stated: float, *, regime: str) -> list[str]:
    """Those whose own mean over the data sets is the stated one, to four digits."""
    means = {one: number_of(mean_accuracy(published, (one,), regime=regime, framework=None)) for one in backbones}
    return [backbone for backbone, mean in means.items() if mean is not None and round(mean, 4) == stated]


def transfer_pairs(results: Results) -> list[tuple[Row, Row]]:
    """(scratch, frozen) of the same backbone, test images and framework, where the document has both.

    Each frozen row of ours with that one from scratch that has the same settings, else with the most accurate one.
    """
    pairs = []
    wanted = published_pairs(results.document)
    for frozen in results.of(regime="frozen"):
        same = {name: getattr(frozen, name) for name in ("data", "test_set", "backbone", "framework")}
        choice = results.of(regime="scratch", **same)
        if choice and (frozen.data, frozen.backbone) in wanted:
            pairs.append((max(choice, key=lambda row: (row.settings == frozen.settings, accuracy_of(row))), frozen))
    return pairs


def published_pairs(document: Document) -> set[tuple[str | None, str]]:
    """(data set, backbone) of which the document has both scratch and frozen."""
    scratch, frozen = (
        {(result.data, result.backbone) for result in document.results if result.regime == regime}
        for regime in ("scratch", "frozen")
    )
    return scratch & frozen


def transfer_mark(results: Results, scratch: Row, frozen: Row) -> Literal["negative", "tie", "positive"] | None:
    """What pretraining did to the accuracy; None where it is not known.

    A tie is a published difference of nothing at all, and one of ours that is not significant.
    """
    difference = results.difference(frozen, scratch)
    if difference is None or (not results.published and not isinstance(difference.value, Estimate)):
        return None
    if not difference.sure:
        return "tie"
    return "negative" if difference.number < 0 else "positive"
