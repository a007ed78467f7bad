from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tandem.comparison.images as module
from tandem.comparison.images import image_blocks, map_blocks, read_grad_cam
from tandem.comparison.rows import Row
from tandem.errors import UserError
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Block, Gallery
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, rows_of
from tests.comparison.made_rows import configuration

IMAGES = 40
CLASSES = tuple(f"class {index}" for index in range(4))


def grad_cam(hashes: tuple[str, ...] = ("00000", f"{IMAGES - 1:05d}"), predicted: tuple[int, ...] = (1, 0)) -> GradCam:
    count = len(hashes)
    return GradCam(
        keys=tuple(f"{int(one)}.png" for one in hashes),
        hashes=hashes,
        classes=CLASSES,
        truth=np.array([int(one) % 4 for one in hashes]),
        predicted=np.array(predicted),
        images=np.zeros((count, 8, 8, 3), np.uint8),
        maps=np.zeros((count, 2, 8, 8), np.uint8),
    )


@pytest.fixture
def rows(make_predictions: MakePredictions) -> list[Row]:
    """Of 40 images, the last is wrong in all rows, and image 0 is right only in row a."""
    wrong = {"a": {38, 39}, "b": {0, 37, 38, 39}, "c": {0, 1, 39}}
    return [
        Row(
            configuration=configuration(label),
            predictions=(make_predictions([image not in of_row for image in range(IMAGES)]),),
        )
        for label, of_row in wrong.items()
    ]


def split(blocks: list[Block]) -> tuple[dict[str, Table], list[Gallery]]:
    tables = {block.name: block for block in blocks if isinstance(block, Table)}
    return tables, [block for block in blocks if isinstance(block, Gallery)]


def test_hard_images_and_those_that_one_row_gets_right_are_listed(rows: list[Row], tmp_path: Path) -> None:
    tables, galleries = split(image_blocks(rows, {}, tmp_path))
    assert rows_of(tables["all_wrong"]) == [{"image": "39.png", "truth": "class 3", "predicted": "class 0", "rows": 3}]
    assert tables["all_wrong"].title == "Wrong in all rows: 1 of 40 images"
    assert rows_of(tables["only_right"]) == [
        {"row": "a", "image": "0.png", "truth": "class 0"},
        {"row": "c", "image": "38.png", "truth": "class 2"},
    ]
    assert tables["only_right"].title == "Right in only one row: 2 of 40 images"
    assert galleries == []


def test_images_with_maps_are_shown(rows: list[Row], tmp_path: Path) -> None:
    _, galleries = split(image_blocks(rows, {"a": grad_cam()}, tmp_path))
    assert [(gallery.title, [picture.caption for picture in gallery.pictures]) for gallery in galleries] == [
        ("Wrong in all rows", ["class 3\n3 of 3 rows predict class 0\n39.png"]),
        ("Right in only one row", ["class 0\nonly a is right\n0.png"]),
    ]


def test_long_lists_are_cut(make_predictions: MakePredictions, tmp_path: Path) -> None:
    right = [[number % 8 == place for number in range(240)] for place in (0, 1)]
    rows = [
        Row(configuration=configuration(label), predictions=(make_predictions(of_row),))
        for label, of_row in zip("ab", right, strict=True)
    ]
    tables, _ = split(image_blocks(rows, {}, tmp_path))
    assert (len(tables["all_wrong"].rows), tables["all_wrong"].notes) == (50, ("The first 50.",))
    assert (len(tables["only_right"].rows), tables["only_right"].notes) == (20, ("The first 10 of each row.",))


def test_single_row_has_no_images_to_compare(rows: list[Row], tmp_path: Path) -> None:
    assert image_blocks(rows[:1], {}, tmp_path) == []


def test_maps_of_one_image_are_side_by_side() -> None:
    maps = {"a": grad_cam(), "b": grad_cam(("00000", "00002"), (2, 2))}
    galleries = [block for block in map_blocks(maps) if isinstance(block, Gallery)]
    assert [(gallery.title, [picture.caption for picture in gallery.pictures]) for gallery in galleries] == [
        ("0.png: class 0", ["the image", "a\npredicts class 1", "b\npredicts class 2"]),
        ("2.png: class 2", ["the image", "b\npredicts class 2"]),
        ("39.png: class 3", ["the image", "a\npredicts class 0"]),
    ]


def test_maps_that_cannot_be_read_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tags = {"read": "2 images", "lost": "2 images", "none": "none: switched off", "older": None}

    def download(run: RunRecord, artifact_path: str, folder: Path) -> Path:
        assert artifact_path == "final/grad_cam.npz" and run.run_id in ("read", "lost")
        if run.run_id == "lost":
            raise UserError("out of reach")
        path = folder / artifact_path
        grad_cam().write(path)
        return path

    monkeypatch.setattr(module, "download", download)
    rows = []
    for label, tag in tags.items():
        made = Row(configuration=configuration(label))
        made.configuration.runs[0].tags.update({} if tag is None else {"tandem.grad_cam": tag})
        rows.append(made)
    assert list(read_grad_cam(rows, tmp_path)) == ["read"]
