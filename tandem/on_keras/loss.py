"""Loss and accuracy of a training step in Keras."""

from __future__ import annotations

import keras

from tandem.data.targets import serves_soft_targets
from tandem.protocol.settings import Settings


def build_loss(settings: Settings) -> keras.losses.Loss:
    """Cross-entropy of logits, for labels or for soft targets.

    With weights, it is the mean over the batch of each image's loss times its weight; it is not divided by the sum of
    the weights, so an image has the same weight in every batch.
    """
    if serves_soft_targets(settings):
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build_accuracy(settings: Settings) -> keras.metrics.Metric:
    """Share of images whose class is found; that of a soft target is the class with the largest share."""
    if serves_soft_targets(settings):
        return keras.metrics.CategoricalAccuracy(name="accuracy")
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
