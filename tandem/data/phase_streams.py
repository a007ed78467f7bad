"""The streams of a phase, the same in both frameworks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tandem.data.console import num_cores
from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.protocol.processes import num_local_processes
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings


def training_stream(
    settings: Settings,
    data: PreparedData,
    phase: Phase,
    *,
    shuffle: bool = True,
    features: Sequence[np.ndarray] = (),
) -> Stream:
    """Training images, shuffled and augmented by the seed and the phase's number, or their features."""
    return Stream(
        data.training_images,
        data.labels,
        data.rows("train"),
        batch_size=settings.batch_size,
        seed=(settings.seed, phase.number),
        shuffle=shuffle,
        augmentation=Augmentation(
            settings=settings.augmentation,
            size=data.images.shape[1:3],
            threads=settings.threads or max(1, num_cores() // num_local_processes()),
        ),
        features=features,
    )


def validation_stream(
    settings: Settings, data: PreparedData, phase: Phase, *, features: Sequence[np.ndarray] = ()
) -> Stream:
    """Validation images in the order of their rows, or their features."""
    return Stream(
        data.images,
        data.labels,
        data.rows("val"),
        batch_size=settings.batch_size,
        seed=(settings.seed, phase.number),
        shuffle=False,
        features=features,
    )
