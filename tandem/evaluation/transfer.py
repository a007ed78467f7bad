"""Negative transfer: classes in which pretrained weights made a network worse than training from scratch.

Each class is compared on its own images like rows are on all: its recall by Tango's score method, corrected over all
classes by Holm's method. Its F1, on the images of the class and those taken for it, has an interval but no test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tandem.evaluation.contributions import ClassSplit, Size, f1_of_classes, recall_of_classes
from tandem.evaluation.crossed import Crossed, Side, quantile
from tandem.evaluation.intervals import LEVEL, Interval
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.shares import ShareDifference
from tandem.evaluation.significance import ALPHA, PairedTest, holm, paired_tests

FEWEST_IMAGES_FOR_F1 = 10


@dataclass(frozen=True, kw_only=True)
class ClassTransfer:
    """One class with pretrained weights against from scratch."""

    name: str
    support: int
    """Number of test images."""
    recall: Interval
    """Pretrained minus scratch."""
    f1: Interval
    """Pretrained minus scratch."""
    p_value: float
    """Two-sided, of no difference in recall."""
    p_holm: float
    """The same, corrected over all classes with test images."""

    @property
    def worse(self) -> bool:
        """True if the pretrained row finds significantly fewer images of the class."""
        return self.p_holm < ALPHA and self.recall.estimate < 0

    @property
    def better(self) -> bool:
        """True if the pretrained row finds significantly more images of the class."""
        return self.p_holm < ALPHA and self.recall.estimate > 0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Pretrained weights against training from scratch, on the same test images."""

    accuracy: PairedTest
    """Pretrained minus scratch."""
    classes: tuple[ClassTransfer, ...]
    """Those with test images, the one that lost most recall first."""

    @property
    def negative(self) -> bool:
        """True if the pretrained row is significantly less accurate."""
        return self.accuracy.significant and self.accuracy.difference.estimate < 0


def compare_with_scratch(pretrained: Sequence[Predictions], scratch: Sequence[Predictions]) -> Transfer:
    """Compares a pretrained row with one that was trained from scratch, over all images and class by class.

    Args:
        pretrained: Predictions of one or more runs.
        scratch: The same, on the same test images.

    Raises:
        UserError: The runs were not tested on the same images.
    """
    rows = ScoredRows((pretrained, scratch))
    (accuracy,) = paired_tests(rows, "accuracy", [(0, 1)])
    recall, f1 = (_differences(rows, of_classes) for of_classes in (recall_of_classes, f1_of_classes))
    p_values = recall.p_value(0.0)
    present = np.flatnonzero(rows.split.support)
    names = rows.runs[0][0].predictions.classes
    found = [
        ClassTransfer(
            name=names[index],
            support=int(rows.split.support[index]),
            recall=of_recall,
            f1=of_f1,
            p_value=float(p_value),
            p_holm=float(p_holm),
        )
        for index, of_recall, of_f1, p_value, p_holm in zip(
            present, _intervals(recall), _intervals(f1, FEWEST_IMAGES_FOR_F1), p_values, holm(p_values), strict=True
        )
    ]
    return Transfer(accuracy=accuracy, classes=tuple(sorted(found, key=lambda one: one.recall.estimate)))


def fewest_images_for_flag(num_classes: int) -> int:
    """The smallest class that two single runs can differ in significantly.

    Even if one run gets all its images right and the other none.

    Args:
        num_classes: Number of classes that are tested together.
    """
    # Of n images that only one run gets right, McNemar's statistic is the root of n.
    return int(quantile(ALPHA / num_classes, np.inf) ** 2) + 1


def _differences(
    rows: ScoredRows, of_classes: Callable[[ClassSplit, np.ndarray], tuple[np.ndarray, sparse.csr_array]]
) -> ShareDifference:
    """The first row minus the second, for each class with test images."""
    present = np.flatnonzero(rows.split.support)
    values, means, sides = [], [], []
    for runs in rows.runs:
        scores, contributions = zip(*(of_classes(rows.split, run.predicted) for run in runs), strict=True)
        mean = sum(contributions[1:], contributions[0]) / len(runs)
        noise = np.sum([(own - mean).power(2).sum(axis=1) for own in contributions], axis=0)
        spread = np.square(scores - np.mean(scores, axis=0)).sum(axis=0)
        divisor = max(len(runs) - 1, 1) * len(runs)
        sides.append(
            Side(
                num_runs=np.full(len(present), len(runs)),
                spread=spread[present] / divisor,
                noise=noise[present] / divisor,
            )
        )
        values.append(np.mean(scores, axis=0)[present])
        means.append(mean)
    support = rows.split.support[present]
    return ShareDifference(
        Crossed(
            value=values[0] - values[1],
            images=(means[0] - means[1]).power(2).sum(axis=1)[present],
            sides=tuple(sides),
            size=Size(images=support, step=1 / support),
        )
    )


def _intervals(differences: ShareDifference, fewest_images: int = 1) -> list[Interval]:
    low, high = differences.limits(1 - LEVEL)
    return [
        Interval(estimate=float(value), low=float(one), high=float(other))
        if images >= fewest_images
        else Interval(estimate=float(value), why_not=f"fewer than {fewest_images} test images")
        for value, one, other, images in zip(
            differences.crossed.value, low, high, np.asarray(differences.crossed.size.images), strict=True
        )
    ]
