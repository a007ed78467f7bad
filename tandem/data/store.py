"""All images of a manifest, decoded and resized once, as one array on disk that every process maps into memory.

A store is a folder <cache folder>/stores/<key>, written under a lock and renamed when it is complete (cache.py). When
files are scanned for the first time, the scan fills the stores, so that each file is decoded once (StagedStore).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import Timeout
from PIL import Image

from tandem.data.cache import (
    NoRoom,
    check_room,
    in_megabytes,
    lock_of,
    partial_of,
    remove_leftovers,
    sync_folder,
    wait_for_lock,
    whole_folder,
)
from tandem.data.console import on_all_cores, say
from tandem.data.decoding import FULL_RANGE, PixelRange, prepare_pillow, resize, to_rgb
from tandem.data.image_file import IMAGES_FILE, ImageFile, is_damaged, num_bytes, write_checksum
from tandem.data.manifest import Manifest, hash_of
from tandem.data.source import Source
from tandem.errors import UserError
from tandem.files import PARTIAL
from tandem.protocol.settings import DataSettings

FORMAT_VERSION = 1  # to be raised when pixels are made in another way: all stores are then built again

# Size of the images that random resized crops are cut from, divided by the size that the network sees: 256 / 224, the
# usual pair since Krizhevsky, Sutskever and Hinton (2012).
CROP_STORE_RATIO = 8 / 7

STORED_AS_IT_IS = "as it is"  # in the name of a store whose images have their own size
NUM_LOOKED_AT = 16  # files whose sizes a staged store's shape is guessed from


@dataclass(frozen=True, kw_only=True)
class StoreShape:
    """Size of the stored images."""

    height: int
    """In pixels, as is the width."""
    width: int
    resized: bool
    """False if all images are stored at their own size and enlarged on the device."""


class StagedStore:
    """A store that a scan fills while it checks the files, so that each file is decoded once.

    Its shape is guessed from the sizes of a few files. It becomes the store if the guess was right and every file is an
    image; otherwise the store is built from the files.
    """

    def __init__(self, path: Path, keys: Sequence[str], shape: StoreShape, how: Literal["squash", "crop"]) -> None:
        """
        Args:
            path: Path of the array; its folder exists.
            keys: Keys of all images, in the order of the store.
            shape: Size of the stored images.
            how: Way of resizing images of other sizes.

        Raises:
            UserError: The disk is too full.
        """
        self.path = path
        self.keys = list(keys)
        self.shape = shape
        self._how = how
        self._row_of = {key: row for row, key in enumerate(keys)}
        self._is_kept = np.zeros(len(keys), bool)
        self._images = ImageFile(path, (len(keys), shape.height, shape.width, 3))

    def keep(self, key: str, image: Image.Image) -> None:
        """Stores an upright RGB image. Any thread may call it."""
        if self.shape.resized or image.size == (self.shape.width, self.shape.height):
            row = self._row_of[key]
            self._images.write(row, resize(image, self.shape.height, self.shape.width, self._how))
            self._is_kept[row] = True

    def holds(self, manifest: Manifest, settings: DataSettings) -> bool:
        """True if this is the complete store of a manifest's images."""
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
        """Renames the staged store to the final one."""
        self._images.sync()
        write_checksum(self.path.parent)
        shutil.rmtree(store, ignore_errors=True)
        os.replace(self.path.parent, store)
        sync_folder(store.parent)


