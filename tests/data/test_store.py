from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tandem import interrupts
from tandem.data import image_file
from tandem.data import store as store_module
from tandem.data.image_file import IMAGES_FILE
from tandem.data.manifest import Manifest, scan
from tandem.data.source import Source
from tandem.data.sources import find_source
from tandem.data.store import NUM_LOOKED_AT, open_store, open_stores, staged_stores
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

WriteImages = Callable[..., Path]

# Builds the store of a folder and prints what it reads. If a file `wait` is given, all images except the first are read
# only after that file was removed.
BUILDER = """
import dataclasses, hashlib, os, sys, time
from pathlib import Path
from tandem.data.manifest import scan
from tandem.data.sources import find_source
from tandem.data.store import open_store
from tandem.protocol.settings import DataSettings


folder, cache, wait = sys.argv[1:]
settings = DataSettings(source=folder, image_size=8, cache_folder=cache)
source = find_source(settings)
manifest, _ = scan(source, Path(cache), quiet=True)

def read(key):
    os.write(1, f"read {key}\\n".encode())  # in one piece, unlike print from several threads
    if wait and key != "cat/000.png":
        while Path(wait).exists():
            time.sleep(0.01)
    return source.read(key)

images = open_store(dataclasses.replace(source, read=read), manifest, settings)
print("pixels", hashlib.sha256(images).hexdigest(), flush=True)
"""


def scanned(folder: Path, tmp_path: Path) -> tuple[Source, Manifest]:
    source = find_source(DataSettings(source=str(folder)))
    manifest, problems = scan(source, tmp_path / "cache")
    assert problems == ()
    return source, manifest


def settings_of(tmp_path: Path, **settings: Any) -> DataSettings:
    return DataSettings(cache_folder=str(tmp_path / "cache"), **settings)


def start_builder(folder: Path, tmp_path: Path, wait: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(folder), str(tmp_path / "cache"), str(wait or "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1
    )


def slow_pwrite(handle: int, pixels: bytes, offset: int, write: Any = os.pwrite) -> int:
    """Writes slowly, so that a flush can end between two images."""
    time.sleep(0.01)
    return int(write(handle, pixels, offset))


def stores(tmp_path: Path, ending: str = "") -> list[Path]:
    folders = [path for path in (tmp_path / "cache/stores").iterdir() if path.is_dir()]
    return [path for path in folders if path.name.endswith(".partial") == bool(ending)]


def test_images_are_stored_in_the_order_of_the_manifest(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 40, "dog": 30}, size=(12, 10))
    source, manifest = scanned(folder, tmp_path)
    images = open_store(source, manifest, settings_of(tmp_path, image_size=8))
    assert images.shape == (70, 8, 8, 3)
    assert images.dtype == np.uint8
    assert not images.flags.writeable
    for row, key in enumerate(manifest.images["key"]):
        with Image.open(folder / key) as image:
            assert np.array_equal(images[row], np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))), key


@pytest.mark.parametrize(
    ("size", "resize", "image_size", "stored"),
    [
        ((10, 10), "squash", 32, (10, 10)),
        ((10, 10), "crop", 32, (10, 10)),
        ((12, 10), "squash", 32, (10, 12)),
        ((12, 10), "crop", 32, (32, 32)),
        ((12, 10), "squash", 11, (11, 11)),
        ((12, 12), "squash", 12, (12, 12)),
    ],
)
def test_small_images_of_one_size_are_stored_as_they_are(
    write_images: WriteImages,
    tmp_path: Path,
    size: tuple[int, int],
    resize: str,
    image_size: int,
    stored: tuple[int, int],
) -> None:
    folder = write_images({"cat": 2, "dog": 2}, size=size)
    source, manifest = scanned(folder, tmp_path)
    images = open_store(source, manifest, settings_of(tmp_path, image_size=image_size, resize=resize))
    assert images.shape == (4, *stored, 3)
    if stored == size[::-1]:
        with Image.open(folder / "cat/001.png") as image:
            assert np.array_equal(images[1], np.asarray(image))


def test_images_of_several_sizes_are_stored_at_the_backbones_size(write_images: WriteImages, tmp_path: Path) -> None:
    write_images({"cat": 2}, size=(10, 10))
    source, manifest = scanned(write_images({"dog": 2}, size=(12, 12)), tmp_path)
    assert open_store(source, manifest, settings_of(tmp_path, image_size=32)).shape == (4, 32, 32, 3)


