"""Single images from files and arrays, with the pixels that a store would hold."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tandem.data.decoding import open_image, to_rgb


def image_of_file(file: bytes) -> Image.Image:
    """Decodes the content of an image file to upright RGB.

    Raises:
        Exception: The file is damaged or no image; Pillow has many exceptions for that.
    """
    if not file:
        raise ValueError("the file is empty")
    with open_image(file) as image:
        return to_rgb(image)


def image_of_array(pixels: np.ndarray) -> Image.Image:
    """Converts pixels of one image to RGB.

    Args:
        pixels: Whole numbers from 0 to 255, of shape (height, width) or (height, width, channels) with 1 channel
            (grey), 3 (RGB) or 4 (RGB and opacity).

    Raises:
        ValueError: The array has another shape, type or range.
    """
    allowed = "allowed: whole numbers from 0 to 255, of shape (height, width) or (height, width, 1, 3 or 4)"
    received = f"received {pixels.dtype} of shape {pixels.shape}"
    is_one_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not is_one_image or not pixels.size or not np.issubdtype(pixels.dtype, np.integer):
        raise ValueError(f"{received}; {allowed}")
    if pixels.dtype != np.uint8 and (pixels.min() < 0 or pixels.max() > 255):
        raise ValueError(f"{received} from {pixels.min()} to {pixels.max()}; {allowed}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)))
