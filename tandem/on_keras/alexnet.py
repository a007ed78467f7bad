"""AlexNet in Keras; no Keras library has it."""

from __future__ import annotations

import keras

from tandem.on_keras.pooling import adaptive_average_pool
from tandem.protocol.backbones import IMAGENET_CLASSES


def build_alexnet(image_size: int, *, with_head: bool) -> keras.Model:
    """AlexNet with random weights, with the layers of torchvision.models.alexnet.

    From "One weird trick for parallelizing convolutional neural networks" (Krizhevsky 2014): 64, 192, 384, 256 and 256
    channels, no local response normalization.

    Args:
        image_size: Height and width in pixels, 63 or more; 224 in the paper.
        with_head: End in the dense layer of 1000 logits, otherwise in the second layer of 4096 units.
    """
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.ZeroPadding2D(2)(images)
    x = keras.layers.Conv2D(64, 11, strides=4, activation="relu", name="conv1")(x)
    x = keras.layers.MaxPooling2D(3, strides=2)(x)
    x = keras.layers.Conv2D(192, 5, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(3, strides=2)(x)
    x = keras.layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(x)
    x = keras.layers.Conv2D(256, 3, padding="same", activation="relu", name="conv4")(x)
    x = keras.layers.Conv2D(256, 3, padding="same", activation="relu", name="conv5")(x)
    x = keras.layers.MaxPooling2D(3, strides=2)(x)
    x = keras.layers.Flatten(name="flatten")(adaptive_average_pool(x, 6))
    for name in ("fc1", "fc2"):
        x = keras.layers.Dropout(0.5, name=f"{name}_dropout")(x)
        x = keras.layers.Dense(4096, activation="relu", name=name)(x)
    if with_head:
        x = keras.layers.Dense(IMAGENET_CLASSES, name="predictions")(x)
    return keras.Model(images, x, name="alexnet")
