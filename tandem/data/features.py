"""Features of stored images: what a frozen backbone makes of each, computed once and kept on disk for all runs.

A cache is a folder <cache folder>/features/<key> beside the stores. In features.npy each image of the store has a row,
which is filled when it is first asked for, so that splits, folds and seeds share what they have in common and no other
image costs anything. The file is sparse: rows that nobody asked for take no place on the disk. seconds.npy tells which
rows are whole. It is replaced in one step when they are on the disk, so what a killed pass leaves behind counts for
nothing, and a folder without it can be removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from rich.console import Console
from rich.progress import Progress

from tandem.data.console import say
from tandem.data.download import PARTIAL
from tandem.data.manifest import hash_of
from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.data.store import in_megabytes
from tandem.protocol.regimes import Phase, num_cached_views
from tandem.protocol.settings import AugmentationSettings, Settings, feature_settings

FORMAT_VERSION = 1  # to be raised when features are made in another way: those of before are then computed anew

FEATURES_FILE = "features.npy"
SECONDS_FILE = "seconds.npy"

ImagesOf = Callable[[np.ndarray], np.ndarray]
"""Images in some rows of the store, int64 of shape (n,): uint8 of shape (n, height, width, 3)."""

Compute = Callable[[np.ndarray], Iterator[np.ndarray]]
"""Features of the images in some rows of the store, int64 of shape (n,): batch by batch in their order, float32 of
shape (batch, features)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of some images of a store."""

    values: np.ndarray
    """float32 of shape (images of the store, features); only the rows that were asked for mean anything."""
    seconds: float
    """What the pass over those rows took, in this run or in an earlier one."""
    cached_seconds: float
    """The part of it that an earlier run has spent."""
    compile_seconds: float
    """What the first batch of this run's pass took longer than the others, which is tracing and compiling."""


@dataclass(frozen=True, kw_only=True)
class PhaseFeatures:
    """What a phase is trained on in the place of images; nothing where it runs the backbone itself."""

    training: tuple[np.ndarray, ...] = ()
    """A row for each image of the store, float32 of shape (images, features), for each view of the training images."""
    validation: tuple[np.ndarray, ...] = ()
    """The same of the validation images, which have one view."""
    seconds: float = 0.0
    """What the pass took, in this run or in an earlier one."""
    cached_seconds: float = 0.0
    """The part of it that an earlier run has spent."""
    compile_seconds: float = 0.0
    """What this run has spent on tracing and compiling the pass, which is not counted in the others."""


NO_FEATURES = PhaseFeatures()


def find_phase_features(
    phase: Phase,
    settings: Settings,
    data: PreparedData,
    made_with: Mapping[str, str],
    backbone_pass: Callable[[ImagesOf], Compute],
) -> PhaseFeatures:
    """The features of a phase's training and validation images, from the cache as far as they are in it.

    Args:
        phase: One that trains more than the head has none.
        settings: Which backbone, at which size and precision, and which views.
        data: The images.
        made_with: All else that the features, or the time that they take, depend on: the hash of the backbone's
            weights, the framework and its versions, the device and the machine.
        backbone_pass: What computes features, from what gives the images.
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
    if settings.augmentation == AugmentationSettings():
        found = open_features(data.images, np.concatenate([rows["train"], rows["val"]]), key, whole)
        views, validation, opened = [found], found, [found]
    else:
        views = [_open_view(view, phase, settings, data, key, backbone_pass) for view in range(num_views)]
        validation = open_features(data.images, rows["val"], key, whole)
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
) -> Features:
    """The features of the training images as the stream augments them in the epoch of the view's number."""
    rows = data.rows("train")
    stream = training_stream(settings, data, phase, shuffle=False)
    view_key = {
        **key,
        "view": view,
        "augmentation": dataclasses.asdict(settings.augmentation),
        "seed": (settings.seed, phase.number),
        # what is drawn for an image depends on its place among the rows
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
    }
    compute = backbone_pass(lambda wanted: stream.images_at(view, np.searchsorted(rows, wanted)))
    return open_features(data.training_images, rows, view_key, compute)


def _tell(features: PhaseFeatures, settings: Settings) -> None:
    num_views = len(features.training)
    views = f", {num_views} augmented views of each training image" if settings.cache_views else ""
    earlier = f", {features.cached_seconds:.1f} of them in an earlier run" if features.cached_seconds else ""
    say(f"Features of the frozen backbone{views}: {features.seconds:.1f} seconds{earlier}", quiet=False)


