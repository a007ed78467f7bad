"""The layers of a Keras network."""

from __future__ import annotations

import math

import keras

from tandem.evaluation.architecture import Layer
from tandem.on_keras.backbones import leaf_layers
from tandem.on_keras.networks import Classifier
from tandem.on_keras.weights import batch_norm_statistics


def layers_of(classifier: Classifier, image_shape: tuple[int, ...]) -> list[Layer]:
    """The layers of backbone and head, from input to output, without layers that only stand for an input.

    Args:
        classifier: The network.
        image_shape: (height, width, 3) of the stored images; the shapes of layers do not depend on it.
    """
    return [
        Layer(
            name=f"{part}.{layer.name}",
            kind=type(layer).__name__,
            output_shape=_output_shape(layer),
            parameters=_count_parameters(layer),
        )
        for part in ("backbone", "head")
        for layer in leaf_layers(getattr(classifier, part))
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def _output_shape(layer: keras.layers.Layer) -> tuple[int | None, ...] | None:
    output = getattr(layer, "output", None)  # a layer that was not called by itself has none
    return tuple(output.shape[1:]) if isinstance(output, keras.KerasTensor) else None


def _count_parameters(layer: keras.layers.Layer) -> int:
    statistics = batch_norm_statistics([layer])
    return sum(math.prod(weight.shape) for weight in layer.weights if id(weight) not in statistics)
