"""Means over data sets, and pairs of scratch and frozen, of published entries and of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from tandem.comparison.configurations import family_of
from tandem.evaluation.ties import highest
from tandem.published.documents import Document
from tandem.published.entries import Entry, Results, differing_settings
from tandem.published.judging import rounds_to
from tandem.rendering.tables import Estimate, number_of


def families_of(document: Document, regime: str) -> dict[str, list[str]]:
    """The document's backbones with a regime, by family, in the order of the document."""
    families: dict[str, list[str]] = {}
    for backbone in dict.fromkeys(result.backbone for result in document.results if result.regime == regime):
        families.setdefault(family_of(backbone), []).append(backbone)
    return families


def mean_accuracy(
    results: Results, backbones: Sequence[str], *, regime: str, framework: str | None
) -> Estimate | float | None:
    """Mean accuracy of some backbones over all data sets of the document.

    Errors on different data sets are independent, those of backbones on the same images are not: the distances of the
    intervals' ends are averaged over backbones, and combined over data sets as roots of sums of squares.

    Args:
        results: Published or ours.
        backbones: Each needs an entry on every data set, for ours on each of its sets of test images.
        regime: Of the entries.
        framework: Of the entries; None for published ones, which are not separated by it.

    Returns:
        0..1, with an interval if all entries have one; None if an entry is missing.
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


def best_accuracy(entries: Sequence[Entry]) -> Estimate | float | None:
    """Accuracy with the best settings: the mean over the sets of test images, such as folds.

    Folds share training images, so the distances of the intervals' ends are averaged.

    Args:
        entries: Of one backbone, regime, data set and framework, with different settings and test images.

    Returns:
        0..1; None if no settings have a result on all test images.
    """
    test_sets = {entry.test_set for entry in entries}
    by_settings: dict[tuple, dict[str, Estimate | float]] = {}
    for entry in sorted(entries, key=lambda entry: entry.accuracy_value):
        if entry.accuracy is not None:
            # Folds have splits of their own.
            settings = tuple(item for item in entry.settings if item[0] != "split")
            by_settings.setdefault((entry.framework, settings), {})[entry.test_set] = entry.accuracy
    means = [
        _mean(list(scores.values()), independent=False) for scores in by_settings.values() if set(scores) == test_sets
    ]
    return highest(means, lambda mean: number_of(mean) or 0.0)


def _mean(scores: Sequence[Estimate | float], *, independent: bool) -> Estimate | float:
    mean = sum(score.value if isinstance(score, Estimate) else score for score in scores) / len(scores)
    estimates = [score for score in scores if isinstance(score, Estimate)]
    if len(estimates) < len(scores):
        return mean
    below, above = [one.value - one.low for one in estimates], [one.high - one.value for one in estimates]
    low, high = (math.hypot(*below), math.hypot(*above)) if independent else (sum(below), sum(above))
    return Estimate(value=mean, low=mean - low / len(scores), high=mean + high / len(scores))


def backbones_with_mean(published: Results, backbones: Sequence[str], stated: float, *, regime: str) -> list[str]:
    """The backbones whose own mean over the data sets is the stated one, to four digits."""
    means = {one: number_of(mean_accuracy(published, (one,), regime=regime, framework=None)) for one in backbones}
    return [backbone for backbone, mean in means.items() if mean is not None and rounds_to(mean, stated, digits=4)]


def transfer_pairs(results: Results) -> list[tuple[Entry, Entry]]:
    """(scratch, frozen) entries with the same backbone, test images and framework, where the document has both.

    Each of our frozen entries is paired with the entry from scratch whose settings differ least and, of these, with the
    most accurate one.
    """
    pairs = []
    wanted = published_pairs(results.document)
    for frozen in results.of(regime="frozen"):
        same = {name: getattr(frozen, name) for name in ("data", "test_set", "backbone", "framework")}
        choice = results.of(regime="scratch", **same)
        least = min((len(differing_settings(entry, frozen)) for entry in choice), default=0)
        nearest = [entry for entry in choice if len(differing_settings(entry, frozen)) == least]
        scratch = highest(nearest, lambda entry: entry.accuracy_value)
        if scratch is not None and (frozen.data, frozen.backbone) in wanted:
            pairs.append((scratch, frozen))
    return pairs


def published_pairs(document: Document) -> set[tuple[str | None, str]]:
    """(data set, backbone) for which the document has both scratch and frozen."""
    scratch, frozen = (
        {(result.data, result.backbone) for result in document.results if result.regime == regime}
        for regime in ("scratch", "frozen")
    )
    return scratch & frozen


def transfer_mark(results: Results, scratch: Entry, frozen: Entry) -> Literal["negative", "tie", "positive"] | None:
    """The effect of pretraining on accuracy; None where it is unknown.

    A tie is a published difference of 0, or a difference of ours that is not significant.
    """
    difference = results.difference(frozen, scratch)
    if difference is None or (not results.published and not isinstance(difference.value, Estimate)):
        return None
    if not difference.sure:
        return "tie"
    return "negative" if difference.number < 0 else "positive"