def test_store_is_built_once_for_equal_settings(write_images: WriteImages, tmp_path: Path) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}, size=(12, 10)), tmp_path)
    open_store(source, manifest, settings_of(tmp_path, image_size=8))
    [store] = stores(tmp_path)
    before = (store / IMAGES_FILE).stat()
    open_store(source, manifest, settings_of(tmp_path, image_size=8, split_seed=3))
    after = (store / IMAGES_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    open_store(source, manifest, settings_of(tmp_path, image_size=8, resize="crop"))
    open_store(source, manifest, settings_of(tmp_path, image_size=9))
    assert len(stores(tmp_path)) == 3


def test_same_images_in_another_folder_share_the_store(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 3, "dog": 3})
    source, manifest = scanned(folder, tmp_path)
    first = open_store(source, manifest, settings_of(tmp_path, image_size=8))
    shutil.copytree(folder, tmp_path / "elsewhere")
    second = open_store(*scanned(tmp_path / "elsewhere", tmp_path), settings_of(tmp_path, image_size=8))
    assert np.array_equal(first, second)
    assert len(stores(tmp_path)) == 1


def test_half_built_store_is_never_read_and_is_removed(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 40, "dog": 40})
    wait = tmp_path / "wait"
    wait.touch()
    with start_builder(folder, tmp_path, wait) as builder:
        assert builder.stdout is not None
        builder.stdout.readline()
        [half_built] = stores(tmp_path, ".partial")
        assert (half_built / IMAGES_FILE).exists()
        assert stores(tmp_path) == []
        builder.send_signal(signal.SIGKILL)
    assert stores(tmp_path, ".partial") == [half_built]

    # building a store of another size removes it, too
    source, manifest = scanned(folder, tmp_path)
    open_store(source, manifest, settings_of(tmp_path, image_size=9))
    assert stores(tmp_path, ".partial") == []
    half_built.mkdir()
    (half_built / IMAGES_FILE).write_bytes(b"half an image")
    images = open_store(source, manifest, settings_of(tmp_path, image_size=8))
    assert stores(tmp_path, ".partial") == []
    with Image.open(folder / "dog/039.png") as image:
        assert np.array_equal(images[-1], np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)))


def test_two_processes_build_one_store_together(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 40, "dog": 40})
    wait = tmp_path / "wait"
    wait.touch()
    with start_builder(folder, tmp_path, wait) as first:
        assert first.stdout is not None
        first_lines = [first.stdout.readline()]
        with start_builder(folder, tmp_path) as second:
            assert second.stdout is not None and second.stderr is not None
            assert second.stderr.readline() == "Another process is decoding the same images: waiting for it.\n"
            # a third process does not remove their partial store
            source, manifest = scanned(folder, tmp_path)
            open_store(source, manifest, settings_of(tmp_path, image_size=9))
            wait.unlink()
            first_lines += first.stdout.readlines()
            second_lines = second.stdout.readlines()
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum(line.startswith("read ") for line in first_lines) == 80
    assert first_lines[-1].startswith("pixels ")
    assert second_lines == [first_lines[-1]]


def test_truncated_store_is_built_again(write_images: WriteImages, tmp_path: Path) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}), tmp_path)
    expected = np.array(open_store(source, manifest, settings_of(tmp_path, image_size=8)))
    [store] = stores(tmp_path)
    os.truncate(store / IMAGES_FILE, 500)
    assert np.array_equal(open_store(source, manifest, settings_of(tmp_path, image_size=8)), expected)


def test_failed_build_leaves_nothing_behind(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 3, "dog": 3})
    source, manifest = scanned(folder, tmp_path)
    (folder / "dog/001.png").write_bytes((folder / "cat/001.png").read_bytes())
    with pytest.raises(UserError, match=r"dog/001\.png: the file has changed since it was scanned"):
        open_store(source, manifest, settings_of(tmp_path, image_size=8))
    (folder / "dog/001.png").unlink()
    with pytest.raises(UserError, match=r"dog/001\.png: cannot be read any more"):
        open_store(source, manifest, settings_of(tmp_path, image_size=8))
    assert stores(tmp_path) == stores(tmp_path, ".partial") == []


