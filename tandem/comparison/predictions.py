"""The saved predictions of the runs that are compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tandem.comparison.cells import Cell, name_runs
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord, download

DOWNLOADS_AT_ONCE = 4  # most of a download from a server is waiting


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPredictions:
    """Predictions by run id.

    Args:
        final: of the trained networks.
        first_phase: of two_stage after its first phase.
        notes: lines that say which runs have none, and why.
    """

    final: dict[str, Predictions] = field(default_factory=dict)
    first_phase: dict[str, Predictions] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_predictions(cells: Sequence[Cell], folder: Path) -> SavedPredictions:
    """Downloads and reads the predictions of cells that were tested on the same images.

    Args:
        cells: of one group.
        folder: where the files are copied to.

    Returns:
        What could be read; of the same images and classes in all runs.
    """
    runs = [run for cell in cells for run in cell.runs]
    wanted = [(run, vocabulary.FINAL_FOLDER) for run in runs]
    first = vocabulary.phase_name(1)
    wanted += [(run, first) for cell in cells if cell.regime == "two_stage" for run in cell.runs]

    def read(run: RunRecord, artifact_folder: str) -> Predictions | UserError:
        artifact = f"{artifact_folder}/{vocabulary.PREDICTIONS_FILE}"
        try:
            return Predictions.read(download(run, artifact, folder))
        except UserError as error:
            return error

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
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
        notes.append(f"Without intervals and tests, since predictions could not be read: {names} ({reason}).")
    if others:
        notes.append(
            "Without intervals and tests, since their predictions are of other images or classes than those of the "
            f"first run: {name_runs(others.values())}; train them again on the same split."
        )
    return SavedPredictions(final=saved.final, first_phase=saved.first_phase, notes=tuple(notes))


def _images_of(predictions: Predictions) -> tuple:
    """What has to be equal in runs that are compared image by image."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    for image in zip(predictions.hashes, predictions.truth.tolist(), strict=True):
        times[image] += 1
    return predictions.classes, times
