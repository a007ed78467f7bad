"""Grad-CAM: maps of the places in an image that support a class; the gradients come from the frameworks.

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.colors
from PIL import Image, ImageDraw, ImageFont

from tandem import interrupts
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.files import whole_file

FeaturesAndGradients = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Function of tandem.on_torch.gradcam and tandem.on_keras.gradcam: takes images and one class per image."""

COLOR_SCALE = "Inferno"  # from dark to light, also in grey print and for colour-blind people
OPACITY = 0.6  # of a map at its highest value

# The contact sheet, in pixels.
TILE = 160
GAP = 6
CAPTION = 18
NUM_COLUMNS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class GradCam:
    """Maps of some test images for two classes each: the predicted one and the true one, in this order.

    Raises:
        ValueError: Shapes or types do not match.
    """

    keys: tuple[str, ...]
    """Path or index of each image."""
    hashes: tuple[str, ...]
    """Hash of the bytes of each image."""
    classes: tuple[str, ...]
    """Names of the classes."""
    truth: np.ndarray
    """int64 of shape (images,): true class as an index into `classes`."""
    predicted: np.ndarray
    """int64 of shape (images,): predicted class as an index into `classes`."""
    images: np.ndarray
    """uint8 RGB of shape (images, height, width, 3)."""
    maps: np.ndarray
    """uint8 of shape (images, 2, height, width): 255 is the highest value of a map, 0 no support for the class."""

    def __post_init__(self) -> None:
        shape, num_images = self.images.shape, len(self.keys)
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[0] != num_images or shape[3] != 3:
            raise ValueError(f"images must be uint8 of shape ({num_images}, height, width, 3). Received: {shape}")
        if self.maps.dtype != np.uint8 or self.maps.shape != (num_images, 2, *shape[1:3]):
            wanted = (num_images, 2, *shape[1:3])
            raise ValueError(f"maps must be uint8 of shape {wanted}. Received: {self.maps.dtype} of {self.maps.shape}")
        for name, labels in (("truth", self.truth), ("predicted", self.predicted)):
            if labels.shape != (num_images,) or not np.isin(labels, np.arange(len(self.classes))).all():
                raise ValueError(
                    f"{name} must be {num_images} indices of {len(self.classes)} classes. Received: {labels}"
                )
        if len(self.hashes) != num_images:
            raise ValueError(f"{num_images} images need as many hashes. Received: {len(self.hashes)}")

    @property
    def overlays(self) -> np.ndarray:
        """Coloured maps over grey images: uint8 RGB of shape (images, 2, height, width, 3)."""
        grey = np.stack([np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in self.images])
        colors = _color_table()[self.maps]
        # Places without support keep their brightness; a uniform opacity would darken the whole image.
        opacity = OPACITY * np.sqrt(self.maps[..., np.newaxis] / 255)
        return np.rint((1 - opacity) * grey[:, np.newaxis] + opacity * colors).astype(np.uint8)

    def write(self, path: Path) -> None:
        """Writes a compressed .npz file with an array per field; without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = dict(
            keys=np.array(self.keys, dtype=np.str_),
            hashes=np.array(self.hashes, dtype=np.str_),
            classes=np.array(self.classes, dtype=np.str_),
            truth=self.truth,
            predicted=self.predicted,
            images=self.images,
            maps=self.maps,
        )
        with whole_file(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> GradCam:
        """Reads a file of `write`.

        Raises:
            UserError: The file is missing, damaged, or not one of `write`.
        """
        try:
            # Opened here, because numpy leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(
                    keys=tuple(arrays["keys"].tolist()),
                    hashes=tuple(arrays["hashes"].tolist()),
                    classes=tuple(arrays["classes"].tolist()),
                    truth=arrays["truth"],
                    predicted=arrays["predicted"],
                    images=arrays["images"],
                    maps=arrays["maps"],
                )
        except OSError as error:
            raise UserError(f"cannot read Grad-CAM maps from {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is not a file of Grad-CAM maps ({error}); download the grad_cam.npz of its run again"
            ) from error


def choose_images(predictions: Predictions, count: int) -> np.ndarray:
    """Chooses test images for maps: the same for all runs with the same test images, spread over the classes.

    Takes the image with the lowest hash of each class, then the second of each, until there are enough; if there are
    more classes than images, those whose image has the lowest hash.

    Returns:
        int64 of shape (images,), indices into the predictions, ordered by true class.
    """
    by_hash = sorted(range(len(predictions.keys)), key=lambda row: (predictions.hashes[row], predictions.keys[row]))
    num_before = np.zeros(len(predictions.classes), np.int64)
    ranks = np.empty(len(by_hash), np.int64)
    for row in by_hash:
        ranks[row] = num_before[predictions.truth[row]]
        num_before[predictions.truth[row]] += 1
    chosen = sorted(by_hash, key=lambda row: ranks[row])[:count]
    return np.array(sorted(chosen, key=lambda row: (predictions.truth[row], ranks[row])), np.int64)


def class_activation_maps(features: np.ndarray, gradients: np.ndarray, height: int, width: int) -> np.ndarray:
    """Computes Grad-CAM: the sum of the channels of a feature map, weighted by their mean gradients, where positive.

    Equations 1 and 2 of the paper. Each map is enlarged to the image (bilinear, half-pixel centres) and divided by its
    highest value, so that two maps show different places but not different strengths.

    Args:
        features: The last feature map, of shape (images, rows, columns, channels).
        gradients: Of the class's logit with respect to the features, of the same shape.
        height: Of the maps, in pixels.
        width: Of the maps, in pixels.

    Returns:
        float32 of shape (images, height, width), 0..1; a map without any support for the class is all 0.
    """
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    maps = np.maximum((weights * features).sum(axis=3), 0).astype(np.float32)
    enlarged = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in maps]
    result = np.stack([np.asarray(image) for image in enlarged])
    highest = result.max(axis=(1, 2), keepdims=True)
    return np.divide(result, highest, out=np.zeros_like(result), where=highest > 0)


def make_grad_cam(
    predictions: Predictions,
    images: np.ndarray,
    rows: np.ndarray,
    features_and_gradients: FeaturesAndGradients,
    batch_size: int,
) -> GradCam | None:
    """Computes maps of some test images for the predicted and for the true class.

    Args:
        predictions: Of all test images.
        images: The images to explain, uint8 RGB of shape (rows, height, width, 3).
        rows: Their indices among all test images, int64 of shape (rows,).
        features_and_gradients: Of the network that made the predictions.
        batch_size: Images per step.

    Returns:
        The maps; None if the last feature map is a single cell, which has no places.
    """
    height, width = images.shape[1:3]
    labels = (predictions.predicted[rows], predictions.truth[rows])
    maps = np.empty((len(rows), len(labels), height, width), np.uint8)
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        for place, classes in enumerate(labels):
            interrupts.check()
            features, gradients = features_and_gradients(images[batch], classes[batch])
            if features.shape[1:3] == (1, 1):
                return None
            maps[batch, place] = np.rint(255 * class_activation_maps(features, gradients, height, width))
    return GradCam(
        keys=tuple(predictions.keys[row] for row in rows),
        hashes=tuple(predictions.hashes[row] for row in rows),
        classes=predictions.classes,
        predicted=labels[0],
        truth=labels[1],
        images=images,
        maps=maps,
    )


def draw_contact_sheet(grad_cam: GradCam) -> Image.Image:
    """One picture of all images, each beside its maps for the predicted and for the true class."""
    tiles = [(image, *overlays) for image, overlays in zip(grad_cam.images, grad_cam.overlays, strict=True)]
    num_columns = min(NUM_COLUMNS, len(tiles))
    group = (3 * TILE + 2 * GAP, CAPTION + TILE)
    step = (group[0] + 4 * GAP, group[1] + 2 * GAP)
    num_rows = -(-len(tiles) // num_columns)
    sheet = Image.new("RGB", (num_columns * step[0], num_rows * step[1] + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, group_tiles in enumerate(tiles):
        left, top = 2 * GAP + index % num_columns * step[0], GAP + index // num_columns * step[1]
        truth, predicted = (grad_cam.classes[labels[index]] for labels in (grad_cam.truth, grad_cam.predicted))
        captions = (grad_cam.keys[index], f"predicted: {predicted}", f"true: {truth}")
        for place, (tile, caption) in enumerate(zip(group_tiles, captions, strict=True)):
            x = left + place * (TILE + GAP)
            wrong = place == 1 and predicted != truth
            draw.text((x, top), _fit(caption, font), fill="#B00020" if wrong else "black", font=font)
            sheet.paste(_as_tile(tile), (x, top + CAPTION))
    return sheet


def _color_table() -> np.ndarray:
    """uint8 RGB of shape (256, 3)."""
    colors = plotly.colors.sample_colorscale(COLOR_SCALE, np.linspace(0, 1, 256).tolist(), colortype="tuple")
    return np.rint(255 * np.array(colors)).astype(np.uint8)


def _as_tile(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = TILE / max(image.size)
    # Small images keep their pixels, which are what the network was given.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, reduced to its start and end if it is wider than a tile."""
    shortened, kept = text, len(text)
    while font.getlength(shortened) > TILE:
        kept -= 1
        shortened = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    return shortened
