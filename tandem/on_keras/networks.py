"""The classifier as a Keras model: uint8 pixels, backbone, head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tandem.on_keras.average import WithAverages
from tandem.on_keras.backbones import (
    BuiltBackbone,
    batch_norms_of,
    build_backbone,
    build_with_imagenet_head,
    load_weights,
)
from tandem.on_keras.distributed import bring_together, share_out
from tandem.on_keras.head import build_head
from tandem.protocol.backbones import Scaling, find_backbone, scale_and_offset, scaling_of
from tandem.protocol.settings import Settings


class Pixels:
    """uint8 RGB images of shape (n, height, width, 3) to the backbone's float32 input of shape (n, size, size, 3).

    Made of Keras's own layers and operations, which are recorded one by one for a symbolic input: a saved model does
    not need Tandem's code.
    """

    def __init__(self, image_size: int, scaling: Scaling) -> None:
        self.image_size = image_size
        self.scaling = scaling
        self.to_bgr = scaling == "caffe"
        # tensors, since Keras on torch would copy lists to the device in each call
        scale, offset = map(keras.ops.convert_to_tensor, np.array(scale_and_offset(scaling), np.float32))
        self.resizing = keras.layers.Resizing(
            image_size, image_size, interpolation="bilinear", antialias=False, dtype="float32"
        )
        self.rescaling = keras.layers.Rescaling(scale, offset, dtype="float32")

    def __call__(self, images: Any) -> Any:
        pixels = self.rescaling(self.resizing(keras.ops.cast(images, "float32")))
        return keras.ops.flip(pixels, axis=-1) if self.to_bgr else pixels


class Classifier(WithAverages):
    """uint8 images of shape (n, height, width, 3) to float32 logits of shape (n, classes)."""

    def __init__(self, pixels: Pixels, backbone: keras.Model, head: keras.Model) -> None:
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.head = head
        # Keras makes a subclassed model's state at its first call; later images may have another size
        self(np.zeros((1, pixels.image_size, pixels.image_size, 3), np.uint8))

    def call(self, images: Any, training: bool = False) -> Any:
        # trainable = False puts batch norm into inference mode, but not dropout
        images = share_out(images)
        features = self.backbone(self.pixels(images), training=training and self.backbone.trainable)
        return bring_together(self.head(features, training=training))


def build_classifier(settings: Settings, num_classes: int, weights_file: Path | None = None) -> Classifier:
    """Pixel scaling, backbone with the settings' weights, new head.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `head`, `seed`, `data.image_size`.
        num_classes: Number of outputs.
        weights_file: File of the backbone's weights, if `weights` is neither `random` nor `imagenet`.

    Raises:
        UserError: The backbone cannot be built, or its weights cannot be downloaded or read.
    """
    entry = find_backbone(settings.backbone, "keras")
    built = build_backbone(entry, settings.data.image_size, pretrained=settings.weights == "imagenet")
    if weights_file is not None:
        load_weights(built.network, weights_file)
    head = build_head(settings, built.num_features, num_classes)
    return _assemble(settings, built, head)


def build_off_the_shelf(settings: Settings, weights_file: Path | None = None) -> Classifier:
    """The published network with its head of ImageNet's 1000 classes.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `data.image_size`.
        weights_file: Weights of the whole network, if `weights` is neither `random` nor `imagenet`.

    Raises:
        UserError: As build_classifier; or the network has no such head, or the file lacks it.
    """
    entry = find_backbone(settings.backbone, "keras")
    built, head = build_with_imagenet_head(
        entry, settings.data.image_size, pretrained=settings.weights == "imagenet", weights_file=weights_file
    )
    return _assemble(settings, built, head)


def _assemble(settings: Settings, built: BuiltBackbone, head: keras.Sequential) -> Classifier:
    if settings.batch_norm_momentum is not None:
        for layer in batch_norms_of(built.network):
            layer.momentum = settings.batch_norm_momentum
    pixels = Pixels(settings.data.image_size, scaling_of(built.scaling, settings.pixel_scaling))
    return Classifier(pixels, built.network, head)
