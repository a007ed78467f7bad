"""The array of a store's images on disk: written by several threads, reserved before, and checked by a checksum."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash
from PIL import Image

from tandem import interrupts
from tandem.data.cache import in_megabytes, sync_folder
from tandem.errors import UserError
from tandem.files import whole_file

IMAGES_FILE = "images.npy"
CHECKSUM_FILE = "checksum.txt"
CHECKSUM_BLOCK = 1 << 24  # bytes read at once

FLUSH_BYTES = 4_000_000  # written to an image file between two flushes to the disk

FLUSH = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class ImageFile:
    """A file of images in numpy's format that several threads write.

    It is not written through a memory map, whose page faults take a quarter of the time of decoding a small JPEG file.
    Written images are flushed to the disk while others are decoded: one flush at the end takes a quarter of the time of
    decoding.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        self._bytes_per_image = num_bytes(shape[1:])
        self._offset = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).offset
        _reserve(path)
        self._handle = os.open(path, os.O_WRONLY)
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._num_unflushed_bytes = 0
        self._lock = threading.Lock()

    def write(self, row: int, image: Image.Image) -> None:
        """Writes the pixels of one image, which has the height and width of all."""
        pixels = image.tobytes()
        assert len(pixels) == self._bytes_per_image
        if os.pwrite(self._handle, pixels, self._offset + row * self._bytes_per_image) != len(pixels):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        with self._lock:
            self._num_unflushed_bytes += len(pixels)
            if self._num_unflushed_bytes >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
                self._raise_failure()
                self._num_unflushed_bytes = 0
                self._flush = self._flusher.submit(FLUSH, self._handle)

    def sync(self) -> None:
        """Returns when all images are on the disk."""
        self._raise_failure()
        os.fsync(self._handle)
        sync_folder(self._path.parent)

    def close(self) -> None:
        self._flusher.shutdown()
        os.close(self._handle)

    def _raise_failure(self) -> None:
        # the system reports a failed write once, and the flush may have received that report
        if self._flush is not None:
            self._flush.result()


def write_checksum(store: Path) -> None:
    """Writes the checksum of the images of a store's folder beside them."""
    with whole_file(store / CHECKSUM_FILE, sync=True) as file:
        file.write(_checksum(store))


def is_damaged(store: Path) -> bool:
    """True if the images are not those that were written. Stores of earlier versions have no checksum."""
    try:
        return (store / CHECKSUM_FILE).read_text() != _checksum(store)
    except FileNotFoundError:
        return False


def _checksum(store: Path) -> str:
    checksum = xxhash.xxh3_64()
    with (store / IMAGES_FILE).open("rb") as file:
        while block := file.read(CHECKSUM_BLOCK):
            interrupts.check()
            checksum.update(block)
    return checksum.hexdigest()


def num_bytes(full_shape: tuple[int, ...]) -> int:
    """Size in bytes of an array of uint8."""
    return int(np.prod(full_shape, dtype=np.int64))


def _reserve(path: Path) -> None:
    """Reserves the file's whole size on the disk, so that a full disk is reported before images are decoded."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise UserError(
                f"data.cache_folder: {in_megabytes(path.stat().st_size)} cannot be reserved in {path.parent.parent} "
                f"({error.strerror}); make room, name a folder on another disk, or lower data.image_size"
            ) from None
