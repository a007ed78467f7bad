"""Test images on the page of a comparison: those that are hard, and Grad-CAM maps of some of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from tandem.comparison.pictures import read_pictures
from tandem.comparison.rows import Row
from tandem.errors import UserError
from tandem.evaluation.agreement import agreement
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Block, Gallery, Picture, Text
from tandem.rendering.tables import Column, Field, Table, table_of
from tandem.tracking import vocabulary
from tandem.tracking.reader import download

MOST_MAPS = 12  # rows whose Grad-CAM maps are shown side by side
MOST_IMAGES = 8  # with maps
MOST_PICTURES = 24  # in a gallery; a thumbnail has about 10 kB, at most 30
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
    """uint8 of shape (height, width, 3); None if it is not known."""


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


def image_blocks(rows: Sequence[Row], maps: Mapping[str, GradCam], folder: Path) -> list[Block]:
    """Test images that all rows get wrong, and those that only one row gets right, by the first run of each row.

    Args:
        rows: With predictions.
        maps: From read_grad_cam, for pictures of images that are not on this machine.
        folder: Where files of the runs are copied to.
    """
    if len(rows) < 2:
        return []
    first = rows[0].predictions[0]
    predicted = [row.predictions[0].predicted for row in rows]
    found = agreement(first.truth, predicted)
    mapped = {
        image_hash: image
        for grad_cam in maps.values()
        for image_hash, image in zip(grad_cam.hashes, grad_cam.images, strict=True)
    }
    alone = [(int(image), row.label) for row, images in zip(rows, found.only_right, strict=True) for image in images]
    taken = _in_turn(found.only_right)[:MOST_PICTURES]
    shown = [*map(int, found.all_wrong[:MOST_PICTURES]), *taken]
    on_disk, missing_at = read_pictures(rows, shown, folder)
    pictures = {image: mapped[one] for image, one in enumerate(first.hashes) if one in mapped} | on_disk

    def describe(image: int, only_right: str = "") -> _TestImage:
        ((most_frequent, num_rows),) = Counter(int(of_row[image]) for of_row in predicted).most_common(1)
        return _TestImage(
            key=first.keys[image],
            truth=first.classes[first.truth[image]],
            predicted=first.classes[most_frequent],
            num_rows=num_rows,
            only_right=only_right,
            picture=pictures.get(image),
        )

    of_row = dict(alone)
    wrong = [describe(image) for image in map(int, found.all_wrong) if image in pictures]
    others = [image for image in of_row if image not in taken]
    right = [describe(image, of_row[image]) for image in (*taken, *others) if image in pictures]
    listed = [
        (image, row.label)
        for row, images in zip(rows, found.only_right, strict=True)
        for image in images[:MOST_LISTED_OF_A_ROW]
    ]
    num_images = len(first.truth)
    return [
        *_not_found(missing_at if shown else ()),
        *_gallery("Wrong in all rows", wrong, len(found.all_wrong), len(rows)),
        _wrong_table([describe(image) for image in found.all_wrong[:MOST_LISTED]], len(found.all_wrong), num_images),
        *_gallery("Right in only one row", right, len(alone), len(rows)),
        _right_table([describe(image, label) for image, label in listed], len(alone), num_images),
    ]


def _in_turn(of_rows: Sequence[np.ndarray]) -> list[int]:
    """The first image of each row, then the second of each, and so on."""
    places = sorted((place, row) for row, images in enumerate(of_rows) for place in range(len(images)))
    return [int(of_rows[row][place]) for place, row in places]


def _not_found(places: Sequence[str]) -> list[Block]:
    """A line on images that are not shown; nothing if they are."""
    if not places:
        return []
    return [
        Text(
            paragraphs=(
                f"The images are not on this machine, so that few or none are shown: neither in "
                f"{' nor in '.join(places)}.",
            )
        )
    ]


def _gallery(title: str, images: Sequence[_TestImage], total: int, num_rows: int) -> list[Gallery]:
    """The first of some images with pictures, of `total` images; nothing without images."""
    if not images:
        return []
    pictures = []
    for image in images[:MOST_PICTURES]:
        assert image.picture is not None
        if image.only_right:
            answer = f"only {image.only_right} is right"
        else:
            answer = f"{image.num_rows} of {num_rows} rows predict {image.predicted}"
        pictures.append(Picture(image=image.picture, caption=f"{image.truth}\n{answer}\n{image.key}"))
    note = f"{len(pictures)} of {total:,}." if len(pictures) < total else ""
    return [Gallery(title=title, pictures=tuple(pictures), note=note)]


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
