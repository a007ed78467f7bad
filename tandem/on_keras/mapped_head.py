"""The ImageNet head of a pretrained network, mapped to other classes without training."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tandem.on_keras.networks import Classifier


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]]) -> Classifier:
    """The same network with one output per class.

    A class with several ImageNet outputs has the logarithm of the sum of their exponentials. Softmax over the classes
    is then softmax over all outputs, given that one of the classes is right.

    Args:
        classifier: With its ImageNet head of 1000 outputs.
        outputs: ImageNet outputs of each class, 0..999.
    """
    width = max(len(members) for members in outputs)
    filled = np.array([[*members, *members[:1] * (width - len(members))] for members in map(list, outputs)], np.int32)
    missing = np.array([[place >= len(members) for place in range(width)] for members in outputs])
    # tensors, since Keras on torch would copy arrays and lists to the device in each call
    members = keras.ops.convert_to_tensor(filled)
    penalty = keras.ops.convert_to_tensor(np.where(missing, -np.inf, 0).astype(np.float32))
    features = keras.Input(classifier.head.input_shape[1:])
    logits = keras.ops.take(classifier.head(features), members, axis=1) + penalty
    head = keras.Model(features, keras.ops.logsumexp(logits, axis=2), name="mapped_head")
    return Classifier(classifier.pixels, classifier.backbone, head)