@contextmanager
def staged_stores(
    source: Source, settings: DataSettings, *, for_crops: bool, quiet: bool = False
) -> Iterator[tuple[StagedStore, ...]]:
    """Stores that open_stores will need, to be filled by a scan of the source. Unused ones are removed afterwards.

    Yields:
        No stores if the disk is too full, or if another process is filling them. open_store then decodes the images
        itself, and reports what is wrong, or waits.
    """
    if not source.images:
        yield ()  # the scan reports what is wrong
        return
    shapes = {_shape_of_some(source, wanted): wanted for wanted in _wanted(settings, for_crops=for_crops)}
    keys = sorted(image.key for image in source.images)
    folder = Path(settings.cache_folder).expanduser() / "stores"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        yield ()
        return
    needed = sum(num_bytes((len(keys), shape.height, shape.width, 3)) for shape in shapes)
    with ExitStack() as stack:
        staged: list[StagedStore] = []
        try:
            _check_room(folder, needed)
            for shape, wanted in shapes.items():
                name = hash_of(["staged", source.location, shape.height, shape.width, wanted.resize])[:32]
                stack.enter_context(lock_of(folder / name, timeout=0))
                partial = partial_of(folder / name)
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                stack.callback(shutil.rmtree, partial, ignore_errors=True)
                staged.append(StagedStore(partial / IMAGES_FILE, keys, shape, wanted.resize))
                stack.callback(staged[-1].close)
        except (UserError, Timeout, PermissionError):
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
    """The stored images of a manifest, in its order; the store is built first if it does not exist.

    Args:
        source: Reads the manifest's images.
        manifest: The images.
        settings: Image size, way of resizing, and cache folder.
        staged: Stores that a scan of the source has filled.
        quiet: Prints nothing and shows no progress bar.

    Returns:
        uint8 RGB of shape (images, height, width, 3), read-only.

    Raises:
        UserError: The disk is too full, or a file has changed since it was scanned.
    """
    store = _path(manifest, settings)
    full_shape = _full_shape(manifest, settings)
    images = _open_whole(store, full_shape)
    if images is not None and not is_damaged(store):
        return images
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        lock = wait_for_lock(store, busy="decoding the same images", quiet=quiet)
    except PermissionError as error:
        raise UserError(
            f"data.cache_folder: images have to be decoded into {store.parent}, which you cannot write "
            f"({error.strerror}: {error.filename}); name a folder of yours, or ask its owner to let your group write"
        ) from None
    with lock:
        images = _open_whole(store, full_shape)
        if images is not None and is_damaged(store):
            say(f"The decoded images in {store} are damaged: decoding them again", quiet=quiet)
            images = None
        if images is None:
            remove_leftovers(store.parent, lambda path: path.name.endswith(PARTIAL), but=store)
            whole = next((each for each in staged if each.holds(manifest, settings)), None)
            if whole is not None:
                whole.move(store)
            else:
                _build(source, manifest, settings, store, full_shape, quiet=quiet)
            images = _open_whole(store, full_shape)
    assert images is not None
    return images


def find_store(cache_folder: Path, hashes: Sequence[str], resize: str) -> np.memmap | None:
    """The stored images of an earlier run, as open_store returned them; None if there is no such store.

    Args:
        cache_folder: That of the run.
        hashes: SHA-256 of each image's file, in the order of the keys.
        resize: The run's data.resize.
    """
    for file in sorted(cache_folder.glob(f"stores/*/{IMAGES_FILE}")):
        try:
            images = np.load(file, mmap_mode="r")
        except (OSError, ValueError):
            continue
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(hashes):
            continue
        names = [_store_name(*images.shape[1:3], how, list(hashes)) for how in (resize, STORED_AS_IT_IS)]
        if file.parent.name in names:
            return images
    return None


def open_stores(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    *,
    for_crops: bool,
    staged: Sequence[StagedStore] = (),
    quiet: bool = False,
) -> tuple[np.memmap, np.memmap]:
    """The images of a manifest as the network sees them, and the images that training images are made from.

    The two are the same store, except for random resized crops, which are cut from a larger store of all images. That
    store serves every split and fold, and is the one that a run with a larger data.image_size uses.

    Args:
        source: Reads the manifest's images.
        manifest: The images.
        settings: Image size, way of resizing, and cache folder.
        for_crops: True if random resized crops are cut from the training images.
        staged: Stores that a scan of the source has filled.
        quiet: Prints nothing and shows no progress bar.

    Returns:
        Two arrays as open_store returns them.

    Raises:
        UserError: The disk is too full for both, or a file has changed since it was scanned.
    """
    if not for_crops:
        images = open_store(source, manifest, settings, staged=staged, quiet=quiet)
        return images, images
    stores = {_path(manifest, wanted): wanted for wanted in _wanted(settings, for_crops=True)}
    shapes = {store: _full_shape(manifest, wanted) for store, wanted in stores.items()}
    needed = sum(
        num_bytes(shape)
        for store, shape in shapes.items()
        if _open_whole(store, shape) is None and not any(each.holds(manifest, stores[store]) for each in staged)
    )
    if needed:
        say(f"With random resized crops, images are stored twice; to be written: {in_megabytes(needed)}", quiet=quiet)
        _check_room(Path(settings.cache_folder).expanduser(), needed)
    images, larger_images = (
        open_store(source, manifest, wanted, staged=staged, quiet=quiet) for wanted in _wanted(settings, for_crops=True)
    )
    return images, larger_images


def store_shape(manifest: Manifest, settings: DataSettings) -> StoreShape:
    """Shape of the store: the images' own size if all have the same and it is small enough, otherwise image_size."""
    return _shape_of(set(manifest.images["height"]), set(manifest.images["width"]), settings)


