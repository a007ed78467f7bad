"""Test images that this machine still has: in the decoded images of a run, or in the files that they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tandem.comparison.rows import Row
from tandem.data.prepare import SPLIT_FILE
from tandem.data.reading import image_of_file
from tandem.data.store import find_store
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings
from tandem.rendering.page import LARGEST_THUMBNAIL
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord, download

MOST_RUNS_ASKED = 3  # runs on several machines, of which one may be this


def read_pictures(
    rows: Sequence[Row], images: Sequence[int], folder: Path
) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """Reads test images of a group.

    Args:
        rows: With predictions of the same test images.
        images: Their places in the predictions.
        folder: Where files of the runs are copied to.

    Returns:
        Images by place, uint8 of shape (height, width, 3); and where they were looked for in vain, empty if at least
        one was found.
    """
    first = rows[0].predictions[0]
    wanted = {first.hashes[image]: (image, first.keys[image]) for image in images}
    asked: dict[tuple[str | None, ...], None] = {}
    places: dict[str, None] = {}
    for row in rows:
        run = row.configuration.runs[0]
        where = tuple(run.params.get(f"data.{name}") for name in ("source", "cache_folder", "image_size"))
        if not wanted or where in asked or len(asked) == MOST_RUNS_ASKED:
            continue
        asked[where] = None
        found = _pictures_of(run, wanted, folder, places)
        if found:
            return {wanted[one][0]: picture for one, picture in found.items()}, ()
    return {}, tuple(places)


def _pictures_of(
    run: RunRecord, wanted: dict[str, tuple[int, str]], folder: Path, places: dict[str, None]
) -> dict[str, np.ndarray]:
    """Images by hash; adds the places where they were looked for in vain."""
    cache_folder = Path(run.params.get("data.cache_folder", DataSettings.cache_folder)).expanduser()
    hashes = _hashes_of(run, folder)
    stored = find_store(cache_folder, hashes, run.params.get("data.resize", DataSettings.resize)) if hashes else None
    if stored is not None:
        row_of = {one: row for row, one in enumerate(hashes)}
        return {one: np.asarray(stored[row_of[one]]) for one in wanted if one in row_of}
    places[f"{cache_folder} (data.cache_folder)"] = None
    if "data.source" not in run.params:
        return {}
    source = Path(run.params["data.source"])
    found = {one: _picture_of_file(source, key, one) for one, (_, key) in wanted.items()}
    if not any(picture is not None for picture in found.values()):
        places[f"{source} (data.source)"] = None
    return {one: picture for one, picture in found.items() if picture is not None}


def _hashes_of(run: RunRecord, folder: Path) -> list[str]:
    """SHA-256 of the files of all images of the run, in the order of its store; empty if that cannot be read."""
    try:
        split = pd.read_csv(download(run, f"{vocabulary.DATA_FOLDER}/{SPLIT_FILE}", folder), dtype=str, na_filter=False)
    except (UserError, ValueError):  # the page does not need the images
        return []
    return split["hash"].tolist() if "hash" in split else []


def _picture_of_file(source: Path, key: str, expected_hash: str) -> np.ndarray | None:
    """An image as a thumbnail; None if the file is no longer the one with this hash."""
    try:
        path = (source / key).resolve()
        if not path.is_relative_to(source.resolve()):
            return None
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected_hash:
            return None
        image = image_of_file(content, ending=path.suffix)
    except Exception:  # Pillow has many exceptions for damaged files
        return None
    image.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL))
    return np.asarray(image)
