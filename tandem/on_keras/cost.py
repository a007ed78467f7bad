"""Cost of a network in Keras: multiply-accumulates."""

from __future__ import annotations

import math

import keras

from tandem.on_keras.backbones import leaf_layers
from tandem.on_keras.networks import Classifier


def count_macs(classifier: Classifier) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image.

    Counted from the layers' shapes; biases, batch norm and activations are not counted.
    """
    total = 0
    for layer in [*leaf_layers(classifier.backbone), *leaf_layers(classifier.head)]:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, channels, multiplier = layer.kernel.shape
            total += _positions(layer) * height * width * channels * multiplier
        elif isinstance(layer, keras.layers.SeparableConv2D):
            height, width, channels, multiplier = layer.depthwise_kernel.shape
            weights = height * width * channels * multiplier + math.prod(layer.pointwise_kernel.shape)
            total += _positions(layer) * weights
        elif isinstance(layer, keras.layers.Conv2D):
            total += _positions(layer) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            # ConvNeXt has dense layers on maps
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total


def _positions(layer: keras.layers.Layer) -> int:
    _, height, width, _ = layer.output.shape
    return height * width
