"""Reads the saved predictions of compared runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tandem.comparison.configurations import Configuration, name_runs
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord, download

PARALLEL_DOWNLOADS = 4  # a download from a server mostly waits

Images = tuple[frozenset[str], frozenset[tuple[tuple[str, str], int]]]
"""Names of the classes, and how often each image occurs, by the hash of its bytes and the name of its class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPredictions:
    """Predictions by run id."""

    final: dict[str, Predictions] = field(default_factory=dict)
    """Predictions of the trained networks."""
    first_phase: dict[str, Predictions] = field(default_factory=dict)
    """Predictions of two_stage runs after the first phase."""
    notes: tuple[str, ...] = ()
    """Names of the runs without usable predictions, with the reason."""

    def with_equal_classes(self) -> SavedPredictions:
        """The predictions with the classes of all runs in the order of the first one."""
        every = (*self.final.values(), *self.first_phase.values())
        if not every:
            return self
        classes = every[0].classes
        return replace(
            self,
            final={run_id: _with_classes(one, classes) for run_id, one in self.final.items()},
            first_phase={run_id: _with_classes(one, classes) for run_id, one in self.first_phase.items()},
        )


def read_predictions(configurations: Sequence[Configuration], folder: Path) -> SavedPredictions:
    """Downloads and reads the predictions of the runs of one group.

    Args:
        configurations: Of one group.
        folder: Where the files are copied to.

    Returns:
        All readable predictions of the images and classes that most of them have; classes may be in another order.
    """
    runs = [run for configuration in configurations for run in configuration.runs]
    wanted = [(run, vocabulary.FINAL_FOLDER) for run in runs]
    first = vocabulary.phase_name(1)
    wanted += [(run, first) for one in configurations if one.regime == "two_stage" for run in one.runs]

    def read(run: RunRecord, artifact_folder: str) -> Predictions | UserError:
        artifact = f"{artifact_folder}/{vocabulary.PREDICTIONS_FILE}"
        try:
            return Predictions.read(download(run, artifact, folder))
        except UserError as error:
            return error

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        found = list(pool.map(lambda one: read(*one), wanted))

    images = [None if isinstance(one, UserError) else images_of(one) for one in found]
    times = Counter(one for one in images if one is not None)
    most = max(times, key=lambda one: times[one], default=None)
    saved = SavedPredictions()
    unread: dict[str, RunRecord] = {}
    reason = ""
    others: dict[str, RunRecord] = {}
    for (run, artifact_folder), predictions, of_run in zip(wanted, found, images, strict=True):
        if isinstance(predictions, UserError):
            unread[run.run_id] = run
            reason = reason or str(predictions)
        elif of_run != most:
            others[run.run_id] = run
        else:
            of_phase = saved.final if artifact_folder == vocabulary.FINAL_FOLDER else saved.first_phase
            of_phase[run.run_id] = predictions
    notes = []
    if unread:
        names = name_runs(unread.values())
        notes.append(f"No intervals and tests because predictions could not be read: {names} ({reason}).")
    if others:
        notes.append(
            "No intervals and tests because predictions are for other images or classes than those of most runs: "
            f"{name_runs(others.values())}; train these runs again on the same split."
        )
    return SavedPredictions(final=saved.final, first_phase=saved.first_phase, notes=tuple(notes))


def images_of(predictions: Predictions) -> Images:
    """Key that is equal for predictions of the same images and classes, whatever the order of either."""
    names = [predictions.classes[label] for label in predictions.truth.tolist()]
    times = Counter(zip(predictions.hashes, names, strict=True))
    return frozenset(predictions.classes), frozenset(times.items())


def _with_classes(predictions: Predictions, classes: tuple[str, ...]) -> Predictions:
    """The predictions with the same classes in another order; unchanged if the classes are others."""
    if predictions.classes == classes or set(predictions.classes) != set(classes):
        return predictions
    places = [predictions.classes.index(name) for name in classes]
    new_label = np.argsort(places)
    return replace(
        predictions,
        truth=new_label[predictions.truth].astype(np.int64),
        probabilities=predictions.probabilities[:, places],
        classes=classes,
    )
