"""Readers of published data sets' own file formats, to arrays or lists of image files."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import scipy.io


class DamagedFile(Exception):
    """One clause that names a damaged file and says why it cannot be read."""


IDX_UINT8 = 0x08

CIFAR_SHAPE = (3, 32, 32)

LABELME_CLASSES = (
    "person", "car", "building", "window", "tree", "sign", "door", "bookshelf", "chair", "table", "keyboard", "head",
)  # fmt: skip
"""In the order of the annotations' columns."""

CLUTTER = "clutter"
"""LabelMe's class of images without an object in their centre."""


def read_idx(path: Path) -> np.ndarray:
    """Reads an array of bytes in MNIST's format: two zero bytes, the type, the number of dimensions, their sizes.

    Args:
        path: A file compressed with gzip, whose checksum has been compared.

    Returns:
        uint8 of the shape that the file states.
    """
    with gzip.open(path) as file:
        content = file.read()
    zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
    assert zeros == 0 and kind == IDX_UINT8, path
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_cifar(paths: list[Path], label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads CIFAR's binary version: per image its labels, one byte each, then its red, green and blue plane.

    Args:
        paths: Files whose images are joined in this order.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, the coarse label and the fine one.

    Returns:
        uint8 RGB of shape (images, 32, 32, 3), and the last label of each image, int64 of shape (images,).

    Raises:
        DamagedFile: A file is missing or has another length.
    """
    row_bytes = label_bytes + math.prod(CIFAR_SHAPE)
    pixels, labels = [], []
    for path in paths:
        try:
            content = np.fromfile(path, np.uint8)
            rows = content.reshape(-1, row_bytes)
        except (OSError, ValueError) as error:
            raise _damaged(path, f"a file of {row_bytes} bytes per image like CIFAR's", error) from None
        labels.append(rows[:, label_bytes - 1].astype(np.int64))
        pixels.append(np.ascontiguousarray(rows[:, label_bytes:].reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)))
    return np.concatenate(pixels), np.concatenate(labels)


def read_names(path: Path) -> tuple[str, ...]:
    """Reads the lines of a text file that are not empty: names of classes in the order of their labels.

    Raises:
        DamagedFile: The file is missing or is not text.
    """
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "a list of names of classes", error) from None


def read_labelme(folder: Path) -> list[tuple[str, str]]:
    """Reads the annotation of one part of LabelMe-12-50k.

    Each image has a value for each of 12 kinds of objects: 1 for the object that the image was cropped around, less for
    other objects in it. Half of the images were cropped at random and have no 1: they are of class clutter, as in the
    publisher's table, which has 13 rows.

    Args:
        folder: train/ or test/, with annotation.txt (per line a name of six digits and 12 values, rounded to two
            digits) and, as the publisher advises for the exact values, annotation.bin (12 float32 per line).

    Returns:
        Path and class of each image; the paths are of the form 0039/039999.jpg, with 1,000 images per folder.

    Raises:
        DamagedFile: The annotation is missing or is something else.
    """
    text, binary = folder / "annotation.txt", folder / "annotation.bin"
    try:
        lines = [line.split() for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
        values = np.array([line[1:] for line in lines], dtype=np.float64).reshape(len(lines), len(LABELME_CLASSES))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _damaged(text, "a name and 12 values in each line like LabelMe-12-50k's", error) from None
    if binary.exists():
        try:
            values = np.fromfile(binary, "<f4").reshape(values.shape)
        except (OSError, ValueError) as error:
            raise _damaged(binary, f"12 float32 per line of {text.name}", error) from None
    classes = [LABELME_CLASSES[row.argmax()] if row.max() >= 1 else CLUTTER for row in values]
    return [(f"0{line[0][:3]}/{line[0]}.jpg", name) for line, name in zip(lines, classes, strict=True)]


def read_flowers(folder: Path) -> list[tuple[str, int, str]]:
    """Reads the labels and parts of Oxford 102 Flowers.

    Args:
        folder: Holds imagelabels.mat and setid.mat, whose checksums have been compared.

    Returns:
        File name, label (0 to 101) and part (train, val or test) of each image.
    """
    numbers = {
        variable: values.ravel().astype(int).tolist()
        for file in ("imagelabels.mat", "setid.mat")
        for variable, values in scipy.io.loadmat(folder / file).items()
        if not variable.startswith("__")
    }
    return [
        (f"image_{number:05d}.jpg", numbers["labels"][number - 1] - 1, part)
        for part, variable in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
        for number in numbers[variable]
    ]


def _damaged(path: Path, expected: str, error: Exception) -> DamagedFile:
    reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return DamagedFile(f"{path} is not {expected} ({reason})")
