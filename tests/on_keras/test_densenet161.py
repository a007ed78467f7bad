from __future__ import annotations

import keras

from tandem.on_keras.densenet161 import build_densenet161


def test_channels_grow_by_48_per_layer_and_halve_at_transitions() -> None:
    network = build_densenet161(32, with_head=True)
    # Huang et al. 2017, table 1 (k = 48): 96 channels, then 6, 12, 36 and 24 layers
    concatenations = [layer for layer in network.layers if isinstance(layer, keras.layers.Concatenate)]
    assert len(concatenations) == 6 + 12 + 36 + 24
    channels = [concatenations[number - 1].output.shape[-1] for number in (6, 18, 54, 78)]
    assert channels == [96 + 6 * 48, 192 + 12 * 48, 384 + 36 * 48, 1056 + 24 * 48]
    assert network.output.shape == (None, 1000)


def test_layers_are_named_like_keras_s_smaller_densenets() -> None:
    ours = {layer.name for layer in build_densenet161(32, with_head=False).layers if layer.weights}
    theirs = keras.applications.DenseNet121(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    names = {layer.name for layer in theirs.layers if layer.weights}
    # DenseNet-121 has 24 and 16 layers in its last two stages, fewer than DenseNet-161
    assert names < ours
