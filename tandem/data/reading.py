"""Single images from files and arrays, with the pixels that a store would hold."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tandem.data.decoding import FULL_RANGE, Decoded, PixelRange, decode, to_rgb
from tandem.protocol.settings import DataSettings


def image_of_file(
    file: bytes,
    *,
    ending: str = "",
    pixel_range: PixelRange | None = None,
    max_pixels: int = DataSettings.max_pixels,
) -> Image.Image:
    """Decodes the content of an image file to upright RGB.

    Args:
        file: The content.
        ending: Ending of the file's name; it matters for formats without a signature only.
        pixel_range: Range of pixels with more than 8 bits in the training images; None if they had 8. Whole numbers
            then range from 0 to 65535.
        max_pixels: Largest number of pixels.

    Raises:
        Exception: The file is damaged or no image; Pillow has many exceptions for that.
    """
    if not file:
        raise ValueError("the file is empty")
    decoded = decode(file, ending=ending.lower(), max_pixels=max_pixels)
    if decoded.levels is None:
        return to_rgb(decoded)
    pixel_range = pixel_range or PixelRange(whole=FULL_RANGE)
    is_whole = np.issubdtype(decoded.levels.dtype, np.integer)
    if not pixel_range.per_image and (pixel_range.whole if is_whole else pixel_range.floating) is None:
        kind = "whole numbers of more than 8 bits" if is_whole else "floating-point numbers"
        raise ValueError(f"its pixels are {kind}, whose range is not known: no training image has such pixels")
    return to_rgb(decoded, pixel_range)


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
    return to_rgb(Decoded(image=Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))))
