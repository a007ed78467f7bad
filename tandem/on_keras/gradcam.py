"""Grad-CAM's inputs from a Keras network: its last feature map and the gradients there."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tandem.on_keras.backends import gradients_of
from tandem.on_keras.networks import Classifier


def features_and_gradients(
    classifier: Classifier, images: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The last feature map, in inference mode, and one logit's gradients with respect to it per image.

    The map that is pooled to the features; in VGG and AlexNet, whose features come from dense layers, the last map with
    rows and columns.

    Args:
        classifier: The trained network; it is unchanged afterwards.
        images: uint8 of shape (n, height, width, 3).
        classes: int64 of shape (n,), the output of each image whose gradients are computed.

    Returns:
        Features and gradients, float32 of shape (n, rows, columns, channels).
    """
    backbone = classifier.backbone
    feature_map = _feature_map(backbone)
    to_features = keras.Model(backbone.input, feature_map)
    from_features = keras.Model(feature_map, backbone.output)
    features = to_features(classifier.pixels(images), training=False)

    def score(features: Any) -> Any:
        logits = classifier.head(from_features(features, training=False), training=False)
        return keras.ops.sum(keras.ops.take_along_axis(logits, classes[:, np.newaxis], axis=1))

    return _as_numpy(features), _as_numpy(gradients_of(score, features))


def _feature_map(backbone: keras.Model) -> Any:
    poolings = [layer for layer in backbone.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    if poolings:
        return poolings[-1].input
    # VGG's and AlexNet's pooling to the input size of their dense layers is an operation, not a layer
    return [layer.output for layer in backbone.layers if len(layer.output.shape) == 4][-1]


def _as_numpy(values: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(values, "float32"))
