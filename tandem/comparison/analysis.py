"""What the saved predictions say of the cells of a group: intervals, tests, ties, transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from scipy import stats

from tandem.comparison.cells import ACCURACY, Cell, partners, scratch_partners
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.intervals import Interval, score_interval
from tandem.evaluation.predictions import Predictions, align
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.significance import ALPHA, PairedTest, TiedGroups, paired_tests, tied_groups
from tandem.evaluation.transfer import Transfer, compare_with_scratch

# Some 500 pairs: their tests take seconds, and corrected for so many they find little.
MOST_CELLS = 32
TESTED_SCORES = ("accuracy", "f1_macro")
POWER = 0.8  # Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.4

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What the predictions say. Cells are named by their labels; those without predictions are in nothing of it.

    Args:
        predictions: of each cell, one a run in the order of the seeds; all with their images in the same order.
        resampled: the scores of these cells, by their place in `predictions`; None without any.
        tests: of every pair of these cells by their places, for accuracy and macro F1; corrected over all pairs.
        tied: from these tests; nothing with fewer than two cells.
        frameworks: Keras minus PyTorch, by (PyTorch, Keras), for accuracy and macro F1; corrected over these pairs.
        before_thawing: accuracy after the first phase of two_stage.
        thawing: after the last phase minus after the first, for accuracy and macro F1; corrected over these cells.
        transfer: pretrained minus scratch, by (pretrained, scratch), in accuracy; corrected over these pairs.
        transfer_of_classes: the same class by class.
    """

    predictions: Mapping[str, tuple[Predictions, ...]] = field(default_factory=dict)
    resampled: ScoredRows | None = None
    tests: Mapping[str, Sequence[PairedTest]] = field(default_factory=dict)
    tied: Mapping[str, TiedGroups] = field(default_factory=dict)
    frameworks: Mapping[str, Mapping[tuple[str, str], PairedTest]] = field(default_factory=dict)
    before_thawing: Mapping[str, Interval] = field(default_factory=dict)
    thawing: Mapping[str, Mapping[str, PairedTest]] = field(default_factory=dict)
    transfer: Mapping[tuple[str, str], PairedTest] = field(default_factory=dict)
    transfer_of_classes: Mapping[tuple[str, str], Transfer] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Of the cells, in the order of their places."""
        return list(self.predictions)

    def interval(self, score: str, label: str) -> Interval | None:
        """The interval of a cell's score; None where its predictions are not known."""
        if self.resampled is None or label not in self.predictions:
            return None
        return score_interval(self.resampled, score, self.labels.index(label))

    def tied_with_best(self, score: str) -> list[str]:
        """Labels of the cells that are not significantly worse than the best, the best first."""
        return [self.labels[place] for place in self.tied[score].tied_with_best] if score in self.tied else []

    def letters(self, label: str) -> str | None:
        """A cell's groups of ties in accuracy: two cells differ significantly exactly if they share no letter."""
        if "accuracy" not in self.tied or label not in self.predictions:
            return None
        return self.tied["accuracy"].letters[self.labels.index(label)]

    def significantly_better(self, score: str) -> set[tuple[str, str]]:
        """(better, worse) of all pairs that differ significantly."""
        labels = self.labels
        return {
            (labels[test.first], labels[test.second])
            if test.difference.estimate > 0
            else (labels[test.second], labels[test.first])
            for test in self.tests.get(score, ())
            if test.significant
        }

    def disagreement(self) -> float | None:
        """The share of images that only one of the two most accurate cells gets right, by each one's first run."""
        if self.resampled is None or "accuracy" not in self.tied:
            return None
        first, second = self.tied["accuracy"].ranking[:2]
        return self.resampled.disagreement(first, second)

    @property
    def num_images(self) -> int:
        """Of the test set; 0 without predictions."""
        return 0 if self.resampled is None else self.resampled.num_images


