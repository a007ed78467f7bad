"""Pictures of test images on the page of a comparison, from what this machine still has of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tandem.comparison.pictures as module
from tandem.comparison.images import MOST_PICTURES, image_blocks
from tandem.comparison.pictures import read_pictures
from tandem.comparison.rows import Row
from tandem.data.prepare import PreparedData, prepare
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import DataSettings
from tandem.rendering.page import Gallery, Text
from tandem.tracking.reader import RunRecord
from tests.comparison.made_rows import configuration

WriteImages = Callable[..., Path]


@pytest.fixture
def data(write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedData:
    """Test images of two classes; runs' files come from the data that they recorded."""
    folder = write_images({"cat": 60, "dog": 60})
    settings = DataSettings(
        source=str(folder), image_size=8, cache_folder=str(tmp_path / "cache"), fractions=[0.2, 0.1, 0.7]
    )
    made = prepare(settings, quiet=True)
    made.write(tmp_path / "recorded/data")

    def download(run: RunRecord, artifact_path: str, folder: Path) -> Path:
        if not (tmp_path / "recorded" / artifact_path).exists():
            raise UserError("out of reach")
        return tmp_path / "recorded" / artifact_path

    monkeypatch.setattr(module, "download", download)
    return made


@pytest.fixture
def rows(data: PreparedData, tmp_path: Path) -> list[Row]:
    """Two rows that get every image wrong."""
    test = data.rows("test")
    wrong = np.eye(2, dtype=np.float32)[1 - data.labels[test]]
    predictions = Predictions(
        keys=tuple(data.keys[row] for row in test),
        hashes=tuple(data.hashes[row] for row in test),
        truth=data.labels[test],
        probabilities=wrong,
        classes=data.classes,
    )
    params = {
        "data.source": str(tmp_path / "pets"),
        "data.cache_folder": str(tmp_path / "cache"),
        "data.resize": "squash",
    }
    made = []
    for label in "ab":
        one = configuration(label)
        made.append(
            Row(configuration=replace(one, runs=(replace(one.runs[0], params=params),)), predictions=(predictions,))
        )
    return made


def test_pictures_are_the_stored_images_even_without_the_files(
    rows: list[Row], data: PreparedData, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "pets")
    pictures, missing = read_pictures(rows, [0, 5, 7], tmp_path)
    assert missing == () and sorted(pictures) == [0, 5, 7]
    for place, picture in pictures.items():
        np.testing.assert_array_equal(picture, data.images[data.rows("test")[place]])


@pytest.mark.parametrize("lost", ["cache", "recorded"])
def test_pictures_come_from_the_files_if_the_store_is_gone(rows: list[Row], tmp_path: Path, lost: str) -> None:
    shutil.rmtree(tmp_path / lost)
    keys = rows[0].predictions[0].keys
    changed = tmp_path / "pets" / keys[1]
    changed.write_bytes((tmp_path / "pets" / keys[2]).read_bytes())  # is another image now
    pictures, missing = read_pictures(rows, [0, 1], tmp_path)
    assert missing == () and list(pictures) == [0]
    assert pictures[0].shape == (10, 12, 3)  # as in the file


def test_one_line_says_where_images_were_looked_for(rows: list[Row], tmp_path: Path) -> None:
    for name in ("cache", "pets"):
        shutil.rmtree(tmp_path / name)
    blocks = image_blocks(rows, {}, tmp_path)
    (line,) = [block for block in blocks if isinstance(block, Text)]
    assert not any(isinstance(block, Gallery) for block in blocks)
    (sentence,) = line.paragraphs
    assert "not on this machine" in sentence and f"{tmp_path}/cache" in sentence and f"{tmp_path}/pets" in sentence


def test_galleries_are_bounded(rows: list[Row], tmp_path: Path) -> None:
    (gallery,) = [block for block in image_blocks(rows, {}, tmp_path) if isinstance(block, Gallery)]
    number = len(rows[0].predictions[0].keys)
    assert len(gallery.pictures) == MOST_PICTURES < number
    assert gallery.note == f"{MOST_PICTURES} of {number}."
    assert gallery.pictures[0].caption.startswith("cat\n2 of 2 rows predict dog\ncat/")


def test_key_leads_to_no_file_outside_of_the_source(rows: list[Row], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "pets" / rows[0].predictions[0].keys[0]).rename(tmp_path / "secret.png")
    outside = tuple("../secret.png" for _ in rows[0].predictions[0].keys)
    moved = [replace(row, predictions=(replace(row.predictions[0], keys=outside),)) for row in rows]
    pictures, _ = read_pictures(moved, [0], tmp_path)
    assert pictures == {}
