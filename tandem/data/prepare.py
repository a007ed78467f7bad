"""Preparation of a data set for a training script: from settings to stored images, their split, and a report on
both."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tandem.data.console import say
from tandem.data.decoding import PixelRange
from tandem.data.manifest import Manifest, is_scanned, scan
from tandem.data.source import Source
from tandem.data.sources import find_source
from tandem.data.split import PARTS, UNUSED, Split, split_images
from tandem.data.store import StagedStore, open_stores, staged_stores
from tandem.errors import UserError, some_of
from tandem.files import csv_cell, write_text
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.file_names import text_of
from tandem.protocol.settings import AugmentationSettings, DataSettings
from tandem.secrets import shown_uri

SPLIT_FILE = "split.csv"
REPORT_FILE = "report.json"
BAD_IMAGES_FILE = "bad_images.txt"
DUPLICATES_FILE = "duplicates.csv"


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Images that are ready to be streamed, and everything that is recorded about them."""

    name: str
    """Name of the data set."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    images: np.memmap
    """Images as the network sees them: uint8 RGB of shape (images, height, width, 3), read-only."""
    training_images: np.memmap
    """Images that training images are made from, in the same rows: the same array, or larger images if random resized
    crops are cut from them."""
    labels: np.ndarray
    """int64 of shape (images,)."""
    keys: tuple[str, ...]
    """Path of each image in the source's folder."""
    hashes: tuple[str, ...]
    """SHA-256 of each image's file."""
    split: Split
    """Part of each image."""
    report: dict[str, Any]
    """Description of the data set and its split, in plain JSON values."""
    bad_images: tuple[str, ...]
    """One line per file or class folder that was left out."""
    passed_over: tuple[str, ...]
    """Lines on files and folders that are no images or belong to no class."""
    remarks: tuple[str, ...]
    """Lines on what was assumed, and on images that are used although their files are unusual."""
    duplicates: pd.DataFrame
    """One row per image that has an exact copy: hash, key, class, part, note."""
    pixel_range: PixelRange | None = None
    """Range of pixels with more than 8 bits; None if no image has such pixels."""

    def rows(self, part: str) -> np.ndarray:
        """Rows of the images in train, val, test or unused, in ascending order: int64 of shape (images of the
        part,)."""
        return self.split.rows(part)

    def write(self, folder: Path) -> None:
        """Writes split.csv and report.json, and bad_images.txt and duplicates.csv unless they would be empty."""
        folder.mkdir(parents=True, exist_ok=True)
        self.split.write(folder / SPLIT_FILE)
        report = json.dumps(self.report, indent=2, ensure_ascii=False)
        write_text(folder / REPORT_FILE, report + "\n")
        if self.bad_images:
            write_text(folder / BAD_IMAGES_FILE, "\n".join(self.bad_images) + "\n")
        if len(self.duplicates):
            table = self.duplicates.map(csv_cell)
            write_text(folder / DUPLICATES_FILE, table.to_csv(index=False, lineterminator="\n"))


def prepare(
    settings: DataSettings, augmentation: AugmentationSettings | None = None, *, quiet: bool = False
) -> PreparedData:
    """Lists, checks, splits and stores the images of a data set. Results of earlier calls are reused.

    Args:
        settings: Source, split and size of the images.
        augmentation: Changes to training images, for which they may have to be stored at a larger size; none if None.
        quiet: Prints nothing; otherwise progress and a summary go to stderr.

    Raises:
        UserError: The settings or the images are wrong; one message names all bad files.
    """
    cache_folder = _make_cache_folder(settings)
    settings = resolve_split(settings)
    source = find_source(settings, quiet=quiet)
    notes = (_about_split(source, settings), *source.notes)
    for note in (*notes, *source.passed_over):
        say(f"{source.name}: {note}", quiet=quiet)
    for_crops = augmentation is not None and augmentation.random_resized_crop is not None
    with ExitStack() as stack:
        staged: tuple[StagedStore, ...] = ()
        if not is_scanned(source, cache_folder):  # a later scan decodes few images, so it cannot fill a store
            staged = stack.enter_context(staged_stores(source, settings, for_crops=for_crops, quiet=quiet))

        def keep(key: str, image: Image.Image) -> None:
            for store in staged:
                store.keep(key, image)

        manifest, problems = scan(source, cache_folder, pixel_range=settings.pixel_range, keep=keep, quiet=quiet)
        for remark in manifest.remarks:
            say(f"{source.name}: {remark}", quiet=quiet)
        if settings.on_bad_image == "error":
            _refuse_bad_images(source, problems)
        split = split_images(manifest, settings)
        images, training_images = open_stores(
            source, manifest, settings, for_crops=for_crops, staged=staged, quiet=quiet
        )
    duplicates = _find_duplicates(manifest, split)
    prepared = PreparedData(
        name=manifest.name,
        classes=manifest.classes,
        images=images,
        training_images=training_images,
        labels=manifest.images["label"].to_numpy(dtype=np.int64),
        keys=tuple(manifest.images["key"].tolist()),
        hashes=tuple(manifest.images["hash"].tolist()),
        split=split,
        report=_report(source, manifest, settings, split, images, problems, duplicates),
        bad_images=problems,
        passed_over=source.passed_over,
        remarks=(*notes, *manifest.remarks),
        duplicates=duplicates,
        pixel_range=manifest.pixel_range,
    )
    _summarize(prepared, quiet=quiet)
    return prepared


