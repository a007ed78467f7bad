"""The ImageNet head of a pretrained network, mapped to other classes without training."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tandem.on_keras.networks import Classifier


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]]) -> Classifier:
    """The same network with one output per class.

    A class with several ImageNet outputs has the logarithm of the sum of their exponentials. Softmax over the classes
    is then softmax over all outputs, given that one of the classes is right.

    Args:
        classifier: With its ImageNet head of 1000 outputs.
        outputs: ImageNet outputs of each class, 0..999.
    """
    features = keras.Input(classifier.head.input_shape[1:])
    logits = classifier.head(features)
    of_classes = [
        keras.ops.logsumexp(keras.ops.take(logits, list(members), axis=1), axis=1, keepdims=True) for members in outputs
    ]
    head = keras.Model(features, keras.ops.concatenate(of_classes, axis=1), name="mapped_head")
    return Classifier(classifier.pixels, classifier.backbone, head)
