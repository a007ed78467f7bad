"""Statistics of a data set: images per class, sizes of files and images, exact and near copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from PIL import Image, ImageMode

from tandem.data.console import on_all_cores
from tandem.data.prepare import PreparedData
from tandem.data.split import PARTS, UNUSED

HASH_BITS = 64
# Number of bits that may differ between copies. No two of 2,000 photographs (Imagenette) were nearer than 10 bits. Of
# 100 of them, all copies saved as JPEG of quality 50 or at half the size were within 2 bits, and 99 of 100 copies
# brightened by 15 % within 6.
NEAR_BITS = 6
# The hash is made of an image's lowest frequencies at 32 x 32 pixels. Of 5,000 images of clothes at 28 x 28 pixels
# (Fashion-MNIST), 4,689 pairs are within 6 bits.
LEAST_HASHED_SIZE = 32
BLANK_RANGE = 8  # grey levels between the darkest and the lightest pixel; with fewer there is nothing to hash
MOST_PAIRS = 100_000  # with more the images are so much alike that near hashes do not indicate copies

ALL = "all"  # column of all parts together


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """Pairs of images that look almost the same and are different files."""

    pairs: pd.DataFrame
    """One row per pair, those across parts first, then the nearest: row_a and row_b in the data, key_a, class_a, part_a
    and the same of b, distance in bits, across_parts."""
    num_blank: int = 0
    """Number of images of a single colour, which were not compared."""
    skipped: str = ""
    """Reason why images were not compared; empty if they were."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSetStatistics:
    """The numbers of a data set's report."""

    counts: pd.DataFrame
    """Images of each class: index class, columns train, val, test, unused, all."""
    file_sizes: pd.DataFrame | None
    """Bytes of each class's files, and of all files in the last row: columns count, mean, std, min, 25%, 50%, 75%, max;
    None if images do not come from files."""
    train_file_sizes: pd.DataFrame | None
    """The same of the files of training images alone, as publishers often give it."""
    image_sizes: pd.DataFrame
    """Width, height and number of images of each size, the most frequent first."""
    modes: pd.DataFrame
    """Mode (Pillow's name of the pixel format) and number of images, the most frequent first."""
    copies: pd.DataFrame
    """Exact copies: hash, key, class, part, note and across_parts; those across parts first."""
    near: NearDuplicates
    """Pairs of images that look almost the same."""
    unreadable: tuple[str, ...]
    """One line per file or class folder that was left out."""
    passed_over: tuple[str, ...]
    """Lines on files and folders that are no images or belong to no class."""
    remarks: tuple[str, ...]
    """Lines on what was assumed about the data, and on unusual files that are used."""


def describe(data: PreparedData, *, quiet: bool = False) -> DataSetStatistics:
    """Computes all statistics of a data set.

    Args:
        data: The images.
        quiet: Shows no progress bar.
    """
    return DataSetStatistics(
        counts=count_images(data),
        file_sizes=file_sizes(data),
        train_file_sizes=file_sizes(data, part="train"),
        image_sizes=_counted(data.split.manifest.images, ["width", "height"]),
        modes=_counted(data.split.manifest.images, ["mode"]),
        copies=exact_copies(data),
        near=near_duplicates(data, quiet=quiet),
        unreadable=data.bad_images,
        passed_over=data.passed_over,
        remarks=data.remarks,
    )


def count_images(data: PreparedData) -> pd.DataFrame:
    """Images of each class in each part: index class, columns train, val, test, unused, all."""
    counts = {part: np.bincount(data.labels[data.rows(part)], minlength=len(data.classes)) for part in (*PARTS, UNUSED)}
    return pd.DataFrame({**counts, ALL: sum(counts.values())}, index=list(data.classes))


def file_sizes(data: PreparedData, part: str | None = None) -> pd.DataFrame | None:
    """Statistics of the bytes of each class's files. The divisor of std is n - 1; quartiles are interpolated linearly.

    Args:
        data: The images.
        part: train, val, test or unused; None for all files.

    Returns:
        One row per class, and a last one for all files; None if images are raw pixels, as those of an array.
    """
    images = data.split.manifest.images
    channels = images["mode"].map(lambda mode: len(ImageMode.getmode(mode).bands))
    if (images["num_bytes"] == images["height"] * images["width"] * channels).all():
        return None
    images = images.assign(class_name=data.split.manifest.class_names)
    if part is not None:
        images = images.iloc[data.rows(part)]
    by_class = images["num_bytes"].groupby(images["class_name"]).describe()
    return pd.concat([by_class.loc[list(data.classes)], images["num_bytes"].describe().to_frame(ALL).T])


def exact_copies(data: PreparedData) -> pd.DataFrame:
    """Images that have exact copies, with across_parts: True if the copies are in several of train, val and test."""
    copies = data.duplicates
    used = copies[copies["part"] != UNUSED]
    num_parts = used.groupby("hash")["part"].nunique()
    across = copies["hash"].isin(num_parts.index[num_parts > 1])
    return copies.assign(across_parts=across).sort_values("across_parts", ascending=False, kind="stable")


