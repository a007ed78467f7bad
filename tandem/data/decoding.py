"""Decoding of image files to upright 8-bit RGB pixels of one size; no other module makes pixels.

Files are judged by their content, whatever they are called. Damage that leaves the pixels intact is repaired in memory:
text and colour profiles in PNG files, and a JPEG file's missing end mark.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
import PIL
from PIL import Image, ImageChops

from tandem.data import optional_formats
from tandem.protocol.settings import DataSettings

# Formats that are tried, whatever the file is called: those of images, with a signature. Pillow's other readers start
# other programs (EPS), accept almost any file, or are for formats that hold no photographs.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"),
    *("JPEG2000", "AVIF", "MPO", "DIB", "PCX", "SGI", "ICO", "ICNS", "PSD", "DDS", "QOI"),
)

UNSIGNED_FORMATS = {".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA"}
"""Formats without a signature, which are tried only for files with their endings."""

EXIF_ORIENTATION = 0x0112

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""A tag of TIFF files, and its value for files with 0 as white."""

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

WHITE_LEVELS = (1, 255, 1023, 4095, 16383, 65535)
"""Largest values of pixels of 1, 8, 10, 12, 14 and 16 bits."""

FULL_RANGE = WHITE_LEVELS[-1]

# Remarks on files that are used all the same.
NO_END_MARK = "JPEG files without their end mark, whose pixels are complete"
BROKEN_TEXT = "PNG files whose text or colour profile is damaged or too long, and is not needed"
SEVERAL_FRAMES = "files with several pages or frames, of which the first is used"

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"

# Chunks of a PNG file that its pixels, transparency, orientation and first frame depend on.
PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))

FRAME_FORMATS = frozenset(("TIFF", "GIF", "WEBP", "PNG", "AVIF", "MPO", "HEIF"))


@dataclass(frozen=True, kw_only=True)
class PixelRange:
    """Levels that become white in the images of a data set that have more than 8 bits; 0 becomes black."""

    whole: float | None = None
    """White level of whole numbers; None if no image has them."""
    floating: float | None = None
    """White level of floating-point numbers; None if no image has them."""
    per_image: bool = False
    """True if black and white are the smallest and the largest level of each image instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """An image in the pixel format of its file."""

    image: Image.Image
    """The image, decoded."""
    levels: np.ndarray | None = None
    """Pixels of an image with more than 8 bits: of shape (height, width), or (height, width, channels) for RGB and
    RGBA. None for other images."""
    is_inverted: bool = False
    """True if 0 is white in `levels`."""
    remarks: tuple[str, ...] = ()
    """Remarks on the file, from the list above."""


@functools.cache
def prepare_pillow() -> tuple[str, ...]:
    """Loads Pillow's readers, which threads must not do at the same time, and lifts limits that settings replace.

    Returns:
        The formats that are tried.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # data.max_pixels is checked instead
    return (*(name for name in FORMATS if name in Image.OPEN), *optional_formats.register())


def open_image(file: bytes, *, ending: str = "", max_pixels: int = DataSettings.max_pixels) -> Image.Image:
    """The first frame of an image file, not yet decoded.

    Args:
        file: Content of the file.
        ending: Ending of its name, in lower case; it matters for formats without a signature only.
        max_pixels: Largest number of pixels.

    Raises:
        ValueError: The image is larger.
        Exception: The file is no image; Pillow has many exceptions for that.
    """
    formats = prepare_pillow()
    if optional_formats.is_dicom(file):
        image = optional_formats.read_dicom(file)
    else:
        unsigned = UNSIGNED_FORMATS.get(ending)
        image = Image.open(BytesIO(file), formats=(*formats, unsigned) if unsigned else formats)
    _check_size(image, max_pixels)
    return image


def decode(file: bytes, *, ending: str = "", max_pixels: int = DataSettings.max_pixels) -> Decoded:
    """Decodes the first frame of an image file.

    Args:
        file: Content of the file.
        ending: As in open_image.
        max_pixels: Largest number of pixels.

    Raises:
        Exception: The file is damaged; Pillow has many exceptions for that.
    """
    remarks: list[str] = []
    try:
        image = open_image(file, ending=ending, max_pixels=max_pixels)
        is_deep = _has_deep_colours(image)
        image.load()  # Image.verify() accepts truncated JPEGs
    except Exception:
        repaired, remark = _repair(file)
        if repaired is None:
            raise
        file = repaired
        image = open_image(file, ending=ending, max_pixels=max_pixels)
        is_deep = _has_deep_colours(image)
        image.load()
        remarks.append(remark)
    _check_size(image, max_pixels)  # some files hold another size than their header says
    if _has_several_frames(image, file):
        remarks.append(SEVERAL_FRAMES)
    return Decoded(
        image=image,
        levels=_levels(image, file, is_deep=is_deep),
        is_inverted=_is_inverted(image),
        remarks=tuple(remarks),
    )


