"""Negative transfer: where pretrained weights made a network worse than training from scratch.

Classes are resampled within their own images. A class's recall is tested with McNemar's exact test on its images, and
corrected over all classes by Holm's method. F1 has an interval but no test: for hundreds of classes a test by
resampling would need more resamples than it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem.evaluation.intervals import Interval, bootstrap_interval
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import (
    NUM_RESAMPLES,
    SEED,
    align,
    class_counts,
    class_scores,
    class_support,
    mean_of_drawn_runs,
    resample_scores,
    resamples_for,
    weight_blocks,
)
from tandem.evaluation.significance import ALPHA, PairedTest, bootstrap_p_values, holm, mcnemar_p_value, paired_tests


@dataclass(frozen=True, kw_only=True)
class ClassTransfer:
    """One class with pretrained weights against from scratch.

    Args:
        name: of the class.
        support: its number of test images.
        recall: difference, pretrained minus scratch, resampled within each class.
        f1: the same.
        p_value: two-sided, of no difference in recall.
        p_holm: the same corrected over all classes with test images.
    """

    name: str
    support: int
    recall: Interval
    f1: Interval
    p_value: float
    p_holm: float

    @property
    def worse(self) -> bool:
        """Whether the pretrained network finds significantly fewer images of the class."""
        return self.p_holm < ALPHA and self.recall.estimate < 0

    @property
    def better(self) -> bool:
        """Whether the pretrained network finds significantly more images of the class."""
        return self.p_holm < ALPHA and self.recall.estimate > 0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Pretrained weights against training from scratch, on the same test images.

    Args:
        accuracy: difference, pretrained minus scratch, and its test.
        classes: those with test images, the one that lost most recall first.
    """

    accuracy: PairedTest
    classes: tuple[ClassTransfer, ...]

    @property
    def negative(self) -> bool:
        """Whether the pretrained network is significantly less accurate."""
        return self.accuracy.significant and self.accuracy.difference.estimate < 0


def compare_with_scratch(
    pretrained: Sequence[Predictions], scratch: Sequence[Predictions], *, seed: int = SEED
) -> Transfer:
    """Compares a pretrained cell with one that was trained from scratch, over all images and class by class.

    Args:
        pretrained: predictions of one or more runs, ordered by their seeds.
        scratch: the same, on the same test images. With several runs in either cell, recall is tested with the paired
            bootstrap over images and runs.
        seed: of the resamples.

    Raises:
        UserError: the runs were not tested on the same images.
    """
    (accuracy,) = paired_tests(resample_scores((pretrained, scratch), seed=seed), "accuracy")
    runs = align([*pretrained, *scratch])
    truth, classes = runs[0].truth, runs[0].classes
    one_run_each = len(runs) == 2
    num_resamples = NUM_RESAMPLES if one_run_each else resamples_for(len(classes))

    counts, ones = [class_counts(run) for run in runs], np.ones((len(truth), 1))
    support = class_support(truth, len(classes)) @ ones  # within a class, the same in every resample
    observed = [class_scores(matrix @ ones, support) for matrix in counts]
    values = {name: np.empty((len(runs), len(classes), num_resamples), np.float32) for name in ("recall", "f1")}
    for columns, weights in weight_blocks(truth, num_resamples, seed, within_class=True):
        for index, matrix in enumerate(counts):
            of_classes = class_scores(matrix @ weights, support)
            for name, of_runs in values.items():
                of_runs[index, :, columns] = of_classes[name]

    cut = len(pretrained)
    estimates, differences = {}, {}
    for name, of_runs in values.items():
        mean_pretrained = np.mean([scores[name] for scores in observed[:cut]], axis=0)
        mean_scratch = np.mean([scores[name] for scores in observed[cut:]], axis=0)
        estimates[name] = (mean_pretrained - mean_scratch)[:, 0]
        differences[name] = mean_of_drawn_runs(of_runs[:cut], seed) - mean_of_drawn_runs(of_runs[cut:], seed)

    present = np.flatnonzero(support)
    if one_run_each:
        first, second = (run.predicted == truth for run in runs)
        p_values = np.array([mcnemar_p_value(first[truth == index], second[truth == index]) for index in present])
    else:
        p_values = bootstrap_p_values(estimates["recall"][present], differences["recall"][present])
    found = [
        ClassTransfer(
            name=classes[index],
            support=int(support[index, 0]),
            recall=_interval("recall", estimates["recall"][index], differences["recall"][index]),
            f1=_interval("f1", estimates["f1"][index], differences["f1"][index]),
            p_value=float(p_value),
            p_holm=float(p_holm),
        )
        for index, p_value, p_holm in zip(present, p_values, holm(p_values), strict=True)
    ]
    return Transfer(accuracy=accuracy, classes=tuple(sorted(found, key=lambda one: one.recall.estimate)))


def _interval(score: str, estimate: float, values: np.ndarray) -> Interval:
    return bootstrap_interval(float(estimate), values.astype(np.float64), score=score, smallest=-1)
