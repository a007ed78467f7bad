"""Rows and pairs of rows: what tables, figures and sentences of a comparison are made from.

A row joins a configuration with everything that its saved predictions say about it. A pair joins two rows with the
tests of their differences. tandem.comparison.analysis makes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tandem.comparison.configurations import FIRST_PHASE, Configuration
from tandem.comparison.recorded_settings import same_costs
from tandem.evaluation.intervals import Interval
from tandem.evaluation.metrics import SCORE_NAMES, per_class_table, scores
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.significance import PairedTest, Verdict
from tandem.evaluation.ties import mean
from tandem.evaluation.transfer import ClassTransfer
from tandem.rendering.tables import DECIMALS, Estimate, supported_decimals
from tandem.tracking import vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The results of one configuration: of its trained networks, or of what they were after the first phase."""

    configuration: Configuration
    after_first_phase: bool = False
    predictions: tuple[Predictions, ...] = ()
    """One per run in the order of the seeds, with images in the same order in all rows. Empty if a run has none."""
    intervals: Mapping[str, Estimate] = field(default_factory=dict)
    """Scores with their 95 % intervals, under the names of tandem.evaluation.metrics; empty without predictions."""
    without_interval: Mapping[str, str] = field(default_factory=dict)
    """Scores for which no interval keeps its promise, and why, in words that can follow a colon."""
    letters: str | None = None
    """Groups of tied rows, "a" for that of the best: two rows differ significantly in accuracy exactly if they share no
    letter. None without predictions, or if no other row has any."""
    tied_with_best: frozenset[str] = frozenset()
    """The tested scores in which the row is the best or not significantly worse than it."""
    against_best: Verdict | Literal["best"] | None = None
    """The row's accuracy compared with that of the most accurate row. None without predictions, or if no other row has
    any."""

    @property
    def label(self) -> str:
        """Name in tables and figures, unique in its group."""
        return self.configuration.label + (", first phase" if self.after_first_phase else "")

    @property
    def decimals(self) -> int:
        """Decimals of a score in a sentence: those that the number of test images supports."""
        return supported_decimals(len(self.predictions[0].keys)) if self.predictions else DECIMALS

    def mean(self, metric: str) -> float | None:
        """Mean of a metric over the runs, as they logged it; None unless all of them have it."""
        return self.configuration.mean((FIRST_PHASE if self.after_first_phase else "") + metric)

    def score(self, name: str) -> Estimate | float | None:
        """A score on the test images: with its interval where predictions are saved, else as the runs logged it.

        A score that older runs did not log is computed from their saved predictions.

        Args:
            name: A name of tandem.evaluation.metrics.scores.
        """
        found = self.intervals.get(name) or self.mean(vocabulary.TEST_PREFIX + name)
        return found if found is not None or name not in SCORE_NAMES else self._computed.get(name)

    @cached_property
    def _computed(self) -> dict[str, float]:
        """Scores of the saved predictions, the mean over the runs; empty without predictions."""
        of_runs = [scores(run) for run in self.predictions]
        return {name: mean(one[name] for one in of_runs) for name in (of_runs[0] if of_runs else ())}

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images; 0 where it is unknown, so that rows can be ordered by it."""
        return self.mean(vocabulary.TEST_PREFIX + "accuracy") or 0.0

    @cached_property
    def f1_of_classes(self) -> np.ndarray:
        """F1 of each class, float64 of shape (classes,): the mean over the runs. Only with predictions."""
        return np.mean([per_class_table(run)["f1"].to_numpy() for run in self.predictions], axis=0)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The difference of two rows in one score, and its test."""

    value: Estimate
    p_value: float
    """Two-sided p value of no difference."""
    p_holm: float
    """The p value corrected by Holm's method over all pairs of its table."""
    significant: bool
    """True if there is a difference, however small."""
    verdict: Verdict
    """The first row compared with the second."""
    of_networks: bool
    """True where a row has one run: the test is about that trained network."""

    @classmethod
    def of(cls, test: PairedTest) -> PairedDifference:
        """Reads the result of a test, which has limits."""
        assert test.p_value is not None and test.p_holm is not None
        return cls(
            value=estimate_of(test.difference),
            p_value=test.p_value,
            p_holm=test.p_holm,
            significant=test.significant,
            verdict=test.verdict,
            of_networks=test.of_networks,
        )

    @property
    def reversed(self) -> PairedDifference:
        """The difference of the second row minus the first."""
        value = Estimate(value=-self.value.value, low=-self.value.high, high=-self.value.low)
        return replace(self, value=value, verdict=reversed_verdict(self.verdict))


