"""Experiments with known truth: runs of documents' networks, with predictions that were made for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.claims import claims_table
from tandem.published.documents import read_document
from tandem.published.entries import published_results
from tandem.published.ours import our_results
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, right_images, rows_of
from tests.published.judged import documented

IMAGES = 4000  # enough to show that two networks are as good as each other


@dataclass(frozen=True, kw_only=True)
class Made:
    """One run. A network that is more accurate than another is right about all images that the other is right about."""

    framework: str
    backbone: str
    regime: str
    accuracy: float
    minutes: float
    first: tuple[float, float] | None = None
    """Accuracy and minutes after the first phase."""
    seed: int = 0
    start: int = 0
    """The image from which on the network is right, so that seeds are right about different images."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None
    """By default, predictions with this accuracy."""

    @property
    def all_metrics(self) -> dict[str, float]:
        costs = {"cost/train_seconds": 60 * self.minutes, "cost/latency_milliseconds": 4.0}
        if self.first is not None:
            accuracy, minutes = self.first
            costs |= {"phase_1/test/accuracy": accuracy, "phase_1/cost/train_seconds": 60 * minutes}
            costs["phase_2/cost/train_seconds"] = 60 * (self.minutes - minutes)
        return costs | self.metrics


def compare(
    document: str, data: str | None, made: Sequence[Made], make_run: MakeRun, make_predictions: MakePredictions
) -> tuple[Comparison, dict[str, str]]:
    """Compares runs and judges a document's claims on them.

    Returns:
        The comparison; the verdict on each claim, by its words.
    """
    runs: list[RunRecord] = []
    saved = SavedPredictions()
    for one in made:
        run = make_run(
            one.framework,
            one.regime,
            one.accuracy,
            seed=one.seed,
            params={**documented(document, one.backbone, one.regime, data), "regime": one.regime, **one.params},
            metrics=one.all_metrics,
            tags={"tandem.data": data or "images", **one.tags},
        )
        runs.append(run)
        right = right_images(one.accuracy, one.start, images=IMAGES)
        saved.final[run.run_id] = one.predictions or make_predictions(right)
        if one.first is not None:
            saved.first_phase[run.run_id] = make_predictions(right_images(one.first[0], one.start, images=IMAGES))

    def read(configurations: Sequence[Any]) -> SavedPredictions:
        own = {run.run_id for configuration in configurations for run in configuration.runs}
        return SavedPredictions(
            final={run_id: of for run_id, of in saved.final.items() if run_id in own},
            first_phase={run_id: of for run_id, of in saved.first_phase.items() if run_id in own},
        )

    comparison = compare_runs(runs, read)
    known = read_document(document)
    table = claims_table(published_results(known), our_results(known, comparison.groups))
    return comparison, {row["claim"]: row["ours"] for row in rows_of(table)}


# Settings that a document has for one backbone alone; the others have labels that are shorter without them.
_OF_ONE_BACKBONE = re.compile(r"(learning_rate|batch_size|max_epochs|schedule\.name) [\w.]+(, )?")
_OF_A_METHOD = (
    (re.compile(r"95 % interval [-+.\d]+ to [-+.\d]+"), "95 % interval"),
    (re.compile(r"corrected p [^;)]+"), "corrected p"),
    (re.compile(r"must be at least [.\d]+"), "must be at least x"),
)


def plain(sentences: Sequence[str]) -> list[str]:
    """The sentences without limits of intervals and p values, and labels without the settings of each backbone."""
    found = []
    for sentence in sentences:
        for pattern, words in _OF_A_METHOD:
            sentence = pattern.sub(words, sentence)
        found.append(_OF_ONE_BACKBONE.sub("", sentence).replace(", )", ")").replace(" ()", ""))
    return found


def class_predictions(classes: Sequence[str], wrong: dict[str, tuple[int, str]], *, images: int = 200) -> Predictions:
    """Predictions of as many images per class, with some of a class wrong.

    Args:
        classes: Names of all classes.
        wrong: Number of wrong images of a class and the class that they are taken for, by the name of the class.
        images: Number of images per class.
    """
    truth = np.repeat(np.arange(len(classes), dtype=np.int64), images)
    predicted = truth.copy()
    for name, (number, taken_for) in wrong.items():
        place = classes.index(name) * images
        predicted[place : place + number] = classes.index(taken_for)
    probabilities = np.full((len(truth), len(classes)), 0.1 / (len(classes) - 1), dtype=np.float32)
    probabilities[np.arange(len(truth)), predicted] = 0.9
    return Predictions(
        keys=tuple(f"{index}.png" for index in range(len(truth))),
        hashes=tuple(f"{index:05d}" for index in range(len(truth))),
        truth=truth,
        probabilities=probabilities,
        classes=tuple(classes),
    )
