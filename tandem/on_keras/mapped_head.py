"""The ImageNet head of a pretrained network, turned to other classes without training."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tandem.on_keras.networks import Classifier


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]], image_shape: tuple[int, ...]) -> Classifier:
    """The same network with an output for each class.

    A class of several outputs has the logarithm of the sum of their exponentials, so that softmax over the classes is
    softmax over all outputs, taken as given that one of the classes is right.

    Args:
        classifier: with its ImageNet head of 1000 outputs.
        outputs: of each class, 0..999.
        image_shape: (height, width, 3) of the images that will come.
    """
    features = keras.Input(classifier.head.input_shape[1:])
    logits = classifier.head(features)
    of_classes = [
        keras.ops.logsumexp(keras.ops.take(logits, list(members), axis=1), axis=1, keepdims=True) for members in outputs
    ]
    head = keras.Model(features, keras.ops.concatenate(of_classes, axis=1), name="mapped_head")
    mapped = Classifier(classifier.pixels, classifier.backbone, head)
    mapped(np.zeros((1, *image_shape), np.uint8))  # Keras makes a subclassed model's state at its first call
    return mapped