def choose_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The 32 most accurate cells, whose predictions are read; all of them where there are no more."""
    best = sorted(cells, key=lambda cell: -(cell.mean(ACCURACY) or 0.0))[:MOST_CELLS]
    chosen = {cell.label for cell in best}
    return [cell for cell in cells if cell.label in chosen]


def analyse(cells: Sequence[Cell], saved: SavedPredictions) -> Analysis:
    """Computes all intervals and tests of a group.

    Args:
        cells: of the group.
        saved: predictions of some or all of its runs. Cells with a run that is missing there are left out.
    """
    cells = [cell for cell in cells if all(run.run_id in saved.final for run in cell.runs)]
    if not cells:
        return Analysis()
    ordered = iter(align([saved.final[run.run_id] for cell in cells for run in cell.runs]))
    predictions = {cell.label: tuple(next(ordered) for _ in cell.runs) for cell in cells}
    place = {label: index for index, label in enumerate(predictions)}

    resampled = ScoredRows(list(predictions.values()))
    tests = {score: paired_tests(resampled, score) for score in TESTED_SCORES}

    def tested(pairs: Sequence[tuple[str, str]], score: str) -> dict[tuple[str, str], PairedTest]:
        """The second of each pair minus the first."""
        found = paired_tests(resampled, score, [(place[second], place[first]) for first, second in pairs])
        return dict(zip(pairs, found, strict=True))

    of_frameworks = [(torch.label, keras.label) for torch, keras in partners(cells)]
    of_transfer = [(pretrained.label, scratch.label) for pretrained, scratch in scratch_partners(cells)]
    against_scratch = tested([(scratch, pretrained) for pretrained, scratch in of_transfer], "accuracy")
    before_thawing, thawing = _thawing(cells, predictions, saved)
    return Analysis(
        predictions=predictions,
        resampled=resampled,
        tests=tests,
        tied={score: tied_groups(resampled, found) for score, found in tests.items() if found},
        frameworks={score: tested(of_frameworks, score) for score in TESTED_SCORES},
        before_thawing=before_thawing,
        thawing=thawing,
        transfer={pair: against_scratch[pair[1], pair[0]] for pair in of_transfer},
        transfer_of_classes={
            pair: compare_with_scratch(predictions[pair[0]], predictions[pair[1]]) for pair in of_transfer
        },
    )


def _thawing(
    cells: Sequence[Cell], predictions: Mapping[str, tuple[Predictions, ...]], saved: SavedPredictions
) -> tuple[dict[str, Interval], dict[str, dict[str, PairedTest]]]:
    """Accuracy before thawing, and for each tested score what thawing changed, by the cells' labels."""
    thawed = [
        cell
        for cell in cells
        if cell.regime == "two_stage" and all(run.run_id in saved.first_phase for run in cell.runs)
    ]
    if not thawed:
        return {}, {score: {} for score in TESTED_SCORES}
    after = [predictions[cell.label] for cell in thawed]
    before = [tuple(saved.first_phase[run.run_id] for run in cell.runs) for cell in thawed]
    resampled = ScoredRows([*after, *before])
    pairs = [(index, index + len(thawed)) for index in range(len(thawed))]
    labels = [cell.label for cell in thawed]
    return (
        {
            label: score_interval(resampled, "accuracy", second)
            for label, (_, second) in zip(labels, pairs, strict=True)
        },
        {score: dict(zip(labels, paired_tests(resampled, score, pairs), strict=True)) for score in TESTED_SCORES},
    )


def detectable_difference(num_images: int, disagreement: float) -> float | None:
    """The difference in accuracy that McNemar's test at 0.05 finds in four of five test sets like this one.

    Solved for the difference d, from the number of images n and the share p of images that only one of two runs gets
    right: n d^2 = (z_0.975 sqrt(p) + z_0.8 sqrt(p - d^2))^2 (Connor 1987, "Sample size for testing differences in
    proportions for the paired-sample design", equation 3). It holds for one pair that was chosen beforehand; the
    correction for many pairs makes it larger.

    Args:
        num_images: of the test set.
        disagreement: the share p, 0..1.

    Returns:
        The difference; None where it is larger than the disagreement, which no difference can be.
    """
    z_alpha, z_power = stats.norm.ppf(1 - ALPHA / 2), stats.norm.ppf(POWER)
    a, b = z_alpha * math.sqrt(disagreement), num_images + z_power**2
    root = math.sqrt(max(a**2 * num_images - b * (a**2 - z_power**2 * disagreement), 0.0))
    difference = float((a * math.sqrt(num_images) + root) / b)
    return difference if difference <= disagreement else None
