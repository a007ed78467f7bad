"""Page of predicted images, the least certain first."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from tandem.data.decoding import PixelRange
from tandem.data.reading import image_of_file
from tandem.predict.files import FileReader
from tandem.predict.prediction import FilePredictions
from tandem.rendering.page import LARGEST_THUMBNAIL, Gallery, Page, Picture, Section, write_page

MOST_SHOWN = 1000  # images; a thumbnail takes about 10 kB

JPEG_QUALITY = 85


def write_gallery(path: Path, predictions: FilePredictions, title: str, *, quiet: bool = False) -> None:
    """Writes a page with a section per predicted class, which needs no network.

    Args:
        path: The HTML file.
        predictions: Of files that still exist.
        title: Names the network or networks.
        quiet: Shows no progress bar.
    """
    order = np.argsort(predictions.confidence, kind="stable")[:MOST_SHOWN]
    shown = [predictions.files[index] for index in order]
    reader = FileReader(files=shown, convert=_thumbnail)
    thumbnails: dict[Path, bytes] = {}
    for files, images in reader.batches(100, title="Thumbnails", quiet=quiet):
        thumbnails.update(zip(files, images, strict=True))
    by_class: dict[str, list[Picture]] = {name: [] for name in predictions.classes}
    for index in order:
        file, best = predictions.files[index], int(predictions.probabilities[index].argmax())
        if file in thumbnails:
            caption = f"{predictions.confidence[index]:.1%} {predictions.classes[best]}\n{file.name}"
            by_class[predictions.classes[best]].append(Picture(image=thumbnails[file], caption=caption))
    number = len(predictions.files)
    lead = f"{number:,} images; {title}"
    if number > MOST_SHOWN:
        lead += f"; the {MOST_SHOWN:,} least certain are shown"
    sections = [
        Section(
            title=f"{name} ({len(pictures):,})",
            anchor=f"class-{place}",
            blocks=(Gallery(title="", pictures=tuple(pictures), note="The least certain first."),),
        )
        for place, (name, pictures) in enumerate(by_class.items())
        if pictures
    ]
    write_page(path, Page(title="Predictions", lead=lead, sections=tuple(sections)))


def _thumbnail(content: bytes, ending: str) -> bytes:
    image = image_of_file(content, ending=ending, pixel_range=PixelRange(per_image=True))
    image.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL))
    thumbnail = BytesIO()
    image.save(thumbnail, "JPEG", quality=JPEG_QUALITY)
    return thumbnail.getvalue()
