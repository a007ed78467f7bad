"""Sources of images: scikit-learn's digits, a data set that is downloaded by its name, or the user's own."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from tandem.data import hugging_face, labelled, named, tars
from tandem.data.console import counted, say
from tandem.data.decoding import Decoded
from tandem.data.folders import Walk, decoder_of, opener_of, reader_of
from tandem.data.source import Source, SourceImage, check_names, choose_classes, stamp_of
from tandem.errors import UserError, some_of
from tandem.protocol.data_sets import DATA_SETS
from tandem.protocol.file_names import composed, is_utf8, text_of
from tandem.protocol.folder_layout import Layout, find_layout
from tandem.protocol.label_table import find_table, read_table
from tandem.protocol.part_names import PARTS, kind_of
from tandem.protocol.settings import DataSettings
from tandem.protocol.source_kinds import PACKED_TAR_ENDINGS, kind_of_source

DIGITS = "digits"

ARCHIVES = (".zip", ".7z", ".rar", *PACKED_TAR_ENDINGS, ".tar")

LAYOUT = (
    "a folder with one folder of images per class, or a folder with train/ and perhaps val/ and test/, each with one "
    "folder of images per class"
)


def find_source(settings: DataSettings, *, quiet: bool = False) -> Source:
    """Lists the images of a named data set, or of the user's own.

    Args:
        settings: `source` is `digits`, the name of a data set that is downloaded (tandem/data/named.py), or a path; `~`
            is the home folder. A folder called digits is `./digits`.
        quiet: Prints nothing and shows no progress bar while it downloads.

    Raises:
        UserError: The source does not exist, is not laid out in classes, or lacks one of the classes; or the data set
            cannot be downloaded.
    """
    source, cache_folder = settings.source, Path(settings.cache_folder).expanduser()
    if source in DATA_SETS and Path(source).is_dir():
        say(f"{source}: the data set of this name and not the folder, which is ./{source}", quiet=quiet)
    try:
        found = _find(settings, cache_folder, quiet=quiet)
    except OSError as error:
        if source in named.READERS:
            where = error.filename or named.folder_of(source, cache_folder)
            raise UserError(
                f"data.source: {where} cannot be read ({error.strerror or error}); make it readable, or remove it"
            ) from None
        raise UserError(
            f"data.source: {source} cannot be listed: {error.strerror or error}; allowed: {LAYOUT}"
        ) from None
    if len(found.classes) < 2:
        raise UserError(
            f"data.source: {source} has {counted(len(found.classes), 'class', 'classes')} "
            f"({', '.join(found.classes) or 'none'}), "
            f"and a classifier needs at least 2 classes; {_archives_in(Path(found.location))}allowed: {LAYOUT}"
        )
    return found


def _archives_in(folder: Path) -> str:
    """Words on archives that would have to be unpacked first."""
    if not folder.is_dir():
        return ""
    archives = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(ARCHIVES))
    return f"unpack {some_of(archives)} first; " if archives else ""


def _find(settings: DataSettings, cache_folder: Path, *, quiet: bool) -> Source:
    source = settings.source
    if source == DIGITS:
        return _array_source(source, _digits(), settings, stamp=f"scikit-learn {version('scikit-learn')}")
    if source not in named.READERS:
        return _own_source(settings, cache_folder, quiet=quiet)
    images = named.load(source, cache_folder, quiet=quiet)
    if isinstance(images, named.Arrays):
        return _array_source(source, images, settings, stamp=" ".join(stamp_of(str(path)) for path in images.files))
    if isinstance(images, named.ImageFiles):
        return _file_source(source, images, settings)
    return _named_folder_source(source, images, settings)


def _own_source(settings: DataSettings, cache_folder: Path, *, quiet: bool) -> Source:
    kind = kind_of_source(settings.source)
    path = Path(settings.source).expanduser()
    if kind in ("missing", "file"):
        found = "which is a file" if kind == "file" else "which does not exist"
        if kind == "file" and path.name.lower().endswith(ARCHIVES):
            found = "which is an archive that has to be unpacked"
        raise UserError(
            f"data.source: received {settings.source!r}, {found}; allowed: {', '.join(DATA_SETS)}, or {LAYOUT}"
        )
    if settings.labels is not None:
        if kind != "folder":
            raise UserError(
                f"data.labels: received {settings.labels!r}, but {settings.source} is no folder of image files; "
                "data.columns names its columns"
            )
        file = find_table(settings.labels, settings.source)
        table = read_table(file, settings.columns, settings.parts)
        return labelled.table_source(path.resolve(), file, table, settings)
    if kind in ("hub", "saved", "parquet"):
        return hugging_face.find_source(settings, cache_folder, quiet=quiet)
    if kind == "tars":
        return tars.find_source(path.resolve(), settings)
    if settings.columns is not None:
        raise UserError(f"data.columns: received {settings.columns}, but there is no table; name one with data.labels")
    root = path.resolve()
    layout = find_layout(root, parts=settings.parts, classes=settings.classes)
    return _folder_source(_name_of(root), layout, settings)


def _name_of(path: Path) -> str:
    """Name of a folder that can be recorded, whatever the locale is."""
    return text_of(path.name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _digits() -> named.Arrays:
    from sklearn.datasets import load_digits  # takes a second to import, and no other source needs it

    images, labels = load_digits(return_X_y=True, as_frame=False)
    return named.Arrays(
        classes=tuple("0123456789"),
        pixels=np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8),
        labels=labels,
        parts=(None,) * len(labels),
        files=(),
    )


def _array_source(name: str, arrays: named.Arrays, settings: DataSettings, stamp: str) -> Source:
    kept = choose_classes(arrays.classes, settings.classes)
    pixels = arrays.pixels
    _, height, width, *channels = pixels.shape
    mode = "RGB" if channels else "L"
    digits = len(str(len(pixels) - 1))
    rows = zip((arrays.classes[label] for label in arrays.labels.tolist()), arrays.parts, strict=True)
    wanted = set(kept)

    def open_pixels(key: str, file: bytes) -> Image.Image:
        return Image.frombytes(mode, (width, height), file)

    return Source(
        name=name,
        location=name if not arrays.files else str(arrays.files[0].parent),
        classes=kept,
        images=tuple(
            SourceImage(key=f"{name}/{index:0{digits}d}", class_name=class_name, part=part, stamp=stamp)
            for index, (class_name, part) in enumerate(rows)
            if class_name in wanted
        ),
        problems=(),
        parts=_names_of(arrays.parts),
        notes=arrays.notes,
        read=lambda key: pixels[int(key.rpartition("/")[2])].tobytes(),
        open=open_pixels,
        decode=lambda key, file: Decoded(image=open_pixels(key, file)),
    )


def _file_source(name: str, files: named.ImageFiles, settings: DataSettings) -> Source:
    kept = choose_classes(files.classes, settings.classes)
    root = files.root
    return Source(
        name=name,
        location=str(root),
        classes=kept,
        images=tuple(
            SourceImage(key=key, class_name=class_name, part=part, stamp=stamp_of(os.path.join(root, key)))
            for key, class_name, part in files.images
            if class_name in kept
        ),
        problems=(),
        parts=_names_of(part for _, _, part in files.images),
        notes=files.notes,
        read=reader_of(root),
        open=opener_of(settings.max_pixels),
        decode=decoder_of(settings.max_pixels),
    )


def _names_of(parts: Iterable[str | None]) -> dict[str, str]:
    return {part: part for part in sorted({part for part in parts if part is not None})}


def _named_folder_source(name: str, folders: named.ClassFolders, settings: DataSettings) -> Source:
    root = folders.root
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    parts = {part: folder for folder in names if (part := kind_of(folder)) in PARTS}
    if folders.parts is not None:
        if strange := sorted(set(parts.values()) - set(folders.parts)):
            raise UserError(
                f"data.source: {root} holds {', '.join(strange)}/, which is not a part of {name}; allowed: "
                f"{', '.join(f'{part}/' for part in folders.parts)}; move it elsewhere"
            )
        parts = {folders.parts[folder]: folder for folder in parts.values()}
    layout = find_layout(root, parts=parts if "train" in parts else None, enter=False)
    found = {folder.class_name for folder in layout.class_folders}
    if folders.names is not None:
        if lacking := folders.names.keys() - found:
            raise UserError(
                f"data.source: {root} lacks the class folders {some_of(sorted(lacking))}; remove {root.name}, and "
                f"{name} is downloaded again"
            )
        renamed = tuple(
            dataclasses.replace(folder, class_name=folders.names[folder.class_name])
            for folder in layout.class_folders
            if folder.class_name in folders.names
        )
        layout = dataclasses.replace(layout, class_folders=renamed)
    layout = dataclasses.replace(layout, notes=folders.notes, unused=(), unlabelled=())
    classes = list(folders.names.values()) if folders.names else sorted(found)
    return _source_of_layout(name, layout, choose_classes(classes, settings.classes), settings)


def _folder_source(name: str, layout: Layout, settings: DataSettings) -> Source:
    """The source of the user's own folder."""
    wanted = None if settings.classes is None else [composed(wanted) for wanted in settings.classes]
    classes = sorted({folder.class_name for folder in layout.class_folders if is_utf8(folder.class_name)})
    check_names(classes, wanted)
    notes = [f"looked into {layout.entered}"] if layout.entered else []
    spellings = Counter(
        name for name, _ in {(each.class_name, text_of(each.path.name)) for each in layout.class_folders}
    )
    if not any(part.startswith("*/") for part in layout.parts.values()):
        notes += [
            f"{name}/ is spelled in {number} ways that look the same (Unicode's composed and decomposed form), and is "
            "one class"
            for name, number in spellings.items()
            if number > 1
        ]
    layout = dataclasses.replace(layout, notes=(*notes, *layout.notes))
    return _source_of_layout(name, layout, choose_classes(classes, wanted), settings)


