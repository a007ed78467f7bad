"""The named data sets, and the split of each if the settings do not give one.

The split is part of the protocol that both frameworks follow; tandem/data downloads and reads the data sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tandem.protocol.folder_layout import find_layout
from tandem.protocol.label_table import find_table, read_table
from tandem.protocol.part_names import assign_parts
from tandem.protocol.source_kinds import (
    PARQUET_ENDINGS,
    TAR_ENDINGS,
    files_by_part,
    kind_of_source,
    parquet_parts,
    saved_splits,
)

if TYPE_CHECKING:
    from tandem.protocol.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class SplitProtocol:
    """Meaning of `split: auto` and `fractions: null` for a data set."""

    split: Literal["fractions", "publisher"]
    """Value of data.split."""
    fractions: tuple[float, float, float]
    """Shares of training, validation and test images. In a publisher's split the first two are the proportion of
    training and validation images."""


FOLDER_PROTOCOL = SplitProtocol(split="fractions", fractions=(0.7, 0.1, 0.2))

PARTS_PROTOCOL = SplitProtocol(split="publisher", fractions=FOLDER_PROTOCOL.fractions)
"""Split of a folder, a table or files with training and test images of their own."""

DATA_SETS: dict[str, SplitProtocol] = {
    "digits": FOLDER_PROTOCOL,
    # The publishers' test images are kept, and there are as many validation images as test images. The document on
    # CIFAR-100 does the same: it validates on 10,000 of the 50,000 training images.
    "mnist": SplitProtocol(split="publisher", fractions=(5 / 7, 1 / 7, 1 / 7)),
    "fashion_mnist": SplitProtocol(split="publisher", fractions=(5 / 7, 1 / 7, 1 / 7)),
    "cifar10": SplitProtocol(split="publisher", fractions=(4 / 6, 1 / 6, 1 / 6)),
    "cifar100": SplitProtocol(split="publisher", fractions=(4 / 6, 1 / 6, 1 / 6)),
    "labelme": SplitProtocol(split="publisher", fractions=(0.6, 0.2, 0.2)),
    # Published in one piece; the document on eight data sets does not say how it divided them.
    "caltech101": FOLDER_PROTOCOL,
    "sdss17": FOLDER_PROTOCOL,
    # The document says 70/15/15, but the published folders hold 15,000, 3,000 and 3,000 images (71.4/14.3/14.3). So
    # they are merged and split again.
    "vegetables": SplitProtocol(split="fractions", fractions=(0.7, 0.15, 0.15)),
    # The publisher's parts are merged; they hold only 5 validation and 5 test images per species.
    "birds300": FOLDER_PROTOCOL,
    "birds400": FOLDER_PROTOCOL,
    "birds525": FOLDER_PROTOCOL,
    # The document tests on the publisher's 3,925 validation images and does not say on what it validates; here it is an
    # eighth of the training images.
    "imagenette": SplitProtocol(split="publisher", fractions=(0.7, 0.1, 0.2)),
    # Oxford 102; the publisher gives all three parts.
    "flowers": SplitProtocol(split="publisher", fractions=(0.7, 0.1, 0.2)),
}
"""Split protocols by data.source."""


def resolve_split(data: DataSettings) -> DataSettings:
    """The settings with the data set's own values in place of `split: auto` and `fractions: null`.

    For a folder, `auto` depends on the folder, which is looked at here.

    Raises:
        UserError: The parts of the data are not understood.
    """
    protocol = DATA_SETS.get(data.source, FOLDER_PROTOCOL)
    if data.split == "auto" and data.source not in DATA_SETS and {"train", "test"} <= set(published_parts(data)):
        protocol = PARTS_PROTOCOL
    return dataclasses.replace(
        data,
        split=protocol.split if data.split == "auto" else data.split,
        fractions=list(protocol.fractions) if data.fractions is None else data.fractions,
    )


def published_parts(data: DataSettings) -> tuple[str, ...]:
    """Parts of the user's own data, from names alone: train, val, test; none for data that cannot be found.

    Raises:
        UserError: The parts are not understood.
    """
    try:
        return tuple(_published_parts(data))
    except OSError:
        return ()  # reported when the images are listed


def _published_parts(data: DataSettings) -> Iterable[str]:
    path = Path(data.source).expanduser()
    if data.labels is not None:
        return read_table(find_table(data.labels, data.source), data.columns, data.parts).parts
    kind = kind_of_source(data.source)
    if kind == "hub":
        return "train", "test"  # the splits are known only when it is loaded; nearly all data sets have these
    if kind == "saved":
        return assign_parts(saved_splits(path), data.parts, of=f"splits of {path.name}")[0].values()
    if kind in ("parquet", "tars"):
        files, parts, _ = files_by_part(path, PARQUET_ENDINGS if kind == "parquet" else TAR_ENDINGS, data.parts)
        if kind == "parquet" and not parts and (column := parquet_parts(files[None], data.columns)):
            return assign_parts(column[1], data.parts, of=f"parts in {path.name}")[0].values()
        return parts
    if kind == "folder":
        return find_layout(path.resolve(), parts=data.parts, classes=data.classes).parts
    return ()
