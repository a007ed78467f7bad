"""The split of images into training, validation and test images.

An image's part follows from the split's seed and the image's own bytes. It depends on neither the order of files and
classes nor any library's random generator.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tandem.data.manifest import Manifest, hash_of
from tandem.errors import UserError, some_of
from tandem.files import csv_cell, whole_file
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.label_table import sorted_classes
from tandem.protocol.settings import FOLD_SPLITS, DataSettings

PARTS = ("train", "val", "test")
UNUSED = "unused"
_KEEP_TEST = ("publisher", "publisher_folds")  # splits that keep the publisher's test images

Groups = dict[str, list[int]]
"""Rows of the manifest that have to stay together, by a name that does not depend on their place."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The part of every image of a manifest."""

    manifest: Manifest
    """The images."""
    kind: str
    """fractions, publisher, folds or publisher_folds; with `split: auto`, the one that it stands for."""
    fractions: tuple[float, ...]
    """Shares of training, validation and test images, from the settings or the data set's protocol."""
    parts: tuple[str, ...]
    """Part of each row of the manifest: train, val, test or unused."""
    dropped: dict[int, str]
    """Reasons by row, for rows left out of the publisher's train or val because of a copy in a later part."""

    def rows(self, part: str) -> np.ndarray:
        """Rows of the manifest in train, val, test or unused, in ascending order: int64 of shape (images,)."""
        return np.flatnonzero(np.array(self.parts) == part).astype(np.int64)

    @cached_property
    def hash(self) -> str:
        """Hash of every image, its class and its part."""
        return hash_of(self._lines)

    @cached_property
    def test_hash(self) -> str:
        """Hash of the test images and the classes in the order of the labels, whatever the files are called."""
        return hash_of([list(self.manifest.classes), *self._tested])

    @cached_property
    def test_images_hash(self) -> str:
        """Hash of the test images and their classes, whatever the files are called and in which order the classes are.

        Scores with equal ones are of the same images. The labels' numbers may differ: classes are matched by name.
        """
        return hash_of([sorted(self.manifest.classes), *self._tested])

    @property
    def _tested(self) -> list[tuple[str, str]]:
        return sorted((file_hash, name) for _, file_hash, name, part in self._lines if part == "test")

    def write(self, path: Path) -> None:
        """Writes a CSV file with the columns key, hash, class and part, sorted by key."""
        with whole_file(path, newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("key", "hash", "class", "part"))
            writer.writerows([csv_cell(value) for value in line] for line in self._lines)

    @cached_property
    def _lines(self) -> list[tuple[str, str, str, str]]:
        images = self.manifest.images
        columns = images["key"].tolist(), images["hash"].tolist(), self.manifest.class_names, self.parts
        return sorted(zip(*columns, strict=True))


def split_images(manifest: Manifest, settings: DataSettings) -> Split:
    """Puts every image into train, val or test, or into unused if a limit or a copy excludes it.

    With `duplicates: together`, images with the same bytes are in the same part, even if their classes differ. In a
    publisher's split, whose test images stay as they are, the copy in train or val is left out instead.

    Raises:
        UserError: The settings contradict the data or each other, or a class is too small for all parts.
    """
    settings = resolve_split(settings)
    fractions = tuple(settings.fractions or ())
    _check(manifest, settings, fractions)
    splitter = _Splitter(manifest, settings, fractions)
    splitter.limit_all()
    if settings.split == "publisher":
        splitter.by_publisher()
    elif settings.split == "publisher_folds":
        splitter.by_publisher_folds()
    elif settings.split == "folds":
        splitter.by_folds()
    else:
        splitter.by_fractions()
    splitter.check_parts()
    splitter.limit_train()
    return Split(
        manifest=manifest,
        kind=settings.split,
        fractions=fractions,
        parts=tuple(splitter.parts),
        dropped=splitter.dropped,
    )


