"""Data sets of Hugging Face: saved on disk, as Parquet files, or by name from the Hub.

The library datasets reads them, and is imported only when one is asked for. It refuses data sets that come with code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tandem.data.console import counted
from tandem.data.folders import decoder_of, opener_of
from tandem.data.source import Source, SourceImage, check_labels, choose_classes, stamp_of
from tandem.errors import UserError, one_line, some_of
from tandem.protocol.file_names import composed
from tandem.protocol.label_table import NAMES, sorted_classes
from tandem.protocol.part_names import assign_parts
from tandem.protocol.settings import DataSettings
from tandem.protocol.source_kinds import HUB_PREFIX, PARQUET_ENDINGS, files_by_part, kind_of_source, parquet_parts

LIBRARY = "datasets"


def find_source(settings: DataSettings, cache_folder: Path, *, quiet: bool) -> Source:
    """Lists the images of a data set that the library datasets reads.

    Args:
        settings: Source, parts, columns, classes, and the largest number of pixels.
        cache_folder: Folder for downloads, and for Parquet files in the library's own format.
        quiet: Shows no progress bar.

    Raises:
        UserError: The library is missing, the data set cannot be loaded, or its columns or parts are not understood.
    """
    splits, parts, notes = _load(settings, cache_folder, quiet=quiet)
    if not parts and kind_of_source(settings.source) == "parquet":
        splits, parts, notes = _split_by_column(splits, settings)
    tables = {name: _Table(name, split, settings) for name, split in splits.items()}
    labelled = {name: table for name, table in tables.items() if table.has_labels}
    unlabelled = [
        f"{name}: {counted(len(table.labels), 'image')} without labels, not used"
        for name, table in tables.items()
        if name not in labelled
    ]
    if not labelled:
        raise UserError(f"data.source: {settings.source} has no labels")
    parts = {part: name for part, name in parts.items() if name in labelled}
    part_of = {name: part for part, name in parts.items()}
    wanted = None if settings.classes is None else [composed(name) for name in settings.classes]
    found = {label for table in labelled.values() for label in table.labels if label is not None}
    published = dict.fromkeys(name for table in labelled.values() for name in table.classes)
    available = tuple(name for name in published if name in found) or sorted_classes(found)
    if without := [name for name in published if name not in found]:
        notes = (*notes, f"{counted(len(without), 'class', 'classes')} without images, left out: {some_of(without)}")
    check_labels(available, wanted)
    kept = choose_classes(available, wanted)
    images, problems, rows = [], [], {}
    for name, table in labelled.items():
        stamp, digits = table.stamp(), len(str(len(table.labels)))
        for row, label in enumerate(table.labels):
            key = f"{name}/{row:0{digits}d}"
            if label is None:
                problems.append(f"{key}: no label")
            elif label in kept:
                rows[key] = (table, row)
                images.append(SourceImage(key=key, class_name=label, part=part_of.get(name), stamp=stamp))

    def read(key: str) -> bytes:
        table, row = rows[key]
        return table.read(row)

    source = settings.source
    return Source(
        name=source.removeprefix(HUB_PREFIX) if source.startswith(HUB_PREFIX) else Path(source).resolve().stem,
        location=f"{LIBRARY} {source}" if source.startswith(HUB_PREFIX) else str(Path(source).expanduser().resolve()),
        classes=kept,
        images=tuple(images),
        problems=tuple(problems),
        parts=parts,
        notes=(*notes, *dict.fromkeys(table.note for table in labelled.values())),
        passed_over=tuple(unlabelled),
        read=read,
        open=opener_of(settings.max_pixels),
        decode=decoder_of(settings.max_pixels),
    )


def _load(
    settings: DataSettings, cache_folder: Path, *, quiet: bool
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """The splits by name, the split of each part, and lines on what was assumed."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"data.source: {settings.source} is read by the library {LIBRARY}, which is not installed; pip install "
            f"{LIBRARY}"
        ) from None
    source, path = settings.source, Path(settings.source).expanduser()
    cache = str(cache_folder.resolve() / "huggingface")
    if quiet or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if (kind := kind_of_source(source)) == "hub":
            name, _, configuration = source.removeprefix(HUB_PREFIX).partition(":")
            loaded = datasets.load_dataset(name, configuration or None, cache_dir=cache)  # nosec B615
        elif kind == "saved":
            loaded = datasets.load_from_disk(str(path))
        else:
            by_part, parts, notes = files_by_part(path, PARQUET_ENDINGS, settings.parts)
            files = {part or "images": [str(file) for file in files] for part, files in by_part.items()}
            loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)  # nosec B615
            return dict(loaded), {part: part for part in parts}, notes
    except UserError:
        raise
    except Exception as error:  # the library and what it is built on have many kinds
        raise UserError(f"data.source: {source} cannot be loaded by {LIBRARY}: {one_line(error)}") from None
    if not isinstance(loaded, dict):
        return {"images": loaded}, {}, ()
    if len(loaded) == 1 and not settings.parts:
        return dict(loaded), {}, ()
    found, notes = assign_parts(loaded, settings.parts, of=f"splits of {source}")
    return {name: loaded[name] for name in found}, {part: name for name, part in found.items()}, notes