def to_rgb(decoded: Decoded, pixel_range: PixelRange | None = None) -> Image.Image:
    """Converts an image to upright RGB.

    Grey becomes three equal channels, pixels with more than 8 bits are scaled to 8, transparency is composited over
    white, CMYK is converted.

    Args:
        decoded: The image.
        pixel_range: Range of pixels with more than 8 bits; None for images that have 8.
    """
    image = decoded.image
    orientation = _orientation(image)
    if decoded.levels is not None:
        assert pixel_range is not None
        # Pillow has scaled colours of 16 bits already
        if image.mode not in ("RGB", "RGBA", "LA") or pixel_range.per_image or pixel_range.whole != FULL_RANGE:
            image = _to_eight_bits(decoded.levels, pixel_range)
            image = ImageChops.invert(image) if decoded.is_inverted else image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def white_level(largest: float) -> int:
    """The largest value of the number of bits that a data set uses.

    Args:
        largest: Its largest pixel, at most 65535.
    """
    return next(level for level in WHITE_LEVELS if largest <= level)


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


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"it has {image.width * image.height:,} pixels, and data.max_pixels allows {max_pixels:,}; raise it if you "
            "trust the file"
        )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds for damaged EXIF data, which says nothing about the pixels
        return 1


def _has_several_frames(image: Image.Image, file: bytes) -> bool:
    if image.format not in FRAME_FORMATS:
        return bool(image.info.get(optional_formats.FRAMES, 1) > 1)
    if image.format == "PNG":
        return int(getattr(image, "n_frames", 1)) > 1  # the number stands at the beginning of the file
    # in an image of its own, since counting reads the file to its end
    with suppress(Exception), Image.open(BytesIO(file), formats=(image.format,)) as unread:
        return int(getattr(unread, "n_frames", 1)) > 1
    return False


# ---------------------------------------------------------------------------------------------- more than 8 bits


def _has_deep_colours(image: Image.Image) -> bool:
    """True for an image, not yet decoded, whose colours have 16 bits."""
    is_possible = image.mode in ("RGB", "RGBA", "LA") and image.format in ("PNG", "TIFF")
    return is_possible and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _levels(image: Image.Image, file: bytes, *, is_deep: bool) -> np.ndarray | None:
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)
    if not is_deep:
        return None
    # Pillow keeps the upper 8 of the 16 bits of a colour; OpenCV reads all
    levels: np.ndarray | None = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
        return None
    levels = levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    kept = np.asarray(image.convert("RGBA" if levels.shape[2] == 4 else "RGB"))
    return levels if np.array_equal(levels >> 8, kept) else None


def _is_inverted(image: Image.Image) -> bool:
    """True for a TIFF file with 0 as white, which Pillow turns over only if it has 8 bits or fewer."""
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and image.mode.startswith("I") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def _to_eight_bits(levels: np.ndarray, pixel_range: PixelRange) -> Image.Image:
    colours = levels[..., :3].astype(np.float64)
    if levels.ndim == 2:
        colours = levels.astype(np.float64)
    black, white = 0.0, pixel_range.whole if np.issubdtype(levels.dtype, np.integer) else pixel_range.floating
    if pixel_range.per_image:
        black, white = float(colours.min()), float(colours.max())
    assert white is not None
    shares = np.clip((colours - black) / max(white - black, np.finfo(np.float64).tiny), 0, 1)
    pixels = np.rint(255 * shares).astype(np.uint8)
    if levels.ndim == 3 and levels.shape[2] == 4:  # transparency has the whole of its 16 bits
        return Image.fromarray(np.dstack([pixels, (levels[..., 3] >> 8).astype(np.uint8)]))
    return Image.fromarray(pixels)


# ---------------------------------------------------------------------------------------------------- repairs


def _repair(file: bytes) -> tuple[bytes | None, str]:
    """The file without its damage, and a remark; None if the damage may concern the pixels."""
    if file.startswith(PNG_START):
        chunks = b"".join(_pixel_chunks(file))
        return (PNG_START + chunks, BROKEN_TEXT) if PNG_START + chunks != file else (None, "")
    if file.startswith(JPEG_START) and not file.endswith(JPEG_END) and _has_all_pixels(file):
        return file.rstrip(b"\xff") + JPEG_END, NO_END_MARK
    return None, ""


def _pixel_chunks(file: bytes) -> Iterator[bytes]:
    """Chunks of a PNG file that pixels depend on; EXIF data only if its checksum is right."""
    place = len(PNG_START)
    while place + 12 <= len(file):
        length, name = struct.unpack_from(">I4s", file, place)
        chunk = file[place : place + length + 12]
        is_right = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if name in PIXEL_CHUNKS and (is_right or name != b"eXIf"):
            yield chunk
        place += length + 12


def _has_all_pixels(file: bytes) -> bool:
    """True if a JPEG file that lacks its end mark has all its pixels.

    They are then the same whatever follows in the file; libjpeg would otherwise fill the missing ones with it.
    """
    begin = file.rstrip(b"\xff")
    found: list[bytes] = []
    for tail in (b"", b"\x00", b"\x55", b"\xaa"):
        try:
            with Image.open(BytesIO(begin + 4096 * tail + JPEG_END), formats=("JPEG",)) as image:
                found.append(image.tobytes())
        except Exception:  # Pillow has many exceptions for damaged files
            return False
    return len(set(found)) == 1


VERSIONS = f"{PIL.__version__} {optional_formats.VERSIONS}"
"""Versions of the libraries that read images, by which earlier results are judged to be valid."""
