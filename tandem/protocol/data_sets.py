"""The named data sets, and the split of each if the settings do not give one.

The split is part of the protocol that both frameworks follow; tandem/data downloads and reads the data sets.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """The settings with the data set's own values in place of `split: auto` and `fractions: null`."""
    protocol = DATA_SETS.get(data.source, FOLDER_PROTOCOL)
    return dataclasses.replace(
        data,
        split=protocol.split if data.split == "auto" else data.split,
        fractions=list(protocol.fractions) if data.fractions is None else data.fractions,
    )
