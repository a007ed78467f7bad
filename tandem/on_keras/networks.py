"""The classifier as a Keras model: uint8 pixels, backbone, head."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tandem.errors import UserError
from tandem.on_keras.head import build_head
from tandem.protocol.backbones import Backbone, Scaling, find_backbone, scale_and_offset, scaling_of
from tandem.protocol.settings import Settings

Blocks = list[list[keras.layers.Layer]]


class Pixels:
    """uint8 images of shape (n, height, width, 3), RGB, to the backbone's float32 input of shape (n, size, size, 3).

    Made of Keras's own layers and operations, recorded one by one when called on a symbolic input: a saved model needs
    no code of Tandem's.
    """

    def __init__(self, image_size: int, scaling: Scaling) -> None:
        self.to_bgr = scaling == "caffe"
        scale, offset = scale_and_offset(scaling)
        self.resizing = keras.layers.Resizing(
            image_size, image_size, interpolation="bilinear", antialias=False, dtype="float32"
        )
        self.rescaling = keras.layers.Rescaling(list(scale), list(offset), dtype="float32")

    def __call__(self, images: Any) -> Any:
        pixels = self.rescaling(self.resizing(keras.ops.cast(images, "float32")))
        return keras.ops.flip(pixels, axis=-1) if self.to_bgr else pixels


class Classifier(keras.Model):
    """uint8 images of shape (n, height, width, 3) to float32 logits of shape (n, classes)."""

    def __init__(self, pixels: Pixels, backbone: keras.Model, head: keras.Sequential) -> None:
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.head = head

    def call(self, images: Any, training: bool = False) -> Any:
        # trainable = False puts batch norm into inference mode by itself, but leaves dropout running
        features = self.backbone(self.pixels(images), training=training and self.backbone.trainable)
        return self.head(features, training=training)


def build_classifier(
    settings: Settings, num_classes: int, image_shape: tuple[int, ...], weights_file: Path | None = None
) -> Classifier:
    """Backbone with the settings' weights, a new head, and the pixel scaling in front.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `head`, `seed`, `data.image_size`.
        num_classes: Number of outputs.
        image_shape: (height, width, 3) of the images that will come.
        weights_file: Where the backbone's weights lie, for weights that are neither `random` nor `imagenet`.
    """
    entry = find_backbone(settings.backbone, "keras")
    size = settings.data.image_size
    backbone = _build_backbone(entry, size, pretrained=settings.weights == "imagenet")
    if weights_file is not None:
        load_backbone(backbone, weights_file)
    if settings.batch_norm_momentum is not None:
        for layer in backbone.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = settings.batch_norm_momentum
    scaling = scaling_of(entry, "keras", settings.pixel_scaling)
    head = build_head(settings, entry.num_features, num_classes)
    classifier = Classifier(Pixels(size, scaling), backbone, head)
    classifier(np.zeros((1, *image_shape), np.uint8))  # Keras makes a subclassed model's state at its first call
    return classifier


def _build_backbone(entry: Backbone, image_size: int, *, pretrained: bool) -> keras.Model:
    builder = getattr(keras.applications, entry.keras_application)
    try:
        return builder(
            include_top=False,
            pooling="avg",
            weights="imagenet" if pretrained else None,
            input_shape=(image_size, image_size, 3),
        )
    except Exception as error:
        # Keras wraps a failed download into a bare Exception whose text holds the address
        if pretrained and "URL fetch failure" in str(error):
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
            raise UserError(
                f"weights: imagenet could not be downloaded ({error}); put that file into {folder}, "
                "or give a file with --weights"
            ) from None
        raise


def blocks_of(backbone: keras.Model, entry: Backbone) -> Blocks:
    """The backbone's blocks, from the input on."""
    return [[backbone]]


def load_backbone(backbone: keras.Model, file: Path) -> None:
    """Fills the backbone from a weight file of Keras Applications, with or without its top, or of save_weights.

    Raises:
        UserError: The file is no weight file, or holds another network's weights.
    """
    try:
        with warnings.catch_warnings():
            # otherwise a layer that the file lacks keeps its random weights with no more than a warning
            warnings.simplefilter("error")
            backbone.load_weights(file, **_legacy_options(backbone, file))
    except OSError as error:
        raise UserError(f"weights: {file} cannot be read as HDF5 ({error})") from None
    except (ValueError, KeyError, UserWarning) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise UserError(f"weights: {file} is no weight file of {backbone.name} ({reason})") from None


def _legacy_options(backbone: keras.Model, file: Path) -> dict[str, bool]:
    """How to load a file; raises ValueError where one of Keras 2's format lacks a layer, which Keras passes over.

    Files of that format, in which Keras Applications publishes its weights, are read by the layers' names: those with a
    top have more layers than the backbone.
    """
    if file.name.endswith(".weights.h5"):
        return {}
    with h5py.File(file) as content:
        names = set(content.get("model_weights", content).attrs["layer_names"])
    lacking = [layer.name for layer in backbone.layers if layer.weights and layer.name not in names]
    if lacking:
        raise ValueError(f"{len(lacking)} layers are lacking, the first is {lacking[0]}")
    return {"by_name": True}