@pytest.mark.parametrize(("flush_bytes", "num_flushes"), [(1, 1), (1, 3), (16 * 8 * 8 * 3, 1)])
def test_disk_error_during_the_build_fails_the_build(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_bytes: int, num_flushes: int
) -> None:
    """The system reports a failed write only once, so the flush at the end would not notice it."""
    flushed = []

    def flush(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == num_flushes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(image_file, "FLUSH_BYTES", flush_bytes)
    monkeypatch.setattr(image_file, "FLUSH", flush)
    monkeypatch.setattr(os, "pwrite", slow_pwrite)
    source, manifest = scanned(write_images({"cat": 8, "dog": 8}), tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        open_store(source, manifest, settings_of(tmp_path, image_size=8))
    assert len(flushed) == num_flushes
    assert stores(tmp_path) == stores(tmp_path, ".partial") == []


def test_full_disk_is_reported_before_images_are_decoded(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}, size=(300, 300)), tmp_path)
    needed = 6 * 224 * 224 * 3
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    message = r"^data\.cache_folder: the decoded images need 0\.9 MB in .*/stores, where 0\.9 MB are free; make room, "
    with pytest.raises(UserError, match=message):
        open_store(source, manifest, settings_of(tmp_path), quiet=True)
    assert stores(tmp_path) == stores(tmp_path, ".partial") == []
    with pytest.raises(UserError, match=r"need 2\.1 MB in "):
        open_stores(source, manifest, settings_of(tmp_path), for_crops=True, quiet=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    assert len(open_store(source, manifest, settings_of(tmp_path), quiet=True)) == 6


def test_size_on_disk_is_printed_before_the_build(
    write_images: WriteImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}), tmp_path)
    open_store(source, manifest, settings_of(tmp_path, image_size=200, resize="crop"))
    assert "Decoding 6 images into 0.7 MB in " in capsys.readouterr().err
    open_store(source, manifest, settings_of(tmp_path, image_size=200, resize="crop"))
    open_store(source, manifest, settings_of(tmp_path, image_size=199, resize="crop"), quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_random_crops_have_a_larger_store_of_the_same_rows(
    write_images: WriteImages, tmp_path: Path, resize: str
) -> None:
    folder = write_images({"cat": 3, "dog": 3}, size=(40, 30))
    source, manifest = scanned(folder, tmp_path)
    settings = settings_of(tmp_path, image_size=14, resize=resize)
    images, larger = open_stores(source, manifest, settings, for_crops=True)
    assert (images.shape, larger.shape) == ((6, 14, 14, 3), (6, 16, 16, 3))
    box = (0, 0, 40, 30) if resize == "squash" else (5, 0, 35, 30)
    for row, key in enumerate(manifest.images["key"]):
        with Image.open(folder / key) as image:
            for stored, side in ((images, 14), (larger, 16)):
                expected = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
                assert np.array_equal(stored[row], np.asarray(expected))


def test_larger_store_is_that_of_a_run_with_larger_images(write_images: WriteImages, tmp_path: Path) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}, size=(400, 300)), tmp_path)
    open_store(source, manifest, settings_of(tmp_path, image_size=224))
    open_store(source, manifest, settings_of(tmp_path, image_size=256))
    images, larger = open_stores(source, manifest, settings_of(tmp_path, image_size=224), for_crops=True)
    assert (images.shape[1], larger.shape[1]) == (224, 256)
    assert len(stores(tmp_path)) == 2


def test_without_random_crops_there_is_one_store(write_images: WriteImages, tmp_path: Path) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}, size=(40, 30)), tmp_path)
    images, training_images = open_stores(source, manifest, settings_of(tmp_path, image_size=14), for_crops=False)
    assert training_images is images
    assert len(stores(tmp_path)) == 1


@pytest.mark.parametrize(
    ("side", "served", "cut_from", "num_stores"),
    [(10, 10, 10, 1), (14, 14, 14, 1), (15, 14, 15, 2), (16, 14, 16, 2), (17, 14, 16, 2)],
)
def test_random_crops_are_cut_from_the_own_pixels_of_small_images(
    write_images: WriteImages, tmp_path: Path, side: int, served: int, cut_from: int, num_stores: int
) -> None:
    source, manifest = scanned(write_images({"cat": 2, "dog": 2}, size=(side, side)), tmp_path)
    images, larger = open_stores(source, manifest, settings_of(tmp_path, image_size=14), for_crops=True)
    assert (images.shape[1:3], larger.shape[1:3]) == ((served, served), (cut_from, cut_from))
    assert len(stores(tmp_path)) == num_stores


