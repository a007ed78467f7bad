from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tandem.data.manifest import scan
from tandem.data.sources import find_source
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

WriteImages = Callable[..., Path]


def test_one_row_for_each_image_sorted_by_key(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"train/dog": 2, "train/cat": 1, "test/dog": 1}, size=(7, 5))
    manifest, problems = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    assert problems == ()
    images = manifest.images
    assert images["key"].tolist() == ["test/dog/000.png", "train/cat/000.png", "train/dog/000.png", "train/dog/001.png"]
    assert manifest.class_names == ["dog", "cat", "dog", "dog"]
    assert images["part"].tolist() == ["test", "train", "train", "train"]
    file = (root / "train/cat/000.png").read_bytes()
    row = images.iloc[1]
    assert (row["hash"], row["num_bytes"]) == (hashlib.sha256(file).hexdigest(), len(file))
    assert (row["height"], row["width"], row["mode"]) == (5, 7, "RGB")


def test_size_is_that_of_the_upright_image(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 1, "dog": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "cat/000.jpg", exif=exif)
    manifest, _ = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    row = manifest.images.set_index("key").loc["cat/000.jpg"]
    assert (row["height"], row["width"]) == (40, 20)


def test_all_kinds_of_bad_files_are_reported(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 2, "dog": 2})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "cat/cut.jpg")
    (root / "cat/cut.jpg").write_bytes((root / "cat/cut.jpg").read_bytes()[:-100])
    (root / "cat/text.jpg").write_text("this is a text")
    (root / "dog/empty.png").touch()
    (root / "dog/page.gif").write_text("<html>404</html>")
    (root / "dog/gone.png").symlink_to(root / "nowhere.png")
    damaged = bytearray((root / "dog/000.png").read_bytes())
    damaged[60:90] = bytes(30)
    (root / "dog/000.png").write_bytes(bytes(damaged))
    manifest, problems = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    assert [line.split(":")[0] for line in problems] == [
        "cat/cut.jpg",
        "cat/text.jpg",
        "dog/000.png",
        "dog/empty.png",
        "dog/gone.png",
        "dog/page.gif",
    ]
    assert manifest.images["key"].tolist() == ["cat/000.png", "cat/001.png", "dog/001.png"]


def test_classes_without_readable_images_are_left_out_and_listed(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"ape": 0, "bat": 1, "cat": 2, "dog": 2})
    (root / "bat/000.png").write_text("no image")
    manifest, problems = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    assert manifest.classes == ("cat", "dog")
    assert manifest.images["label"].tolist() == [0, 0, 1, 1]
    assert problems == (
        "ape/: a class folder without images",
        "bat/000.png: not an image, despite its name",
        "bat/: a class without any readable image",
    )


def test_fewer_than_two_readable_classes_are_an_error_with_reasons(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"ape": 0, "bat": 1, "cat": 2})
    (root / "bat/000.png").write_text("no image")
    with pytest.raises(UserError, match=r"(?s)at least 2.*ape/.*bat/000\.png"):
        scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")


def test_name_that_is_not_utf8_is_a_bad_image(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 1, "dog": 1})
    try:
        (root / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes((root / "cat/000.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    _, problems = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    assert problems == ("cat/caf\\xe9.png: its name is not UTF-8",)


def test_file_replaced_with_the_same_size_and_time_is_read_again(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 2, "dog": 2})
    path = root / "cat/000.png"
    before, _ = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after, problems = scan(find_source(DataSettings(source=str(root))), tmp_path / "cache")
    assert "cat/000.png" in before.images["key"].tolist()
    assert [line.split(":")[0] for line in problems] == ["cat/000.png"]
    assert "cat/000.png" not in after.images["key"].tolist()


def test_damaged_cache_is_ignored(write_images: WriteImages, tmp_path: Path) -> None:
    source = find_source(DataSettings(source=str(write_images({"cat": 2, "dog": 2}))))
    first, _ = scan(source, tmp_path / "cache")
    [cache] = (tmp_path / "cache/scans").iterdir()
    cache.write_text('[{"key": "cat/000.png"')
    second, _ = scan(source, tmp_path / "cache")
    assert second.images.equals(first.images)
