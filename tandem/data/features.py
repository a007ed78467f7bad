"""Features of stored images: the outputs of a frozen backbone, computed once and kept on disk for all runs.

A cache is a folder <cache folder>/features/<key> beside the stores. features.npy has one row per image of the store,
which is filled when a run first asks for it, so splits, folds and seeds share rows, and unused images cost nothing. The
file is sparse: empty rows take no space on the disk. seconds.npy says which rows are complete. It is replaced in one
step after they are on the disk, so an interrupted pass leaves no wrong rows, and a folder without seconds.npy can be
removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from rich.console import Console
from rich.progress import Progress

from tandem import interrupts
from tandem.data.cache import NoRoom, check_room, remove_leftovers, wait_for_lock
from tandem.data.console import say
from tandem.data.manifest import hash_of
from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.files import whole_file
from tandem.protocol.regimes import Phase, num_cached_views
from tandem.protocol.settings import AugmentationSettings, Settings
from tandem.protocol.settings_hash import feature_settings, hashed_settings

FORMAT_VERSION = 1  # to be raised when features are made in another way: all are then computed again

FEATURES_FILE = "features.npy"
SECONDS_FILE = "seconds.npy"
CHECKSUMS_FILE = "checksums.npy"
"""XXH3 of each row's bytes, uint64; 0 for rows of versions that had no checksums."""

SECONDS_BETWEEN_KEEPING = 60.0
"""Time after which a pass makes its features available, so that a killed process loses no more."""

ImagesOf = Callable[[np.ndarray], np.ndarray]
"""From rows of the store, int64 of shape (n,), to their images, uint8 of shape (n, height, width, 3)."""

Compute = Callable[[np.ndarray], Iterator[np.ndarray]]
"""From rows of the store, int64 of shape (n,), to their features in the same order, in batches: float32 of shape
(batch, features)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of some images of a store."""

    values: np.ndarray
    """float32 of shape (images of the store, features). Only the rows that were asked for are valid."""
    seconds: float
    """Time that the pass over those rows took, in this run or in earlier ones."""
    cached_seconds: float
    """The part of `seconds` that earlier runs spent."""
    compile_seconds: float
    """Time of this run's first pass over a batch of each size: tracing, compiling and first use of a GPU's kernels."""


@dataclass(frozen=True, kw_only=True)
class PhaseFeatures:
    """Features that a phase trains on in place of images; empty for a phase that runs the backbone itself."""

    training: tuple[np.ndarray, ...] = ()
    """One array per view of the training images: float32 of shape (images of the store, features)."""
    validation: tuple[np.ndarray, ...] = ()
    """The same for the validation images, which have one view."""
    seconds: float = 0.0
    """Time that the pass took, in this run or in earlier ones."""
    cached_seconds: float = 0.0
    """The part of `seconds` that earlier runs spent."""
    compile_seconds: float = 0.0
    """Time that this run spent on a first pass over a batch of each size; not part of `seconds`."""


NO_FEATURES = PhaseFeatures()


def find_phase_features(
    phase: Phase,
    settings: Settings,
    data: PreparedData,
    made_with: Mapping[str, str],
    backbone_pass: Callable[[ImagesOf], Compute],
) -> PhaseFeatures:
    """Features of a phase's training and validation images, read from the cache and computed where they are missing.

    Args:
        phase: A phase that trains more than the head has no features.
        settings: Backbone, image size, precision and number of views.
        data: The images.
        made_with: Everything else that the features, or the time they take, depend on: hash of the backbone's weights,
            framework and versions, device and machine.
        backbone_pass: Makes the function that computes features from the one that gives images.
    """
    num_views = num_cached_views(phase, settings)
    if not num_views:
        return PhaseFeatures()
    key = {
        "made with": dict(made_with),
        **feature_settings(settings),
        "threads": settings.threads,
    }
    whole = backbone_pass(lambda rows: np.ascontiguousarray(data.images[rows]))
    rows = {part: data.rows(part) for part in ("train", "val")}
    used_sizes: set[int] = set()  # one network computes all views
    if settings.augmentation == AugmentationSettings():
        found = open_features(
            data.images, np.concatenate([rows["train"], rows["val"]]), key, whole, used_sizes=used_sizes
        )
        views, validation, opened = [found], found, [found]
    else:
        views = [_open_view(view, phase, settings, data, key, backbone_pass, used_sizes) for view in range(num_views)]
        validation = open_features(data.images, rows["val"], key, whole, used_sizes=used_sizes)
        opened = [*views, validation]
    result = PhaseFeatures(
        training=tuple(view.values for view in views),
        validation=(validation.values,),
        seconds=sum(features.seconds for features in opened),
        cached_seconds=sum(features.cached_seconds for features in opened),
        compile_seconds=sum(features.compile_seconds for features in opened),
    )
    _tell(result, settings)
    return result


