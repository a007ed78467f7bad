"""Grad-CAM: where in an image a network found what speaks for a class. All of it but the network's own gradients.

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

from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions

FeaturesAndGradients = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""What tandem.on_torch.gradcam and tandem.on_keras.gradcam give of images and one class for each of them."""

COLOR_SCALE = "Inferno"  # from dark to light also in grey print and to colour-blind eyes
OPACITY = 0.6  # of the map where it is highest

# The contact sheet, in pixels.
TILE = 160
GAP = 6
CAPTION = 18
NUM_COLUMNS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class GradCam:
    """Maps of some test images for two classes each: the predicted one and the true one, in this order.

    Args:
        keys: path or index of each image.
        hashes: hash of each image's bytes.
        classes: names of the classes.
        truth: int64 of shape (images,), the true class as an index into `classes`.
        predicted: the same for the predicted class.
        images: uint8 RGB of shape (images, height, width, 3).
        maps: uint8 of shape (images, 2, height, width); 255 is the highest value of a map, 0 is nothing that speaks for
            the class.
    """

    keys: tuple[str, ...]
    hashes: tuple[str, ...]
    classes: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    images: np.ndarray
    maps: np.ndarray

    def __post_init__(self) -> None:
        shape, num_images = self.images.shape, len(self.keys)
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[0] != num_images or shape[3] != 3:
            raise ValueError(f"images have to be uint8 of shape ({num_images}, height, width, 3). Received: {shape}")
        if self.maps.dtype != np.uint8 or self.maps.shape != (num_images, 2, *shape[1:3]):
            raise ValueError(f"maps have to be uint8 of shape {(num_images, 2, *shape[1:3])}: {self.maps.shape}")
        for name, labels in (("truth", self.truth), ("predicted", self.predicted)):
            if labels.shape != (num_images,) or not np.isin(labels, np.arange(len(self.classes))).all():
                raise ValueError(f"{name} has to be {num_images} indices of {len(self.classes)} classes: {labels}")
        if len(self.hashes) != num_images:
            raise ValueError(f"one hash for each of {num_images} images is needed. Received: {len(self.hashes)}")

    @property
    def overlays(self) -> np.ndarray:
        """The maps in colour over the images in grey: uint8 RGB of shape (images, 2, height, width, 3)."""
        grey = np.stack([np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in self.images])
        colors = _color_table()[self.maps]
        # what nothing speaks for stays as it is; a uniform opacity would darken the whole image
        opacity = OPACITY * np.sqrt(self.maps[..., np.newaxis] / 255)
        return np.rint((1 - opacity) * grey[:, np.newaxis] + opacity * colors).astype(np.uint8)

    def write(self, path: Path) -> None:
        """Writes a compressed .npz file whose arrays have the fields' names; without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            keys=np.array(self.keys, dtype=np.str_),
            hashes=np.array(self.hashes, dtype=np.str_),
            classes=np.array(self.classes, dtype=np.str_),
            truth=self.truth,
            predicted=self.predicted,
            images=self.images,
            maps=self.maps,
        )

    @classmethod
    def read(cls, path: Path) -> GradCam:
        """Reads what `write` wrote.

        Raises:
            UserError: the file is missing, damaged, or was not written by `write`.
        """
        try:
            # opened here: numpy leaves a damaged file open
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
                f"{path} holds no Grad-CAM maps of a Tandem run ({error}); download the grad_cam.npz of its run again"
            ) from error


def choose_images(predictions: Predictions, count: int) -> np.ndarray:
    """Test images to make maps of: the same in every run on the same test images, and spread over the classes.

    Of each class the image with the lowest hash comes first, then of each the second, until there are enough; where
    there are more classes than images, those whose image has the lowest hash.

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
    """Grad-CAM: the channels of a feature map, weighted by the mean gradient of each, where the sum is positive.

    Equations 1 and 2 of the paper; then enlarged to the image (bilinear, half-pixel centres) and divided by its highest
    value, so that maps of one image can be seen side by side but not be compared in strength.

    Args:
        features: the last feature map, of shape (images, rows, columns, channels).
        gradients: of the class's logit with respect to the features, of the same shape.
        height: of the maps to make, in pixels.
        width: the same.

    Returns:
        float32 of shape (images, height, width), 0..1; all 0 where nothing speaks for the class.
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
    """Maps of some test images for the predicted and for the true class.

    Args:
        predictions: of all test images.
        images: uint8 RGB of shape (rows, height, width, 3), those that are to be explained.
        rows: which of the test images these are, int64 of shape (rows,).
        features_and_gradients: of the network that made the predictions.
        batch_size: images at a time.

    Returns:
        The maps, or None where the last feature map is a single cell, in which everything is everywhere.
    """
    height, width = images.shape[1:3]
    labels = (predictions.predicted[rows], predictions.truth[rows])
    maps = np.empty((len(rows), len(labels), height, width), np.uint8)
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        for place, classes in enumerate(labels):
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
    """All images, each beside its map for the predicted and for the true class, as one picture."""
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
    # small images keep their pixels, which is what the network saw
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or as much of its beginning and its end as a tile has room for."""
    shortened, kept = text, len(text)
    while font.getlength(shortened) > TILE:
        kept -= 1
        shortened = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    return shortened
