"""DenseNet-161 in Keras; no Keras library has it."""

from __future__ import annotations

from typing import Any

import keras

from tandem.protocol.backbones import IMAGENET_CLASSES

# Huang et al. 2017, section 5 (k = 48, "the wide DenseNet"), as in torchvision.models.densenet161.
GROWTH_RATE = 48
DENSE_LAYERS = (6, 12, 36, 24)
EPSILON = 1e-5
MOMENTUM = 0.9


def build_densenet161(image_size: int, *, with_head: bool) -> keras.Model:
    """DenseNet-161 with random weights, with the layers of torchvision.models.densenet161.

    The layers' names are those of Keras Applications' smaller DenseNets.

    Args:
        image_size: Height and width in pixels, 32 or more; 224 in the paper.
        with_head: End in the dense layer of 1000 logits, otherwise in the global average pooling.
    """
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(2 * GROWTH_RATE, 7, strides=2, use_bias=False, name="conv1_conv")(
        keras.layers.ZeroPadding2D(3)(images)
    )
    x = _batch_norm_relu(x, "conv1")
    # zeros are the lowest values after a ReLU, so padding with them equals torch's padding with minus infinity
    x = keras.layers.MaxPooling2D(3, strides=2)(keras.layers.ZeroPadding2D(1)(x))
    for stage, layers in enumerate(DENSE_LAYERS, start=2):
        for number in range(1, layers + 1):
            x = keras.layers.Concatenate()([x, _dense_layer(x, f"conv{stage}_block{number}")])
        if layers != DENSE_LAYERS[-1]:
            x = _convolution(_batch_norm_relu(x, f"pool{stage}"), x.shape[-1] // 2, 1, f"pool{stage}_conv")
            x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(keras.layers.ReLU(name="relu")(x))
    if with_head:
        x = keras.layers.Dense(IMAGENET_CLASSES, name="predictions")(x)
    return keras.Model(images, x, name="densenet161")


def _dense_layer(x: Any, name: str) -> Any:
    x = _convolution(_batch_norm_relu(x, f"{name}_0"), 4 * GROWTH_RATE, 1, f"{name}_1_conv")
    return _convolution(_batch_norm_relu(x, f"{name}_1"), GROWTH_RATE, 3, f"{name}_2_conv")


def _batch_norm_relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU()(
        keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(x)
    )


def _convolution(x: Any, channels: int, size: int, name: str) -> Any:
    return keras.layers.Conv2D(channels, size, padding="same", use_bias=False, name=name)(x)