def _split_by_column(
    splits: dict[str, Any], settings: DataSettings
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """The rows of each part, if a column of Parquet files says it; otherwise all rows."""
    path = Path(settings.source).expanduser()
    files, _, _ = files_by_part(path, PARQUET_ENDINGS, settings.parts)
    column = parquet_parts(files[None], settings.columns)
    if column is None:
        return splits, {}, ()
    name, values = column
    found, notes = assign_parts(values, settings.parts, of=f"parts in {path.name}")
    [rows] = splits.values()
    chosen = {value: rows.select([row for row, each in enumerate(values) if each == value]) for value in found}
    return chosen, {part: value for value, part in found.items()}, (f"parts in column {name}", *notes)


class _Table:
    """One split: its column of images, and the class of each row."""

    def __init__(self, name: str, split: Any, settings: DataSettings) -> None:
        import datasets

        columns: Mapping[str, str] = settings.columns or {}
        for role, column in columns.items():
            if column not in split.column_names:
                raise UserError(
                    f"data.columns: received {role}: {column}, but the columns are {some_of(split.column_names)}"
                )
        image = columns.get("path") or self._only(
            [column for column, feature in split.features.items() if _holds_images(feature)], "path", "images", split
        )
        label = columns.get("label") or self._label(split, image)
        self.note = f"images in column {image}, classes in column {label}"
        self._images = split.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._column = image
        self._files = [file["filename"] for file in split.cache_files]
        self._fingerprint = split._fingerprint
        feature = split.features[label]
        values = split.select_columns([label]).with_format(None)[label]
        self.classes: tuple[str, ...] = ()
        if isinstance(feature, datasets.ClassLabel):
            self.classes = tuple(composed(name) for name in feature.names)
            self.labels = [self.classes[value] if value is not None and value >= 0 else None for value in values]
        else:
            self.labels = [_as_label(value, label) for value in values]
        self.has_labels = any(label is not None for label in self.labels)

    def read(self, row: int) -> bytes:
        image = self._images[row][self._column]
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        with open(image["path"], "rb") as file:
            return file.read()

    def stamp(self) -> str:
        return " ".join([str(self._fingerprint), *(stamp_of(file) for file in self._files)])

    def _label(self, split: Any, image: str) -> str:
        import datasets

        of_classes = [column for column, feature in split.features.items() if isinstance(feature, datasets.ClassLabel)]
        if of_classes:
            return self._only(of_classes, "label", "classes", split)
        by_name = {column.casefold(): column for column in split.column_names if column != image}
        found = [by_name[name] for name in NAMES["label"] if name in by_name]
        return found[0] if found else self._only(list(by_name.values()), "label", "classes", split)

    @staticmethod
    def _only(found: Sequence[str], role: str, what: str, split: Any) -> str:
        if len(found) != 1:
            raise UserError(
                f"data.source: the columns are {some_of(split.column_names)}, and which has the {what} is not "
                f"understood; say so with data.columns, such as {{{role}: {(found or split.column_names)[0]}}}"
            )
        return found[0]


def _holds_images(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _as_label(value: Any, column: str) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, list | dict):
        raise UserError(
            f"data.source: column {column} holds several values per image ({str(value)[:60]}), and an image has one "
            f"class; name another column with data.columns, such as {{label: COLUMN}}"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return composed(str(value)) or None
