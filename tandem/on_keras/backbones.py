"""Backbones of Keras Applications and Tandem's own, without their ImageNet heads, and their blocks."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import h5py
import keras
import numpy as np

from tandem.errors import UserError, WeightsNotDownloaded
from tandem.on_keras.alexnet import build_alexnet
from tandem.on_keras.densenet161 import build_densenet161
from tandem.on_keras.import_weights import fetch_imagenet_weights, load_torch_weights
from tandem.on_keras.pooling import adaptive_average_pool
from tandem.protocol.backbones import IMAGENET_CLASSES, Backbone, Scaling, unknown_builder

OWN_NETWORKS = {"alexnet": build_alexnet, "densenet161": build_densenet161}


@dataclass(frozen=True, kw_only=True)
class BuiltBackbone:
    """A backbone, its number of features and its pixel scaling."""

    network: keras.Model
    """Pixels of shape (n, size, size, 3), scaled, to features of shape (n, num_features)."""
    num_features: int
    scaling: Scaling
    """Pixel scaling that the published weights expect."""


def check_builder(entry: Backbone) -> None:
    """Does nothing if Keras Applications has a network of that name.

    Raises:
        UserError: It has none.
    """
    if entry.builds["keras"].package == "keras":
        _application(entry)


def build_backbone(entry: Backbone, image_size: int, *, pretrained: bool) -> BuiltBackbone:
    """The backbone of a catalogue entry or of a name outside the catalogue.

    Args:
        entry: From find_backbone.
        image_size: Height and width of its input in pixels.
        pretrained: Use the ImageNet weights that its library downloads, otherwise random ones.

    Raises:
        UserError: Keras Applications has no such name, the download failed, or the network takes no images of that
            size.
    """
    network = _build_network(entry, image_size, pretrained=pretrained, with_head=False)
    return BuiltBackbone(network=network, num_features=network.output.shape[-1], scaling=_scaling(entry))


def build_with_imagenet_head(
    entry: Backbone, image_size: int, *, pretrained: bool, weights_file: Path | None = None
) -> tuple[BuiltBackbone, keras.Sequential]:
    """The backbone and its head, from features to logits of ImageNet's 1000 classes.

    Args:
        entry: From find_backbone.
        image_size: Height and width of its input in pixels.
        pretrained: Use the ImageNet weights that its library downloads, otherwise random ones.
        weights_file: A file with the weights of the whole network.

    Raises:
        UserError: As build_backbone; or the network does not end in such a dense layer, or the file belongs to another
            network.
    """
    whole = _build_network(entry, image_size, pretrained=pretrained, with_head=True)
    if weights_file is not None:
        load_weights(whole, weights_file)
    *body, dense = whole.layers
    if not isinstance(dense, keras.layers.Dense) or dense.units != IMAGENET_CLASSES:
        raise UserError(
            f"backbone: {entry.name!r} comes without a dense layer for ImageNet's 1000 classes; take another"
        )
    if isinstance(body[-1], keras.layers.Dropout) and len(body[-2].output.shape) == 2 and not body[-2].weights:
        body.pop()  # dropout between the pooling and the head belongs to the head
    network = keras.Model(whole.input, body[-1].output, name=whole.name)
    head = keras.Sequential(
        [keras.Input(dense.input.shape[1:]), keras.layers.Dense(dense.units, dtype="float32")], name="head"
    )
    head.set_weights(dense.get_weights())
    return BuiltBackbone(network=network, num_features=network.output.shape[-1], scaling=_scaling(entry)), head


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models within it, in order, without the models themselves."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def blocks_of(backbone: keras.Model, entry: Backbone) -> list[list[keras.layers.Layer]]:
    """The layers of each block, from input to output; every weight belongs to exactly one block.

    set_trainable freezes and thaws them. A backbone outside the catalogue is one block.
    """
    patterns = entry.builds["keras"].blocks
    return [[layer for layer in leaf_layers(backbone) if re.match(pattern, layer.name)] for pattern in patterns]


_dropout_rates: WeakKeyDictionary[keras.layers.Dropout, float] = WeakKeyDictionary()


def set_trainable(layers: list[keras.layers.Layer], trainable: bool) -> None:
    """Freezes or thaws the layers of a block; it takes effect with the next compile().

    Keras runs frozen batch norm in inference mode, but not frozen dropout: its rate is zero until it is thawed.
    """
    for layer in layers:
        layer.trainable = trainable
        if isinstance(layer, keras.layers.Dropout):
            rate = _dropout_rates.setdefault(layer, layer.rate)
            layer.rate = rate if trainable else 0.0


def fix_batch_norm(network: keras.Model, fixed: bool) -> None:
    """Keeps batch norm in inference mode, or lets it train again; it takes effect with the next compile().

    Fixed, it keeps its statistics and normalises with them, while its scale and offset are trained; trainable = False
    would freeze those as well. Saved models are as without it.
    """
    for layer in batch_norms_of(network):
        if fixed:
            layer.call = functools.partial(_call_in_inference_mode, layer)
        elif "call" in vars(layer):
            del layer.call  # its class's again


def _call_in_inference_mode(
    layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    return type(layer).call(layer, inputs, training=False, mask=mask)


def has_fixed_statistics(layer: keras.layers.BatchNormalization) -> bool:
    """True if the statistics of batch norm do not change in training."""
    return not layer.trainable or "call" in vars(layer)


def has_batch_norm(network: keras.Model) -> bool:
    """True if there is batch norm in a network."""
    return any(True for _ in batch_norms_of(network))


def batch_norms_of(network: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """The batch norm of a network, layer by layer."""
    return (layer for layer in leaf_layers(network) if isinstance(layer, keras.layers.BatchNormalization))


# Layers of published files that a backbone may lack: heads by their names in Keras Applications and in the two formats,
# and the scaling of pixels within EfficientNet.
_NOT_OF_BODY = re.compile(r"predictions|fc\d*|conv_preds|logits|.*head.*|dense(_\d+)?|normalization(_\d+)?")


def load_weights(network: keras.Model, file: Path) -> None:
    """Loads a backbone, or a network with its head, from a weight file.

    Args:
        network: From build_backbone or build_with_imagenet_head.
        file: From Keras Applications (.h5), save_weights (.weights.h5), or torch for Tandem's own networks
            (.safetensors). A head that the network does not have is ignored.

    Raises:
        UserError: The file is not a weight file, holds the weights of another network, or numbers that are not finite.
    """
    _load(network, file)
    damaged = [weight.path for weight in network.weights if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()]
    if damaged:
        raise UserError(
            f"weights: {file} holds numbers that are not finite in {len(damaged)} of {len(network.weights)} arrays, "
            f"the first is {damaged[0]}; the training that made it diverged, or the file is damaged: give another one"
        )


def _load(network: keras.Model, file: Path) -> None:
    if file.suffix == ".safetensors":
        load_torch_weights(network, file)
        return
    try:
        with warnings.catch_warnings():
            # Keras only warns of a layer that the file lacks, which keeps its random weights
            warnings.simplefilter("error")
            network.load_weights(file, **_legacy_options(network, file))
    except OSError as error:
        raise UserError(f"weights: {file} cannot be read as HDF5 ({error}); give a file saved by Keras") from None
    except (ValueError, KeyError, UserWarning) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        head = " with its head" if isinstance(network.layers[-1], keras.layers.Dense) else ""
        raise UserError(
            f"weights: {file} is not a weight file of {network.name}{head} ({reason}); give the file of this backbone"
        ) from None


def _legacy_options(network: keras.Model, file: Path) -> dict[str, bool]:
    """Options of load_weights for a file.

    Keras ignores layers of a file that the network does not have; here only a head and the scaling of pixels may be
    such layers. Files in Keras 2's format, in which Keras Applications publishes its weights, are read by the layers'
    names, since those with a top have more layers than the backbone.

    Raises:
        ValueError: The file has a surplus layer, or one in the older format lacks a layer; Keras would ignore both.
    """
    if file.name.endswith(".weights.h5"):
        with h5py.File(file) as content:
            surplus = _count_weights(content) - sum(len(layer.variables) for layer in network.layers if _is_body(layer))
        if surplus > 0:
            raise ValueError(f"it holds {surplus} arrays that this network does not have")
        return {}
    with h5py.File(file) as content:
        layers = content.get("model_weights", content)
        found = {name for name in layers.attrs["layer_names"] if len(layers[name].attrs["weight_names"])}
    own = {layer.name for layer in network.layers if layer.weights}
    if foreign := sorted(name for name in found - own if not _NOT_OF_BODY.fullmatch(name)):
        raise ValueError(f"{len(foreign)} of its layers are not in this network, the first is {foreign[0]}")
    if lacking := [layer.name for layer in network.layers if layer.weights and layer.name not in found]:
        raise ValueError(f"{len(lacking)} layers are missing, the first is {lacking[0]}")
    return {"by_name": True}


def _count_weights(content: h5py.File) -> int:
    """Number of arrays in the body's layers of a file in Keras 3's format, whose layers have the names of classes."""
    paths: list[str] = []
    content.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    layers = [path.split("/")[1] for path in paths if path.startswith("layers/")]
    return sum(not _NOT_OF_BODY.fullmatch(layer) for layer in layers)


def _is_body(layer: keras.layers.Layer) -> bool:
    return not isinstance(layer, keras.layers.Dense | keras.layers.Normalization)


def _build_network(entry: Backbone, image_size: int, *, pretrained: bool, with_head: bool) -> keras.Model:
    check_builder(entry)
    build = entry.builds["keras"]
    if build.package == "tandem":
        network = OWN_NETWORKS[build.builder](image_size, with_head=with_head)
        if pretrained:
            load_torch_weights(network, fetch_imagenet_weights(build.builder))
        return network
    if build.builder in ("VGG16", "VGG19"):
        network = _build_vgg(entry, image_size, with_head=with_head)
        if pretrained:
            _copy_by_name(_call_builder(entry, image_size, include_top=True, weights="imagenet"), network)
        return network
    shape = (image_size, image_size, 3)
    if with_head:
        network = _call_builder(
            entry, image_size, include_top=True, weights=None, input_shape=shape, classifier_activation=None
        )
        if pretrained:
            # Keras has these for one size only, that of their training
            published = _call_builder(
                entry, image_size, include_top=True, weights="imagenet", classifier_activation=None
            )
            network.set_weights(published.get_weights())
    else:
        weights = "imagenet" if pretrained else None
        network = _call_builder(entry, image_size, include_top=False, pooling="avg", weights=weights, input_shape=shape)
    return _without_preprocessing(network) if _application(entry).__name__.endswith(".efficientnet") else network


def _call_builder(entry: Backbone, image_size: int, **arguments: Any) -> keras.Model:
    build = entry.builds["keras"]
    try:
        return getattr(keras.applications, build.builder)(**arguments, **build.options)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if arguments["weights"] and _is_of_weight_file(error):
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
            raise WeightsNotDownloaded(
                f"weights: imagenet could not be downloaded or read for {build.builder} ({reason}); put the "
                f"file into {folder}, or give one with --weights"
            ) from None
        if isinstance(error, ValueError):
            raise UserError(
                f"data.image_size: received {image_size}, but Keras cannot build {entry.name} with it ({reason})"
            ) from None
        raise


def _is_of_weight_file(error: Exception) -> bool:
    """True if the error is about the downloaded weight file and not about the network."""
    # Keras raises a bare Exception for a failed download and a ValueError for a wrong hash; a damaged file whose hash
    # it does not know fails when it is opened
    messages = ("URL fetch failure", "Incomplete or corrupted file")
    return isinstance(error, OSError) or any(message in str(error) for message in messages)


def _application(entry: Backbone) -> ModuleType:
    """The module of Keras Applications that builds it."""
    builder = entry.builds["keras"].builder
    known = [name for name in dir(keras.applications) if name[0].isupper()]
    if builder not in known:
        raise unknown_builder(entry, builder, "Keras Applications", known)
    return sys.modules[getattr(keras.applications, builder).__module__]


def _scaling(entry: Backbone) -> Scaling:
    """Pixel scaling that the published weights expect; outside the catalogue, that of preprocess_input."""
    if scaling := entry.builds["keras"].scaling:
        return scaling
    application = _application(entry)
    if application.__name__.endswith(".efficientnet"):
        return "torch"  # the scaling that _without_preprocessing removes
    red, black = np.array([[[255.0, 0.0, 0.0]]]), np.zeros((1, 1, 3))
    red_scaled, black_scaled = (application.preprocess_input(pixels.copy())[0, 0] for pixels in (red, black))
    if np.argmax(red_scaled - black_scaled) == 2:
        return "caffe"  # blue, green, red
    if red_scaled[0] == 255:
        return "none"  # the network scales pixels itself
    return "tf" if red_scaled[0] == 1 else "torch"


def _build_vgg(entry: Backbone, image_size: int, *, with_head: bool) -> keras.Model:
    """VGG with torchvision's pooling to 7 x 7 and dropout, which Keras Applications' VGG lacks.

    At 224 pixels, where the pooling changes nothing, both are the same network in inference.
    """
    convolutions = _call_builder(
        entry, image_size, include_top=False, weights=None, input_shape=(image_size, image_size, 3)
    )
    x = keras.layers.Flatten(name="flatten")(adaptive_average_pool(convolutions.output, 7))
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(4096, activation="relu", name=name)(x)
        x = keras.layers.Dropout(0.5, name=f"{name}_dropout")(x)
    if with_head:
        x = keras.layers.Dense(IMAGENET_CLASSES, name="predictions")(x)
    return keras.Model(convolutions.input, x, name=convolutions.name)


def _without_preprocessing(network: keras.Model) -> keras.Model:
    """EfficientNet without the pixel scaling at its beginning.

    With random weights, Keras's normalization keeps mean 0 and variance 1, so runs from scratch and pretrained ones
    would get different pixels. With ImageNet's it computes (x / 255 - mean) / sqrt(std) / sqrt(std), which is `torch`
    scaling.
    """

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        scales = isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
        return arguments[0] if scales else layer(*arguments, **options)

    without = keras.models.clone_model(network, call_function=call)
    _copy_by_name(network, without)
    return without


def _copy_by_name(source: keras.Model, target: keras.Model) -> None:
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
