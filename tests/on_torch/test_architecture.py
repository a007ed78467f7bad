from __future__ import annotations

import pytest

from tandem.evaluation.architecture import Layer
from tandem.on_torch.architecture import layers_of
from tandem.on_torch.mapped_head import map_head
from tandem.on_torch.networks import build_classifier
from tandem.on_torch.weights import count_parameters
from tests.small_runs import IMAGE_SHAPE, NUM_CLASSES, small_settings


# timm's has a class token and positions, which belong to no layer; torchvision's attention has weights in a module with
# another one within it.
@pytest.mark.parametrize(
    "backbone",
    ["mobilenet_v2", "densenet121", "timm:vit_tiny_patch16_224", "torchvision:vit_b_16", "torchvision:swin_t"],
)
def test_parameters_of_the_layers_add_up_to_those_of_the_network(backbone: str) -> None:
    size = 224 if "vit" in backbone else 32
    network = build_classifier(small_settings(backbone=backbone, image_size=size), NUM_CLASSES)
    layers = layers_of(network, IMAGE_SHAPE)
    assert sum(layer.parameters for layer in layers) == count_parameters(network)[0]
    assert len({layer.name for layer in layers}) == len(layers)


def test_layers_have_kinds_shapes_and_parameters() -> None:
    network = build_classifier(small_settings(backbone="mobilenet_v2", image_size=32), NUM_CLASSES).train()
    layers = layers_of(network, IMAGE_SHAPE)
    assert layers[:2] == [
        Layer(name=layers[0].name, kind="Conv2d", output_shape=(32, 16, 16), parameters=3 * 3 * 3 * 32),
        Layer(name=layers[1].name, kind="BatchNorm2d", output_shape=(32, 16, 16), parameters=2 * 32),
    ]
    assert layers[0].name.startswith("backbone.")
    last = layers[-1]
    assert (last.kind, last.output_shape, last.parameters) == ("Linear", (NUM_CLASSES,), 1281 * NUM_CLASSES)
    assert last.name.startswith("head")
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_head_of_a_network_off_the_shelf_is_listed() -> None:
    network = map_head(build_classifier(small_settings(image_size=32), 1000), [[1], [2, 3]])
    layers = layers_of(network, IMAGE_SHAPE)
    assert sum(layer.parameters for layer in layers) == count_parameters(network)[0]