def _open_view(
    view: int,
    phase: Phase,
    settings: Settings,
    data: PreparedData,
    key: Mapping[str, Any],
    backbone_pass: Callable[[ImagesOf], Compute],
    used_sizes: set[int],
) -> Features:
    """Features of the training images as the stream augments them in the epoch with the view's number."""
    rows = data.rows("train")
    stream = training_stream(settings, data, phase, shuffle=False)
    view_key = {
        **key,
        "view": view,
        "augmentation": hashed_settings(settings.augmentation, "augmentation."),
        "seed": (settings.seed, phase.number),
        # random numbers of an image depend on its position among the rows
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
    }
    compute = backbone_pass(lambda wanted: stream.images_at(view, np.searchsorted(rows, wanted)))
    return open_features(data.training_images, rows, view_key, compute, used_sizes=used_sizes)


def _tell(features: PhaseFeatures, settings: Settings) -> None:
    num_views = len(features.training)
    views = f", {num_views} augmented views of each training image" if settings.cache_views else ""
    earlier = f", {features.cached_seconds:.1f} of them in earlier runs" if features.cached_seconds else ""
    say(f"Features of the frozen backbone{views}: {features.seconds:.1f} seconds{earlier}", quiet=False)


def open_features(
    images: np.memmap,
    rows: np.ndarray,
    key: Mapping[str, Any],
    compute: Compute,
    *,
    used_sizes: set[int] | None = None,
    quiet: bool = False,
) -> Features:
    """Features of stored images; those that no run has computed yet are computed first.

    The first batch of each size is computed twice, and the second time counts: at its first use a size is compiled,
    and a GPU chooses its algorithms.

    Features are kept every minute, and before a signal or an error ends the pass.

    If two processes need the same features, one computes them and the other waits. If they cannot be written, they are
    kept in memory, and one line says so.

    Args:
        images: A store from open_store. Its folder is part of the key and determines the place of the cache.
        rows: Rows of the images, int64 of shape (n,).
        key: Everything else that the features depend on, in plain JSON values.
        compute: Computes the features of missing rows.
        used_sizes: Sizes of batches that the same network has computed before; new ones are added.
        quiet: Prints nothing and shows no progress bar.
    """
    assert isinstance(images.filename, str | os.PathLike)
    store = Path(images.filename).parent
    folder = store.parent.parent / "features" / hash_of([FORMAT_VERSION, store.name, dict(key)])[:32]
    num_images = len(images)
    timed = _TimedPass(compute, set() if used_sizes is None else used_sizes, quiet=quiet)
    try:
        return _from_disk(folder, num_images, rows, timed, quiet=quiet)
    except NoRoom as error:
        say(f"Features cannot be kept in {folder} ({error}): they stay in memory, for this run alone", quiet=quiet)
    return _in_memory(num_images, rows, timed)


