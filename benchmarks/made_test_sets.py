"""Made test sets, and runs whose true scores are known.

A test set is made from its classes' numbers of images and recalls. Every image has a difficulty that all runs of all
rows share to the degree `correlation`; a run gets an image right if that and chance stay below what the run's recall in
the class allows. Runs of a row have recalls that differ by a normal number with the standard deviation `deviation`.
Wrong images are taken for one of four neighbours of their class. A run knows how hard the image is to it, but for a
rest, and gives the probability of being right as its confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from tandem.evaluation.metrics import calibration_pairs
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import ranking_table
from tandem.evaluation.scored_rows import ScoredRows

NEIGHBOURS = 4
KNOWN_DIFFICULTY = 0.7  # share of the variance of an image's chance that the run itself knows
EASIEST, HARDEST = 0.9995, 0.001


@dataclass(frozen=True, kw_only=True)
class World:
    """Test sets of one kind, and rows of runs on them."""

    images: tuple[int, ...]
    """Of each class."""
    recall: float
    """Mean over the classes."""
    recall_spread: float = 0.0
    """Standard deviation of the classes' recalls."""
    correlation: float = 0.6
    deviation: float = 0.0
    overconfidence: float = 1.0
    """Factor on the logit of the confidence."""

    @property
    def num_classes(self) -> int:
        return len(self.images)

    @cached_property
    def truth(self) -> np.ndarray:
        return np.repeat(np.arange(self.num_classes), self.images)

    @cached_property
    def recalls(self) -> np.ndarray:
        random = np.random.default_rng(0)
        return np.clip(random.normal(self.recall, self.recall_spread, self.num_classes), 0.05, EASIEST)

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Of shape (classes, neighbours)."""
        random = np.random.default_rng(1)
        steps = np.array(
            [
                1 + random.permutation(self.num_classes - 1)[: min(NEIGHBOURS, self.num_classes - 1)]
                for _ in range(self.num_classes)
            ]
        )
        return (np.arange(self.num_classes)[:, None] + steps) % self.num_classes

    def recalls_of_run(self, gap: float, deviation: float | np.ndarray) -> np.ndarray:
        """Recall of each class for a run of a row that is worse by a gap."""
        return np.clip(self.recalls - gap + deviation, HARDEST, EASIEST)

    def truth_of_run(self, gap: float, deviation: float) -> dict[str, float]:
        """Scores over infinitely many images."""
        recalls, images = self.recalls_of_run(gap, deviation), np.array(self.images, dtype=np.float64)
        right = recalls * images
        share = (images - right) / self.neighbours.shape[1]
        taken = right + np.bincount(
            self.neighbours.ravel(), np.repeat(share, self.neighbours.shape[1]), self.num_classes
        )
        of_classes = {"recall": recalls, "precision": right / taken, "f1": 2 * right / (images + taken)}
        scores = {"accuracy": right.sum() / images.sum(), "balanced_accuracy": recalls.mean()}
        of_truth, of_predicted = images / images.sum(), taken / images.sum()
        beyond_chance = scores["accuracy"] - of_truth @ of_predicted
        scores["cohen_kappa"] = beyond_chance / (1 - of_truth @ of_predicted)
        scores["matthews_correlation"] = beyond_chance / np.sqrt(
            (1 - of_truth @ of_truth) * (1 - of_predicted @ of_predicted)
        )
        scores |= {
            f"{name} of class {index}": value
            for name in ("recall", "f1")
            for index, value in enumerate(of_classes[name])
        }
        for name, values in of_classes.items():
            scores |= {f"{name}_macro": values.mean(), f"{name}_min": values.min()}
        return {name: float(value) for name, value in scores.items()}

    def truth_of_row(self, gap: float, deviation: float) -> dict[str, float]:
        """The mean over all possible runs of a row."""
        if not deviation:
            return self.truth_of_run(gap, 0.0)
        points, weights = np.polynomial.hermite_e.hermegauss(9)
        scores = [self.truth_of_run(gap, deviation * point) for point in points]
        return {name: float(np.average([one[name] for one in scores], weights=weights)) for name in scores[0]}

    def rows(
        self,
        random: np.random.Generator,
        gaps: Sequence[float],
        runs: Sequence[int],
        deviations: Sequence[float] | None = None,
    ) -> tuple[ScoredRows, list[dict[str, float]]]:
        """A test set's rows, and their true scores: see `outcomes`."""
        outcomes, truths = self.outcomes(random, gaps, runs, deviations)
        return ScoredRows([[self.predictions(outcome) for outcome in row] for row in outcomes]), truths

    def outcomes(
        self,
        random: np.random.Generator,
        gaps: Sequence[float],
        runs: Sequence[int],
        deviations: Sequence[float] | None = None,
    ) -> tuple[list[list[Outcome]], list[dict[str, float]]]:
        """A test set's outcomes for the runs of each row, and the true scores of each row.

        Args:
            random: Generator of all numbers.
            gaps: By how much each row's recalls are below those of the classes.
            runs: Number of runs of each row. With one run the truth is that of the run.
            deviations: Of the runs of each row; by default the same for all.
        """
        shared = np.sqrt(self.correlation) * random.normal(size=len(self.truth))
        shared_choice = random.integers(0, self.neighbours.shape[1], len(self.truth))
        rows, truths = [], []
        for gap, number, deviation in zip(gaps, runs, deviations or [self.deviation] * len(gaps), strict=True):
            of_runs = deviation * random.normal(size=number)
            rows.append([self._outcome(random, gap, of_run, shared, shared_choice) for of_run in of_runs])
            truths.append(self.truth_of_row(gap, deviation) if number > 1 else self.truth_of_run(gap, of_runs[0]))
        return rows, truths

    def _outcome(
        self, random: np.random.Generator, gap: float, deviation: float, shared: np.ndarray, choice: np.ndarray
    ) -> Outcome:
        limit = special.ndtri(self.recalls_of_run(gap, deviation))[self.truth]
        own = np.sqrt(1 - self.correlation) * random.normal(size=(2, len(self.truth)))
        known = shared + np.sqrt(KNOWN_DIFFICULTY) * own[0]
        rest = np.sqrt(1 - KNOWN_DIFFICULTY) * own[1]
        right = known + rest < limit
        chance = special.ndtr((limit - known) / np.sqrt((1 - KNOWN_DIFFICULTY) * (1 - self.correlation)))
        lowest = 0.51 if self.num_classes == 2 else 0.34  # the predicted class has the highest probability
        confidence = np.clip(special.expit(self.overconfidence * special.logit(chance)), lowest, 1 - 1e-6)
        own_choice = random.integers(0, self.neighbours.shape[1], len(self.truth))
        choice = np.where(random.random(len(self.truth)) < self.correlation, choice, own_choice)
        return Outcome(
            predicted=np.where(right, self.truth, self.neighbours[self.truth, choice]),
            right=right,
            confidence=confidence,
        )

    def truth_of_many_images(self, gap: float, *, rankings: bool) -> tuple[dict[str, float], dict[str, float]]:
        """Scores of probabilities of a row without and with a gap, from half a million images."""
        many = replace(
            self, images=tuple(number * 500_000 // sum(self.images) for number in self.images), deviation=0.0
        )
        outcomes, _ = many.outcomes(np.random.default_rng(2), (0.0, gap), (1, 1))
        found = []
        for (outcome,) in outcomes:
            of_truth = np.where(outcome.right, outcome.confidence, (1 - outcome.confidence) / (self.num_classes - 1))
            squared = calibration_pairs(outcome.confidence, outcome.right).mean()
            found.append(
                {
                    "log_loss": float(-np.log(of_truth).mean()),
                    "rms_calibration_error": float(np.sqrt(max(squared, 0.0))),
                }
            )
            if rankings:
                of_classes = ranking_table(many.predictions(outcome))[["roc_auc", "average_precision"]].mean()
                found[-1] |= {f"{name}_macro": float(mean) for name, mean in of_classes.items()}
        return found[0], found[1]

    def predictions(self, outcome: Outcome) -> Predictions:
        """The outcome as a run saves it."""
        images, classes = np.arange(len(self.truth)), self.num_classes
        rest = (1 - outcome.confidence) / max(classes - 1, 1)
        probabilities = np.repeat(rest[:, None], classes, axis=1)
        probabilities[images, outcome.predicted] = outcome.confidence
        names = [f"{image:07d}" for image in images]
        return Predictions(
            keys=tuple(names),
            hashes=tuple(names),
            truth=self.truth,
            probabilities=probabilities.astype(np.float32),
            classes=tuple(f"class {index}" for index in range(classes)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Predictions of one run."""

    predicted: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
