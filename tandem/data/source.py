"""A list of images, whatever they are kept in, and the functions that read them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tandem.data.decoding import Decoded
from tandem.errors import UserError, some_of

SEPARATORS = "|;, "
"""Characters that tables put between several classes of one image."""


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
    fold: str | None = None
    """The publisher's fold, or None."""


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
    parts: Mapping[str, str] = field(default_factory=dict)
    """Names of the publisher's parts, such as {"train": "Training"}; empty if there are none."""
    notes: tuple[str, ...] = ()
    """Lines that users should know about the data set."""
    passed_over: tuple[str, ...] = ()
    """Lines on files and folders that are not used."""
    read: Callable[[str], bytes]
    """From a key to the bytes of the image."""
    open: Callable[[str, bytes], Image.Image]
    """From a key and these bytes to a Pillow image, not yet decoded."""
    decode: Callable[[str, bytes], Decoded]
    """From a key and these bytes to the decoded image."""


def choose_classes(available: Iterable[str], wanted: list[str] | None) -> tuple[str, ...]:
    """The classes that are used, in the order of the labels.

    Args:
        available: All classes.
        wanted: The setting data.classes.

    Raises:
        UserError: A wanted class does not exist.
    """
    available = list(available)
    if wanted is None:
        return tuple(available)
    unknown = [name for name in wanted if name not in available]
    if unknown or len(set(wanted)) < len(wanted):
        wrong = f"there is no {some_of(unknown)}" if unknown else "one is named twice"
        raise UserError(
            f"data.classes: received {_listed(wanted)}, but {wrong}; allowed: {some_of(available)}, each once"
        )
    return tuple(wanted)


def check_names(names: Iterable[str], wanted: list[str] | None) -> None:
    """Raises UserError if two classes have names that differ by case, blanks or hyphens alone.

    Args:
        names: Names of the classes.
        wanted: The setting data.classes; classes that it names are told apart.
    """
    alike: dict[str, str] = {}
    for name in names:
        if wanted is not None:
            continue
        joined = re.sub(r"(?<=[^\W\d])[-_]+(?=[^\W\d])", "", name.casefold())  # 1-2 is not 12
        folded = "".join(character for character in joined if character.isprintable() and character != " ")
        if folded in alike:
            raise UserError(
                f"data.source: the classes {alike[folded]!r} and {name!r} differ only by case, blanks or hyphens; "
                "rename one to make them one class, or name each class that is meant with data.classes"
            )
        alike[folded] = name


def check_labels(names: Iterable[str], wanted: list[str] | None) -> None:
    """Raises UserError if labels differ by case, blanks or hyphens alone, or one is a list of others: `rust|scab`.

    Args:
        names: Names of the classes.
        wanted: As in check_names.
    """
    names = list(names)
    check_names(names, wanted)
    for name in names if wanted is None else ():
        for separator in SEPARATORS:
            pieces = [piece.strip() for piece in name.split(separator)]
            if len(pieces) > 1 and set(pieces) <= set(names):
                raise UserError(
                    f"data.source: the label {name!r} holds the classes {some_of(pieces)}, and an image has one class; "
                    "give each image one class, or name each class that is meant with data.classes"
                )


def stamp_of(path: str | bytes | Path) -> str:
    """Size and times of a file."""
    try:
        status = os.stat(path)
    except OSError:
        return "unreadable"
    # the change time too: an archive can replace a file by one with the same size and modification time
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _listed(names: list[str]) -> str:
    return f"[{some_of(names)}]"