def _shape_of(heights: set[int], widths: set[int], settings: DataSettings) -> StoreShape:
    if len(heights) == len(widths) == 1:
        height, width = int(heights.pop()), int(widths.pop())
        fits = max(height, width) <= settings.image_size
        if fits and (height == width or settings.resize == "squash"):
            return StoreShape(height=height, width=width, resized=False)
    return StoreShape(height=settings.image_size, width=settings.image_size, resized=True)


def _shape_of_some(source: Source, settings: DataSettings) -> StoreShape:
    """A guess of store_shape from a few images."""
    heights, widths = set(), set()
    step = -(-len(source.images) // NUM_LOOKED_AT)
    for image in source.images[::step]:
        # The scan reports files that are not images. EXIF orientation is ignored: most rotated images are resized.
        with suppress(Exception), source.open(image.key, source.read(image.key)) as opened:
            widths.add(opened.width)
            heights.add(opened.height)
    return _shape_of(heights, widths, settings)


def _wanted(settings: DataSettings, *, for_crops: bool) -> tuple[DataSettings, ...]:
    """Settings of the store that the network sees, and of the larger store that crops are cut from."""
    larger = dataclasses.replace(settings, image_size=round(settings.image_size * CROP_STORE_RATIO))
    return (settings, larger) if for_crops else (settings,)


def _check_room(folder: Path, needed: int) -> None:
    """Raises UserError if the disk of an existing folder has fewer than `needed` bytes free."""
    try:
        check_room(folder, needed, what="the decoded images")
    except NoRoom as error:
        raise UserError(
            f"data.cache_folder: {error}; make room, name a folder on another disk, or lower data.image_size"
        ) from None


def _full_shape(manifest: Manifest, settings: DataSettings) -> tuple[int, int, int, int]:
    shape = store_shape(manifest, settings)
    return len(manifest.images), shape.height, shape.width, 3


def _path(manifest: Manifest, settings: DataSettings) -> Path:
    # Without Pillow's version: the two frameworks' environments on one machine have to see the same pixels.
    shape = store_shape(manifest, settings)
    how = settings.resize if shape.resized else STORED_AS_IT_IS
    more = []
    if manifest.pixel_range not in (None, PixelRange(whole=FULL_RANGE)):  # the range of older stores
        more.append(dataclasses.astuple(manifest.pixel_range))
    name = _store_name(shape.height, shape.width, how, manifest.images["hash"].tolist(), *more)
    return Path(settings.cache_folder).expanduser() / "stores" / name


def _store_name(height: int, width: int, how: str, hashes: list[str], *more: Any) -> str:
    return hash_of([FORMAT_VERSION, height, width, how, hashes, *more])[:32]


def _open_whole(store: Path, shape: tuple[int, ...]) -> np.memmap | None:
    try:
        images = np.load(store / IMAGES_FILE, mmap_mode="r")
    except (OSError, ValueError):
        return None  # missing, or truncated by something other than a build
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _build(
    source: Source,
    manifest: Manifest,
    settings: DataSettings,
    store: Path,
    full_shape: tuple[int, int, int, int],
    *,
    quiet: bool,
) -> None:
    needed = num_bytes(full_shape)
    with whole_folder(store) as partial:
        _check_room(store.parent, needed)
        say(f"Decoding {full_shape[0]:,} images into {in_megabytes(needed)} in {store}", quiet=quiet)
        _decode_all(source, manifest, settings, partial / IMAGES_FILE, full_shape, quiet=quiet)
        write_checksum(partial)


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
    prepare_pillow()  # before the threads start
    with closing(ImageFile(path, full_shape)) as images:

        def decode(row: int) -> None:
            image = _read(source, keys[row], hashes[row], manifest.pixel_range)
            images.write(row, resize(image, height, width, settings.resize))

        for _ in on_all_cores(decode, range(num_images), title="Decoding images", quiet=quiet):
            pass
        images.sync()


def _read(source: Source, key: str, expected_hash: str, pixel_range: PixelRange | None) -> Image.Image:
    try:
        file = source.read(key)
    except OSError as error:
        raise UserError(
            f"{key}: cannot be read any more ({error.strerror}); run again to scan the files again"
        ) from None
    if hashlib.sha256(file).hexdigest() != expected_hash:
        raise UserError(f"{key}: the file has changed since it was scanned; run again when nothing writes to it")
    return to_rgb(source.decode(key, file), pixel_range)
