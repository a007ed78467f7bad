"""The scan of a source: place, class, hash and size of every image, and a list of files that are not images."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import PIL
from PIL import Image

from tandem.data.console import counted, on_all_cores
from tandem.data.decoding import FULL_RANGE, VERSIONS, Decoded, PixelRange, prepare_pillow, to_rgb, white_level
from tandem.data.optional_formats import missing_package
from tandem.data.source import Source, SourceImage
from tandem.errors import UserError, some_of
from tandem.files import whole_file
from tandem.protocol.settings import DataSettings

SCAN_VERSION = 2  # to be raised when files are judged or measured in another way: all are then scanned again

COLUMNS = ("key", "label", "part", "hash", "height", "width", "mode", "num_bytes", "fold")


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
        fold: the publisher's fold, otherwise the empty text.
    """
    pixel_range: PixelRange | None = None
    """Range of the pixels of images with more than 8 bits; None if there are none."""
    remarks: tuple[str, ...] = ()
    """Lines on images that are used although something about their files is unusual."""

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
    remarks: list[str] = field(default_factory=list)
    """Remarks of the decoder."""
    levels: list[float] | None = None
    """Smallest and largest level of an image with more than 8 bits; None for other images."""
    is_floating: bool = False
    """True if the levels are floating-point numbers."""


def is_scanned(source: Source, cache_folder: Path) -> bool:
    """True if an earlier scan is kept, so that a new one may skip files."""
    return _cache_of(source, cache_folder).exists()


def scan(
    source: Source,
    cache_folder: Path,
    *,
    pixel_range: Literal["auto", "full", "per_image"] = DataSettings.pixel_range,
    keep: Callable[[str, Image.Image], None] | None = None,
    quiet: bool = False,
) -> tuple[Manifest, tuple[str, ...]]:
    """Reads and decodes every image once; files that are unchanged since an earlier scan are skipped.

    Args:
        source: The images.
        cache_folder: Folder in which results are kept for the next scan.
        pixel_range: Range of pixels with more than 8 bits, as data.pixel_range.
        keep: Called with the key and the upright RGB pixels of each decoded image, in any order, by several threads;
            not for images with more than 8 bits, whose range is known only when all are scanned.
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
        prepare_pillow()  # before the threads start
        results = on_all_cores(lambda image: _scan_one(source, image, keep), new, title="Checking images", quiet=quiet)
        known |= {(image.key, image.stamp): result for image, result in zip(new, results, strict=True)}
        _write_cache(cache, known)
    return _to_manifest(source, known, pixel_range)


def _cache_of(source: Source, cache_folder: Path) -> Path:
    return cache_folder / "scans" / f"{hash_of([SCAN_VERSION, VERSIONS, source.location])[:32]}.json"


def _scan_one(source: Source, image: SourceImage, keep: Callable[[str, Image.Image], None] | None) -> _Scanned:
    file, file_hash, num_bytes = b"", "", 0
    try:
        file = source.read(image.key)
        file_hash, num_bytes = hashlib.sha256(file).hexdigest(), len(file)
        if not file:
            raise ValueError("the file is empty")
        decoded = source.decode(image.key, file)
        mode = decoded.image.mode
        levels = _levels_of(decoded)
        pixels = to_rgb(decoded, PixelRange(per_image=True))
    except Exception as error:  # Pillow's readers raise many kinds for bytes that are not an image
        problem = describe_problem(error, file)
        return _Scanned(hash=file_hash, height=0, width=0, mode="", num_bytes=num_bytes, problem=problem)
    if keep is not None and levels is None:
        keep(image.key, pixels)
    return _Scanned(
        hash=file_hash,
        height=pixels.height,
        width=pixels.width,
        mode=mode,
        num_bytes=num_bytes,
        problem=None,
        remarks=list(decoded.remarks),
        levels=levels,
        is_floating=decoded.levels is not None and not np.issubdtype(decoded.levels.dtype, np.integer),
    )


def _levels_of(decoded: Decoded) -> list[float] | None:
    if decoded.levels is None:
        return None
    colours = decoded.levels if decoded.levels.ndim == 2 else decoded.levels[..., :3]
    if not np.isfinite(colours).all():
        raise ValueError("some of its pixels are not numbers")
    return [float(colours.min()), float(colours.max())]


def describe_problem(error: Exception, file: bytes) -> str:
    """The reason why a file is no readable image, in a few words.

    Args:
        error: Raised while the file was read or decoded.
        file: Its content; empty if it could not be read.
    """
    if package := missing_package(file):
        return f"pip install {package} reads its content"
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image, despite its name"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    message = " ".join(str(error).split())
    is_sentence = message and isinstance(error, OSError | ValueError)
    return message if is_sentence else f"{type(error).__name__} {message}".strip()


def _to_manifest(
    source: Source, known: dict[tuple[str, str], _Scanned], how: Literal["auto", "full", "per_image"]
) -> tuple[Manifest, tuple[str, ...]]:
    problems = list(source.problems)
    good: list[tuple[SourceImage, _Scanned]] = []
    for image in source.images:
        scanned = known[image.key, image.stamp]
        problem = scanned.problem or _problem_with_levels(scanned, how)
        if problem is None:
            good.append((image, scanned))
        else:
            problems.append(f"{image.key}: {problem}")
    with_images = {image.class_name for image, _ in good}
    listed = {image.class_name for image in source.images}
    problems += [f"{name}/: a class without any readable image" for name in listed - with_images]
    classes = tuple(name for name in source.classes if name in with_images)
    if len(classes) < 2:
        raise UserError(
            f"data.source: {source.location} has readable images of {len(classes)} classes, and a classifier needs at "
            "least 2; fix or remove these:\n  " + "\n  ".join(sorted(map(_on_one_line, problems)))
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
            image.fold or "",
        )
        for image, scanned in sorted(good, key=lambda pair: pair[0].key)
    ]
    pixel_range, about_levels = _pixel_range([scanned for _, scanned in good], how)
    manifest = Manifest(
        name=source.name,
        classes=classes,
        images=pd.DataFrame(rows, columns=list(COLUMNS)),
        pixel_range=pixel_range,
        remarks=(*about_levels, *_remarks(good)),
    )
    return manifest, tuple(sorted(map(_on_one_line, problems)))


def _on_one_line(problem: str) -> str:
    """A line without the line breaks and other control characters that the names of files may have."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in problem)


