"""Random changes to training images: random numbers for each image of an epoch, and the pixels that follow from them.

The order is: random resized crop; brightness, contrast, saturation, hue; the operations of a policy (policies.py);
rotation; flips and padded crop; random erasing. So the black corners of a rotation and the black borders of a padded
crop stay black, and an erased rectangle is always in the frame. Each kind of change has its own random numbers, so
switching one on leaves the others unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from tandem.data.policies import Operations, draw_operations
from tandem.data.random_numbers import as_uniform, uniform
from tandem.protocol.settings import AugmentationSettings

# For horizontal flip and padded crop, random resized crop, colours, vertical flip, rotation, policy, random erasing.
# New ones come last: a generator's seed depends on its place alone.
NUM_GENERATORS = 7

# of torchvision.transforms.RandomResizedCrop
LEAST_RATIO, GREATEST_RATIO = 3 / 4, 4 / 3  # width over height
NUM_TRIES = 10  # before the centre is cut out; random erasing has as many before the image stays whole

# of torchvision.transforms.RandomErasing; Zhong et al. (2020) erase up to a share of 0.4
LEAST_ERASED, GREATEST_ERASED = 0.02, 0.33  # shares of the image's area
LEAST_ERASED_RATIO, GREATEST_ERASED_RATIO = 0.3, 3.3  # height over width

LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue: ITU-R BT.601, as in Pillow's mode L

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Random changes to each image in one epoch."""

    flipped: np.ndarray
    """True for images that are mirrored from left to right, bool of shape (images,)."""
    upside_down: np.ndarray
    """True for images that are mirrored from top to bottom, bool of shape (images,)."""
    shifts: np.ndarray
    """Shift of each image down and to the right in pixels, int64 of shape (images, 2)."""
    boxes: np.ndarray | None
    """Top, left, height and width of each crop in pixels, int64 of shape (images, 4); None without crops."""
    colors: np.ndarray | None
    """Factors of brightness, contrast and saturation, and the rotation of the hue as a share of the colour circle,
    float64 of shape (images, 4); None without colour changes."""
    operations: Operations | None
    """Operations of the policy; None without one."""
    angles: np.ndarray | None
    """Angle of rotation in degrees, counterclockwise, float64 of shape (images,); None without rotations."""
    erased: np.ndarray | None
    """Top, left, height and width of each erased rectangle in pixels, int64 of shape (images, 4), all 0 for images that
    stay whole; None without random erasing."""
    noises: np.ndarray | None
    """Seeds of the noise in the erased rectangles, uint64 of shape (images,); None without random erasing."""

    @property
    def only_move(self) -> bool:
        """True if images are only mirrored and shifted, which takes little time."""
        return all(change is None for change in (self.boxes, self.colors, self.operations, self.angles, self.erased))


