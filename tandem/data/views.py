"""Views of test images for test-time augmentation, uint8 like the stored images and the same in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from tandem.data.augmentation import resized_crop
from tandem.protocol.settings import Views

View = Callable[[np.ndarray], np.ndarray]
"""From an image, uint8 of shape (height, width, 3), to another one of the same shape."""

CROPPED_SIDE = 7 / 8  # of height and width: 224 of 256 pixels, as in Krizhevsky et al. (2012)

# Places of the crops from top to bottom and from left to right, as shares of the rows and columns that are left.
CORNERS_AND_CENTRE = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


def further_views(kind: Views) -> tuple[View, ...]:
    """The views of an image besides the image itself."""
    if kind == "none":
        return ()
    if kind == "flip":
        return (mirrored,)
    crops = [partial(cropped, from_top=top, from_left=left) for top, left in CORNERS_AND_CENTRE]
    return (mirrored, *crops, *(partial(_mirrored_crop, crop) for crop in crops))


def num_views(kind: Views) -> int:
    """Number of views per image, and so of passes through the network, the image itself included."""
    return 1 + len(further_views(kind))


def mirrored(image: np.ndarray) -> np.ndarray:
    """The image mirrored from left to right."""
    return cv2.flip(image, 1)


def cropped(image: np.ndarray, *, from_top: float, from_left: float) -> np.ndarray:
    """A crop of CROPPED_SIDE of both sides, resized to the size of the image as in random resized crops.

    Args:
        image: uint8 RGB of shape (height, width, 3).
        from_top: Share of the rows left over that are above the crop, 0 to 1.
        from_left: Share of the columns left over that are to the left of it, 0 to 1.
    """
    height, width = image.shape[:2]
    rows, columns = round(CROPPED_SIDE * height), round(CROPPED_SIDE * width)
    top, left = int(from_top * (height - rows)), int(from_left * (width - columns))
    return resized_crop(image[top : top + rows, left : left + columns], height, width)


def _mirrored_crop(crop: View, image: np.ndarray) -> np.ndarray:
    return mirrored(crop(image))