def near_duplicates(data: PreparedData, *, quiet: bool = False) -> NearDuplicates:
    """Finds pairs of different files whose stored images have almost the same perceptual hash.

    The hash is imagehash's pHash (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions). It
    stays almost the same under another compression, size or brightness, but not under mirroring, rotation or strong
    cropping. Different images can have near hashes, too.

    Args:
        data: The images.
        quiet: Shows no progress bar.
    """
    nothing = _describe_pairs(data, np.empty((0, 2), np.int64), np.empty(0, np.int64))
    height, width = data.images.shape[1:3]
    if min(height, width) < LEAST_HASHED_SIZE:
        reason = f"Near duplicates were not looked for: at {width} x {height} pixels a perceptual hash means little"
        return NearDuplicates(pairs=nothing, skipped=f"{reason}; it needs {LEAST_HASHED_SIZE} x {LEAST_HASHED_SIZE}.")
    # one exact copy per part is enough, since a list of their own has all
    rows = np.flatnonzero(~pd.DataFrame({"hash": data.hashes, "part": data.split.parts}).duplicated())
    found = list(
        on_all_cores(lambda row: _hash_or_blank(data.images[row]), rows.tolist(), title="Comparing images", quiet=quiet)
    )
    is_blank = np.array([value is None for value in found])
    rows, hashes = rows[~is_blank], np.array([value for value in found if value is not None], np.uint64)
    pairs = near_pairs(hashes, NEAR_BITS, most=MOST_PAIRS)
    if pairs is None:
        reason = f"more than {MOST_PAIRS:,} pairs of images are within {NEAR_BITS} bits of each other"
        return NearDuplicates(
            pairs=nothing,
            num_blank=int(is_blank.sum()),
            skipped=f"Near duplicates are not listed: {reason}, so near hashes do not indicate copies.",
        )
    distances = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)
    table = _describe_pairs(data, rows[pairs], distances)
    return NearDuplicates(pairs=table, num_blank=int(is_blank.sum()))


def near_pairs(hashes: np.ndarray, max_distance: int, *, most: int) -> np.ndarray | None:
    """Finds all pairs of hashes that differ in at most `max_distance` bits.

    Hashes that differ in d bits are equal in at least one of d + 1 bands of their bits, so only hashes with an equal
    band are compared: 50,000 random hashes take 0.2 s, 200,000 take 4 s.

    Args:
        hashes: uint64 of shape (hashes,).
        max_distance: Largest distance in bits, 0 to 63.
        most: Number of pairs beyond which the search ends.

    Returns:
        int64 of shape (pairs, 2), the lower index first, sorted; None if there are more than `most`.
    """
    edges = np.linspace(0, HASH_BITS, max_distance + 2).astype(int).tolist()
    found: list[np.ndarray] = []
    num_found = 0
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        band, ordered = band[order], hashes[order]
        starts = np.arange(len(hashes))
        for step in range(1, len(hashes)):
            starts = starts[starts + step < len(hashes)]
            starts = starts[band[starts] == band[starts + step]]
            if not len(starts):
                break
            near = starts[np.bitwise_count(ordered[starts] ^ ordered[starts + step]) <= max_distance]
            found.append(np.sort(np.stack([order[near], order[near + step]], axis=1), axis=1))
            num_found += len(near)
            if num_found > most * (max_distance + 1):  # each pair is found at most once per band
                return None
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)
    return pairs if len(pairs) <= most else None


def example_rows(data: PreparedData, per_class: int) -> list[list[int]]:
    """Rows of some images of each class: those with the lowest hashes among the images in use, whatever their names."""
    by_class: list[list[int]] = [[] for _ in data.classes]
    for row in sorted(range(len(data.hashes)), key=lambda row: (data.split.parts[row] == UNUSED, data.hashes[row])):
        if len(by_class[data.labels[row]]) < per_class:
            by_class[data.labels[row]].append(row)
    return by_class


def _hash_or_blank(image: np.ndarray) -> int | None:
    grey = Image.fromarray(image).convert("L")
    if np.ptp(grey.getextrema()) < BLANK_RANGE:
        return None
    return int(str(imagehash.phash(grey)), 16)


def _describe_pairs(data: PreparedData, rows: np.ndarray, distances: np.ndarray) -> pd.DataFrame:
    different = [data.hashes[a] != data.hashes[b] for a, b in rows]
    rows, distances = rows[different], distances[different]
    columns: dict[str, Sequence[object] | np.ndarray] = {}
    for side, of_side in zip("ab", rows.T, strict=True):
        columns[f"row_{side}"] = of_side
        columns[f"key_{side}"] = [data.keys[row] for row in of_side]
        columns[f"class_{side}"] = [data.classes[data.labels[row]] for row in of_side]
        columns[f"part_{side}"] = [data.split.parts[row] for row in of_side]
    table = pd.DataFrame({**columns, "distance": distances})
    used = (table["part_a"] != UNUSED) & (table["part_b"] != UNUSED)
    table["across_parts"] = used & (table["part_a"] != table["part_b"])
    order = {"across_parts": False, "distance": True, "row_a": True, "row_b": True}
    return table.sort_values(list(order), ascending=list(order.values()), ignore_index=True)


def _counted(images: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    counts = images.groupby(columns).size().reset_index(name="images")
    return counts.sort_values(["images", *columns], ascending=[False, *[True] * len(columns)], ignore_index=True)
