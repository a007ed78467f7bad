"""Sources of images: scikit-learn's digits, a data set that is downloaded by its name, or a folder on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from tandem.data import named
from tandem.data.decoding import open_image
from tandem.errors import UserError
from tandem.protocol.data_sets import DATA_SETS
from tandem.protocol.settings import DataSettings

DIGITS = "digits"

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))

PARTS_OF_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

LAYOUT = (
    "a folder with one folder of images per class, or a folder with train/ and perhaps val/ and test/, each with one "
    "folder of images per class"
)


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image that is listed but not read yet."""

    key: str
    """Path in the source's folder."""
    class_name: str
    part: str | None
    """The publisher's part: train, val, test, or None."""
    stamp: str
    """Text that changes when the file changes, as far as can be told without reading it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A list of images, and functions that read them."""

    name: str
    """Name of the data set or the folder."""
    location: str
    """Unique text, such as the absolute path of the folder."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    images: tuple[SourceImage, ...]
    """All images, in any order."""
    problems: tuple[str, ...]
    """One line per problem with the listing: empty class folders, names that are not UTF-8."""
    notes: tuple[str, ...] = ()
    """Lines that users should know about the data set."""
    read: Callable[[str], bytes]
    """From a key to the bytes of the image."""
    open: Callable[[bytes], Image.Image]
    """From these bytes to a Pillow image, not yet decoded."""


def find_source(
    source: str,
    classes: list[str] | None = None,
    *,
    cache_folder: str | Path = DataSettings.cache_folder,
    quiet: bool = False,
) -> Source:
    """Lists the images of a named data set or of a folder.

    Args:
        source: `digits`, the name of a data set that is downloaded (tandem/data/named.py), or the path of a folder; `~`
            is the home folder. A folder called digits is `./digits`.
        classes: Keeps only these classes, in this order; all if None, those of a folder in alphabetical order.
        cache_folder: Folder for downloads; `~` is the home folder.
        quiet: Prints nothing and shows no progress bar while it downloads.

    Raises:
        UserError: The folder does not exist, is not laid out in classes, or lacks one of the classes; or the data set
            cannot be downloaded.
    """
    try:
        found = _find(source, classes, Path(cache_folder).expanduser(), quiet=quiet)
    except OSError as error:
        if source in named.READERS:
            where = error.filename or named.folder_of(source, Path(cache_folder).expanduser())
            raise UserError(
                f"data.source: {where} cannot be read ({error.strerror or error}); make it readable, or remove it"
            ) from None
        raise UserError(f"data.source: {source} cannot be listed: {error.strerror}; allowed: {LAYOUT}") from None
    if len(found.classes) < 2:
        raise UserError(
            f"data.source: {source} has {len(found.classes)} class folders ({', '.join(found.classes) or 'none'}), "
            f"and a classifier needs at least 2 classes; allowed: {LAYOUT}"
        )
    return found


def _find(source: str, classes: list[str] | None, cache_folder: Path, *, quiet: bool) -> Source:
    if source == DIGITS:
        return _array_source(source, _digits(), classes, stamp=f"scikit-learn {version('scikit-learn')}")
    if source not in named.READERS:
        root = Path(source).expanduser().resolve()
        if not root.is_dir():
            found = "which is a file" if root.exists() else "which does not exist"
            raise UserError(f"data.source: received {source!r}, {found}; allowed: {', '.join(DATA_SETS)}, or {LAYOUT}")
        return _folder_source(root.name, named.ClassFolders(root=root), classes)
    images = named.load(source, cache_folder, quiet=quiet)
    if isinstance(images, named.Arrays):
        return _array_source(source, images, classes, stamp=" ".join(_stamp(str(path)) for path in images.files))
    if isinstance(images, named.ImageFiles):
        return _file_source(source, images, classes)
    return _folder_source(source, images, classes)


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


def _array_source(name: str, arrays: named.Arrays, classes: list[str] | None, stamp: str) -> Source:
    kept = _choose_classes(list(arrays.classes), classes)
    pixels = arrays.pixels
    _, height, width, *channels = pixels.shape
    mode = "RGB" if channels else "L"
    digits = len(str(len(pixels) - 1))
    rows = zip((arrays.classes[label] for label in arrays.labels.tolist()), arrays.parts, strict=True)
    wanted = set(kept)
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
        notes=arrays.notes,
        read=lambda key: pixels[int(key.rpartition("/")[2])].tobytes(),
        open=lambda file: Image.frombytes(mode, (width, height), file),
    )


def _file_source(name: str, files: named.ImageFiles, classes: list[str] | None) -> Source:
    kept = _choose_classes(list(files.classes), classes)
    root = files.root
    return Source(
        name=name,
        location=str(root),
        classes=kept,
        images=tuple(
            SourceImage(key=key, class_name=class_name, part=part, stamp=_stamp(os.path.join(root, key)))
            for key, class_name, part in files.images
            if class_name in kept
        ),
        problems=(),
        notes=files.notes,
        read=lambda key: (root / key).read_bytes(),
        open=open_image,
    )


def _folder_source(name: str, folders: named.ClassFolders, classes: list[str] | None) -> Source:
    root = folders.root
    class_folders = [(part, class_folder) for part, folder in _parts(root) for class_folder in _visible_folders(folder)]
    if folders.parts is not None:
        if strange := {folder.parent.name for part, folder in class_folders if part and part not in folders.parts}:
            raise UserError(
                f"data.source: {root} holds {', '.join(sorted(strange))}/, which is not a part of {name}; allowed: "
                f"{', '.join(f'{part}/' for part in folders.parts)}; move it elsewhere"
            )
        class_folders = [(folders.parts[part] if part else None, folder) for part, folder in class_folders]
    names = folders.names or {name: name for name in sorted({class_folder.name for _, class_folder in class_folders})}
    kept = _choose_classes(list(names.values()), classes)
    lacking = names.keys() - {class_folder.name for _, class_folder in class_folders}
    if lacking:
        raise UserError(
            f"data.source: {root} lacks the class folders {', '.join(sorted(lacking))}; remove {root.name}, and {name} "
            "is downloaded again"
        )
    images: list[SourceImage] = []
    problems: list[str] = []
    for part, class_folder in class_folders:
        class_name = names.get(class_folder.name)
        if class_name not in kept:
            continue
        listed, bad_names = _list_images(root, class_folder, class_name, part)
        images += listed
        problems += bad_names
        if not listed and not bad_names:
            problems.append(f"{class_folder.relative_to(root).as_posix()}/: a class folder without images")
    return Source(
        name=name,
        location=str(root),
        classes=kept,
        images=tuple(images),
        problems=tuple(problems),
        notes=folders.notes,
        read=lambda key: (root / key).read_bytes(),
        open=open_image,
    )


def _choose_classes(available: list[str], wanted: list[str] | None) -> tuple[str, ...]:
    if wanted is None:
        return tuple(available)
    unknown = [name for name in wanted if name not in available]
    if unknown or len(set(wanted)) < len(wanted):
        wrong = f"there is no {', '.join(unknown)}" if unknown else "one is named twice"
        raise UserError(f"data.classes: received {wanted}, but {wrong}; allowed: {', '.join(available)}, each once")
    return tuple(wanted)


def _parts(root: Path) -> list[tuple[str | None, Path]]:
    """The publisher's parts and their folders, or (None, root) if the class folders are in the root itself."""
    folders = _visible_folders(root)
    named = [folder for folder in folders if folder.name.lower() in PARTS_OF_FOLDERS]
    flat = [folder for folder in named if not _visible_folders(folder)]
    if not named or (len(named) < len(folders) and len(named) - len(flat) < 2):
        # a single `train` among other folders is a class
        return [(None, root)]
    parts = [PARTS_OF_FOLDERS[folder.name.lower()] for folder in named]
    if flat or "train" not in parts or len(set(parts)) < len(parts):
        holds = ", ".join(f"{folder.name}/{' without class folders' if folder in flat else ''}" for folder in named)
        raise UserError(
            f"data.source: {root} holds {holds}; allowed: one train/, at most one val/ (or valid/, validation/) and at "
            "most one test/, each with one folder of images per class; rename, sort or move the others"
        )
    return list(zip(parts, named, strict=True))


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _list_images(
    root: Path, class_folder: Path, class_name: str, part: str | None
) -> tuple[list[SourceImage], list[str]]:
    """All image files in a class folder and its subfolders, and one line per file whose name is not UTF-8."""
    images: list[SourceImage] = []
    bad_names: list[str] = []
    for folder, folders, files in os.walk(class_folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(folder).relative_to(root).as_posix()
        for name in files:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                continue
            key = f"{prefix}/{name}"
            if _is_utf8(key):
                stamp = _stamp(os.path.join(folder, name))
                images.append(SourceImage(key=key, class_name=class_name, part=part, stamp=stamp))
            else:
                bad_names.append(f"{os.fsencode(key).decode(errors='backslashreplace')}: its name is not UTF-8")
    return images, bad_names


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "unreadable"
    # the change time too: an archive can replace a file by one with the same size and modification time
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