class _NoRoom(Exception):
    """The cache cannot be written."""


def open_features(
    images: np.memmap, rows: np.ndarray, key: Mapping[str, Any], compute: Compute, *, quiet: bool = False
) -> Features:
    """The features of some stored images, computed first where no run has done so before.

    Two processes that want the same ones do not compute them twice: one waits for the other. Where they cannot be
    written, one line says so, and they are kept in memory.

    Args:
        images: The store, as open_store gives it; its folder is a part of the key and says where the cache is.
        rows: Which images, int64 of shape (n,).
        key: All else that the features depend on, in plain JSON values.
        compute: Makes the features of the rows that are missing.
        quiet: Says nothing and shows no progress bar.
    """
    assert isinstance(images.filename, str | os.PathLike)
    store = Path(images.filename).parent
    folder = store.parent.parent / "features" / hash_of([FORMAT_VERSION, store.name, dict(key)])[:32]
    num_images = len(images)
    try:
        return _from_disk(folder, num_images, rows, compute, quiet=quiet)
    except _NoRoom as error:
        say(f"Features cannot be kept in {folder} ({error}): they stay in memory, for this run alone", quiet=quiet)
    return _in_memory(num_images, rows, compute, quiet=quiet)


def in_batches(
    rows: np.ndarray,
    compute_batch: Callable[[np.ndarray], np.ndarray],
    *,
    batch_size: int,
    out_of_memory: Callable[[Exception], bool],
) -> Iterator[np.ndarray]:
    """The results for all rows, batch by batch, with batches halved as often as the device has too little memory.

    Args:
        rows: Of shape (n,).
        compute_batch: The result for some of them.
        batch_size: To begin with.
        out_of_memory: Whether an exception of compute_batch says so; any other is raised.
    """
    start = 0
    while start < len(rows):
        try:
            result = compute_batch(rows[start : start + batch_size])
        except Exception as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
            batch_size //= 2
            continue
        yield result
        start += batch_size


def _from_disk(folder: Path, num_images: int, rows: np.ndarray, compute: Compute, *, quiet: bool) -> Features:
    seconds = _read_seconds(folder, num_images)
    cached_seconds, compile_seconds = _sum(seconds[rows]), 0.0
    if np.isnan(seconds[rows]).any():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = _wait_for_lock(folder, quiet=quiet)
        except OSError as error:
            raise _NoRoom(error.strerror or str(error)) from None
        with lock:
            seconds = _read_seconds(folder, num_images)
            cached_seconds = _sum(seconds[rows])  # others may have computed some in the meantime
            missing = rows[np.isnan(seconds[rows])]
            if len(missing):
                _remove_leftovers(folder.parent, but=folder)
                compile_seconds = _compute_missing(folder, seconds, missing, compute, quiet=quiet)
    values = np.load(folder / FEATURES_FILE, mmap_mode="r")
    return Features(
        values=values,
        seconds=_sum(seconds[rows]),
        cached_seconds=cached_seconds,
        compile_seconds=compile_seconds,
    )


def _in_memory(num_images: int, rows: np.ndarray, compute: Compute, *, quiet: bool) -> Features:
    values, seconds = np.empty(0), np.full(num_images, np.nan)
    first: np.ndarray | None = None
    for batch_rows, features, batch_seconds in _timed(rows, compute, quiet=quiet):
        if not len(values):
            values = np.empty((num_images, features.shape[1]), np.float32)  # rows without an image take no memory
        values[batch_rows] = features
        seconds[batch_rows] = batch_seconds / len(batch_rows)
        first = batch_rows if first is None else first
    compile_seconds = _take_compiling_off(seconds, first, rows)
    return Features(values=values, seconds=_sum(seconds), cached_seconds=0.0, compile_seconds=compile_seconds)


def _take_compiling_off(seconds: np.ndarray, first: np.ndarray | None, rows: np.ndarray) -> float:
    """Lets the first batch have taken what the others did, and returns the difference; 0 where there are no others."""
    if first is None or len(first) == len(rows):
        return 0.0
    usual = float(np.median(seconds[np.setdiff1d(rows, first)]))
    surplus = max(0.0, float(seconds[first[0]]) - usual)
    seconds[first] -= surplus
    return surplus * len(first)


