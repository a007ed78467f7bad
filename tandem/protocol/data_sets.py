"""The data sets that go by a name, and the split of each where the settings leave it open.

How they are downloaded and read is in tandem/data; a split is part of the protocol that both frameworks follow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tandem.protocol.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class SplitProtocol:
    """What `split: auto` and `fractions: null` stand for."""

    split: Literal["fractions", "publisher"]
    fractions: tuple[float, float, float]
    """Train, validation and test; of a publisher's split the ratio of the first two divides what is not test."""


FOLDER_PROTOCOL = SplitProtocol(split="fractions", fractions=(0.7, 0.1, 0.2))

DATA_SETS: dict[str, SplitProtocol] = {
    "digits": FOLDER_PROTOCOL,
    # Their publishers' test images are kept, and as many images as they have validate. For CIFAR-100 that is what
    # the document on it does: 10,000 of its 50,000 training images.
    "mnist": SplitProtocol(split="publisher", fractions=(5 / 7, 1 / 7, 1 / 7)),
    "fashion_mnist": SplitProtocol(split="publisher", fractions=(5 / 7, 1 / 7, 1 / 7)),
    "cifar10": SplitProtocol(split="publisher", fractions=(4 / 6, 1 / 6, 1 / 6)),
    "cifar100": SplitProtocol(split="publisher", fractions=(4 / 6, 1 / 6, 1 / 6)),
    "labelme": SplitProtocol(split="publisher", fractions=(0.6, 0.2, 0.2)),
    # Published in one piece; the document on eight data sets does not say how it divided them.
    "caltech101": FOLDER_PROTOCOL,
    "sdss17": FOLDER_PROTOCOL,
    # The document says 70/15/15; the published folders hold 15,000, 3,000 and 3,000 images (71.4/14.3/14.3), so they
    # are merged and divided anew.
    "vegetables": SplitProtocol(split="fractions", fractions=(0.7, 0.15, 0.15)),
    # The publisher's parts are merged, which hold 5 images of each species for validation and 5 for testing.
    "birds300": FOLDER_PROTOCOL,
    "birds400": FOLDER_PROTOCOL,
    "birds525": FOLDER_PROTOCOL,
    # The document tests on the publisher's val of 3,925 images and does not say what validated: an eighth of train.
    "imagenette": SplitProtocol(split="publisher", fractions=(0.7, 0.1, 0.2)),
    # Oxford 102; its publisher gives all three parts.
    "flowers": SplitProtocol(split="publisher", fractions=(0.7, 0.1, 0.2)),
}
"""By the name that stands in data.source."""


def resolve_split(data: DataSettings) -> DataSettings:
    """The settings with `split: auto` and `fractions: null` replaced by the data set's own, and others as they are."""
    protocol = DATA_SETS.get(data.source, FOLDER_PROTOCOL)
    return dataclasses.replace(
        data,
        split=protocol.split if data.split == "auto" else data.split,
        fractions=list(protocol.fractions) if data.fractions is None else data.fractions,
    )