def _from_disk(folder: Path, num_images: int, rows: np.ndarray, timed: _TimedPass, *, quiet: bool) -> Features:
    seconds = _read_seconds(folder, num_images)
    _forget_damaged(folder, seconds, rows, quiet=True)
    cached_seconds = _sum(seconds[rows])
    if np.isnan(seconds[rows]).any():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = wait_for_lock(folder, busy="computing features of the same images", quiet=quiet)
        except OSError as error:
            raise NoRoom(error.strerror or str(error)) from None
        with lock:
            seconds = _read_seconds(folder, num_images)
            _forget_damaged(folder, seconds, rows, quiet=quiet)
            cached_seconds = _sum(seconds[rows])  # another process may have computed some while this one waited
            missing = rows[np.isnan(seconds[rows])]
            if len(missing):
                remove_leftovers(folder.parent, lambda path: not (path / SECONDS_FILE).exists(), but=folder)
                _compute_missing(folder, seconds, missing, timed)
    values = np.load(folder / FEATURES_FILE, mmap_mode="r")
    return Features(
        values=values,
        seconds=_sum(seconds[rows]),
        cached_seconds=cached_seconds,
        compile_seconds=timed.first_use_seconds,
    )


def _in_memory(num_images: int, rows: np.ndarray, timed: _TimedPass) -> Features:
    values, seconds = np.empty(0), np.full(num_images, np.nan)
    for batch_rows, features, batch_seconds in timed.batches(rows):
        if not len(values):
            values = np.empty((num_images, features.shape[1]), np.float32)  # untouched rows take no memory
        values[batch_rows] = features
        seconds[batch_rows] = batch_seconds / len(batch_rows)
    return Features(values=values, seconds=_sum(seconds), cached_seconds=0.0, compile_seconds=timed.first_use_seconds)


