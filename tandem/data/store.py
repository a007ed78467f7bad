"""All images of a manifest, decoded and shrunk once, as one array on disk that every process maps into memory.

A store is a folder <cache folder>/stores/<key>. It is built as <key>.partial under a lock and renamed when it is whole,
so a folder without that ending can be trusted, and what a killed build leaves behind is known by it. The first time
that files are scanned, stores fill up on the way (StagedStore).
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from PIL import Image

from tandem.data.console import on_all_cores, say
from tandem.data.decoding import resize, to_rgb
from tandem.data.download import PARTIAL
from tandem.data.manifest import Manifest, hash_of
from tandem.data.sources import Source
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

FORMAT_VERSION = 1  # to be raised when pixels are made in another way: earlier stores are then built anew

# Size of the images that random resized crops are cut from over that of those that the network sees: 256 for 224, the
# usual pair since Krizhevsky, Sutskever and Hinton (2012).
CROP_STORE_RATIO = 8 / 7

IMAGES_FILE = "images.npy"

FLUSH_BYTES = 4_000_000  # so much is written to an image file before it is sent on to the disk

FLUSH = getattr(os, "fdatasync", os.fsync)  # macOS has only the second

NUM_LOOKED_AT = 16  # files whose sizes the shape of a staged store is guessed from


@dataclass(frozen=True, kw_only=True)
class StoreShape:
    """Height and width of the stored images in pixels."""

    height: int
    width: int
    resized: bool
    """False where every image is stored at its own size, to be enlarged on the device."""


class StagedStore:
    """A store that fills up while the files are checked, so that each is decoded once.

    Its shape is guessed from the sizes of a few files. It becomes the store if that was right and every file is an
    image; else the store is built from the files.
    """

    def __init__(self, path: Path, keys: Sequence[str], shape: StoreShape, how: Literal["squash", "crop"]) -> None:
        """
        Args:
            path: Of the array, whose folder is there.
            keys: Of all images, in the order of the store.
            shape: Of the images in it.
            how: How others are resized to it.

        Raises:
            UserError: The disk has no room.
        """
        self.path = path
        self.keys = list(keys)
        self.shape = shape
        self._how = how
        self._row_of = {key: row for row, key in enumerate(keys)}
        self._is_kept = np.zeros(len(keys), bool)
        self._images = _ImageFile(path, (len(keys), shape.height, shape.width, 3))

    def keep(self, key: str, image: Image.Image) -> None:
        """Takes an upright RGB image; any thread may call it."""
        if self.shape.resized or image.size == (self.shape.width, self.shape.height):
            row = self._row_of[key]
            self._images.write(row, resize(image, self.shape.height, self.shape.width, self._how))
            self._is_kept[row] = True

    def holds(self, manifest: Manifest, settings: DataSettings) -> bool:
        """Whether this is the store of these images."""
        return (
            self.path.exists()
            and store_shape(manifest, settings) == self.shape
            and settings.resize == self._how
            and bool(self._is_kept.all())
            and manifest.images["key"].tolist() == self.keys
        )

    def close(self) -> None:
        self._images.close()

    def move(self, store: Path) -> None:
        """Makes it the store."""
        self._images.sync()
        shutil.rmtree(store, ignore_errors=True)
        os.replace(self.path.parent, store)
        _sync(store.parent)


@contextmanager
def staged_stores(
    source: Source, settings: DataSettings, *, for_crops: bool, quiet: bool = False
) -> Iterator[tuple[StagedStore, ...]]:
    """The stores that open_stores will need, to be filled by a scan of the source; what it does not take is removed.

    None where the disk has no room for them, or where another process is at it: then images are decoded for the store
    alone, which says what is wrong, or waits.
    """
    if not source.images:
        yield ()  # the scan says what is wrong
        return
    shapes = {_shape_of_some(source, wanted): wanted for wanted in _wanted(settings, for_crops=for_crops)}
    keys = sorted(image.key for image in source.images)
    folder = Path(settings.cache_folder).expanduser() / "stores"
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(_num_bytes((len(keys), shape.height, shape.width, 3)) for shape in shapes)
    with ExitStack() as stack:
        staged: list[StagedStore] = []
        try:
            check_space(folder, needed)
            for shape, wanted in shapes.items():
                name = hash_of(["staged", source.location, shape.height, shape.width, wanted.resize])[:32]
                stack.enter_context(_lock(folder / name, timeout=0))
                partial = folder / (name + PARTIAL)
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                stack.callback(shutil.rmtree, partial, ignore_errors=True)
                staged.append(StagedStore(partial / IMAGES_FILE, keys, shape, wanted.resize))
                stack.callback(staged[-1].close)
        except (UserError, Timeout):
            staged = []
        if staged:
            say(f"Checking and decoding {len(keys):,} images into {in_megabytes(needed)} in {folder}", quiet=quiet)
        yield tuple(staged)


def open_store(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    *,
    staged: Sequence[StagedStore] = (),
    quiet: bool = False,
) -> np.memmap:
    """The images of a manifest, in its order, built first if they are not stored yet.

    Args:
        source: Where the images of the manifest are read.
        manifest: Which images.
        settings: Their size, how they are resized, and the cache folder.
        staged: What a scan of the source has filled.
        quiet: Says nothing and shows no progress bar.

    Returns:
        uint8 RGB of shape (images, height, width, 3), read-only.

    Raises:
        UserError: The disk has no room for them, or a file has changed since it was scanned.
    """
    store = _path(manifest, settings)
    full_shape = _full_shape(manifest, settings)
    images = _open_whole(store, full_shape)
    if images is not None:
        return images
    store.parent.mkdir(parents=True, exist_ok=True)
    with _wait_for_lock(store, quiet=quiet):
        images = _open_whole(store, full_shape)
        if images is None:
            remove_partial_stores(store.parent, but=store)
            whole = next((each for each in staged if each.holds(manifest, settings)), None)
            if whole is not None:
                whole.move(store)
            else:
                _build(source, manifest, settings, store, full_shape, quiet=quiet)
            images = _open_whole(store, full_shape)
    assert images is not None
    return images


def open_stores(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    *,
    for_crops: bool,
    staged: Sequence[StagedStore] = (),
    quiet: bool = False,
) -> tuple[np.memmap, np.memmap]:
    """The images of a manifest as the network sees them, and those that training images are made from.

    The second are the first, or, where random resized crops are cut from them, a larger store of all images: it serves
    any split and fold, and is the one that a run with a larger data.image_size has.

    Args:
        source: Where the images of the manifest are read.
        manifest: Which images.
        settings: Their size, how they are resized, and the cache folder.
        for_crops: Whether random resized crops are cut from the training images.
        staged: What a scan of the source has filled.
        quiet: Says nothing and shows no progress bar.

    Returns:
        Both as open_store has them.

    Raises:
        UserError: The disk has no room for both, or a file has changed since it was scanned.
    """
    if not for_crops:
        images = open_store(source, manifest, settings, staged=staged, quiet=quiet)
        return images, images
    stores = {_path(manifest, wanted): wanted for wanted in _wanted(settings, for_crops=True)}
    shapes = {store: _full_shape(manifest, wanted) for store, wanted in stores.items()}
    needed = sum(
        _num_bytes(shape)
        for store, shape in shapes.items()
        if _open_whole(store, shape) is None and not any(each.holds(manifest, stores[store]) for each in staged)
    )
    if needed:
        say(f"With random resized crops, images are stored twice; to be written: {in_megabytes(needed)}", quiet=quiet)
        check_space(Path(settings.cache_folder).expanduser(), needed)
    images, larger_images = (
        open_store(source, manifest, wanted, staged=staged, quiet=quiet) for wanted in _wanted(settings, for_crops=True)
    )
    return images, larger_images


def store_shape(manifest: Manifest, settings: DataSettings) -> StoreShape:
    """Images of one size that is smaller than data.image_size are stored as they are, all others at that size."""
    return _shape_of(set(manifest.images["height"]), set(manifest.images["width"]), settings)


def _shape_of(heights: set[int], widths: set[int], settings: DataSettings) -> StoreShape:
    if len(heights) == len(widths) == 1:
        height, width = int(heights.pop()), int(widths.pop())
        fits = max(height, width) <= settings.image_size
        if fits and (height == width or settings.resize == "squash"):
            return StoreShape(height=height, width=width, resized=False)
    return StoreShape(height=settings.image_size, width=settings.image_size, resized=True)


def _shape_of_some(source: Source, settings: DataSettings) -> StoreShape:
    """What store_shape is going to be, judged by a few images."""
    heights, widths = set(), set()
    step = -(-len(source.images) // NUM_LOOKED_AT)
    for image in source.images[::step]:
        # A file that is no image is named later by the scan. Turned images count as they lie: mostly they are resized.
        with suppress(Exception), source.open(source.read(image.key)) as opened:
            widths.add(opened.width)
            heights.add(opened.height)
    return _shape_of(heights, widths, settings)


def _wanted(settings: DataSettings, *, for_crops: bool) -> tuple[DataSettings, ...]:
    """Settings of the store of images as the network sees them, and of the one that crops are cut from."""
    larger = dataclasses.replace(settings, image_size=round(settings.image_size * CROP_STORE_RATIO))
    return (settings, larger) if for_crops else (settings,)


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError if the disk of an existing folder has not so many bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"data.cache_folder: the decoded images need {in_megabytes(needed)} in {folder}, where "
            f"{in_megabytes(free)} are free; make room, name a folder on another disk, or lower data.image_size"
        )


def in_megabytes(num_bytes: int) -> str:
    """For people, in millions of bytes: 1,234.5 MB."""
    return f"{num_bytes / 1e6:,.1f} MB"


def remove_partial_stores(stores: Path, *, but: Path) -> None:
    """Removes what killed builds have left behind, and leaves alone what other processes are building."""
    for partial in stores.glob(f"*{PARTIAL}"):
        if partial == but.with_name(but.name + PARTIAL):
            continue
        try:
            with _lock(partial.with_name(partial.name.removesuffix(PARTIAL)), timeout=0):
                shutil.rmtree(partial, ignore_errors=True)
        except (Timeout, OSError):  # another's: at work on it, or of another account
            pass


def _full_shape(manifest: Manifest, settings: DataSettings) -> tuple[int, int, int, int]:
    shape = store_shape(manifest, settings)
    return len(manifest.images), shape.height, shape.width, 3


def _num_bytes(full_shape: tuple[int, ...]) -> int:
    return int(np.prod(full_shape, dtype=np.int64))


def _path(manifest: Manifest, settings: DataSettings) -> Path:
    # Not the version of Pillow: the environments of two frameworks on one machine have to see the same pixels.
    shape = store_shape(manifest, settings)
    how = settings.resize if shape.resized else "as it is"
    value = [FORMAT_VERSION, shape.height, shape.width, how, manifest.images["hash"].tolist()]
    return Path(settings.cache_folder).expanduser() / "stores" / hash_of(value)[:32]


def _open_whole(store: Path, shape: tuple[int, ...]) -> np.memmap | None:
    try:
        images = np.load(store / IMAGES_FILE, mmap_mode="r")
    except (OSError, ValueError):
        return None  # not there, or cut short by something else than a build
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _lock(store: Path, timeout: float) -> FileLock:
    return FileLock(store.with_name(store.name + ".lock"), timeout=timeout)


def _wait_for_lock(store: Path, *, quiet: bool) -> AcquireReturnProxy:
    lock = _lock(store, timeout=-1)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say("Another process is decoding the same images: waiting for it.", quiet=quiet)
        return lock.acquire()


def _build(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    store: Path,
    full_shape: tuple[int, int, int, int],
    *,
    quiet: bool,
) -> None:
    partial = store.with_name(store.name + PARTIAL)
    for leftover in (partial, store):
        shutil.rmtree(leftover, ignore_errors=True)
    needed = _num_bytes(full_shape)
    check_space(store.parent, needed)
    say(f"Decoding {full_shape[0]:,} images into {in_megabytes(needed)} in {store}", quiet=quiet)
    partial.mkdir()
    try:
        _decode_all(source, manifest, settings, partial / IMAGES_FILE, full_shape, quiet=quiet)
        os.replace(partial, store)
        _sync(store.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _decode_all(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    path: Path,
    full_shape: tuple[int, int, int, int],
    *,
    quiet: bool,
) -> None:
    num_images, height, width, _ = full_shape
    keys: list[str] = manifest.images["key"].tolist()
    hashes: list[str] = manifest.images["hash"].tolist()
    Image.init()  # before the threads, which would otherwise all load Pillow's plugins
    with closing(_ImageFile(path, full_shape)) as images:

        def decode(row: int) -> None:
            images.write(row, resize(_read(source, keys[row], hashes[row]), height, width, settings.resize))

        for _ in on_all_cores(decode, range(num_images), title="Decoding images", quiet=quiet):
            pass
        images.sync()


class _ImageFile:
    """An array of images that threads write to a file, one by one; numpy reads it.

    Not through a memory map, whose page faults take as long as a quarter of decoding a small JPEG file. What is written
    goes to the disk while other images are decoded: to wait for all of it at the end takes a quarter of the time that
    decoding has taken.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        self._bytes_an_image = _num_bytes(shape[1:])
        self._offset = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).offset
        _reserve(path)
        self._handle = os.open(path, os.O_WRONLY)
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._num_unflushed_bytes = 0
        self._lock = threading.Lock()

    def write(self, row: int, image: Image.Image) -> None:
        pixels = image.tobytes()
        assert len(pixels) == self._bytes_an_image
        if os.pwrite(self._handle, pixels, self._offset + row * self._bytes_an_image) != len(pixels):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        with self._lock:
            self._num_unflushed_bytes += len(pixels)
            if self._num_unflushed_bytes >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
                self._raise_failure()
                self._num_unflushed_bytes = 0
                self._flush = self._flusher.submit(FLUSH, self._handle)

    def sync(self) -> None:
        """Returns when everything is on the disk."""
        self._raise_failure()
        os.fsync(self._handle)
        _sync(self._path.parent)

    def close(self) -> None:
        self._flusher.shutdown()
        os.close(self._handle)

    def _raise_failure(self) -> None:
        # the system tells of a write that failed once, and the flush has heard it
        if self._flush is not None:
            self._flush.result()


def _read(source: Source, key: str, expected_hash: str) -> Image.Image:
    try:
        file = source.read(key)
    except OSError as error:
        raise UserError(f"{key}: cannot be read any more ({error.strerror}); run again to scan anew") from None
    if hashlib.sha256(file).hexdigest() != expected_hash:
        raise UserError(f"{key}: the file has changed since it was scanned; run again when nothing writes to it")
    with source.open(file) as image:
        return to_rgb(image)


def _reserve(path: Path) -> None:
    """Takes the whole file's place on the disk now, since writing to a memory map on a full disk kills the process."""
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
