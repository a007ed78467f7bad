"""The streams of a phase, the same in both frameworks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tandem.data.console import num_cores
from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.data.targets import Targets, serves_soft_targets, weights_of_classes
from tandem.protocol.accumulation import Passes
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
    """Training images, shuffled, augmented and mixed by the seed and the phase's number, or their features.

    Its batches are those of a pass: the parts of the settings' batch, with gradient accumulation.

    Args:
        settings: The run's.
        data: The images.
        phase: Its number gives each phase other batches.
        shuffle: False for each stored image once and in its own order, augmented but not mixed.
        features: Served in place of the images.

    Raises:
        UserError: loss.class_weights names a class that the data does not have.
    """
    return Stream(
        data.training_images,
        data.labels,
        data.rows("train"),
        batch_size=settings.batch_size // settings.accumulate,
        seed=(settings.seed, phase.number),
        shuffle=shuffle,
        augmentation=Augmentation(
            settings=settings.augmentation,
            size=data.images.shape[1:3],
            threads=settings.threads or max(1, num_cores() // num_local_processes()),
        ),
        balanced=shuffle and settings.sampling == "balanced",
        mixing=settings.mixing if shuffle else None,
        targets=training_targets(settings, data),
        features=features,
    )


def passes_of(settings: Settings, training: Stream) -> Passes:
    """The passes of an epoch of training images, and the steps that they make."""
    return Passes(num_images=training.num_images, pass_size=training.batch_size, per_step=settings.accumulate)


def validation_stream(
    settings: Settings, data: PreparedData, phase: Phase, *, features: Sequence[np.ndarray] = ()
) -> Stream:
    """Validation images in the order of their rows, or their features; never augmented, mixed or weighted."""
    return Stream(
        data.images,
        data.labels,
        data.rows("val"),
        batch_size=settings.batch_size // settings.accumulate,
        seed=(settings.seed, phase.number),
        shuffle=False,
        targets=validation_targets(settings, data),
        features=features,
    )


def training_targets(settings: Settings, data: PreparedData) -> Targets:
    """The targets of training images.

    Raises:
        UserError: loss.class_weights names a class that the data does not have.
    """
    return Targets(
        num_classes=len(data.classes),
        soft=serves_soft_targets(settings),
        smoothing=settings.loss.label_smoothing,
        class_weights=weights_of_classes(settings.loss, data.labels[data.rows("train")], data.classes),
    )


def validation_targets(settings: Settings, data: PreparedData) -> Targets:
    """The targets of validation images: neither smoothed nor weighted, so that losses of all settings compare.

    They have the form of the training targets, since Keras compiles one loss for both.
    """
    return Targets(num_classes=len(data.classes), soft=serves_soft_targets(settings))
