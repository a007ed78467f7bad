"""Test images on the page of a comparison: those that are hard, and Grad-CAM maps of some of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from tandem.comparison.rows import Row
from tandem.errors import UserError
from tandem.evaluation.agreement import agreement
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Block, Gallery, Picture
from tandem.rendering.tables import Column, Field, Table, table_of
from tandem.tracking import vocabulary
from tandem.tracking.reader import download

MOST_MAPS = 12  # rows whose Grad-CAM maps are shown side by side
MOST_IMAGES = 8  # in a gallery, and with maps
MOST_LISTED = 50  # in a table
MOST_LISTED_OF_A_ROW = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class _TestImage:
    """A test image in a list."""

    key: str
    truth: str
    """Name of its true class."""
    predicted: str
    """Name of the class that most rows predict."""
    num_rows: int
    """Number of rows that predict this class."""
    only_right: str
    """Label of the only row that predicts the true class; empty if there is none."""
    picture: np.ndarray | None
    """uint8 of shape (height, width, 3), if a row has a Grad-CAM map of the image."""


_KEY: Field[_TestImage] = (Column(key="image", heading="image"), attrgetter("key"))
_TRUTH: Field[_TestImage] = (Column(key="truth", heading="true class"), attrgetter("truth"))


def read_grad_cam(rows: Sequence[Row], folder: Path) -> dict[str, GradCam]:
    """Reads the Grad-CAM maps of the first run of each row that has some, for at most 12 rows; by label.

    Args:
        rows: Of one group.
        folder: Where the files are copied to.
    """
    found: dict[str, GradCam] = {}
    for row in rows:
        run = row.configuration.runs[0]
        if len(found) == MOST_MAPS:
            break
        if run.tags.get(vocabulary.GRAD_CAM, "none").startswith("none"):
            continue
        # Maps that cannot be read are left out; the rest of the page does not need them.
        with contextlib.suppress(UserError):
            found[row.label] = GradCam.read(download(run, vocabulary.GRAD_CAM_FILE, folder))
    return found


def image_blocks(rows: Sequence[Row], maps: Mapping[str, GradCam]) -> list[Block]:
    """Test images that all rows get wrong, and those that only one row gets right, by the first run of each row.

    Args:
        rows: With predictions.
        maps: From read_grad_cam, for the pictures; images without maps are only listed.
    """
    if len(rows) < 2:
        return []
    first = rows[0].predictions[0]
    predicted = [row.predictions[0].predicted for row in rows]
    found = agreement(first.truth, predicted)
    pictures = {
        image_hash: image
        for grad_cam in maps.values()
        for image_hash, image in zip(grad_cam.hashes, grad_cam.images, strict=True)
    }

    def describe(image: int, only_right: str = "") -> _TestImage:
        ((most_frequent, num_rows),) = Counter(int(of_row[image]) for of_row in predicted).most_common(1)
        return _TestImage(
            key=first.keys[image],
            truth=first.classes[first.truth[image]],
            predicted=first.classes[most_frequent],
            num_rows=num_rows,
            only_right=only_right,
            picture=pictures.get(first.hashes[image]),
        )

    def has_picture(image: int) -> bool:
        return first.hashes[image] in pictures

    alone = [(image, row.label) for row, images in zip(rows, found.only_right, strict=True) for image in images]
    listed = [
        (image, row.label)
        for row, images in zip(rows, found.only_right, strict=True)
        for image in images[:MOST_LISTED_OF_A_ROW]
    ]
    num_images = len(first.truth)
    return [
        *_gallery("Wrong in all rows", [describe(image) for image in filter(has_picture, found.all_wrong)]),
        _wrong_table([describe(image) for image in found.all_wrong[:MOST_LISTED]], len(found.all_wrong), num_images),
        *_gallery("Right in only one row", [describe(image, label) for image, label in alone if has_picture(image)]),
        _right_table([describe(image, label) for image, label in listed], len(alone), num_images),
    ]


def _gallery(title: str, images: Sequence[_TestImage]) -> list[Gallery]:
    """The first of some images with pictures; nothing without images."""
    if not images:
        return []
    pictures = []
    for image in images[:MOST_IMAGES]:
        assert image.picture is not None
        only = f"\nonly {image.only_right}" if image.only_right else ""
        pictures.append(Picture(image=image.picture, caption=f"{image.key}: {image.truth}{only}"))
    return [Gallery(title=title, pictures=tuple(pictures))]


def _wrong_table(images: Sequence[_TestImage], total: int, num_images: int) -> Table:
    return table_of(
        images,
        (
            _KEY,
            _TRUTH,
            (Column(key="predicted", heading="mostly predicted as"), attrgetter("predicted")),
            (Column(key="rows", heading="by rows", kind="number"), attrgetter("num_rows")),
        ),
        name="all_wrong",
        title=f"Wrong in all rows: {total} of {num_images} images",
        notes=(f"The first {len(images)}.",) if len(images) < total else (),
    )


def _right_table(images: Sequence[_TestImage], total: int, num_images: int) -> Table:
    return table_of(
        images,
        ((Column(key="row", heading="only right row"), attrgetter("only_right")), _KEY, _TRUTH),
        name="only_right",
        title=f"Right in only one row: {total} of {num_images} images",
        notes=(f"The first {MOST_LISTED_OF_A_ROW} of each row.",) if len(images) < total else (),
    )


def map_blocks(maps: Mapping[str, GradCam]) -> list[Block]:
    """A gallery per image: the image, and where each network found evidence for its prediction.

    Args:
        maps: From read_grad_cam.
    """
    blocks: list[Block] = []
    overlays = {label: grad_cam.overlays for label, grad_cam in maps.items()}
    # The first row that has the image, and its place there.
    images = {
        image_hash: (label, place)
        for label, grad_cam in reversed(list(maps.items()))
        for place, image_hash in enumerate(grad_cam.hashes)
    }
    shown = sorted(images, key=lambda image_hash: (images[image_hash][1], image_hash))[:MOST_IMAGES]
    for image_hash in shown:
        label, place = images[image_hash]
        source = maps[label]
        pictures = [Picture(image=source.images[place], caption="the image")]
        for other, grad_cam in maps.items():
            if image_hash in grad_cam.hashes:
                at = grad_cam.hashes.index(image_hash)
                predicted = grad_cam.classes[grad_cam.predicted[at]]
                pictures.append(Picture(image=overlays[other][at, 0], caption=f"{other}\npredicts {predicted}"))
        title = f"{source.keys[place]}: {source.classes[source.truth[place]]}"
        blocks.append(Gallery(title=title, pictures=tuple(pictures)))
    return blocks
