from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tandem.data.prepare import PreparedData, prepare
from tandem.errors import UserError
from tandem.protocol.settings import AugmentationSettings, DataSettings

WriteImages = Callable[..., Path]

# Prepares the same folder twice, and prints how many of its files were opened each time.
TWICE = """
import os, sys
from tandem.data.prepare import prepare
from tandem.protocol.settings import AugmentationSettings, DataSettings


folder, cache = sys.argv[1:]
opened = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.fsdecode(arguments[0])
        if path.startswith(folder + os.sep):
            opened.append(path)

sys.addaudithook(watch)
for _ in range(2):
    opened.clear()
    prepare(DataSettings(source=folder, image_size=8, cache_folder=cache), quiet=True)
    print(len(opened))
"""


def prepared(folder: Path | str, tmp_path: Path, **settings: Any) -> PreparedData:
    values = {"image_size": 8, "cache_folder": str(tmp_path / "cache"), **settings}
    return prepare(DataSettings(source=str(folder), **values), quiet=True)


def damage(folder: Path) -> list[str]:
    """Three truncated JPEGs, a text file that is called a JPEG, and an empty class."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    for key in ("cat/a.jpg", "cat/b.jpeg", "dog/c.jpg"):
        Image.fromarray(noise).save(folder / key, "JPEG")
        (folder / key).write_bytes((folder / key).read_bytes()[:-300])
    (folder / "dog/text.jpg").write_text("this is a text")
    (folder / "owl").mkdir()
    return ["cat/a.jpg", "cat/b.jpeg", "dog/c.jpg", "dog/text.jpg", "owl/"]


def test_digits_are_ready_to_be_streamed(tmp_path: Path) -> None:
    data = prepared("digits", tmp_path, image_size=32)
    digits = load_digits()
    assert data.name == "digits"
    assert data.classes == tuple("0123456789")
    assert data.images.shape == (1797, 8, 8, 3)
    assert np.array_equal(data.labels, digits.target)
    assert np.array_equal(data.images[..., 1], np.round(digits.images * 255 / 16))
    assert data.keys[7] == "digits/0007"
    assert data.labels.dtype == np.int64
    shares = [len(data.rows(part)) / 1797 for part in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.005)


def test_random_crops_leave_validation_and_test_images_unchanged(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 6, "dog": 6}, size=(30, 20))
    plain = prepared(folder, tmp_path, image_size=14)
    settings = DataSettings(source=str(folder), image_size=14, cache_folder=str(tmp_path / "cache"))
    cropped = prepare(settings, AugmentationSettings(random_resized_crop=[0.5, 1.0]), quiet=True)
    assert plain.training_images is plain.images
    assert np.array_equal(cropped.images, plain.images) and cropped.images.shape[1:] == (14, 14, 3)
    assert cropped.training_images.shape == (12, 16, 16, 3)
    assert cropped.report == plain.report
    flipped = prepare(settings, AugmentationSettings(horizontal_flip=True, hue=0.1), quiet=True)
    assert flipped.training_images is flipped.images


def test_labels_follow_the_order_of_the_classes(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 5, "dog": 4, "owl": 6})
    data = prepared(folder, tmp_path, classes=["owl", "cat"])
    assert data.classes == ("owl", "cat")
    assert [data.classes[label] for label in data.labels] == [key.split("/")[0] for key in data.keys]


def test_one_message_names_all_bad_files_and_empty_classes(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 5, "dog": 5})
    bad = damage(folder)
    with pytest.raises(UserError) as caught:
        prepared(folder, tmp_path)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("data.source: 5 files or class folders in ") and "on_bad_image" in first
    assert [line.strip().split(":")[0] for line in lines] == bad
    with pytest.raises(UserError) as again:
        prepared(folder, tmp_path)
    assert str(again.value) == str(caught.value)


def test_bad_images_can_be_skipped_and_stay_listed(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 5, "dog": 5})
    bad = damage(folder)
    data = prepared(folder, tmp_path, on_bad_image="skip")
    assert data.classes == ("cat", "dog")
    assert len(data.images) == len(data.keys) == 10
    assert [line.split(":")[0] for line in data.bad_images] == bad
    data.write(tmp_path / "data")
    assert (tmp_path / "data/bad_images.txt").read_text().splitlines() == list(data.bad_images)
    assert data.report["num_bad_images"] == 5


def test_second_time_reads_no_image(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 6, "dog": 6})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", TWICE, str(folder), str(tmp_path / "cache")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # once to check it and once to decode it, and later not at all
    assert result.stdout.split() == ["24", "0"]
    assert result.stderr == ""


def test_added_image_is_noticed(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 6, "dog": 6})
    before = prepared(folder, tmp_path)
    write_images({"cat": 7})
    after = prepared(folder, tmp_path)
    assert set(after.keys) - set(before.keys) == {"cat/006.png"}
    assert len(after.images) == 13
    assert after.split.hash != before.split.hash


def test_written_files_describe_the_data(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"train/cat": 12, "train/dog": 20, "test/cat": 4, "test/dog": 4})
    copy = (folder / "test/dog/001.png").read_bytes()
    (folder / "train/dog/copy.png").write_bytes(copy)
    (folder / "test/cat/copy.png").write_bytes(copy)
    data = prepared(folder, tmp_path, split="publisher", fractions=[0.6, 0.2, 0.2])
    data.write(tmp_path / "run/data")
    assert sorted(path.name for path in (tmp_path / "run/data").iterdir()) == [
        "duplicates.csv",
        "report.json",
        "split.csv",
    ]
    assert data.bad_images == ()

    split = pd.read_csv(tmp_path / "run/data/split.csv")
    assert split["key"].tolist() == list(data.keys)
    assert split["hash"].tolist() == list(data.hashes)
    assert np.array_equal(np.flatnonzero(split["part"] == "test"), data.rows("test"))

    duplicates = pd.read_csv(tmp_path / "run/data/duplicates.csv", keep_default_na=False)
    assert duplicates[["key", "class", "part", "note"]].to_numpy().tolist() == [
        ["test/cat/copy.png", "cat", "test", ""],
        ["test/dog/001.png", "dog", "test", ""],
        ["train/dog/copy.png", "dog", "unused", "left out of train: a copy is in test"],
    ]

    report = json.loads((tmp_path / "run/data/report.json").read_text())
    assert report["num_images"] == 42
    assert {part: entry["images"] for part, entry in report["parts"].items()} == {
        "train": 24,
        "val": 8,
        "test": 9,
        "unused": 1,
    }
    assert report["classes"]["dog"]["test"] == {"images": 4, "percent": 16.0}
    assert report["duplicates"] == {
        "num_images": 3,
        "num_different_images": 1,
        "within_a_part": 1,
        "across_parts": 0,
        "across_classes": 1,
        "num_left_out": 1,
    }
    assert report["image_sizes"]["width"] == {"min": 12, "median": 12.0, "max": 12}
    assert report["store"] == {"height": 8, "width": 8, "bytes": 42 * 8 * 8 * 3}
    assert report["split"]["hash"] == data.split.hash


def test_copies_across_parts_are_reported_where_they_are_allowed(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    (folder / "train/dog/copy.png").write_bytes((folder / "test/dog/001.png").read_bytes())
    data = prepared(folder, tmp_path, split="publisher", duplicates="allow")
    assert data.report["duplicates"]["across_parts"] == 1
    assert data.report["duplicates"]["num_left_out"] == 0


def test_clean_data_has_no_lists_of_problems(write_images: WriteImages, tmp_path: Path) -> None:
    prepared(write_images({"cat": 5, "dog": 5}), tmp_path).write(tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["report.json", "split.csv"]


def test_summary_says_what_was_found(
    write_images: WriteImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images({"cat": 10, "dog": 10})
    (folder / "dog/copy.png").write_bytes((folder / "dog/001.png").read_bytes())
    (folder / "dog/bad.png").touch()
    prepare(DataSettings(source=str(folder), image_size=8, cache_folder=str(tmp_path / "cache"), on_bad_image="skip"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pets: 21 images of 2 classes (train 15, val 2, test 4)\n" in captured.err
    assert (
        "pets: 1 file or class folder left out as unreadable (dog/bad.png); 2 images have exact copies ("
        in captured.err
    )


def test_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_folder: received .*file/cache, which cannot be created"):
        prepared("digits", tmp_path, cache_folder=str(tmp_path / "file/cache"))
