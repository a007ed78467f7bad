"""Augmentation policies: random operations on training images, drawn from the list that RandAugment made common.

`rand_augment`: some operations in a row, all at one magnitude (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719).
`trivial_augment`: one operation at a random magnitude, from wider ranges (TrivialAugment Wide of Müller and Hutter
2021, https://arxiv.org/abs/2103.10158).

Operations, ranges and number of magnitudes are those of torchvision's RandAugment and TrivialAugmentWide, and the
pixels are those that torchvision gives for images of Pillow: nearest neighbour, black where there is no image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from tandem.protocol.settings import NUM_MAGNITUDES, AugmentationSettings

Operation = Callable[[Image.Image, float], Image.Image]
"""Changes an RGB image by a magnitude, and leaves the given image unchanged."""


@dataclass(frozen=True, kw_only=True)
class Operations:
    """A policy's operations on each image in one epoch, in the order in which they are applied."""

    numbers: np.ndarray
    """Places of the operations in OPERATIONS, int64 of shape (images, operations)."""
    magnitudes: np.ndarray
    """Their magnitudes, in the unit of each operation, float64 of shape (images, operations)."""

    def apply(self, image: Image.Image, place: int) -> Image.Image:
        """Applies the operations of the image at a place."""
        functions = list(OPERATIONS.values())
        for number, magnitude in zip(self.numbers[place].tolist(), self.magnitudes[place].tolist(), strict=True):
            image = functions[number](image, magnitude)
        return image


def draw_operations(
    seed: np.random.SeedSequence, num_images: int, size: tuple[int, int], augmentation: AugmentationSettings
) -> Operations:
    """Draws the operations of one epoch.

    Args:
        seed: Of the random numbers.
        num_images: Number of images.
        size: Height and width, in pixels, of the images.
        augmentation: Its policy is not none.
    """
    num_operations = augmentation.num_operations if augmentation.policy == "rand_augment" else 1
    # numpy promises never to change the bit generator's raw numbers
    raw = np.random.PCG64(seed).random_raw((num_images, num_operations, 3)) >> np.uint64(32)
    numbers = (raw[..., 0] % np.uint64(len(OPERATIONS))).astype(np.int64)
    steps = (raw[..., 1] % np.uint64(NUM_MAGNITUDES)).astype(np.int64)
    if augmentation.policy == "rand_augment":
        steps[:] = augmentation.magnitude
    signs = np.where(_SIGNED[numbers] & (raw[..., 2] % np.uint64(2) == 1), -1, 1)
    return Operations(numbers=numbers, magnitudes=magnitudes(augmentation.policy, size)[numbers, steps] * signs)


def magnitudes(policy: str, size: tuple[int, int]) -> np.ndarray:
    """Magnitudes of a policy's operations, from the weakest to the strongest.

    Args:
        policy: rand_augment or trivial_augment.
        size: Height and width, in pixels, of the images.

    Returns:
        float64 of shape (operations, NUM_MAGNITUDES), in the order of OPERATIONS.
    """
    height, width = size
    if policy == "rand_augment":
        shear, rotation, factor, bits = 0.3, 30.0, 0.9, 4
        # AutoAugment's largest shift of 150 pixels, for images of 331 pixels
        right, down = width * 150 / 331, height * 150 / 331
    else:
        shear, rotation, factor, bits = 0.99, 135.0, 0.99, 6
        right = down = 32.0
    steps = np.arange(NUM_MAGNITUDES) / (NUM_MAGNITUDES - 1)
    ranges = {
        "shear_x": shear * steps,
        "shear_y": shear * steps,
        "translate_x": right * steps,
        "translate_y": down * steps,
        "rotate": rotation * steps,
        "brightness": factor * steps,
        "color": factor * steps,
        "contrast": factor * steps,
        "sharpness": factor * steps,
        "posterize": 8 - np.rint(bits * steps),
        "solarize": np.linspace(255, 0, NUM_MAGNITUDES),  # exact, since thresholds are compared with levels
    }
    return np.array([ranges.get(name, np.zeros(NUM_MAGNITUDES)) for name in OPERATIONS])


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    """Moves pixels by the first two rows of a matrix that leads from a place in the result to one in the image."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, shift: _affine(image, 1, shift, 0, 0, 1, 0),
    "shear_y": lambda image, shift: _affine(image, 1, 0, 0, shift, 1, 0),
    "translate_x": lambda image, right: _affine(image, 1, 0, -int(right), 0, 1, 0),
    "translate_y": lambda image, down: _affine(image, 1, 0, 0, 0, 1, -int(down)),
    "rotate": lambda image, degrees: image.rotate(degrees, Image.Resampling.NEAREST),
    "brightness": lambda image, change: ImageEnhance.Brightness(image).enhance(1 + change),
    "color": lambda image, change: ImageEnhance.Color(image).enhance(1 + change),
    "contrast": lambda image, change: ImageEnhance.Contrast(image).enhance(1 + change),
    "sharpness": lambda image, change: ImageEnhance.Sharpness(image).enhance(1 + change),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),  # type: ignore[arg-type]
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
"""The operations by name. Shears move pixels along an axis by a share of their distance from the other; shifts are in
pixels, rotations in degrees counterclockwise, factors are 1 plus the magnitude; posterize keeps this number of bits,
solarize inverts levels from this one on."""

_UNSIGNED = ("identity", "posterize", "solarize", "autocontrast", "equalize")
_SIGNED = np.array([name not in _UNSIGNED for name in OPERATIONS])
"""True for the operations whose magnitude is negated with a probability of one half."""