def _check(manifest: Manifest, settings: DataSettings, fractions: tuple[float, ...]) -> None:
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"data.fractions: received {list(fractions)}, allowed: three numbers above 0 (train, val, test) that add "
            "up to 1"
        )
    if settings.split in FOLD_SPLITS and (settings.fold is None or not 0 <= settings.fold < settings.folds):
        raise UserError(f"data.fold: received {settings.fold}, allowed: 0 to {settings.folds - 1}, one of data.folds")
    published = sorted(set(manifest.images["part"]) - {""})
    if settings.split in _KEEP_TEST and not {"train", "test"} <= set(published):
        raise UserError(
            f"data.split: received {settings.split}, but {manifest.name} has no train and test images from a publisher "
            f"(found: {', '.join(published) or 'only class folders'}); allowed here: fractions, folds"
        )
    if settings.split == "publisher":
        _check_classes_of_parts(manifest, published)


def _check_classes_of_parts(manifest: Manifest, published: list[str]) -> None:
    """Raises UserError if a class has images in some of the publisher's parts only."""
    found = set(zip(manifest.class_names, manifest.images["part"].tolist(), strict=True))
    lacking = {
        name: [part for part in published if (name, part) not in found]
        for name in manifest.classes
        if any((name, part) not in found for part in published)
    }
    if not lacking:
        return
    words = [f"{name} (none in {' and '.join(parts)})" for name, parts in lacking.items()]
    kept = [name for name in manifest.classes if name not in lacking]
    raise UserError(
        f"data.split publisher: {len(lacking):,} of {len(manifest.classes):,} classes are not in every part of "
        f"{manifest.name}: {some_of(words)}. Leave them out with data.classes [{some_of(kept, 4)}], or deal all images "
        "anew with data.split fractions"
    )


