"""Formats that optional packages read: HEIC (pillow-heif) and DICOM (pydicom)."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

PACKAGES = {
    "pillow-heif": (".heic", ".heics", ".heif", ".heifs", ".hif"),
    "pydicom": (".dcm", ".dicom"),
}
"""Endings of the files that each package reads."""

MODULES = {"pillow-heif": "pillow_heif", "pydicom": "pydicom"}

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of HEIC files, from ISO/IEC 23008-12."""

FRAMES = "frames"

DICOM_PREAMBLE = 128
"""Bytes before DICOM's signature."""


@functools.cache
def is_installed(package: str) -> bool:
    """True if a package of PACKAGES can be imported."""
    return importlib.util.find_spec(MODULES[package]) is not None


def _versions() -> str:
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if is_installed(name))


VERSIONS = _versions()


def package_for(ending: str) -> str | None:
    """The package that reads files with an ending, if one does."""
    return next((name for name, endings in PACKAGES.items() if ending in endings), None)


def missing_package(file: bytes) -> str | None:
    """The package that would read a file's content and is not installed."""
    name = "pydicom" if is_dicom(file) else "pillow-heif" if _is_heif(file) else None
    return name if name and not is_installed(name) else None


def register() -> tuple[str, ...]:
    """Adds Pillow's readers of the packages that are installed, and returns the names of their formats."""
    if not is_installed("pillow-heif"):
        return ()
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def is_dicom(file: bytes) -> bool:
    return file[DICOM_PREAMBLE : DICOM_PREAMBLE + 4] == b"DICM"


def _is_heif(file: bytes) -> bool:
    return file[4:8] == b"ftyp" and file[8:12] in HEIF_BRANDS


def read_dicom(file: bytes) -> Image.Image:
    """Reads the first frame of a DICOM file as 8-bit grey or RGB, in the window that the file states.

    Without a window, the range of the stored number of bits becomes black to white. The image's info has the number of
    frames under FRAMES.

    Raises:
        ValueError: pydicom is not installed, or the file has no pixels that it can decode.
    """
    if not is_installed("pydicom"):
        raise ValueError("it is a DICOM file; pip install pydicom reads it")
    import pydicom

    try:
        data = pydicom.dcmread(BytesIO(file))
        image = Image.fromarray(_shown_pixels(data))
        image.info[FRAMES] = _num_frames(data)
        return image
    except Exception as error:  # pydicom and its decoders have many kinds
        raise ValueError(f"its DICOM pixels cannot be read: {' '.join(str(error).split())}") from None


def _shown_pixels(data: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    pixels = data.pixel_array[0] if _num_frames(data) > 1 else data.pixel_array
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, data)
        pixels = np.rint(pixels / np.iinfo(pixels.dtype).max * 255).astype(np.uint8)
    if pixels.ndim == 3:
        return _to_bytes(pixels, 0, np.iinfo(pixels.dtype).max)
    black, white = _range_of(data)
    shown = apply_voi_lut(apply_modality_lut(pixels, data), data)
    return _to_bytes(shown, *((white, black) if kind == "MONOCHROME1" else (black, white)))


def _num_frames(data: Any) -> int:
    return int(data.get("NumberOfFrames", 1) or 1)


def _range_of(data: Any) -> tuple[float, float]:
    """The range of the stored values, as the file rescales them."""
    bits = int(data.BitsStored)
    black, white = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return black * slope + intercept, white * slope + intercept


def _to_bytes(pixels: np.ndarray, black: float, white: float) -> np.ndarray:
    if pixels.dtype == np.uint8 and (black, white) == (0, 255):
        return pixels
    return np.rint(255 * np.clip((pixels.astype(np.float64) - black) / (white - black), 0, 1)).astype(np.uint8)
