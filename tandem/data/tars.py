"""WebDataset tars: images and their labels as neighbouring members, 0001.jpg and 0001.cls, read without unpacking.

The format is a convention for names in ordinary tar archives, which Python's tarfile reads. The library webdataset
would import PyTorch into Keras's processes, and unpickles members.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tandem.data.console import counted
from tandem.data.folders import decoder_of, opener_of, readable_endings
from tandem.data.source import Source, SourceImage, check_labels, choose_classes, stamp_of
from tandem.errors import UserError, some_of
from tandem.protocol.file_names import composed
from tandem.protocol.label_table import sorted_classes
from tandem.protocol.settings import DataSettings
from tandem.protocol.source_kinds import PACKED_TAR_ENDINGS, TAR_ENDINGS, files_by_part

LABEL_ENDINGS = (".cls", ".label", ".txt", ".text")
"""Members with the label as text, the most telling first."""

JSON_ENDINGS = (".json", ".jsn")
LABEL_KEYS = ("label", "cls", "class", "class_name", "target", "category")

CLASS_NAMES_FILES = ("classnames.txt", "classes.txt", "labels.txt")
"""Files beside the tars with the class of each number, one per line."""

LONGEST_LABEL = 10_000
"""Bytes of a member with a label."""


@dataclass(kw_only=True)
class _Sample:
    """Members with the same name up to the first dot."""

    images: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def find_source(root: Path, settings: DataSettings) -> Source:
    """Lists the images of a tar, or of all tars in a folder.

    Args:
        root: The file or the folder.
        settings: Parts, classes, the column (of JSON members) of the label, and the largest number of pixels.

    Raises:
        UserError: The files are compressed or no tars, or their samples have no labels.
    """
    packed = [root] if root.is_file() else sorted(root.rglob("*"))
    packed = [path for path in packed if path.name.lower().endswith(PACKED_TAR_ENDINGS)]
    if packed:
        raise UserError(
            f"data.source: {some_of([path.name for path in packed])} is compressed, so its images cannot be read in "
            "any order; decompress it first, such as with gunzip (images hardly shrink)"
        )
    by_part, parts, notes = files_by_part(root, TAR_ENDINGS, settings.parts)
    folder = root if root.is_dir() else root.parent
    names = _class_names(folder)
    images, problems, places = [], [], {}
    passed_over: Counter[str] = Counter()
    for part, files in by_part.items():
        for file in files:
            stamp = stamp_of(file)
            prefix = file.relative_to(folder).as_posix()
            for name, sample in _samples(file, passed_over):
                if not sample.images and not sample.labels:
                    continue  # counted as passed over
                ending, image = _image_of(sample, settings, file)
                key = f"{prefix}/{name}{ending}"
                label = _label_of(sample, settings, file)
                if image is None:
                    problems.append(f"{prefix}/{name}: a sample without an image ({some_of(sample.others) or 'label'})")
                elif label is None:
                    problems.append(f"{key}: a sample without a label")
                elif key in places:
                    problems.append(f"{key}: twice in the archive")
                elif names and label not in names and not (label.isdecimal() and int(label) < len(names)):
                    problems.append(f"{key}: label {label}, which is not among the {len(names)} names of classes")
                else:
                    places[key] = (file, image.offset_data, image.size)
                    label = names[int(label)] if names and label not in names else label
                    images.append(SourceImage(key=key, class_name=label, part=part, stamp=stamp))
    if not images:
        raise UserError(
            f"data.source: {root} has no samples with an image and a label (0001.jpg beside 0001.cls, .txt or .json); "
            "unpack a tar of class folders with tar -xf and name the folder"
        )
    wanted = None if settings.classes is None else [composed(name) for name in settings.classes]
    found = {image.class_name for image in images}
    available = tuple(name for name in names if name in found) or sorted_classes(found)
    if without := [name for name in names if name not in found]:
        notes = (*notes, f"{counted(len(without), 'class', 'classes')} without images, left out: {some_of(without)}")
    check_labels(available, wanted)
    kept = choose_classes(available, wanted)
    endings = some_of([f"{ending} {number}" for ending, number in sorted(passed_over.items())])

    def read(key: str) -> bytes:
        file, offset, size = places[key]
        with file.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)

    return Source(
        name=root.name.removesuffix(".tar"),
        location=str(root),
        classes=kept,
        images=tuple(image for image in images if image.class_name in kept),
        problems=tuple(problems),
        parts=parts,
        notes=notes,
        passed_over=(f"passed over: {counted(passed_over.total(), 'member')} ({endings})",) if passed_over else (),
        read=read,
        open=opener_of(settings.max_pixels),
        decode=decoder_of(settings.max_pixels),
    )


def _samples(file: Path, passed_over: Counter[str]) -> Iterator[tuple[str, _Sample]]:
    """Samples of a tar by their names."""
    samples: dict[str, _Sample] = {}
    endings = readable_endings()
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if not member.isreg() or name.startswith("."):
                    continue
                stem, dot, rest = name.partition(".")
                ending = f".{rest.rpartition('.')[2].lower()}" if dot else ""
                sample = samples.setdefault(f"{folder}/{stem}".lstrip("/"), _Sample())
                if ending in endings:
                    sample.images[f".{rest}"] = member
                elif ending in (*LABEL_ENDINGS, *JSON_ENDINGS) and member.size <= LONGEST_LABEL:
                    content = tar.extractfile(member)
                    assert content is not None
                    sample.labels[ending] = content.read()
                else:
                    sample.others.append(f".{rest}")
                    passed_over[ending or "no ending"] += 1
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"data.source: {file} is not a whole tar archive ({error}); copy it again") from None
    yield from samples.items()


def _image_of(sample: _Sample, settings: DataSettings, file: Path) -> tuple[str, tarfile.TarInfo | None]:
    """Ending and member of a sample's image: the only one, or the only one with a single dot before its ending."""
    column = (settings.columns or {}).get("path")
    if column is not None:
        return f".{column}", sample.images.get(f".{column}")
    simple = [ending for ending in sample.images if ending.count(".") == 1]
    chosen = list(sample.images) if len(sample.images) == 1 else simple
    if len(chosen) > 1 or len(sample.images) > len(chosen) == 0:
        raise UserError(
            f"data.source: the samples of {file.name} have several images ({some_of(sorted(sample.images))}); say "
            f"which is meant with data.columns, such as {{path: {min(sample.images).removeprefix('.')}}}"
        )
    return (chosen[0], sample.images[chosen[0]]) if chosen else ("", None)


