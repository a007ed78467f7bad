"""Places in which a run is recorded, MLflow and a folder on the disk, and their checks."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tandem.errors import UserError
from tandem.protocol.addresses import absolute
from tandem.protocol.settings import Settings
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri

LEAST_FREE_BYTES = 50_000_000  # for the files of a run: a page of 5 MB, weights and a model of a small network


def check_places(settings: Settings) -> None:
    """Checks that MLflow can record a run and that its folder can be written, before hours of decoding images.

    Raises:
        UserError: MLflow does not answer, or its experiment or the run's folder cannot be written, or their disk is
            almost full.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    find_or_create_experiment(client, settings.tracking.experiment)
    parent = _place_of_runs(settings)
    # created when the run starts, so that nothing is left behind if it does not
    while not os.path.lexists(parent):
        parent = parent.parent
    with _said_where(settings), tempfile.TemporaryFile(dir=parent):
        free = shutil.disk_usage(parent).free
    if free < LEAST_FREE_BYTES:
        raise UserError(
            f"tracking.folder: the disk of {parent} has {free / 1e6:.0f} MB free, and a run needs at least "
            f"{LEAST_FREE_BYTES / 1e6:.0f} MB; make room, or give a folder on another disk with --tracking.folder"
        )


def folder_of_runs(settings: Settings) -> Path:
    """Folder of the experiment's runs, which this process can write; created if it is missing.

    Raises:
        UserError: It cannot be written.
    """
    parent = _place_of_runs(settings)
    with _said_where(settings):
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    return parent


def _place_of_runs(settings: Settings) -> Path:
    return absolute(Path(settings.tracking.folder)) / vocabulary.file_name(settings.tracking.experiment)


@contextlib.contextmanager
def _said_where(settings: Settings) -> Iterator[None]:
    """Turns a failure to write the folder of the runs into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot make a folder for the run in tracking.folder: received {settings.tracking.folder!r} "
            f"({error.strerror}); give a folder that you may write with --tracking.folder"
        ) from error
