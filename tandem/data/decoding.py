"""Decoding of image files to upright 8-bit RGB pixels of one size; no other module makes pixels."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

# Formats that are tried, whatever the file is called. Pillow's other readers are for formats that nobody trains on;
# some of them start other programs (EPS) or accept almost any text as an image.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")

EXIF_ORIENTATION = 0x0112

# Transposition that brings an image with an EXIF orientation upright. ImageOps.exif_transpose also rewrites the EXIF
# data and fails on files with other damaged tags.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(file: bytes) -> Image.Image:
    """The first frame of an image file, not yet decoded."""
    return Image.open(BytesIO(file), formats=FORMATS)


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes the whole of an image to upright RGB.

    Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, transparency is composited over white, CMYK is
    converted.

    Raises:
        Exception: The file is damaged; Pillow has many exceptions for that. Or its pixels have no fixed range.
    """
    image.load()  # Image.verify() accepts truncated JPEGs
    orientation = _orientation(image)
    if image.mode.startswith("I"):
        image = _sixteen_bits_to_eight(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which have no fixed range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def resize(image: Image.Image, height: int, width: int, how: Literal["squash", "crop"]) -> Image.Image:
    """Resizes with an antialiased bilinear filter.

    Args:
        image: An RGB image.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        how: `squash` changes the proportions; `crop` takes the largest centred part with the result's proportions.
    """
    if image.size == (width, height):
        return image
    box = (0.0, 0.0, float(image.width), float(image.height))
    if how == "crop":
        scale = min(image.width / width, image.height / height)
        # rounding of the last binary digit must not push the box out of the image
        box_width, box_height = min(scale * width, image.width), min(scale * height, image.height)
        left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
        box = (left, top, left + box_width, top + box_height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds for damaged EXIF data, which says nothing about the pixels
        return 1


def _sixteen_bits_to_eight(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("its pixels are 32-bit numbers outside of 0 to 65535, which have no fixed range")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))  # 65535 / 257 = 255