def _label_of(sample: _Sample, settings: DataSettings, file: Path) -> str | None:
    column = (settings.columns or {}).get("label")
    for ending in LABEL_ENDINGS:
        if ending in sample.labels and column is None:
            try:
                return composed(sample.labels[ending].decode("utf-8-sig").strip()) or None
            except UnicodeDecodeError:
                return None
    for ending in JSON_ENDINGS:
        if ending not in sample.labels:
            continue
        try:
            record = json.loads(sample.labels[ending])
        except ValueError:
            return None
        if not isinstance(record, dict):
            return _as_text(record, file)
        found = [name for name in ((column,) if column else LABEL_KEYS) if name in record]
        if not found:
            raise UserError(
                f"data.source: the samples of {file.name} have the values {some_of(sorted(record))}, and which is the "
                f"label is not understood; say so with data.columns, such as {{label: {next(iter(record), 'NAME')}}}"
            )
        return _as_text(record[found[0]], file)
    return None


def _as_text(value: object, file: Path) -> str | None:
    if isinstance(value, list | dict):
        raise UserError(
            f"data.source: the samples of {file.name} have several values as their label ({str(value)[:60]}), and an "
            "image has one class; name another value with data.columns, such as {label: NAME}"
        )
    return None if value is None else composed(str(value)) or None


def _class_names(folder: Path) -> tuple[str, ...]:
    file = next((folder / name for name in CLASS_NAMES_FILES if (folder / name).is_file()), None)
    if file is None:
        return ()
    return tuple(composed(line.strip()) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