def test_size_of_both_stores_is_printed_before_either_is_built(
    write_images: WriteImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, manifest = scanned(write_images({"cat": 3, "dog": 3}, size=(500, 400)), tmp_path)
    settings = settings_of(tmp_path, image_size=224)
    open_stores(source, manifest, settings, for_crops=True)
    lines = capsys.readouterr().err.splitlines()
    # 6 x 3 x (224 x 224 + 256 x 256) bytes
    assert lines[0] == "With random resized crops, images are stored twice; to be written: 2.1 MB"
    assert len(lines) == 3
    assert lines[1].startswith("Decoding 6 images into 0.9 MB in ")
    assert lines[2].startswith("Decoding 6 images into 1.2 MB in ")
    open_stores(source, manifest, settings, for_crops=True)
    assert capsys.readouterr().err == ""


# -------------------------------------------------------------------------------------------- filled by the first scan


def scanned_and_stored(
    folder: Path, tmp_path: Path, *, for_crops: bool = False, **settings: Any
) -> tuple[tuple[np.memmap, np.memmap], list[str], int]:
    """Result of open_stores after a scan that fills stores, the keys that were read, and the number of filled
    stores."""
    found = find_source(DataSettings(source=str(folder)))
    read: list[str] = []

    def count(key: str) -> bytes:
        read.append(key)
        return found.read(key)

    source = dataclasses.replace(found, read=count)
    wanted = settings_of(tmp_path, **settings)
    with staged_stores(source, wanted, for_crops=for_crops, quiet=True) as staged:

        def keep(key: str, image: Image.Image) -> None:
            for store in staged:
                store.keep(key, image)

        manifest, _ = scan(source, tmp_path / "cache", keep=keep, quiet=True)
        num_filled = sum(store.holds(manifest, wanted) for store in staged)
        images = open_stores(source, manifest, wanted, for_crops=for_crops, staged=staged, quiet=True)
    return images, read, num_filled


def built_from_files(
    folder: Path, tmp_path: Path, *, for_crops: bool = False, **settings: Any
) -> tuple[np.memmap, np.memmap]:
    source = find_source(DataSettings(source=str(folder)))
    manifest, _ = scan(source, tmp_path / "anew/cache", quiet=True)
    wanted = settings_of(tmp_path / "anew", **settings)
    return open_stores(source, manifest, wanted, for_crops=for_crops, quiet=True)


@pytest.mark.parametrize("for_crops", [False, True])
@pytest.mark.parametrize("size", [(30, 20), (12, 10)], ids=["resized", "as they are"])
def test_first_scan_fills_the_store_and_every_file_is_decoded_once(
    write_images: WriteImages, tmp_path: Path, size: tuple[int, int], for_crops: bool
) -> None:
    folder = write_images({"cat": 30, "dog": 30}, size=size)
    images, read, _ = scanned_and_stored(folder, tmp_path, for_crops=for_crops, image_size=14)
    expected = built_from_files(folder, tmp_path, for_crops=for_crops, image_size=14)
    for found, store in zip(images, expected, strict=True):
        assert np.array_equal(found, store)
    assert len(read) <= 60 + (1 + for_crops) * NUM_LOOKED_AT  # the sizes of some files are read without decoding
    assert stores(tmp_path, ".partial") == []
    assert {store.name for store in stores(tmp_path)} == {store.name for store in stores(tmp_path / "anew")}


@pytest.mark.parametrize("others", [(12, 10), (40, 10)], ids=["smaller", "larger"])
def test_store_with_a_wrong_guess_is_built_from_the_files(
    write_images: WriteImages, tmp_path: Path, others: tuple[int, int]
) -> None:
    folder = write_images({"cat": 2 * NUM_LOOKED_AT, "dog": 2 * NUM_LOOKED_AT}, size=(10, 10))
    not_looked_at = find_source(DataSettings(source=str(folder))).images[1].key
    Image.new("RGB", others).save(folder / not_looked_at)
    images, _, num_filled = scanned_and_stored(folder, tmp_path, image_size=14)
    assert num_filled == 0
    assert images[0].shape[1:] == (14, 14, 3)
    assert np.array_equal(images[0], built_from_files(folder, tmp_path, image_size=14)[0])
    assert stores(tmp_path, ".partial") == []


def test_store_with_a_bad_file_is_built_from_the_files(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 5, "dog": 5}, size=(30, 20))
    (folder / "cat/002.png").write_bytes(b"text")
    images, _, num_filled = scanned_and_stored(folder, tmp_path, image_size=14)
    assert num_filled == 0
    assert images[0].shape == (9, 14, 14, 3)
    assert np.array_equal(images[0], built_from_files(folder, tmp_path, image_size=14)[0])
    assert stores(tmp_path, ".partial") == []


