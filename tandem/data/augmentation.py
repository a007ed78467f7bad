"""Random changes to training images: random numbers for each image of an epoch, and the pixels that follow from them.

The order is: random resized crop, brightness, contrast, saturation, hue, then flip and padded crop, so that the black
borders stay black. Each kind of change has its own random numbers, so switching one on leaves the others unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from tandem.data.random_numbers import uniform
from tandem.protocol.settings import AugmentationSettings

NUM_GENERATORS = 3  # for flip and padded crop, for random resized crop, for colours

# of torchvision.transforms.RandomResizedCrop
LEAST_RATIO, GREATEST_RATIO = 3 / 4, 4 / 3  # width over height
NUM_TRIES = 10  # before the centre is cut out

LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue: ITU-R BT.601, as in Pillow's mode L

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Random changes to each image in one epoch."""

    flipped: np.ndarray
    """True for mirrored images, bool of shape (images,)."""
    shifts: np.ndarray
    """Shift of each image down and to the right in pixels, int64 of shape (images, 2)."""
    boxes: np.ndarray | None
    """Top, left, height and width of each crop in pixels, int64 of shape (images, 4); None without crops."""
    colors: np.ndarray | None
    """Factors of brightness, contrast and saturation, and the rotation of the hue as a share of the colour circle,
    float64 of shape (images, 4); None without colour changes."""


def draw_changes(
    seeds: Sequence[np.random.SeedSequence], num_images: int, stored_size: Size, augmentation: AugmentationSettings
) -> Changes:
    """Draws the changes of one epoch.

    Args:
        seeds: NUM_GENERATORS seed sequences.
        num_images: Number of images.
        stored_size: Size of the images that crops are cut from.
        augmentation: Kinds of changes, and how large they may be.
    """
    for_places, for_boxes, for_colors = seeds
    # numpy promises never to change the bit generator's raw numbers
    numbers = np.random.PCG64(for_places).random_raw((num_images, 3)) >> np.uint64(32)
    padding = augmentation.crop_padding
    boxes = colors = None
    if augmentation.random_resized_crop is not None:
        least, greatest = augmentation.random_resized_crop
        boxes = _draw_boxes(for_boxes, num_images, stored_size, least, greatest)
    strengths = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue])
    if strengths.any():
        colors = (2 * uniform(for_colors, (num_images, 4)) - 1) * strengths + (1, 1, 1, 0)
    return Changes(
        flipped=(numbers[:, 0] % 2 == 1) & augmentation.horizontal_flip,
        shifts=(numbers[:, 1:] % np.uint64(2 * padding + 1)).astype(np.int64) - padding,
        boxes=boxes,
        colors=colors,
    )


def change(image: np.ndarray, changes: Changes, place: int, target: np.ndarray) -> None:
    """Applies an epoch's changes to one image.

    Args:
        image: The stored image, uint8 RGB of shape (height, width, 3).
        changes: Changes of the epoch.
        place: Index of this image's changes.
        target: The result is written here: uint8 zeros of shape (height, width, 3). Only with crops may its shape
            differ from the image's.
    """
    if changes.boxes is not None:
        top, left, height, width = changes.boxes[place].tolist()
        image = resized_crop(image[top : top + height, left : left + width], target.shape[0], target.shape[1])
    if changes.colors is not None:
        image = jitter(image, *changes.colors[place].tolist())
    down, right = changes.shifts[place].tolist()
    _flip_and_shift(image, bool(changes.flipped[place]), down, right, target)


def resized_crop(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a crop with an antialiased bilinear filter.

    Pixels outside of the crop have no influence, as in torchvision's resized_crop.

    Args:
        box: The crop, uint8 RGB of shape (any, any, 3).
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    return np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BILINEAR))