def draw_changes(
    seeds: Sequence[np.random.SeedSequence],
    num_images: int,
    stored_size: Size,
    size: Size,
    augmentation: AugmentationSettings,
) -> Changes:
    """Draws the changes of one epoch.

    Args:
        seeds: NUM_GENERATORS seed sequences.
        num_images: Number of images.
        stored_size: Size of the images that crops are cut from.
        size: Size of the changed images.
        augmentation: Kinds of changes, and how large they may be.
    """
    for_places, for_boxes, for_colors, for_vertical_flip, for_rotation, for_policy, for_erasing = seeds
    # numpy promises never to change the bit generator's raw numbers
    numbers = np.random.PCG64(for_places).random_raw((num_images, 3)) >> np.uint64(32)
    padding = augmentation.crop_padding
    upside_down = np.zeros(num_images, bool)
    boxes = colors = operations = angles = erased = noises = None
    if augmentation.random_resized_crop is not None:
        least, greatest = augmentation.random_resized_crop
        boxes = _draw_boxes(for_boxes, num_images, stored_size, least, greatest)
    strengths = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue])
    if strengths.any():
        colors = (2 * uniform(for_colors, (num_images, 4)) - 1) * strengths + (1, 1, 1, 0)
    if augmentation.vertical_flip:
        upside_down = uniform(for_vertical_flip, (num_images,)) < 0.5
    if augmentation.policy != "none":
        operations = draw_operations(for_policy, num_images, size, augmentation)
    if augmentation.rotation:
        angles = (2 * uniform(for_rotation, (num_images,)) - 1) * augmentation.rotation
    if augmentation.random_erasing:
        erased, noises = _draw_erased(for_erasing, num_images, size, augmentation.random_erasing)
    return Changes(
        flipped=(numbers[:, 0] % 2 == 1) & augmentation.horizontal_flip,
        upside_down=upside_down,
        shifts=(numbers[:, 1:] % np.uint64(2 * padding + 1)).astype(np.int64) - padding,
        boxes=boxes,
        colors=colors,
        operations=operations,
        angles=angles,
        erased=erased,
        noises=noises,
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
    if changes.operations is not None:
        image = np.asarray(changes.operations.apply(Image.fromarray(image), place))
    if changes.angles is not None:
        image = rotated(image, float(changes.angles[place]))
    down, right = changes.shifts[place].tolist()
    _flip_and_shift(image, bool(changes.upside_down[place]), bool(changes.flipped[place]), down, right, target)
    if changes.erased is not None and changes.noises is not None:
        top, left, height, width = changes.erased[place].tolist()
        if height:
            erase(target[top : top + height, left : left + width], int(changes.noises[place]))


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


def rotated(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates an image about its centre with bilinear interpolation, as torchvision does for images of Pillow.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        degrees: Angle, counterclockwise.

    Returns:
        uint8 RGB of the same shape, black where there is no image.
    """
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def erase(box: np.ndarray, noise: int) -> None:
    """Replaces all pixels by noise, each level of each channel with the same probability (Zhong et al. 2020).

    Args:
        box: Written in place: uint8 RGB of shape (any, any, 3).
        noise: Seed of the noise.
    """
    raw = np.random.PCG64(noise).random_raw(-(-box.size // 8))
    box[:] = raw.astype("<u8", copy=False).view(np.uint8)[: box.size].reshape(box.shape)


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
    areas = least + (greatest - least) * numbers[:, :NUM_TRIES]
    ratios = _log_uniform(LEAST_RATIO, GREATEST_RATIO, numbers[:, NUM_TRIES:-2])
    sizes = _sizes_of(size, areas, ratios)
    found, sizes = _first_that_fits(sizes, np.all((sizes > 0) & (sizes <= size), axis=2))
    corners = np.floor(numbers[:, -2:] * (np.array(size) - sizes + 1))
    # the largest centred box with an allowed ratio
    central = np.rint([min(height, width / LEAST_RATIO), min(width, height * GREATEST_RATIO)])
    sizes = np.where(found, sizes, central)
    corners = np.where(found, corners, (np.array(size) - central) // 2)
    return np.concatenate([corners, sizes], axis=1).astype(np.int64)


def _draw_erased(
    seed: np.random.SeedSequence, num_images: int, size: Size, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws rectangles as torchvision's RandomErasing does, and the seeds of their noise.

    An image stays whole if no try is smaller than the image in both directions.
    """
    raw = np.random.PCG64(seed).random_raw((num_images, 2 * NUM_TRIES + 4))
    numbers, noises = as_uniform(raw[:, :-1]), raw[:, -1]
    areas = LEAST_ERASED + (GREATEST_ERASED - LEAST_ERASED) * numbers[:, :NUM_TRIES]
    ratios = _log_uniform(LEAST_ERASED_RATIO, GREATEST_ERASED_RATIO, numbers[:, NUM_TRIES:-3])
    sizes = _sizes_of(size, areas, 1 / ratios)
    found, sizes = _first_that_fits(sizes, np.all(sizes < size, axis=2))
    corners = np.floor(numbers[:, -3:-1] * (np.array(size) - sizes + 1))
    boxes = np.concatenate([corners, sizes], axis=1).astype(np.int64)
    boxes[~found[:, 0] | (numbers[:, -1] >= probability)] = 0
    return boxes, noises


def _log_uniform(least: float, greatest: float, numbers: np.ndarray) -> np.ndarray:
    return np.exp(math.log(least) + (math.log(greatest) - math.log(least)) * numbers)


def _sizes_of(size: Size, areas: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Height and width in whole pixels, as float64 of shape (..., 2).

    Args:
        size: Of the image.
        areas: Shares of its area, of any shape.
        ratios: Width over height, of the same shape.
    """
    pixels = size[0] * size[1] * areas
    return np.rint(np.sqrt(np.stack([pixels / ratios, pixels * ratios], axis=-1)))


def _first_that_fits(sizes: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True for each image with a try that fits, and the size of its first such try.

    Args:
        sizes: Of shape (images, tries, 2).
        fits: bool of shape (images, tries).

    Returns:
        Arrays of shape (images, 1) and (images, 2).
    """
    return np.any(fits, axis=1, keepdims=True), sizes[np.arange(len(sizes)), fits.argmax(axis=1)]


def _flip_and_shift(
    image: np.ndarray, upside_down: bool, flip: bool, down: int, right: int, target: np.ndarray
) -> None:
    height, width = target.shape[:2]
    from_top = max(0, down) if upside_down else max(0, -down)
    from_left = max(0, right) if flip else max(0, -right)
    to_top, to_left = max(0, down), max(0, right)
    rows_left, columns_left = height - abs(down), width - abs(right)
    source = image[from_top : from_top + rows_left, from_left : from_left + columns_left]
    target = target[to_top : to_top + rows_left, to_left : to_left + columns_left]
    if flip or upside_down:
        # numpy takes 40 times as long for mirrored pixels of three bytes
        cv2.flip(source, -1 if flip and upside_down else int(flip), target)
    else:
        target[:] = source