def test_signal_ends_a_scan_and_leaves_no_half_filled_store(
    write_images: WriteImages, tmp_path: Path, interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images({"cat": 60, "dog": 60})
    found = find_source(DataSettings(source=str(folder)))
    monkeypatch.setattr("tandem.data.console.num_cores", lambda: 1)
    read: list[str] = []

    def count(key: str) -> bytes:
        read.append(key)
        time.sleep(0.02)
        if len(read) == 2 * NUM_LOOKED_AT:
            interrupted()
        return found.read(key)

    source = dataclasses.replace(found, read=count)
    with (
        pytest.raises(interrupts.Interrupted),
        interrupts.watch(),
        staged_stores(source, settings_of(tmp_path), for_crops=False, quiet=True),
    ):
        scan(source, tmp_path / "cache", quiet=True)
    assert len(read) < 2 * NUM_LOOKED_AT + 20
    assert stores(tmp_path) == stores(tmp_path, ".partial") == []


def test_failed_scan_leaves_no_half_filled_store(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 3, "dog": 3})
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(UserError, match="readable images of 1 classes"):
        scanned_and_stored(folder, tmp_path, image_size=8)
    assert stores(tmp_path) == stores(tmp_path, ".partial") == []


def test_no_store_is_filled_without_room_or_beside_another_process(write_images: WriteImages, tmp_path: Path) -> None:
    source = find_source(DataSettings(source=str(write_images({"cat": 3, "dog": 3}, size=(30, 20)))))
    side = int((shutil.disk_usage(tmp_path).free / 3) ** 0.5)
    settings = settings_of(tmp_path, image_size=8, resize="crop")
    with staged_stores(source, dataclasses.replace(settings, image_size=side), for_crops=False, quiet=True) as staged:
        assert staged == ()
    with staged_stores(source, settings, for_crops=False, quiet=True) as first:
        assert len(first) == 1
        with staged_stores(source, settings, for_crops=False, quiet=True) as second:
            assert second == ()
        assert first[0].path.exists()


def test_nothing_is_filled_from_a_source_without_images(write_images: WriteImages, tmp_path: Path) -> None:
    source = dataclasses.replace(find_source(DataSettings(source=str(write_images({"cat": 1, "dog": 1})))), images=())
    with staged_stores(source, settings_of(tmp_path), for_crops=False, quiet=True) as staged:
        assert staged == ()


def test_store_damaged_on_the_disk_is_built_again_with_one_line(
    write_images: WriteImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
    expected = np.array(open_store(source, manifest, settings_of(tmp_path), quiet=True))
    (store,) = stores(tmp_path)
    content = bytearray((store / IMAGES_FILE).read_bytes())
    content[-5] ^= 1  # a single bit, which neither size nor shape shows
    (store / IMAGES_FILE).write_bytes(content)
    capsys.readouterr()
    assert np.array_equal(open_store(source, manifest, settings_of(tmp_path)), expected)
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("The decoded")] == [
        f"The decoded images in {store} are damaged: decoding them again"
    ]
    open_store(source, manifest, settings_of(tmp_path))
    assert capsys.readouterr().err == ""