def _compute_missing(folder: Path, seconds: np.ndarray, missing: np.ndarray, timed: _TimedPass) -> None:
    """Writes the features of missing rows to the cache, and their times, one per image, into `seconds`.

    Raises:
        NoRoom: They cannot be written. A cache that did not exist before is removed.
    """
    try:
        _write_missing(folder, seconds, missing, timed)
    except NoRoom:
        if not (folder / SECONDS_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # otherwise it would keep the disk full
        raise


def _write_missing(folder: Path, seconds: np.ndarray, missing: np.ndarray, timed: _TimedPass) -> None:
    file, offset, kept = -1, 0, time.perf_counter()
    checksums = _read_checksums(folder, len(seconds))
    try:
        with interrupts.asking():
            for rows, features, batch_seconds in timed.batches(missing):
                if file < 0:
                    check_room(folder.parent, len(missing) * features[0].nbytes, what="they")
                    file, offset = _open_for_writing(folder, (len(seconds), features.shape[1]))
                _write(file, offset, rows, features)
                checksums[rows] = [_checksum(values) for values in features]
                seconds[rows] = batch_seconds / len(rows)
                if time.perf_counter() - kept >= SECONDS_BETWEEN_KEEPING:
                    _keep(folder, file, checksums, seconds)
                    kept = time.perf_counter()
        _keep(folder, file, checksums, seconds)
    except NoRoom:
        raise
    except BaseException:
        if file >= 0:
            with suppress(NoRoom):  # what was computed before a signal or an error is not computed again
                _keep(folder, file, checksums, seconds)
        raise
    finally:
        if file >= 0:
            os.close(file)


def _keep(folder: Path, file: int, checksums: np.ndarray, seconds: np.ndarray) -> None:
    """Makes the features that were computed so far available to this and other runs."""
    try:
        with interrupts.holding():
            os.fsync(file)
            with whole_file(folder / CHECKSUMS_FILE, "wb", sync=True) as checksums_file:
                np.save(checksums_file, checksums)
            with whole_file(folder / SECONDS_FILE, "wb", sync=True) as seconds_file:
                np.save(seconds_file, seconds)
    except OSError as error:
        raise NoRoom(error.strerror or str(error)) from None


class _TimedPass:
    """Computes features and measures the time, apart from that of the first use of each batch size."""

    def __init__(self, compute: Compute, used_sizes: set[int], *, quiet: bool) -> None:
        self._compute = compute
        self._used_sizes = used_sizes
        self._quiet = quiet
        self.first_use_seconds = 0.0

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Rows, their features, and the seconds that these took, batch by batch."""
        console = Console(stderr=True)
        computed, done = self._compute(rows), 0
        with Progress(console=console, transient=True, disable=self._quiet or not console.is_terminal) as progress:
            bar = progress.add_task("Computing features", total=len(rows))
            while done < len(rows):
                interrupts.check()
                start = time.perf_counter()
                features = np.ascontiguousarray(next(computed), dtype=np.float32)
                batch = rows[done : done + len(features)]
                if len(batch) not in self._used_sizes:
                    self._used_sizes.add(len(batch))
                    self.first_use_seconds += time.perf_counter() - start
                    start = time.perf_counter()
                    features = np.concatenate(list(self._compute(batch))).astype(np.float32, copy=False)
                yield batch, features, time.perf_counter() - start
                done += len(batch)
                progress.advance(bar, len(batch))


def _open_for_writing(folder: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """Opens the features' file, made again if it has another shape.

    Returns:
        The open file and the offset of its first row, in bytes.
    """
    path = folder / FEATURES_FILE
    try:
        folder.mkdir(exist_ok=True)
        found = _open_values(path)
        if found is None or found.shape != shape:
            (folder / SECONDS_FILE).unlink(missing_ok=True)
            found = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            found.flush()
        return os.open(path, os.O_WRONLY), found.offset
    except OSError as error:
        raise NoRoom(error.strerror or str(error)) from None


def _write(file: int, offset: int, rows: np.ndarray, features: np.ndarray) -> None:
    # Not through a memory map: on a full disk, writing to one kills the process, while pwrite raises an error.
    for row, values in zip(rows.tolist(), features, strict=True):
        try:
            written = os.pwrite(file, values.tobytes(), offset + row * values.nbytes)
        except OSError as error:
            raise NoRoom(error.strerror or str(error)) from None
        if written < values.nbytes:
            raise NoRoom("the disk is full")


def _read_seconds(folder: Path, num_images: int) -> np.ndarray:
    """Seconds that computing each row took, float64 of shape (num_images,); NaN for missing rows."""
    try:
        seconds = np.load(folder / SECONDS_FILE)
    except (OSError, ValueError, EOFError):
        seconds = np.empty(0)
    values = _open_values(folder / FEATURES_FILE)
    whole = values is not None and len(values) == len(seconds) == num_images
    return seconds if whole else np.full(num_images, np.nan)


def _forget_damaged(folder: Path, seconds: np.ndarray, rows: np.ndarray, *, quiet: bool) -> None:
    """Makes the rows missing, in `seconds`, that are not what was written."""
    known = rows[~np.isnan(seconds[rows])]
    if not len(known):
        return
    values, checksums = np.load(folder / FEATURES_FILE, mmap_mode="r"), _read_checksums(folder, len(seconds))
    damaged = [row for row in known.tolist() if checksums[row] and checksums[row] != _checksum(values[row])]
    if damaged:
        seconds[damaged] = np.nan
        say(f"The features of {len(damaged)} images in {folder} are damaged: computing them again", quiet=quiet)


def _read_checksums(folder: Path, num_images: int) -> np.ndarray:
    try:
        checksums = np.load(folder / CHECKSUMS_FILE)
    except (OSError, ValueError, EOFError):
        checksums = np.empty(0, np.uint64)
    return checksums if len(checksums) == num_images else np.zeros(num_images, np.uint64)


def _checksum(values: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)


def _open_values(path: Path) -> np.memmap | None:
    try:
        values = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None  # missing or truncated
    return values if values.dtype == np.float32 and values.ndim == 2 else None


def _sum(seconds: np.ndarray) -> float:
    return float(np.nansum(seconds))
