"""The head as Keras layers."""

from __future__ import annotations

import keras
import numpy as np

from tandem.protocol.head import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, initial_kernels
from tandem.protocol.settings import Settings


def build_head(settings: Settings, num_features: int, num_classes: int) -> keras.Sequential:
    """Features of shape (n, num_features) to float32 logits of shape (n, num_classes).

    Batch norm and dropout, if the settings have them, precede each dense layer; a ReLU stands between dense layers.

    Args:
        settings: `head`, `batch_norm_momentum`, `seed`.
        num_features: Length of the backbone's feature vector.
        num_classes: Number of outputs.
    """
    head = settings.head
    momentum = BATCH_NORM_MOMENTUM if settings.batch_norm_momentum is None else settings.batch_norm_momentum
    kernels = initial_kernels(head, num_features=num_features, num_classes=num_classes, seed=settings.seed)
    layers: list[keras.layers.Layer] = [keras.Input((num_features,))]
    # float32 in any precision, since the loss is computed from the head's logits
    dtype = "float32"
    for kernel in kernels:
        if head.batch_norm:
            layers.append(keras.layers.BatchNormalization(momentum=momentum, epsilon=BATCH_NORM_EPSILON, dtype=dtype))
        if head.dropout:
            layers.append(keras.layers.Dropout(head.dropout, dtype=dtype))
        activation = None if kernel is kernels[-1] else "relu"
        layers.append(keras.layers.Dense(kernel.shape[1], activation=activation, dtype=dtype))
    network = keras.Sequential(layers, name="head")
    dense_layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    for layer, kernel in zip(dense_layers, kernels, strict=True):
        layer.set_weights([kernel, np.zeros(kernel.shape[1], np.float32)])
    return network
