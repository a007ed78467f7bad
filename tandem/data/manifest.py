"""The scan of a source: place, class, hash and size of every image, and a list of files that are not images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import PIL
from PIL import Image

from tandem.data.cache import whole_file
from tandem.data.console import on_all_cores
from tandem.data.decoding import to_rgb
from tandem.data.sources import Source, SourceImage
from tandem.errors import UserError

SCAN_VERSION = 1  # to be raised when files are judged or measured in another way: all are then scanned again

COLUMNS = ("key", "label", "part", "hash", "height", "width", "mode", "num_bytes")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The readable images of a source."""

    name: str
    """Name of the source."""
    classes: tuple[str, ...]
    """Names of the classes that have readable images."""
    images: pd.DataFrame
    """One row per image, sorted by key, with these columns:
        key: path in the source's folder, with forward slashes.
        label: index of the class, from 0.
        part: train, val or test if the publisher says so, otherwise the empty text.
        hash: SHA-256 of the file's bytes, hexadecimal.
        height, width: of the upright image, in pixels.
        mode: Pillow's name of the pixel format in the file.
        num_bytes: size of the file.
    """

    @property
    def class_names(self) -> list[str]:
        """Name of each image's class."""
        return [self.classes[label] for label in self.images["label"].tolist()]


@dataclass(frozen=True, kw_only=True)
class _Scanned:
    """Result of reading one file; the columns of a manifest, see there."""

    hash: str
    height: int
    width: int
    mode: str
    num_bytes: int
    problem: str | None
    """Reason why the file cannot be used; None for a readable image."""


def is_scanned(source: Source, cache_folder: Path) -> bool:
    """True if an earlier scan is kept, so that a new one may skip files."""
    return _cache_of(source, cache_folder).exists()


def scan(
    source: Source,
    cache_folder: Path,
    *,
    keep: Callable[[str, Image.Image], None] | None = None,
    quiet: bool = False,
) -> tuple[Manifest, tuple[str, ...]]:
    """Reads and decodes every image once; files that are unchanged since an earlier scan are skipped.

    Args:
        source: The images.
        cache_folder: Folder in which results are kept for the next scan.
        keep: Called with the key and the upright RGB pixels of each decoded image, in any order, by several threads.
        quiet: Shows no progress bar.

    Returns:
        The readable images, and one line per unusable file or class folder.

    Raises:
        UserError: Fewer than two classes have readable images.
    """
    cache = _cache_of(source, cache_folder)
    known = _read_cache(cache)
    new = [image for image in source.images if (image.key, image.stamp) not in known]
    if new:
        Image.init()  # before the threads start, each of which would load Pillow's plugins
        results = on_all_cores(lambda image: _scan_one(source, image, keep), new, title="Checking images", quiet=quiet)
        known |= {(image.key, image.stamp): result for image, result in zip(new, results, strict=True)}
        _write_cache(cache, known)
    return _to_manifest(source, known)


def _cache_of(source: Source, cache_folder: Path) -> Path:
    return cache_folder / "scans" / f"{hash_of([SCAN_VERSION, PIL.__version__, source.location])[:32]}.json"


def _scan_one(source: Source, image: SourceImage, keep: Callable[[str, Image.Image], None] | None) -> _Scanned:
    file_hash, num_bytes = "", 0
    try:
        file = source.read(image.key)
        file_hash, num_bytes = hashlib.sha256(file).hexdigest(), len(file)
        if not file:
            raise ValueError("the file is empty")
        with source.open(file) as opened:
            mode = opened.mode
            pixels = to_rgb(opened)
    except Exception as error:  # Pillow's readers raise many kinds for bytes that are not an image
        problem = describe_problem(error)
        return _Scanned(hash=file_hash, height=0, width=0, mode="", num_bytes=num_bytes, problem=problem)
    if keep is not None:
        keep(image.key, pixels)
    return _Scanned(
        hash=file_hash, height=pixels.height, width=pixels.width, mode=mode, num_bytes=num_bytes, problem=None
    )


def describe_problem(error: Exception) -> str:
    """The reason why a file is no readable image, in a few words."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image, despite its name"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    message = " ".join(str(error).split())
    is_sentence = message and isinstance(error, OSError | ValueError)
    return message if is_sentence else f"{type(error).__name__} {message}".strip()


def _to_manifest(source: Source, known: dict[tuple[str, str], _Scanned]) -> tuple[Manifest, tuple[str, ...]]:
    problems = list(source.problems)
    good: list[tuple[SourceImage, _Scanned]] = []
    for image in source.images:
        scanned = known[image.key, image.stamp]
        if scanned.problem is None:
            good.append((image, scanned))
        else:
            problems.append(f"{image.key}: {scanned.problem}")
    with_images = {image.class_name for image, _ in good}
    listed = {image.class_name for image in source.images}
    problems += [f"{name}/: a class without any readable image" for name in listed - with_images]
    classes = tuple(name for name in source.classes if name in with_images)
    if len(classes) < 2:
        raise UserError(
            f"data.source: {source.location} has readable images of {len(classes)} classes, and a classifier needs at "
            "least 2; fix or remove these:\n  " + "\n  ".join(sorted(problems))
        )
    label_of = {name: label for label, name in enumerate(classes)}
    rows = [
        (
            image.key,
            label_of[image.class_name],
            image.part or "",
            scanned.hash,
            scanned.height,
            scanned.width,
            scanned.mode,
            scanned.num_bytes,
        )
        for image, scanned in sorted(good, key=lambda pair: pair[0].key)
    ]
    manifest = Manifest(name=source.name, classes=classes, images=pd.DataFrame(rows, columns=list(COLUMNS)))
    return manifest, tuple(sorted(problems))


def _read_cache(cache: Path) -> dict[tuple[str, str], _Scanned]:
    try:
        entries: list[dict[str, Any]] = json.loads(cache.read_text(encoding="utf-8"))
        return {(entry.pop("key"), entry.pop("stamp")): _Scanned(**entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # missing or damaged: all files are read again


def _write_cache(cache: Path, known: dict[tuple[str, str], _Scanned]) -> None:
    # A file that could not be read has no hash, and may be readable next time.
    entries = [{"key": key, "stamp": stamp, **vars(result)} for (key, stamp), result in known.items() if result.hash]
    cache.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(cache) as file:
        json.dump(entries, file)


def hash_of(value: Any) -> str:
    """SHA-256, hexadecimal, of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