def _source_of_layout(name: str, layout: Layout, classes: tuple[str, ...], settings: DataSettings) -> Source:
    walk = Walk(root=layout.root)
    wanted = set(classes)
    walk.take(layout.class_folders, lambda class_name: class_name in wanted)
    # what is beside the class folders, or around the folder that was looked into, counts like what is in them
    around = {layout.root, *(folder for folder in layout.root.parents if folder.is_relative_to(layout.given))}
    around |= {folder.path.parent for folder in layout.class_folders}
    for folder in sorted(around):
        walk.count_files(folder)
    walk.count_system_folders(around, wanted)
    unused = [
        f"{walk.key_of(path)}/: {counted(walk.count_images(path), 'image')} without labels, not used"
        for path in layout.unlabelled
    ]
    unused += [f"{walk.key_of(path)}/ is not used: {reason}" for path, reason in layout.unused]
    walk.passed_over.unused = unused
    return Source(
        name=name,
        location=str(layout.root),
        classes=classes,
        images=tuple(walk.images),
        problems=tuple(walk.problems),
        parts=layout.parts,
        notes=(*layout.notes, *walk.note_on_content()),
        passed_over=walk.passed_over.lines(),
        read=reader_of(layout.root),
        open=opener_of(settings.max_pixels),
        decode=decoder_of(settings.max_pixels),
    )
