"""A trained network that takes images as they come: files, bytes or arrays of any size.

This module and the modules that it imports are copied into each logged model, which then needs no installed Tandem.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from tandem.data.decoding import PixelRange, resize
from tandem.data.reading import image_of_array, image_of_file

DESCRIPTION_FILE = "description.json"
NETWORK_FOLDER = "network"

PROBABILITY_PREFIX = "probability:"  # as in a run's predictions.parquet

# Set by MLflow's server. Its clients may send images, but not have files of the server's machine read.
SERVING_VARIABLE = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"

LONGEST_SHOWN = 60
"""Characters of an input in a message."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """Everything about a network that its predictions depend on, beside its weights, and where it comes from."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the probabilities."""
    height: int
    """Height in pixels that images are resized to, as is the width."""
    width: int
    resize: Literal["squash", "crop"]
    """Way of resizing images of other proportions, as data.resize."""
    pixel_range: PixelRange | None
    """Range of pixels with more than 8 bits; None if no training image had such pixels."""
    max_pixels: int
    """Most pixels of an image, as data.max_pixels."""
    batch_size: int
    """Number of images that are predicted at once."""
    framework: str
    """torch or keras."""
    backbone: str
    regime: str
    image_size: int
    """Height and width of the network's input, to which the network itself enlarges smaller stored images."""
    scaling: str
    """Scaling of pixels, which is a part of the network."""
    data: str
    """Name of the data set."""
    split_hash: str
    """Hash of its images and their split."""
    run_id: str
    """The training run."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the network's images."""
        return self.height, self.width, 3

    def to_json(self) -> str:
        """The description as a text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {**dataclasses.asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """The inverse of to_dict; values that a newer version may have added are ignored."""
        names = {item.name for item in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        pixel_range = kept["pixel_range"] and PixelRange(**kept["pixel_range"])
        return cls(**{**kept, "classes": tuple(kept["classes"]), "pixel_range": pixel_range})


Network = Callable[[np.ndarray], np.ndarray]
"""uint8 images of shape (n, height, width, 3) to float32 probabilities of shape (n, classes)."""


class ImageModel:
    """A network with the reading and resizing of its images; MLflow calls predict."""

    def __init__(self, description: Description, network: Network) -> None:
        self.description = description
        self.network = network

    def image_of_file(self, file: bytes, ending: str = "") -> Image.Image:
        """Decodes the content of an image file as in training.

        Args:
            file: The content.
            ending: Ending of the file's name; it matters for formats without a signature only.

        Raises:
            Exception: The file is damaged or no image; Pillow has many exceptions for that.
        """
        rules = self.description
        return image_of_file(file, ending=ending, pixel_range=rules.pixel_range, max_pixels=rules.max_pixels)

    def pixels_of(self, image: Image.Image) -> np.ndarray:
        """The pixels that training would store of an RGB image: uint8 of shape (height, width, 3)."""
        wanted = self.description
        return np.asarray(resize(image, wanted.height, wanted.width, wanted.resize))

    def predict(self, model_input: Any) -> pd.DataFrame:
        """Predicts the classes of images.

        Args:
            model_input: One image or several in a list, an array, or the column of a data frame. An image is a path,
                the bytes of a file, their base64 text, or an array of whole numbers from 0 to 255, of shape
                (height, width) or (height, width, channels). The images may have different sizes.

        Returns:
            One row per image, in order: `class`, its `probability`, and the probability of each class under
            `probability:<class>`.

        Raises:
            MlflowException: An input is no image; MLflow's server answers with its message and status 400.
        """
        try:
            images = list_images(model_input)
            probabilities = [np.empty((0, len(self.description.classes)), np.float32)]
            for start in range(0, len(images), self.description.batch_size):
                batch = images[start : start + self.description.batch_size]
                pixels = [self._read(image, start + index) for index, image in enumerate(batch)]
                probabilities.append(self.network(np.stack(pixels)))
        except ValueError as error:
            from mlflow.exceptions import MlflowException  # which a network outside of MLflow does not need

            raise MlflowException.invalid_parameter_value(str(error)) from error
        return tabulate(np.concatenate(probabilities), self.description.classes)

    def _read(self, item: Any, index: int) -> np.ndarray:
        try:
            return self.pixels_of(self._image_of(item))
        except Exception as error:  # Pillow has many exceptions for damaged files
            raise ValueError(f"image {index} ({_shown(item)}): {error}") from error

    def _image_of(self, item: Any) -> Image.Image:
        if isinstance(item, np.ndarray):
            return image_of_array(item)
        if isinstance(item, Image.Image):
            return image_of_array(np.asarray(item.convert("RGBA" if item.has_transparency_data else "RGB")))
        return self.image_of_file(*_content_of(item))


def tabulate(probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """One row per image: class, its probability, and the probability of each class."""
    best = probabilities.argmax(axis=1)
    columns = {PROBABILITY_PREFIX + name: probabilities[:, index] for index, name in enumerate(classes)}
    names = [classes[index] for index in best]
    return pd.DataFrame({"class": names, "probability": probabilities[np.arange(len(best)), best], **columns})


def list_images(model_input: Any) -> list[Any]:
    """The single images of an input of ImageModel.predict.

    Raises:
        ValueError: The input is none of the allowed forms.
    """
    if isinstance(model_input, pd.DataFrame):
        return model_input[_only(model_input.columns)].tolist()
    if isinstance(model_input, Mapping):
        return list_images(model_input[_only(model_input)])
    if isinstance(model_input, np.ndarray):
        return list(_split_array(model_input))
    if isinstance(model_input, str | bytes | os.PathLike | Image.Image):
        return [model_input]
    if isinstance(model_input, Iterable):
        items = list(model_input)
        # nested lists of numbers, as JSON holds arrays
        return [np.asarray(item) if isinstance(item, list | tuple) else item for item in items]
    raise ValueError(f"received {type(model_input).__name__}; allowed: paths, bytes, base64 text or arrays of pixels")


def _only(columns: Iterable[Any]) -> Any:
    names = list(columns)
    if len(names) == 1:
        return names[0]
    if "image" in names:
        return "image"
    raise ValueError(f"received the columns {', '.join(map(str, names))}; allowed: a single column, or one named image")


def _split_array(array: np.ndarray) -> Iterator[Any]:
    if array.dtype.kind == "S":
        raise ValueError("received bytes in an array of a fixed width, which drops their last zeros; allowed: a list")
    if array.dtype.kind in "OU":
        yield from array.ravel().tolist()
    elif array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        yield array
    elif array.ndim in (3, 4):
        yield from array
    else:
        raise ValueError(
            f"received an array of shape {array.shape}; allowed: (images, height, width, 3) or (height, width, 3)"
        )


def _content_of(item: Any) -> tuple[bytes, str]:
    """Content of an image file, and the ending of its name if that is known.

    Args:
        item: A path, the bytes of a file, or their base64 text.
    """
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item), ""
    is_serving = os.environ.get(SERVING_VARIABLE, "").lower() in ("true", "1")
    if isinstance(item, os.PathLike) or (isinstance(item, str) and not is_serving and _is_file(item)):
        path = Path(item).expanduser()
        return path.read_bytes(), path.suffix
    if not isinstance(item, str):
        raise ValueError(f"received {type(item).__name__}; allowed: a path, bytes, base64 text, or an array of pixels")
    text = item.partition(",")[2] if item.startswith("data:") else item
    try:
        return base64.b64decode("".join(text.split()), validate=True), ""
    except (binascii.Error, ValueError):
        expected = "no base64 text of an image file" if is_serving else "neither a file nor base64 text of one"
        raise ValueError(f"it is {expected}") from None


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a path, with a null character, or an unknown home
        return False


def _shown(item: Any) -> str:
    if isinstance(item, str | os.PathLike):
        text = str(item)
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."
    return type(item).__name__


def _load_pyfunc(path: str) -> ImageModel:
    """Loads a logged model; MLflow calls it with the folder of the model's data."""
    folder = Path(path)
    description = Description.from_dict(json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))
    return ImageModel(description, load_network(folder / NETWORK_FOLDER))


def load_network(folder: Path) -> Network:
    """Loads the MLflow model of a network, on a GPU if the framework finds one."""
    import mlflow.pyfunc

    network = mlflow.pyfunc.load_model(str(folder))
    if "keras" in network.metadata.flavors:  # whose predict prints a progress bar for each batch
        predict_on_batch = network.get_raw_model().predict_on_batch
        return lambda images: np.asarray(predict_on_batch(images))
    return lambda images: np.asarray(network.predict(images))
