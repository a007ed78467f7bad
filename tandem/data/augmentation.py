"""Random changes to training images: what is drawn for each image of an epoch, and how its pixels follow from it.

In this order: random resized crop, brightness, contrast, saturation, hue, then flip and padded crop, whose borders
therefore stay black. Each kind of change has random numbers of its own, so that switching one on leaves the others as
they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from tandem.protocol.settings import AugmentationSettings

NUM_GENERATORS = 3  # for flip and padded crop, for random resized crop, for colours

# torchvision.transforms.RandomResizedCrop: width over height, and how often it tries before it takes the centre
LEAST_RATIO, GREATEST_RATIO = 3 / 4, 4 / 3
NUM_TRIES = 10

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601, as Pillow's mode L

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the random numbers of one epoch change in each image."""

    flipped: np.ndarray
    """Mirrored or not, bool of shape (images,)."""
    shifts: np.ndarray
    """Pixels by which an image moves down and right, int64 of shape (images, 2)."""
    boxes: np.ndarray | None
    """Top, left, height and width in pixels of what is cut out, int64 of shape (images, 4); None: nothing is cut."""
    colors: np.ndarray | None
    """Factors of brightness, contrast and saturation, and the part of the colour circle by which the hue turns, float64
    of shape (images, 4); None: colours stay."""


def draw_changes(
    seeds: Sequence[np.random.SeedSequence], num_images: int, stored_size: Size, augmentation: AugmentationSettings
) -> Changes:
    """The changes of one epoch.

    Args:
        seeds: NUM_GENERATORS of them.
        num_images: How many images are changed.
        stored_size: Height and width in pixels of the images that boxes are cut from.
        augmentation: Which changes, and how large.
    """
    for_places, for_boxes, for_colors = seeds
    # Raw numbers of the bit generator, which numpy promises never to change.
    numbers = np.random.PCG64(for_places).random_raw((num_images, 3)) >> np.uint64(32)
    padding = augmentation.crop_padding
    boxes = colors = None
    if augmentation.random_resized_crop is not None:
        least, greatest = augmentation.random_resized_crop
        boxes = _draw_boxes(for_boxes, num_images, stored_size, least, greatest)
    strengths = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue])
    if strengths.any():
        colors = (2 * _uniform(for_colors, (num_images, 4)) - 1) * strengths + (1, 1, 1, 0)
    return Changes(
        flipped=(numbers[:, 0] % 2 == 1) & augmentation.horizontal_flip,
        shifts=(numbers[:, 1:] % np.uint64(2 * padding + 1)).astype(np.int64) - padding,
        boxes=boxes,
        colors=colors,
    )


def change(image: np.ndarray, changes: Changes, place: int, target: np.ndarray) -> None:
    """Writes one changed image.

    Args:
        image: As it is stored, uint8 RGB of shape (height, width, 3).
        changes: Those of an epoch.
        place: Which of them are for this image.
        target: Where it is written, uint8 zeros of shape (height, width, 3); the shape differs from the image's only
            where a box is cut out.
    """
    if changes.boxes is not None:
        top, left, height, width = changes.boxes[place].tolist()
        image = resized_crop(image[top : top + height, left : left + width], target.shape[0], target.shape[1])
    if changes.colors is not None:
        image = jitter(image, *changes.colors[place].tolist())
    down, right = changes.shifts[place].tolist()
    _flip_and_shift(image, bool(changes.flipped[place]), down, right, target)


def resized_crop(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """What was cut out of an image in another size, by an antialiased bilinear filter.

    Pixels outside of the box have no part in it, as in torchvision's resized_crop.

    Args:
        box: uint8 RGB of shape (any, any, 3).
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    return np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BILINEAR))


def jitter(pixels: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Changes the colours of an image.

    The factors mean what they mean in Pillow's ImageEnhance and torchvision's ColorJitter: brightness multiplies,
    contrast mixes with the grey of the image's mean luma, saturation mixes with each pixel's own luma. In this order
    they are one linear map, which is rounded and clipped once, at its end.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        brightness: From 0; 1 changes nothing.
        contrast: From 0; 1 changes nothing.
        saturation: From 0; 1 changes nothing.
        hue: The part of the colour circle by which hues turn, -0.5 to 0.5; 0 changes nothing.

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
    """Turns the hue of the hexagonal colour model HSV (Smith 1978), which keeps each pixel's largest and least value.

    In floating point, as torchvision does it for tensors. For images it goes through Pillow's mode HSV with its 256
    hues, which takes more than twice as long.
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
    # half a level for rounding, since the conversion to uint8 cuts off
    turned[..., 0] = least + chroma * np.clip(abs(hue - 3) - 1, 0, 1) + 0.5
    turned[..., 1] = least + chroma * np.clip(2 - abs(hue - 2), 0, 1) + 0.5
    turned[..., 2] = least + chroma * np.clip(2 - abs(hue - 4), 0, 1) + 0.5
    return turned


def _uniform(seed: np.random.SeedSequence, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 2**-53 from 0 to below 1, from raw numbers as numpy's own generator makes them."""
    return (np.random.PCG64(seed).random_raw(shape) >> np.uint64(11)) * 2.0**-53


def _draw_boxes(seed: np.random.SeedSequence, num_images: int, size: Size, least: float, greatest: float) -> np.ndarray:
    """Boxes as torchvision's RandomResizedCrop draws them; all tries of an image are drawn, needed or not."""
    height, width = size
    numbers = _uniform(seed, (num_images, 2 * NUM_TRIES + 2))
    areas = height * width * (least + (greatest - least) * numbers[:, :NUM_TRIES])
    log_least, log_greatest = math.log(LEAST_RATIO), math.log(GREATEST_RATIO)
    ratios = np.exp(log_least + (log_greatest - log_least) * numbers[:, NUM_TRIES:-2])
    heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = np.arange(num_images), fits.argmax(axis=1)
    sizes = np.stack([heights[first], widths[first]], axis=1)
    corners = np.floor(numbers[:, -2:] * (np.array(size) - sizes + 1))
    # the largest centred box of an allowed ratio
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