@dataclass(frozen=True, kw_only=True)
class ClassDifference:
    """The difference of two rows in one class."""

    name: str
    num_images: int
    recall: Estimate
    f1: Estimate | float
    """With its interval unless the class has too few images."""
    p_holm: float
    """Two-sided p value of no difference in recall, corrected by Holm's method over the classes."""
    change: Literal["worse", "better"] | None
    """Significant change of recall from the second row to the first."""

    @classmethod
    def of(cls, transfer: ClassTransfer) -> ClassDifference:
        """Reads the comparison of one class."""
        return cls(
            name=transfer.name,
            num_images=transfer.support,
            recall=estimate_of(transfer.recall),
            f1=value_of(transfer.f1),
            p_holm=transfer.p_holm,
            change="worse" if transfer.worse else "better" if transfer.better else None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two rows with the same test images; every difference is the first row minus the second."""

    first: Row
    second: Row
    tested: Mapping[str, PairedDifference] = field(default_factory=dict)
    """Accuracy and macro F1 (accuracy alone for transfer); empty unless both rows have predictions."""
    untested: Mapping[str, str] = field(default_factory=dict)
    """Scores of rows with predictions for which no test keeps its promise, and why, in words that can follow a
    colon."""
    classes: tuple[ClassDifference, ...] = ()
    """For transfer: the classes with test images, largest loss of recall first."""

    def difference(self, score: str) -> Estimate | float | None:
        """Difference in a score: with its interval where it is tested, else of what the runs logged."""
        if score in self.tested:
            return self.tested[score].value
        first, second = (row.mean(vocabulary.TEST_PREFIX + score) for row in (self.first, self.second))
        return None if first is None or second is None else first - second

    def ratio(self, metric: str) -> float | None:
        """The first row's cost as a multiple of the second's; None if they were not measured under equal conditions."""
        first, second = self.first.mean(metric), self.second.mean(metric)
        if first is None or not second or not self.same_costs:
            return None
        return first / second

    @property
    def same_costs(self) -> bool:
        """True if hardware and settings of speed are the same, so that times can be compared."""
        return same_costs(row.configuration.costs for row in (self.first, self.second))

    @property
    def verdict(self) -> Verdict | None:
        """The accuracy of the first row compared with that of the second; None without a test."""
        return self.tested["accuracy"].verdict if "accuracy" in self.tested else None

    @property
    def better(self) -> Row | None:
        """The row that is significantly more accurate, and not equivalent; None if neither is, or without a test."""
        return {"better": self.first, "worse": self.second}.get(self.verdict or "")

    @property
    def worse(self) -> Row | None:
        """The row that is significantly less accurate, and not equivalent; None if neither is, or without a test."""
        return {"better": self.second, "worse": self.first}.get(self.verdict or "")


def reversed_verdict(verdict: Verdict) -> Verdict:
    """The verdict of the second row compared with the first."""
    turned: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return turned.get(verdict, verdict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The runs of one or more rows that predict together, by the mean of their probabilities."""

    members: tuple[Row, ...]
    """At least one; an ensemble of one row is that of its runs."""
    label: str
    predictions: Predictions
    """Of all runs together, with images in the order of the rows."""
    intervals: Mapping[str, Estimate]
    """Scores with their 95 % intervals, under the names of tandem.evaluation.metrics."""
    best: Row
    """The most accurate member."""
    gain: PairedDifference
    """Accuracy of the ensemble minus that of the most accurate member; tests are corrected over all ensembles."""

    @property
    def num_runs(self) -> int:
        """Number of networks whose probabilities are averaged."""
        return sum(len(row.predictions) for row in self.members)

    def score(self, name: str) -> Estimate | float:
        """A score on the test images, with its interval if it has one."""
        return self.intervals.get(name) or scores(self.predictions)[name]

    @property
    def train_seconds(self) -> float | None:
        """Training time of all runs together; None if one is unknown or the machines are unlike."""
        if not same_costs(row.configuration.costs for row in self.members):
            return None
        means = [row.mean(vocabulary.TRAIN_SECONDS) for row in self.members]
        seconds = [
            mean * len(row.predictions) for row, mean in zip(self.members, means, strict=True) if mean is not None
        ]
        return sum(seconds) if len(seconds) == len(self.members) else None


def estimate_of(interval: Interval) -> Estimate:
    """An interval with limits as a value of a table."""
    assert interval.low is not None and interval.high is not None
    return Estimate(value=interval.estimate, low=interval.low, high=interval.high)


def value_of(interval: Interval) -> Estimate | float:
    """An interval as a value of a table; the number alone where there are no limits."""
    return interval.estimate if interval.low is None else estimate_of(interval)