def test_store_of_an_earlier_version_has_no_checksum_and_is_used(write_images: WriteImages, tmp_path: Path) -> None:
    source, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
    open_store(source, manifest, settings_of(tmp_path), quiet=True)
    (store,) = stores(tmp_path)
    (store / "checksum.txt").unlink()
    before = (store / IMAGES_FILE).stat().st_ino
    open_store(source, manifest, settings_of(tmp_path), quiet=True)
    assert (store / IMAGES_FILE).stat().st_ino == before


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_cache_obeys_the_umask(write_images: WriteImages, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        source, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
        open_store(source, manifest, settings_of(tmp_path), quiet=True)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
    assert {path.name for path in files} >= {"images.npy", "checksum.txt"}


def refuse_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of another user: root, in whom tests run in containers, may write anywhere."""

    def refuse(entry: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{entry}.lock")

    monkeypatch.setattr(store_module, "wait_for_lock", refuse)
    monkeypatch.setattr(store_module, "lock_of", refuse)


def test_store_of_another_user_is_read(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
    expected = np.array(open_store(source, manifest, settings_of(tmp_path), quiet=True))
    refuse_locks(monkeypatch)
    assert np.array_equal(open_store(source, manifest, settings_of(tmp_path), quiet=True), expected)


def test_cache_of_another_user_without_the_images_is_refused_in_one_line(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
    refuse_locks(monkeypatch)
    with staged_stores(source, settings_of(tmp_path), for_crops=False, quiet=True) as staged:
        assert staged == ()
    with pytest.raises(UserError, match=r"^data\.cache_folder: .*you cannot write.*name a folder of yours"):
        open_store(source, manifest, settings_of(tmp_path), quiet=True)


def test_scan_goes_on_if_it_cannot_be_kept(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tandem.data.manifest.whole_file", refuse)
    _, manifest = scanned(write_images({"cat": 4, "dog": 4}), tmp_path)
    assert len(manifest.images) == 8


def write_ordinary_images(root: Path) -> None:
    """Two images of each kind that was read before pixels of other ranges were."""
    random = np.random.default_rng(5)
    rgb = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    palette = rgb.convert("P")
    deep = Image.fromarray(random.integers(0, 65536, (30, 40)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        *(("png", rgb, {}), ("png", palette, {}), ("png", palette, {"transparency": 3}), ("png", rgb.convert("L"), {})),
        *(("png", rgb.convert("LA"), {}), ("png", rgb.convert("1"), {}), ("bmp", rgb, {}), ("gif", palette, {})),
        *(("tif", rgb, {}), ("tif", rgb.convert("CMYK"), {}), ("png", deep, {}), ("png", rgb, {"exif": exif})),
        *(("ppm", rgb, {}), ("webp", rgb, {"lossless": True})),
    ]
    for number, (kind, image, options) in enumerate(kinds):
        for name, of_class in (("cat", image), ("dog", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
            (root / name).mkdir(parents=True, exist_ok=True)
            of_class.save(root / name / f"{number:02d}.{kind}", **options)


# Computed by an earlier version. They have to stay as they are, since finished runs are compared with new ones.
PIXELS = {
    "squash": "0fd3d02e18b4db85c24a22fdd94b213869359012f56eeddfeb9b7f441e47f63d",
    "crop": "383bc6ad58f981d8c49b729ff889cab01547c57c42667bd8754de1f35d527326",
}


@pytest.mark.parametrize("how", PIXELS)
def test_pixels_of_ordinary_images_are_those_of_earlier_versions(tmp_path: Path, how: str) -> None:
    write_ordinary_images(tmp_path / "images")
    source, manifest = scanned(tmp_path / "images", tmp_path)
    images = open_store(source, manifest, settings_of(tmp_path, image_size=16, resize=how))
    assert hashlib.sha256(images.tobytes()).hexdigest() == PIXELS[how]


def test_store_of_ordinary_images_has_the_name_of_earlier_versions(tmp_path: Path) -> None:
    for number in range(6):
        for name in ("cat", "dog"):
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, name == "cat"]).integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.ppm")
    source, manifest = scanned(tmp_path / "images", tmp_path)
    images = open_store(source, manifest, settings_of(tmp_path, image_size=8))
    assert Path(str(images.filename)).parent.name == "40bfe5ed7256dde34f9b4e5d03ba2ffd"
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "9a1eb4daf7d1b7d4b373bcf69ffa738ec21244b5c10375dfb39f7be4cc42cd72"
    )


def test_other_pixel_ranges_are_other_stores(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            levels = np.random.default_rng(number).integers(100, 2000, (8, 8)).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / "images" / name / f"{number}.png")
    source = find_source(DataSettings(source=str(tmp_path / "images")))
    means = {}
    for pixel_range in ("auto", "full", "per_image"):
        manifest, _ = scan(source, tmp_path / "cache", pixel_range=pixel_range, quiet=True)
        means[pixel_range] = open_store(source, manifest, settings_of(tmp_path, image_size=8), quiet=True).mean()
    assert means["full"] < 5 < means["auto"] < 80 < means["per_image"]
    assert len(stores(tmp_path)) == 3