def _problem_with_levels(scanned: _Scanned, how: str) -> str | None:
    """Reason why levels with more than 8 bits have no known range; None for other images."""
    if scanned.levels is None or how == "per_image":
        return None
    smallest, largest = scanned.levels
    if scanned.is_floating and how == "full":
        return "its pixels are floating-point numbers, which have no full range; data.pixel_range auto or per_image"
    if smallest < 0 or largest > FULL_RANGE:
        return (
            f"its pixels are from {smallest:,.6g} to {largest:,.6g}, outside of 0 to {FULL_RANGE:,}; data.pixel_range "
            "per_image makes the smallest black and the largest white"
        )
    return None


def _pixel_range(scanned: Sequence[_Scanned], how: str) -> tuple[PixelRange | None, tuple[str, ...]]:
    """The range of images with more than 8 bits, and a line that says it."""
    by_kind: dict[bool, list[float]] = defaultdict(list)
    for each in scanned:
        if each.levels is not None:
            by_kind[each.is_floating].append(each.levels[1])
    if not by_kind:
        return None, ()
    number = sum(map(len, by_kind.values()))
    deep = f"more than 8 bits per pixel in {counted(number, 'image')}"
    if how == "per_image":
        return PixelRange(per_image=True), (f"{deep}: the smallest level of each becomes black and the largest white",)
    white = {is_floating: FULL_RANGE if how == "full" else white_level(max(of)) for is_floating, of in by_kind.items()}
    ranges = [
        f"0 to {white[is_floating]:,} "
        f"({'floating-point numbers' if is_floating else f'{white[is_floating].bit_length()} bits'}; the largest level "
        f"is {max(of):,.6g}{_half_of(of, white[is_floating])})"
        for is_floating, of in sorted(by_kind.items())
    ]
    assumed = "are taken" if how == "full" else "are assumed"
    return PixelRange(whole=white.get(False), floating=white.get(True)), (
        f"{deep}; black to white {assumed} to be {' and '.join(ranges)}; data.pixel_range changes it",
    )


def _half_of(largest: list[float], white: float) -> str:
    """Words on images that become dark since a few others have far larger levels."""
    middle = white_level(sorted(largest)[(len(largest) - 1) // 2])
    return f", and half of the images reach at most {middle:,}" if middle < white else ""


def _remarks(good: list[tuple[SourceImage, _Scanned]]) -> list[str]:
    """One line per kind of remark, with the files that it is on."""
    by_remark: dict[str, list[str]] = defaultdict(list)
    for image, scanned in good:
        for remark in scanned.remarks:
            by_remark[remark].append(image.key)
    return [f"{remark}: {len(keys):,} ({some_of(sorted(keys), 4)})" for remark, keys in sorted(by_remark.items())]


def _read_cache(cache: Path) -> dict[tuple[str, str], _Scanned]:
    try:
        entries: list[dict[str, Any]] = json.loads(cache.read_text(encoding="utf-8"))
        return {(entry.pop("key"), entry.pop("stamp")): _Scanned(**entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # missing or damaged: all files are read again


def _write_cache(cache: Path, known: dict[tuple[str, str], _Scanned]) -> None:
    # A file that could not be read has no hash, and may be readable next time.
    entries = [{"key": key, "stamp": stamp, **vars(result)} for (key, stamp), result in known.items() if result.hash]
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(cache, sync=True) as file:
            json.dump(entries, file)
    except PermissionError:
        pass  # the cache of another user, which can only be read: new files are scanned again next time


def hash_of(value: Any) -> str:
    """SHA-256, hexadecimal, of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
