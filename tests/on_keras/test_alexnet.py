from __future__ import annotations

import keras
import pytest

from tandem.on_keras.alexnet import build_alexnet


def test_maps_have_the_sizes_of_the_paper() -> None:
    network = build_alexnet(224, with_head=True)
    convolutions = [layer.output.shape[1:] for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    # Krizhevsky 2014; torchvision pads 224 pixels by 2, so that 55 places of stride 4 fit
    assert convolutions == [(55, 55, 64), (27, 27, 192), (13, 13, 384), (13, 13, 256), (13, 13, 256)]
    assert network.get_layer("flatten").output.shape == (None, 6 * 6 * 256)
    assert network.output.shape == (None, 1000)


@pytest.mark.parametrize("image_size", [63, 96])
def test_features_without_the_head_have_4096_units(image_size: int) -> None:
    network = build_alexnet(image_size, with_head=False)
    assert network.output.shape == (None, 4096)
    assert [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]