def jitter(pixels: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Changes the colours of an image.

    The factors have the meaning that they have in Pillow's ImageEnhance and torchvision's ColorJitter: brightness
    multiplies, contrast mixes with the grey of the image's mean luma, saturation mixes with each pixel's own luma.
    Together they are one linear map, whose result is rounded and clipped once.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        brightness: Factor, at least 0; 1 leaves the image unchanged.
        contrast: As brightness.
        saturation: As brightness.
        hue: Rotation of the hue as a share of the colour circle, -0.5 to 0.5; 0 leaves it unchanged.

    Returns:
        uint8 RGB of the same shape.
    """
    if (brightness, contrast, saturation) != (1, 1, 1):
        image = Image.fromarray(pixels)
        mean = float(np.asarray(image.convert("L")).mean()) if contrast != 1 else 0.0
        matrix = np.empty((3, 4))
        matrix[:, :3] = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA)
        matrix[:, 3] = (1 - contrast) * brightness * mean
        pixels = np.asarray(image.convert("RGB", tuple(matrix.ravel().tolist())))
    return _turn_hue(pixels, hue) if hue else pixels


def _turn_hue(pixels: np.ndarray, turn: float) -> np.ndarray:
    """Rotates the hue of the hexagonal colour model HSV (Smith 1978), which keeps each pixel's maximum and minimum.

    Computed in floating point, as torchvision does for tensors. For images, torchvision uses Pillow's mode HSV with its
    256 hues, which takes more than twice as long.
    """
    red, green, blue = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    largest, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = (largest - least).astype(np.float32)
    is_red, is_green = largest == red, largest == green
    ahead = np.where(is_red, green, np.where(is_green, blue, red)).astype(np.float32)
    behind = np.where(is_red, blue, np.where(is_green, red, green))
    # in sixths of the circle: red at 0, green at 2, blue at 4
    start = np.where(is_red, np.uint8(0), np.where(is_green, np.uint8(2), np.uint8(4)))
    hue = (ahead - behind) / np.maximum(chroma, 1) + start + 6 * turn
    hue -= 6 * np.floor(hue / 6)
    turned = np.empty_like(pixels)
    # half a level more, since the conversion to uint8 truncates
    turned[..., 0] = least + chroma * np.clip(abs(hue - 3) - 1, 0, 1) + 0.5
    turned[..., 1] = least + chroma * np.clip(2 - abs(hue - 2), 0, 1) + 0.5
    turned[..., 2] = least + chroma * np.clip(2 - abs(hue - 4), 0, 1) + 0.5
    return turned


def _draw_boxes(seed: np.random.SeedSequence, num_images: int, size: Size, least: float, greatest: float) -> np.ndarray:
    """Draws boxes as torchvision's RandomResizedCrop does; all tries of an image are drawn, needed or not."""
    height, width = size
    numbers = uniform(seed, (num_images, 2 * NUM_TRIES + 2))
    areas = height * width * (least + (greatest - least) * numbers[:, :NUM_TRIES])
    log_least, log_greatest = math.log(LEAST_RATIO), math.log(GREATEST_RATIO)
    ratios = np.exp(log_least + (log_greatest - log_least) * numbers[:, NUM_TRIES:-2])
    heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = np.arange(num_images), fits.argmax(axis=1)
    sizes = np.stack([heights[first], widths[first]], axis=1)
    corners = np.floor(numbers[:, -2:] * (np.array(size) - sizes + 1))
    # the largest centred box with an allowed ratio
    central = np.rint([min(height, width / LEAST_RATIO), min(width, height * GREATEST_RATIO)])
    found = fits.any(axis=1, keepdims=True)
    sizes = np.where(found, sizes, central)
    corners = np.where(found, corners, (np.array(size) - central) // 2)
    return np.concatenate([corners, sizes], axis=1).astype(np.int64)


def _flip_and_shift(image: np.ndarray, flip: bool, down: int, right: int, target: np.ndarray) -> None:
    height, width = target.shape[:2]
    from_top, from_left = max(0, -down), max(0, right) if flip else max(0, -right)
    to_top, to_left = max(0, down), max(0, right)
    rows_left, columns_left = height - abs(down), width - abs(right)
    source = image[from_top : from_top + rows_left, from_left : from_left + columns_left]
    target = target[to_top : to_top + rows_left, to_left : to_left + columns_left]
    if flip:
        cv2.flip(source, 1, target)  # numpy takes 40 times as long for mirrored pixels of three bytes
    else:
        target[:] = source
