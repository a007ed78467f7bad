from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tandem.data.sources import find_source
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

WriteImages = Callable[..., Path]


def test_digits_are_scaled_to_the_full_range() -> None:
    source = find_source(DataSettings(source="digits"))
    assert source.name == "digits"
    assert source.classes == tuple("0123456789")
    assert len(source.images) == 1797
    pixels = np.asarray(source.open("", source.read("digits/0007")))
    assert np.array_equal(pixels, np.round(load_digits().images[7] * 255 / 16))
    assert pixels.max() == 255


def test_digits_can_be_limited_to_some_classes() -> None:
    source = find_source(DataSettings(source="digits", classes=["9", "5"]))
    assert source.classes == ("9", "5")
    assert len(source.images) == int(np.isin(load_digits().target, (5, 9)).sum())


def test_class_folders_are_sorted_and_other_files_are_ignored(write_images: WriteImages) -> None:
    root = write_images({"dog": 2, "cat": 3, "cat/indoors": 1, ".git": 1})
    for name in ("labels.csv", "cat/notes.txt", "cat/.DS_Store", "cat/._000.png"):
        (root / name).write_text("no image")
    source = find_source(DataSettings(source=str(root)))
    assert source.name == "pets"
    assert source.classes == ("cat", "dog")
    assert sorted(image.key for image in source.images) == [
        "cat/000.png",
        "cat/001.png",
        "cat/002.png",
        "cat/indoors/000.png",
        "dog/000.png",
        "dog/001.png",
    ]
    assert {image.part for image in source.images} == {None}
    assert source.problems == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_publishers_parts_are_recognised(write_images: WriteImages, val: str) -> None:
    root = write_images({"train/cat": 2, "train/dog": 2, f"{val}/cat": 1, "test/dog": 1})
    source = find_source(DataSettings(source=str(root)))
    assert source.classes == ("cat", "dog")
    parts = {image.key: image.part for image in source.images}
    assert parts["train/cat/001.png"] == "train"
    assert parts[f"{val}/cat/000.png"] == "val"
    assert parts["test/dog/000.png"] == "test"


def test_a_class_called_train_is_a_class(write_images: WriteImages) -> None:
    source = find_source(DataSettings(source=str(write_images({"bus": 1, "car": 1, "train": 1, "train/steam": 1}))))
    assert source.classes == ("bus", "car", "train")
    assert len(source.images) == 4


def test_classes_are_kept_in_the_given_order(write_images: WriteImages) -> None:
    root = write_images({"cat": 1, "dog": 1, "owl": 1})
    source = find_source(DataSettings(source=str(root), classes=["owl", "cat"]))
    assert source.classes == ("owl", "cat")
    assert {image.class_name for image in source.images} == {"owl", "cat"}


def test_unknown_class_is_named_with_the_allowed_ones(write_images: WriteImages) -> None:
    root = write_images({"cat": 1, "dog": 1})
    with pytest.raises(UserError, match=r"data\.classes: .*there is no wolf; allowed: cat, dog"):
        find_source(DataSettings(source=str(root), classes=["cat", "wolf"]))


def test_missing_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"data\.source: received '.*nowhere', which does not exist; allowed: digits, .* of images per class",
    ):
        find_source(DataSettings(source=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("folders", [{}, {"cat": 3}])
def test_one_class_is_not_enough(write_images: WriteImages, tmp_path: Path, folders: dict[str, int]) -> None:
    (tmp_path / "pets").mkdir()
    write_images(folders)
    with pytest.raises(UserError, match="at least 2 classes; allowed: a folder with one folder of images"):
        find_source(DataSettings(source=str(tmp_path / "pets")))


def test_folder_that_cannot_be_listed_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.source: n{300} cannot be listed: .*; allowed: a folder with"):
        find_source(DataSettings(source="n" * 300))


def test_folder_with_the_name_of_a_data_set_is_not_passed_over_silently(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images({"cat": 3, "dog": 3}).rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert find_source(DataSettings(source="digits")).classes == tuple("0123456789")
    assert capsys.readouterr().err == "digits: the data set of this name and not the folder, which is ./digits\n"
    assert find_source(DataSettings(source="./digits")).classes == ("cat", "dog")
    assert capsys.readouterr().err == ""
