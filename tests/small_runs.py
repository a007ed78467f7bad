"""Runs that are small enough for tests (a few digits, a few epochs, no MLflow), and networks that tell images apart."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tandem.data.prepare import PreparedData, prepare
from tandem.protocol.settings import DataSettings, Settings

NUM_CLASSES = 5
IMAGE_SHAPE = (8, 8, 3)

Network = TypeVar("Network")


def small_settings(cache_folder: Path | str = "unused", *, image_size: int = 32, **changes: Any) -> Settings:
    """Five digits, 30 / 15 / 15 images, in batches of 8: the last batches of train and val are smaller."""
    values: dict[str, Any] = {
        "regime": "two_stage",
        "weights": "random",
        "batch_size": 8,
        "device": "cpu",
        "threads": 1,
        "data": DataSettings(
            source="digits",
            classes=["0", "1", "2", "3", "4"],
            image_size=image_size,
            images_per_class=12,
            fractions=[0.5, 0.25, 0.25],
            cache_folder=str(cache_folder),
        ),
    }
    return Settings(**{**values, **changes})


def small_data(cache_folder: Path) -> PreparedData:
    """The images of small_settings, stored with their own 8 x 8 pixels, in colours.

    The channels of digits are equal, so that another order of channels would go unnoticed.
    """
    data = prepare(small_settings(cache_folder).data, quiet=True)
    stored = np.load(data.images.filename, mmap_mode="r+")  # type: ignore[arg-type]
    stored[..., 1] //= 2
    stored[..., 2] = 255 - stored[..., 2]
    stored.flush()
    assert [len(data.rows(part)) for part in ("train", "val", "test")] == [30, 15, 15]
    assert data.images.shape[1:] == IMAGE_SHAPE
    return data


def random_images(count: int, *, shape: tuple[int, ...] = IMAGE_SHAPE, seed: int = 0) -> np.ndarray:
    """uint8 noise of shape (count, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# ------------------------------------------------------------------------------------- networks that tell images apart


def tell_images_apart(network: Network, images: np.ndarray | None = None) -> Network:
    """Fits a random network's batch norm and last dense layer to images, so that its outputs differ between images.

    A random network whose batch norm has seen no image gives all images the same output up to 1e-9: a comparison of its
    outputs passes whatever is computed. One training pass whose batch statistics become the running ones spreads the
    features; the last layer is scaled so that each output has mean 0 and standard deviation 1 over the images.

    Args:
        network: A Classifier of either framework, or one of its library's networks; it is changed in place.
        images: A batch of what the network takes; uint8 noise of IMAGE_SHAPE by default.

    Returns:
        The same network, in inference mode.
    """
    images = random_images(32, seed=5) if images is None else images
    keras = sys.modules.get("keras")  # first: on Keras's torch backend a Keras model is a torch module too
    return _fit_keras(network, images) if keras and isinstance(network, keras.Model) else _fit_torch(network, images)


def _fit_torch(network: Any, images: np.ndarray) -> Any:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        network.train()(torch.from_numpy(images))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        outputs = network.eval()(torch.from_numpy(images))
        std, mean = outputs.std(dim=0), outputs.mean(dim=0)
        # in some networks of timm the last layer is a 1 x 1 convolution
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)][-1]
        last.weight.div_(std.reshape(-1, *[1] * (last.weight.ndim - 1)))
        last.bias.sub_(mean).div_(std)
    return network


def _fit_keras(network: Any, images: np.ndarray) -> Any:
    import keras

    def layers_in(model: Any) -> list[Any]:
        return [
            leaf for layer in model.layers for leaf in (layers_in(layer) if isinstance(layer, keras.Model) else [layer])
        ]

    layers = layers_in(network)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    network(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    outputs = keras.ops.convert_to_numpy(network(images, training=False))
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    if dense:  # none in a network without its top
        kernel, bias = dense[-1].get_weights()
        std, mean = outputs.std(axis=0), outputs.mean(axis=0)
        dense[-1].set_weights([kernel / std, (bias - mean) / std])
    return network


def assert_same_outputs(received: Any, expected: Any, *, atol: float, margin: float = 100) -> None:
    """Fails unless two arrays of outputs are equal within atol, and tell images and outputs apart by far more.

    Args:
        received: Of shape (images, ..., outputs), two images or more.
        expected: The same of another computation.
        atol: The largest difference allowed.
        margin: How many times atol a typical difference must be: the root mean square of the standard deviations over
            the images, and of those over the outputs.
    """
    received, expected = np.asarray(received), np.asarray(expected)
    assert received.shape == expected.shape and len(expected) > 1
    for axis, name in ((0, "images"), (-1, "outputs")):
        spread = float(np.sqrt(expected.astype(np.float64).var(axis=axis).mean()))
        assert spread > margin * atol, f"{name} differ by {spread:.2g} only, so equality within {atol:.2g} says nothing"
    np.testing.assert_allclose(received, expected, rtol=0, atol=atol)


class RecordingRun:
    """Keeps what is logged, where a test needs no MLflow."""

    def __init__(self, folder: Path = Path("unused")) -> None:
        self.id = "0123456789abcdef"
        self.folder = folder
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.tags: dict[str, str] = {}
        self.artifacts: list[Path] = []
        self.models: list[Path] = []

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.logged.append((step, dict(values)))

    def log_numbers(self, values: Mapping[str, float]) -> None:
        self.log_metrics(values)

    def numbers_table(self) -> str:
        return ""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def log_artifact(self, path: Path, folder: str = "", remove: bool = False) -> None:
        self.artifacts.append(path)

    def is_logged(self, path: Path) -> bool:
        return path in (*self.artifacts, *self.models)

    def log_model(self, path: Path, remove: bool = False) -> None:
        self.models.append(path)