def _compute_missing(folder: Path, seconds: np.ndarray, missing: np.ndarray, compute: Compute, *, quiet: bool) -> float:
    """Writes the missing rows' features, and into seconds, a number an image, what they took; returns compile_seconds.

    Raises:
        _NoRoom: They cannot be written; of a cache that was not there before, nothing is left.
    """
    try:
        return _write_missing(folder, seconds, missing, compute, quiet=quiet)
    except _NoRoom:
        if not (folder / SECONDS_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # or it would keep the disk full
        raise


def _write_missing(folder: Path, seconds: np.ndarray, missing: np.ndarray, compute: Compute, *, quiet: bool) -> float:
    file, offset = -1, 0
    first: np.ndarray | None = None
    try:
        for rows, features, batch_seconds in _timed(missing, compute, quiet=quiet):
            if file < 0:
                _check_space(folder.parent, len(missing) * features[0].nbytes)
                file, offset = _open_for_writing(folder, (len(seconds), features.shape[1]))
            _write(file, offset, rows, features)
            seconds[rows] = batch_seconds / len(rows)
            first = rows if first is None else first
        compile_seconds = _take_compiling_off(seconds, first, missing)
        try:
            os.fsync(file)
            _replace_seconds(folder, seconds)
        except OSError as error:
            raise _NoRoom(error.strerror or str(error)) from None
        return compile_seconds
    finally:
        if file >= 0:
            os.close(file)


def _timed(rows: np.ndarray, compute: Compute, *, quiet: bool) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Rows, their features and what these took, batch by batch."""
    console = Console(stderr=True)
    batches, done = compute(rows), 0
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task("Computing features", total=len(rows))
        while done < len(rows):
            start = time.perf_counter()
            features = np.ascontiguousarray(next(batches), dtype=np.float32)
            yield rows[done : done + len(features)], features, time.perf_counter() - start
            done += len(features)
            progress.advance(bar, len(features))


def _open_for_writing(folder: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """The open file of the features and where in it the first row begins; made anew unless it is of that shape."""
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
        raise _NoRoom(error.strerror or str(error)) from None


def _write(file: int, offset: int, rows: np.ndarray, features: np.ndarray) -> None:
    # Not through a memory map: on a full disk that kills the process, where pwrite fails.
    for row, values in zip(rows.tolist(), features, strict=True):
        try:
            written = os.pwrite(file, values.tobytes(), offset + row * values.nbytes)
        except OSError as error:
            raise _NoRoom(error.strerror or str(error)) from None
        if written < values.nbytes:
            raise _NoRoom("the disk is full")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _NoRoom(f"they need {in_megabytes(needed)}, and {in_megabytes(free)} are free")


def _read_seconds(folder: Path, num_images: int) -> np.ndarray:
    """float64 of shape (num_images,): what computing each row took, NaN where it is still to be done."""
    try:
        seconds = np.load(folder / SECONDS_FILE)
    except (OSError, ValueError, EOFError):
        seconds = np.empty(0)
    values = _open_values(folder / FEATURES_FILE)
    whole = values is not None and len(values) == len(seconds) == num_images
    return seconds if whole else np.full(num_images, np.nan)


def _replace_seconds(folder: Path, seconds: np.ndarray) -> None:
    partial = folder / (SECONDS_FILE + PARTIAL)
    with partial.open("wb") as file:
        np.save(file, seconds)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / SECONDS_FILE)


def _open_values(path: Path) -> np.memmap | None:
    try:
        values = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None  # not there, or cut short
    return values if values.dtype == np.float32 and values.ndim == 2 else None


def _sum(seconds: np.ndarray) -> float:
    return float(np.nansum(seconds))


def _remove_leftovers(caches: Path, *, but: Path) -> None:
    """Removes what killed passes have left behind, and leaves alone what other processes are computing."""
    for folder in caches.iterdir():
        if folder == but or not folder.is_dir() or (folder / SECONDS_FILE).exists():
            continue
        try:
            with _lock(folder, timeout=0):
                if not (folder / SECONDS_FILE).exists():  # it may have become whole just now
                    shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):  # another's: at work on it, or of another account
            pass


def _lock(folder: Path, timeout: float) -> FileLock:
    return FileLock(folder.with_name(folder.name + ".lock"), timeout=timeout)


def _wait_for_lock(folder: Path, *, quiet: bool) -> AcquireReturnProxy:
    lock = _lock(folder, timeout=-1)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say("Another process is computing features of the same images: waiting for it.", quiet=quiet)
        return lock.acquire()