def _about_split(source: Source, settings: DataSettings) -> str:
    """Line on the division of the images into parts, and on what becomes of the publisher's own."""
    train, val, test = (100 * share for share in settings.fractions or ())
    parts = ", ".join(part if name == part else f"{name} is {part}" for part, name in source.parts.items())
    if settings.split == "publisher":
        carved = f"; {100 * val / (train + val):.3g} % of train becomes val, since there is none"
        return f"publisher's split ({parts}){'' if 'val' in source.parts else carved}"
    if settings.split == "publisher_folds":
        return f"publisher's test images ({parts}); {settings.folds} folds of the others, number {settings.fold} is val"
    dealt = f"train {train:.3g} %, val {val:.3g} %, test {test:.3g} % of each class"
    if settings.split == "folds":
        dealt = f"{settings.folds} folds of each class, number {settings.fold} to test on"
    if {"train", "test"} <= set(source.parts):
        return (
            f"the publisher's parts ({parts}) are merged and dealt anew, as data.split {settings.split} says: {dealt}"
        )
    alone = f"; {', '.join(source.parts.values())} alone has labels" if source.parts else ""
    return f"split into {dealt}{alone}"


def _make_cache_folder(settings: DataSettings) -> Path:
    try:
        folder = Path(settings.cache_folder).expanduser()
    except RuntimeError:
        raise UserError(
            f"data.cache_folder: received {settings.cache_folder}, but this user has no home folder, neither by HOME "
            "nor by the system; set HOME, or give a folder without ~"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data.cache_folder: received {settings.cache_folder}, which cannot be created ({error.strerror}); "
            "allowed: any folder that can be written"
        ) from None
    return folder


def _refuse_bad_images(source: Source, problems: tuple[str, ...]) -> None:
    if problems:
        raise UserError(
            f"data.source: {_files_or_folders(len(problems))} in {source.location} cannot be used; fix or remove them, "
            "or leave them out with data.on_bad_image skip:\n  " + "\n  ".join(problems)
        )


def _files_or_folders(number: int) -> str:
    return "1 file or class folder" if number == 1 else f"{number:,} files or class folders"


def _find_duplicates(manifest: Manifest, split: Split) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "hash": manifest.images["hash"],
            "key": manifest.images["key"],
            "class": manifest.class_names,
            "part": split.parts,
            "note": [split.dropped.get(row, "") for row in range(len(manifest.images))],
        }
    )
    return table[table["hash"].duplicated(keep=False)].sort_values(["hash", "key"], ignore_index=True)


def _report(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    split: Split,
    images: np.memmap,
    problems: tuple[str, ...],
    duplicates: pd.DataFrame,
) -> dict[str, Any]:
    used = duplicates[duplicates["part"] != UNUSED]
    return {
        "name": manifest.name,
        "source": shown_uri(text_of(settings.source)),
        "notes": list(source.notes),
        "passed_over": list(source.passed_over),
        "remarks": list(manifest.remarks),
        "num_images": len(manifest.images),
        "num_bad_images": len(problems),
        "parts": _parts_of(split.parts),
        "classes": _parts_of_classes(manifest, split),
        "split": {
            "kind": split.kind,
            "fractions": list(split.fractions),
            "seed": settings.split_seed,
            "hash": split.hash,
            "test_hash": split.test_hash,
            "test_images_hash": split.test_images_hash,
        },
        "duplicates": {
            "num_images": len(duplicates),
            "num_different_images": int(duplicates["hash"].nunique()),
            # numbers of different images among those in use that occur twice in one part, and in two parts
            "within_a_part": int(used[used.duplicated(["hash", "part"])]["hash"].nunique()),
            "across_parts": int((used.groupby("hash")["part"].nunique() > 1).sum()),
            "across_classes": int((duplicates.groupby("hash")["class"].nunique() > 1).sum()),
            "num_left_out": len(split.dropped),
        },
        "image_sizes": {
            side: {
                "min": int(manifest.images[side].min()),
                "median": float(manifest.images[side].median()),
                "max": int(manifest.images[side].max()),
            }
            for side in ("height", "width")
        },
        "modes": dict(sorted(Counter(manifest.images["mode"].tolist()).items())),
        "source_bytes": int(manifest.images["num_bytes"].sum()),
        "store": {"height": images.shape[1], "width": images.shape[2], "bytes": int(images.nbytes)},
    }


def _parts_of_classes(manifest: Manifest, split: Split) -> dict[str, Any]:
    by_class: dict[str, list[str]] = {name: [] for name in manifest.classes}
    for name, part in zip(manifest.class_names, split.parts, strict=True):
        by_class[name].append(part)
    return {name: _parts_of(parts) for name, parts in by_class.items()}


def _parts_of(parts: list[str] | tuple[str, ...]) -> dict[str, Any]:
    counts = Counter(parts)
    return {
        part: {"images": counts[part], "percent": round(100 * counts[part] / len(parts), 2)}
        for part in (*PARTS, UNUSED)
    }


def _summarize(prepared: PreparedData, *, quiet: bool) -> None:
    parts = ", ".join(f"{part} {len(prepared.rows(part)):,}" for part in (*PARTS, UNUSED) if len(prepared.rows(part)))
    say(f"{prepared.name}: {len(prepared.keys):,} images of {len(prepared.classes)} classes ({parts})", quiet=quiet)
    remarks = []
    if prepared.bad_images:
        names = some_of([problem.partition(": ")[0] for problem in prepared.bad_images], 3)
        remarks.append(f"{_files_or_folders(len(prepared.bad_images))} left out as unreadable ({names})")
    duplicates = prepared.report["duplicates"]
    if duplicates["num_images"]:
        remarks.append(
            f"{duplicates['num_images']:,} images have exact copies (in several parts: {duplicates['across_parts']:,}, "
            f"in several classes: {duplicates['across_classes']:,}; left out: {duplicates['num_left_out']:,})"
        )
    if remarks:
        say(f"{prepared.name}: {'; '.join(remarks)}", quiet=quiet)
