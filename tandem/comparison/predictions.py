"""Reads the saved predictions of compared runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tandem.comparison.configurations import Configuration, name_runs
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord, download

PARALLEL_DOWNLOADS = 4  # a download from a server mostly waits


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPredictions:
    """Predictions by run id."""

    final: dict[str, Predictions] = field(default_factory=dict)
    """Predictions of the trained networks."""
    first_phase: dict[str, Predictions] = field(default_factory=dict)
    """Predictions of two_stage runs after the first phase."""
    notes: tuple[str, ...] = ()
    """Names of the runs without usable predictions, with the reason."""


def read_predictions(configurations: Sequence[Configuration], folder: Path) -> SavedPredictions:
    """Downloads and reads the predictions of the runs of one group.

    Args:
        configurations: Of one group.
        folder: Where the files are copied to.

    Returns:
        All readable predictions that have the images and classes of the first.
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

    saved = SavedPredictions()
    unread: dict[str, RunRecord] = {}
    reason = ""
    others: dict[str, RunRecord] = {}
    images: list[tuple] = []
    for (run, artifact_folder), predictions in zip(wanted, found, strict=True):
        if isinstance(predictions, UserError):
            unread[run.run_id] = run
            reason = reason or str(predictions)
            continue
        images.append(_images_of(predictions))
        if images[-1] != images[0]:
            others[run.run_id] = run
            continue
        (saved.final if artifact_folder == vocabulary.FINAL_FOLDER else saved.first_phase)[run.run_id] = predictions
    notes = []
    if unread:
        names = name_runs(unread.values())
        notes.append(f"No intervals and tests because predictions could not be read: {names} ({reason}).")
    if others:
        notes.append(
            "No intervals and tests because predictions are for other images or classes than those of the first run: "
            f"{name_runs(others.values())}; train these runs again on the same split."
        )
    return SavedPredictions(final=saved.final, first_phase=saved.first_phase, notes=tuple(notes))


def _images_of(predictions: Predictions) -> tuple:
    """Key that is equal for predictions with the same images and classes."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    for image in zip(predictions.hashes, predictions.truth.tolist(), strict=True):
        times[image] += 1
    return predictions.classes, times