class _Splitter:
    """Assignment of images to parts."""

    def __init__(self, manifest: Manifest, settings: DataSettings, fractions: tuple[float, ...]) -> None:
        self.settings = settings
        self.fractions = fractions
        self.classes = manifest.classes
        self.class_names = manifest.class_names
        self.published: list[str] = manifest.images["part"].tolist()
        self.published_folds: list[str] = manifest.images["fold"].tolist()
        self.hashes: list[str] = manifest.images["hash"].tolist()
        self.keys: list[str] = manifest.images["key"].tolist()
        self.parts = [UNUSED] * len(self.hashes)
        self.dropped: dict[int, str] = {}
        self.candidates = list(range(len(self.hashes)))
        # An image's name in all random choices: the hash of its bytes, and its number among the copies of these bytes.
        self.identities = [""] * len(self.hashes)
        copies: Counter[str] = Counter()
        for row in sorted(self.candidates, key=lambda row: self.keys[row]):
            self.identities[row] = f"{self.hashes[row]}/{copies[self.hashes[row]]}"
            copies[self.hashes[row]] += 1

    def limit_all(self) -> None:
        """Limits candidates to images_per_class; with the publisher's test images, in the proportion of its parts."""
        limit = self.settings.images_per_class
        if limit is None:
            return
        kept: list[int] = []
        for rows in self._per_class(self.candidates).values():
            by_part: dict[str, list[int]] = defaultdict(list)
            for row in rows:
                by_part[self.published[row] if self.settings.split in _KEEP_TEST else ""].append(row)
            names = sorted(by_part)
            sizes = [len(by_part[name]) for name in names]
            wanted = _round_shares(min(limit, len(rows)), [size / len(rows) for size in sizes], names)
            for name, number in zip(names, wanted, strict=True):
                kept += self._draw(by_part[name], number, "images_per_class")
        self.candidates = sorted(kept)

    def limit_train(self) -> None:
        """Limits training images to train_images_per_class; the others are unused."""
        limit = self.settings.train_images_per_class
        if limit is None:
            return
        for rows in self._per_class(self._rows("train")).values():
            kept = set(self._draw(rows, limit, "train_images_per_class"))
            self._assign((row for row in rows if row not in kept), UNUSED)

    def by_fractions(self) -> None:
        for groups in self._groups(self.candidates):
            for part, names in zip(PARTS, self._deal(groups, self.fractions, "fractions"), strict=True):
                self._assign((row for name in names for row in groups[name]), part)

    def by_folds(self) -> None:
        if any(self.published_folds):
            self._by_published_folds()
            return
        for groups in self._groups(self.candidates):
            folds = self._deal(groups, [1 / self.settings.folds] * self.settings.folds, "folds")
            assert self.settings.fold is not None
            test = set(folds[self.settings.fold])
            self._assign((row for name in test for row in groups[name]), "test")
            self._deal_train_and_val({name: rows for name, rows in groups.items() if name not in test})

    def _by_published_folds(self) -> None:
        """Takes the folds from the table of labels; rows without a fold are unused."""
        names = sorted_classes(set(self.published_folds) - {""})
        if len(names) != self.settings.folds:
            raise UserError(
                f"data.folds: received {self.settings.folds}, but the table of labels has {len(names)} folds "
                f"({some_of(names)}); give data.folds {len(names)}"
            )
        assert self.settings.fold is not None
        for row in self.candidates:
            if self.published_folds[row]:
                self.parts[row] = "test" if self.published_folds[row] == names[self.settings.fold] else "train"
        if self.settings.duplicates == "together":
            self._drop_copies(of="test", among=("train",))
        for groups in self._groups(self._rows("train")):
            self._deal_train_and_val(groups)

    def by_publisher(self) -> None:
        for part in PARTS:
            self._assign((row for row in self.candidates if self.published[row] == part), part)
        if self.settings.duplicates == "together":
            self._drop_copies(of="test", among=("train", "val"))
            self._drop_copies(of="val", among=("train",))
        if "val" not in self.published:
            for groups in self._groups(self._rows("train")):
                self._deal_train_and_val(groups)

    def by_publisher_folds(self) -> None:
        """Keeps the publisher's test images; one fold of its other images validates and the others train."""
        self._assign((row for row in self.candidates if self.published[row] != "test"), "train")
        self._assign((row for row in self.candidates if self.published[row] == "test"), "test")
        if self.settings.duplicates == "together":
            self._drop_copies(of="test", among=("train",))
        assert self.settings.fold is not None
        for groups in self._groups(self._rows("train")):
            folds = self._deal(groups, [1 / self.settings.folds] * self.settings.folds, "folds")
            self._assign((row for name in folds[self.settings.fold] for row in groups[name]), "val")

    def check_parts(self) -> None:
        """Raises UserError if a class has no image in one of the parts; the message says how many it needs."""
        counts = Counter(zip(self.class_names, self.parts, strict=True))
        small = [name for name in self.classes if any(counts[name, part] == 0 for part in PARTS)]
        if not small:
            return
        available = self._per_class(self.candidates)
        lines = []
        for name in small:
            rows = available.get(name, [])
            different = len({self.hashes[row] for row in rows})
            copies = f", {different} of them different" if different < len(rows) else ""
            parts = ", ".join(f"{part} {counts[name, part]}" for part in PARTS)
            lines.append(f"{name} has {len(rows)}{copies} ({parts})")
        if self.settings.split == "fractions":
            needed = "at least 3 different images"
        elif self.settings.split == "folds":
            folds = self.settings.folds
            needed = f"at least {4 if folds == 2 else folds} different images with {folds} folds"
        elif self.settings.split == "publisher_folds":
            folds = self.settings.folds
            needed = f"at least {folds} different images outside the publisher's test with {folds} folds, and 1 in test"
        elif "val" in self.published:
            needed = "at least 1 image in each of the publisher's train, val and test that is in no later one"
        else:
            needed = "at least 2 different images in the publisher's train, and 1 in test"
        raise UserError(
            f"data.split {self.settings.split}: {len(small)} of {len(self.classes)} classes have too few images for "
            f"train, val and test: {some_of(lines, most=6)}. Each needs {needed}: add images, raise "
            "data.images_per_class, or leave these classes out with data.classes"
        )

    def _deal_train_and_val(self, groups: Groups) -> None:
        train, val, _ = self.fractions
        dealt = self._deal(groups, [train / (train + val), val / (train + val)], "train and val")
        for part, names in zip(("train", "val"), dealt, strict=True):
            self._assign((row for name in names for row in groups[name]), part)

    def _drop_copies(self, *, of: str, among: Sequence[str]) -> None:
        kept = {self.hashes[row] for row in self._rows(of)}
        for row, part in enumerate(self.parts):
            if part in among and self.hashes[row] in kept:
                self.parts[row] = UNUSED
                self.dropped[row] = f"left out of {part}: a copy is in {of}"

    def _deal(self, groups: Groups, shares: Sequence[float], purpose: str) -> list[list[str]]:
        """Distributes groups to parts by shares of their rows; no part is empty if there are enough groups.

        Large groups come first; each goes to the part that lacks most rows, and groups of one row even out the rest. So
        sizes are exact unless many images have copies.
        """
        total = sum(len(rows) for rows in groups.values())
        ties = [self._digest(purpose, f"{min(groups, default='')} {index}") for index in range(len(shares))]
        short = _round_shares(total, shares, ties)
        order = sorted(groups, key=lambda name: (-len(groups[name]), self._digest(purpose, name)))
        dealt: list[list[str]] = [[] for _ in shares]
        for index, name in enumerate(order):
            open_parts = list(range(len(shares)))
            empty = [part for part in open_parts if not dealt[part]]
            if len(order) - index <= len(empty):
                open_parts = empty
            part = max(open_parts, key=short.__getitem__)
            dealt[part].append(name)
            short[part] -= len(groups[name])
        return dealt

    def _groups(self, rows: Iterable[int]) -> list[Groups]:
        """Groups of rows that stay together, per class; a group of several classes counts for the first."""
        groups: Groups = defaultdict(list)
        for row in rows:
            together = self.settings.duplicates == "together"
            groups[f"{self.hashes[row]}/0" if together else self.identities[row]].append(row)
        per_class: dict[str, Groups] = defaultdict(dict)
        for name, members in groups.items():
            per_class[min(self.class_names[row] for row in members)][name] = members
        return list(per_class.values())

    def _draw(self, rows: list[int], number: int, purpose: str) -> list[int]:
        """The first `number` rows in a random order, so a larger number includes all rows of a smaller one."""
        return sorted(rows, key=lambda row: self._digest(purpose, self.identities[row]))[:number]

    def _digest(self, purpose: str, name: str) -> str:
        return hashlib.sha256(f"{self.settings.split_seed}/{purpose}/{name}".encode()).hexdigest()

    def _per_class(self, rows: Iterable[int]) -> dict[str, list[int]]:
        per_class: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            per_class[self.class_names[row]].append(row)
        return per_class

    def _rows(self, part: str) -> list[int]:
        return [row for row, own in enumerate(self.parts) if own == part]

    def _assign(self, rows: Iterable[int], part: str) -> None:
        for row in rows:
            self.parts[row] = part


def _round_shares(total: int, shares: Sequence[float], ties: Sequence[str]) -> list[int]:
    """Whole numbers near total * share that add up to total (largest remainder), none of them 0 if possible.

    Args:
        total: Number of rows to distribute.
        shares: Shares that add up to 1.
        ties: Texts that decide between equal remainders: the one that sorts first is rounded up.
    """
    # rounded, so that 0.7 * 10 is 7 whatever its last binary digit
    exact = [round(total * share, 9) for share in shares]
    numbers = [math.floor(number) for number in exact]
    by_remainder = sorted(range(len(shares)), key=lambda part: (round(numbers[part] - exact[part], 6), ties[part]))
    for part in by_remainder[: total - sum(numbers)]:
        numbers[part] += 1
    while total >= len(shares) and min(numbers) == 0:
        numbers[numbers.index(max(numbers))] -= 1
        numbers[numbers.index(0)] += 1
    return numbers
