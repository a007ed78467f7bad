from __future__ import annotations

import pytest

from tandem.evaluation.architecture import Layer
from tandem.on_keras.architecture import layers_of
from tandem.on_keras.mapped_head import map_head
from tandem.on_keras.networks import build_classifier
from tandem.on_keras.weights import count_parameters
from tests.small_runs import IMAGE_SHAPE, NUM_CLASSES, small_settings


# EfficientNet scales its pixels by weights that are not trained.
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_b0", "keras:Xception"])
def test_parameters_of_the_layers_add_up_to_those_of_the_network(backbone: str) -> None:
    size = 72 if "Xception" in backbone else 32
    network = build_classifier(small_settings(backbone=backbone, image_size=size), NUM_CLASSES)
    layers = layers_of(network, IMAGE_SHAPE)
    assert sum(layer.parameters for layer in layers) == count_parameters(network)[0]
    assert len({layer.name for layer in layers}) == len(layers)


def test_layers_have_kinds_shapes_and_parameters() -> None:
    network = build_classifier(small_settings(backbone="mobilenet_v2", image_size=32), NUM_CLASSES)
    layers = layers_of(network, IMAGE_SHAPE)
    first = next(index for index, layer in enumerate(layers) if layer.parameters)
    assert layers[first : first + 2] == [
        Layer(name=layers[first].name, kind="Conv2D", output_shape=(16, 16, 32), parameters=3 * 3 * 3 * 32),
        Layer(name=layers[first + 1].name, kind="BatchNormalization", output_shape=(16, 16, 32), parameters=2 * 32),
    ]
    assert layers[first].name.startswith("backbone.")
    last = layers[-1]
    assert (last.kind, last.output_shape, last.parameters) == ("Dense", (NUM_CLASSES,), 1281 * NUM_CLASSES)
    assert last.name.startswith("head.")


def test_head_of_a_network_off_the_shelf_is_listed() -> None:
    network = map_head(build_classifier(small_settings(image_size=32), 1000), [[1], [2, 3]])
    layers = layers_of(network, IMAGE_SHAPE)
    assert sum(layer.parameters for layer in layers) == count_parameters(network)[0]
