"""Small generated examples of the folders and files that people have, with what has to become of each.

    python -m tests.own_data FOLDER

writes all of them, each into a folder of its own. tests/data/test_own_data.py tries all; docs/data.md lists them.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import struct
import sys
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
from PIL import Image

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")

TRAIN, TEST = 10, 4
"""Images of a class in its training and its test folder."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A folder or file, and what has to become of it."""

    make: Callable[[Path], Path | None]
    """Writes it into an empty folder; returns the source if that is not the folder itself."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the group data."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number of images by publisher's part and class, such as {"train/cat": 10}; without parts {"cat": 10}."""
    split: str = "publisher"
    """The split that `auto` stands for."""
    said: Sequence[str] = ()
    """Regular expressions, each of which a line of the output has to match."""
    refused: str = ""
    """Regular expression that the error has to match; empty if the example is read."""
    listed: Sequence[str] = ()
    """Regular expressions, each of which a line below the error has to match, in this order."""


def write_image(path: Path, *, size: tuple[int, int] = (12, 10), **options: Any) -> None:
    """Writes an image of noise that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(os.fsencode("/".join(path.parts[-4:]))))
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path, **options)


def folders(numbers: Mapping[str, int], ending: str = ".png") -> Callable[[Path], None]:
    """A function that writes numbers of images into folders."""

    def make(root: Path) -> None:
        for folder, number in numbers.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                write_image(root / folder / f"{index:03d}{ending}")

    return make


def parts(**names: str) -> Callable[[Path], None]:
    """A function that writes cats and dogs into folders for training, validation and test."""
    numbers = {"train": TRAIN, "val": TEST, "test": TEST}
    return folders({f"{name}/{kind}": numbers[part] for part, name in names.items() for kind in ("cat", "dog")})


def pets(*of: str) -> dict[str, int]:
    """Number of images that `parts` writes."""
    numbers = {"train": TRAIN, "val": TEST, "test": TEST}
    return {f"{part}/{kind}": numbers[part] for part in of for kind in ("cat", "dog")}


def both(*makers: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for maker in makers:
            maker(root)

    return make


def link(name: str, target: str) -> Callable[[Path], None]:
    """A function that makes a symbolic link with this content."""

    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)

    return make


def texts(**contents: str) -> Callable[[Path], None]:
    """A function that writes text files, with __ for a slash in their names."""

    def make(root: Path) -> None:
        for name, content in contents.items():
            path = root / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return make


PETS = folders({"cat": TRAIN, "dog": TRAIN})
PETS_IMAGES = {"cat": TRAIN, "dog": TRAIN}


def recognised(**names: str) -> Example:
    """Folders with the words of parts."""
    said = [rf"publisher's split \(.*{name} is {part}" for part, name in names.items() if part != name]
    if "val" not in names:
        said.append("12.5 % of train becomes val, since there is none")
    return Example(make=parts(**names), images=pets(*names), said=said)


def not_understood(numbers: Mapping[str, int], named: str) -> Example:
    """Folders that look like parts and have no words of parts."""
    return Example(make=folders(numbers), refused=rf"data\.source: .* holds .*{named}.*data\.parts")


LAYOUTS: dict[str, Example] = {
    # ------------------------------------------------------------------------------------------ parts by their names
    "class_folders": Example(
        make=PETS, images=PETS_IMAGES, split="fractions", said=["split into train 70 %, val 10 %, test 20 %"]
    ),
    "train_val_test": Example(
        make=parts(train="train", val="val", test="test"),
        images=pets("train", "val", "test"),
        said=[r"publisher's split \(train, val, test\)$"],
    ),
    "train_test": recognised(train="train", test="test"),
    "training_testing": recognised(train="Training", test="Testing"),
    "training_set_test_set": recognised(train="training_set", test="test_set"),
    "upper_case": recognised(train="TRAIN", val="VAL", test="TEST"),
    "prefixes": recognised(train="seg_train", test="seg_test"),
    "suffixes": recognised(train="train_images", val="valid_images", test="test_images"),
    "joined_words": recognised(train="trainset", val="devset", test="testset"),
    "camel_case": recognised(train="TrainData", test="TestData"),
    "short_words": recognised(train="trn", val="vld", test="tst"),
    "numbers": recognised(train="1_train", val="2_validation", test="3_test"),
    "years": recognised(train="train2017", test="test2017"),
    "plurals": recognised(train="trainings", test="tests"),
    "dev": recognised(train="train", val="dev", test="test"),
    "eval": recognised(train="train", val="eval", test="test"),
    "holdout": recognised(train="train", test="hold-out"),
    "train_eval": Example(
        make=parts(train="train", val="eval"),
        images={"train/cat": TRAIN, "train/dog": TRAIN, "test/cat": TEST, "test/dog": TEST},
        said=[
            "eval is test",
            "eval/ is used as test, since there is no other held-out part; data.parts says otherwise",
        ],
    ),
    "train_validate": Example(
        make=parts(train="Train", val="Validate"),
        images={"train/cat": TRAIN, "train/dog": TRAIN, "test/cat": TEST, "test/dog": TEST},
        said=["Train is train, Validate is test", "Validate/ is used as test"],
    ),
    "train_alone": Example(
        make=parts(train="train"), images=PETS_IMAGES, split="fractions", said=["looked into train/"]
    ),
    "merged_on_request": Example(
        make=parts(train="train", test="test"),
        settings={"split": "fractions"},
        images=pets("train", "test"),
        split="fractions",
        said=[
            r"the publisher's parts \(train, test\) are merged and dealt anew, as data.split fractions says: train 70 %"
        ],
    ),
    "parts_in_classes": Example(
        make=folders({"cat/train": TRAIN, "cat/test": TEST, "dog/train": TRAIN, "dog/test": TEST}),
        images=pets("train", "test"),
        said=["publisher's split"],
    ),
    # -------------------------------------------------------------------------------------- what is not understood
    "trainval": Example(
        make=parts(train="trainval", test="test"), refused=r"holds .*trainval/.*data\.parts.*trainval.*test"
    ),
    "trainval_named": Example(
        make=parts(train="trainval", test="test"),
        settings={"parts": {"train": "trainval", "test": "test"}},
        images=pets("train", "test"),
        said=["trainval is train"],
    ),
    "two_for_training": Example(
        make=parts(train="trainA", val="trainB", test="testA"), refused="which both look like train.*data.parts"
    ),
    "no_training": Example(make=parts(val="val", test="test"), refused="no folder for training.*data.parts"),
    "batches": not_understood({f"batch{n}/{kind}": 3 for n in "12" for kind in ("cat", "dog")}, "batch1/, batch2/"),
    "variants": not_understood(
        {f"{variant}/{kind}": 3 for variant in ("color", "grayscale", "segmented") for kind in ("oak", "elm", "ash")},
        "color/, grayscale/, segmented/",
    ),
    "fold_folders": not_understood({f"fold{n}/{kind}": 3 for n in "123" for kind in ("cat", "dog")}, "fold1/"),
    "batches_named": Example(
        make=folders({f"batch{n}/{kind}": 5 for n in "123" for kind in ("cat", "dog")}),
        settings={"parts": {"train": "batch1", "test": "batch2"}},
        images={"train/cat": 5, "train/dog": 5, "test/cat": 5, "test/dog": 5},
        said=["batch3/ is not used: data.parts does not name it"],
    ),
    "third_folder_with_the_same_classes": Example(
        make=both(parts(train="train", test="test"), folders({"augmented/cat": 3, "augmented/dog": 3})),
        refused=r"augmented/ is not understood.*data\.parts",
    ),
    "named_folder_does_not_exist": Example(
        make=parts(train="train", test="test"),
        settings={"parts": {"train": "train", "test": "Testing"}},
        refused=r"data\.parts: received \{test: Testing\}, but the folders in .* are test, train",
    ),
    "named_folder_outside": Example(
        make=parts(train="train", test="test"),
        settings={"parts": {"train": "train", "test": "../elsewhere"}},
        refused=r"data\.parts: received \{test: \.\./elsewhere\}",
    ),
    # ------------------------------------------------------------------------- classes that are called like parts
    "class_called_train": Example(
        make=folders({"bus": 5, "car": 5, "train": 5}),
        images={"bus": 5, "car": 5, "train": 5},
        split="fractions",
        said=["train/ is a class, since it holds images and no class folders"],
    ),
    "class_called_train_with_subfolders": Example(
        make=folders({"bus": 5, "car": 5, "train/steam": 5, "train/diesel": 5}),
        refused="train/ could be a part or a class; data.parts.*data.classes",
    ),
    "class_called_train_named": Example(
        make=folders({"bus": 5, "car": 5, "train/steam": 5, "train/diesel": 5}),
        settings={"classes": ["bus", "car", "train"]},
        images={"bus": 5, "car": 5, "train": 10},
        split="fractions",
    ),
    "class_called_test": Example(
        make=folders({"exam": 5, "quiz": 5, "test": 5}),
        refused=r"test/, which could be a class or images without labels; .*data.classes",
    ),
    "class_called_test_named": Example(
        make=folders({"exam": 5, "quiz": 5, "test": 5}),
        settings={"classes": ["exam", "quiz", "test"]},
        images={"exam": 5, "quiz": 5, "test": 5},
        split="fractions",
    ),
    # --------------------------------------------------------------------------------------- images without labels
    "test_of_kaggle": Example(
        make=both(parts(train="train"), folders({"test/test1": 6})),
        images={"train/cat": TRAIN, "train/dog": TRAIN},
        split="fractions",
        said=["test/test1/: 6 images without labels, not used", "train alone has labels"],
    ),
    "flat_test": Example(
        make=both(parts(train="train", val="val"), folders({"test": 6})),
        images={"train/cat": TRAIN, "train/dog": TRAIN, "test/cat": TEST, "test/dog": TEST},
        said=["test/: 6 images without labels, not used", "val/ is used as test"],
    ),
    "predict": Example(
        make=both(
            folders({f"seg_{part}/seg_{part}/{kind}": 6 for part in ("train", "test") for kind in ("ice", "sea")}),
            folders({"seg_pred/seg_pred": 5}),
        ),
        images={f"{part}/{kind}": 6 for part in ("train", "test") for kind in ("ice", "sea")},
        said=["looked into seg_train/seg_train/", "seg_pred/: 5 images without labels, not used"],
    ),
    "flat_parts": Example(
        make=folders({"train": 5, "test": 5}),
        refused=r"holds test/, train/ with images that are not in a folder per class; .*data\.labels",
    ),
    "flat_folder_with_a_table": Example(
        make=both(folders({".": 5}), texts(breeds_DOT_csv="id,breed\n000,pug\n")),
        refused=r"holds images that are not in a folder per class; .*--data\.labels breeds\.csv",
    ),
    "flat_train_with_a_table": Example(
        make=both(folders({"train": 5, "extra": 2}), texts(train_DOT_csv="id,breed\n000,pug\n")),
        refused=r"holds train/ with images that are not in a folder per class; .*--data\.labels train\.csv",
    ),
    "wrapped_flat_train": Example(
        make=folders({"train/images": 5, "test/images": 5}),
        refused=r"images that are not in a folder per class; .*data\.labels",
    ),
    "images_beside_the_classes": Example(
        make=both(PETS, folders({".": 3})),
        images=PETS_IMAGES,
        split="fractions",
        said=["passed over: 3 images without a class directly in the folder"],
    ),
    "images_beside_the_classes_of_a_part": Example(
        make=both(parts(train="train", test="test"), folders({"train": 2})),
        images=pets("train", "test"),
        said=["passed over: 2 images without a class directly in train/"],
    ),
    # -------------------------------------------------------------------------------------- classes of one part only
    "class_of_one_part": Example(
        make=both(parts(train="train", test="test"), folders({"train/owl": 5})),
        refused=r"1 of 3 classes are not in every part of .*: owl \(none in test\).*data\.classes \[cat, dog\]",
    ),
    "class_of_the_test_part": Example(
        make=both(parts(train="train", test="test"), folders({"test/owl": 5})),
        refused=r"owl \(none in train\)",
    ),
    "class_of_one_part_left_out": Example(
        make=both(parts(train="train", test="test"), folders({"train/owl": 5})),
        settings={"classes": ["cat", "dog"]},
        images=pets("train", "test"),
    ),
    "parts_without_a_common_class": Example(
        make=folders({"train/cat": 5, "train/dog": 5, "test/oak": 5, "test/elm": 5}),
        refused=r"no class in both train/ \(cat, dog\) and test/ \(elm, oak\).*data\.parts",
    ),
    "class_with_one_image": Example(make=folders({"cat": 9, "dog": 1}), refused="dog has 1 .*at least 3 different"),
    "empty_part": Example(
        make=folders({"train/cat": TRAIN, "train/dog": TRAIN, "test": 0}),
        images=PETS_IMAGES,
        split="fractions",
        said=["test/ is not used: it holds no images", "looked into train/"],
    ),
    "batches_in_training": Example(
        make=folders({f"{part}/{kind}": 3 for part in ("train/a", "train/b", "test/a") for kind in ("cat", "dog")}),
        refused=r"train/a/, train/b/, which hold folders of the same names \(cat, dog\): they look like parts; .*parts",
    ),
    "groups_in_parts": Example(
        make=folders(
            {f"{part}/{kind}": 4 for part in ("train", "test") for kind in ("animal/cat", "animal/dog", "plant/oak")}
        ),
        images={"train/animal": 8, "train/plant": 4, "test/animal": 8, "test/plant": 4},
        said=["images in subfolders count for their class folder: train/animal/cat, train/animal/dog, train/plant/oak"],
    ),
    "archive": Example(
        make=both(folders({"cat": 3}), lambda root: (root / "dogs.zip").touch()),
        refused=r"has 1 class \(cat\), .*; unpack dogs.zip first",
    ),
    # ------------------------------------------------------------------------------------------ wrappers and copies
    "lone_folder": Example(
        make=folders({"archive/cat": TRAIN, "archive/dog": TRAIN}),
        images=PETS_IMAGES,
        split="fractions",
        said=["looked into archive/"],
    ),
    "folder_in_a_folder": Example(
        make=both(parts(train="archive/archive/train", test="archive/archive/test"), folders({"__MACOSX/archive": 2})),
        images=pets("train", "test"),
        said=["looked into archive/archive/"],
    ),
    "nested_copy_beside_parts": Example(
        make=both(
            parts(train="train", test="test"),
            folders({f"archive/{part}/{kind}": 3 for part in ("train", "test") for kind in ("cat", "dog")}),
        ),
        images=pets("train", "test"),
        said=["archive/ is not used: it has parts of its own, like a nested copy"],
    ),
    "nested_copy_beside_classes": Example(
        make=both(PETS, folders({"pets/cat": 3, "pets/dog": 3})),
        refused="pets/, whose folders are called like its neighbours.*data.classes",
    ),
    "nested_copy_left_out": Example(
        make=both(PETS, folders({"pets/cat": 3, "pets/dog": 3})),
        settings={"classes": ["cat", "dog"]},
        images=PETS_IMAGES,
        split="fractions",
    ),
    "classes_beside_parts": Example(
        make=both(parts(train="train", test="test"), PETS),
        images=pets("train", "test"),
        said=["cat/ is not used: a class folder beside the parts"],
    ),
    "groups_of_classes": Example(
        make=folders({"animal/cat": 5, "animal/dog": 5, "plant/oak": 5, "plant/elm": 5}),
        images={"animal": 10, "plant": 10},
        split="fractions",
        said=["images in subfolders count for their class folder: animal/cat, animal/dog, plant/elm, plant/oak"],
    ),
    "classes_with_the_same_subfolders": Example(
        make=folders({f"{kind}/{place}": 5 for kind in ("cat", "dog") for place in ("indoors", "outdoors")}),
        refused=r"cat/, dog/.*same names \(indoors, outdoors\).*if they are classes, name them with data\.classes",
    ),
    "classes_with_the_same_subfolders_named": Example(
        make=folders({f"{kind}/{place}": 5 for kind in ("cat", "dog") for place in ("indoors", "outdoors")}),
        settings={"classes": ["cat", "dog"]},
        images={"cat": 10, "dog": 10},
        split="fractions",
    ),
    # --------------------------------------------------------------------------------------------- folders of systems
    "system_folders": Example(
        make=both(
            PETS,
            folders(
                {
                    **{f"{name}/cat": 2 for name in ("lost+found", "$RECYCLE.BIN", "@eaDir", "__MACOSX", "_trash")},
                    **{f"{name}/cat": 2 for name in (".ipynb_checkpoints", ".Trash-1000", "#recycle", "@Recycle")},
                    **{f"{name}/cat": 2 for name in ("System Volume Information", "~snapshot", "found.000")},
                    "cat/@eaDir/000.jpg": 1,
                    "dog/__MACOSX": 2,
                }
            ),
            texts(cat__Thumbs_DOT_db="no image", dog___DOT_DS_Store="no image", dog__desktop_DOT_ini="[x]"),
        ),
        images=PETS_IMAGES,
        split="fractions",
        said=[
            r"passed over: 2 files \(.db 1, .ini 1\); 14 folders of systems \(@eaDir 2, __MACOSX 2, .*; 1 hidden file"
        ],
    ),
    "masks_beside_the_images_of_a_class": Example(
        make=folders({"cat": TRAIN, "cat/masks": 4, "dog": TRAIN, "dog/masks/old": 3}),
        images={"cat": TRAIN + 4, "dog": TRAIN + 3},
        split="fractions",
        said=["7 images in folders beside the images of a class count for the class: cat/masks/ 4, dog/masks/old/ 3"],
    ),
    "masks_beside_the_images": Example(
        make=folders({"images": 5, "masks": 5}),
        refused=r"holds images/, masks/ with images that are not in a folder per class; .*data\.labels",
    ),
    "annotations_beside_the_images": Example(
        make=folders({"Images/cat": 5, "Images/dog": 5, "annotations/trimaps": 5}),
        refused=r"Images/ is not called like a class; name the folder that holds the class folders with data\.source",
    ),
    "classes_called_like_folders": Example(
        make=folders({"labels": 5, "tins": 5}),
        settings={"classes": ["labels", "tins"]},
        images={"labels": 5, "tins": 5},
        split="fractions",
    ),
    "folders_that_look_like_a_systems": Example(
        make=folders({"$1": 5, "$5": 5, "#recycle": 2}), refused=r"holds \$1/, \$5/, which could be classes or folders"
    ),
    "folders_that_look_like_a_systems_in_parts": Example(
        make=both(parts(train="train", test="test"), folders({"train/@new_thumbs": 2, "test/@new_thumbs": 2})),
        refused=r"holds train/@new_thumbs/, which could be .*data\.classes, such as \[cat, dog\]",
    ),
    "folders_that_look_like_a_systems_named": Example(
        make=folders({"$1": 5, "$5": 5, "@new_thumbs": 2, "$1/@new_thumbs": 2}),
        settings={"classes": ["$1", "$5"]},
        images={"$1": 5, "$5": 5},
        split="fractions",
        said=[r"passed over: 1 folder of a system \(@new_thumbs\)"],
    ),
    "archive_of_the_test_images": Example(
        make=both(parts(train="train"), lambda root: (root / "test.zip").touch()),
        images=PETS_IMAGES,
        split="fractions",
        said=[r"passed over: 1 file \(.zip 1\)"],
    ),
    "archive_beside_the_classes": Example(
        make=both(PETS, lambda root: (root / "owls.zip").touch(), texts(README="pets")),
        images=PETS_IMAGES,
        split="fractions",
        said=[r"passed over: 2 files \(.zip 1, no ending 1\)"],
    ),
    "files_in_the_cloud": Example(
        make=both(PETS, texts(cat___DOT_a_DOT_jpg_DOT_icloud="bplist", cat___DOT_b_DOT_jpg_DOT_icloud="bplist")),
        images=PETS_IMAGES,
        split="fractions",
        said=["passed over: 2 files that iCloud has not downloaded"],
    ),
    "system_folders_in_parts": Example(
        make=both(parts(train="train", test="test"), folders({"train/@eaDir": 2, "lost+found": 2})),
        images=pets("train", "test"),
        said=[r"passed over: 2 folders of systems \(@eaDir, lost\+found\)"],
    ),
    # ------------------------------------------------------------------------------------------------------ spellings
    "composed_and_decomposed_in_parts": Example(
        make=folders({f"train/{NFC}": 6, "train/tea": 6, f"test/{NFD}": 3, "test/tea": 3}),
        images={f"train/{NFC}": 6, "train/tea": 6, f"test/{NFC}": 3, "test/tea": 3},
        said=["café/ is spelled in 2 ways that look the same"],
    ),
    "composed_and_decomposed_in_one_folder": Example(
        make=folders({NFC: 6, NFD: 5, "tea": 6}),
        images={NFC: 11, "tea": 6},
        split="fractions",
        said=["café/ is spelled in 2 ways that look the same"],
    ),
    "decomposed_class_is_chosen": Example(
        make=folders({NFC: 6, "tea": 6, "milk": 6}),
        settings={"classes": [NFD, "tea"]},
        images={NFC: 6, "tea": 6},
        split="fractions",
    ),
    "case": Example(
        make=folders({"Cat": 5, "cat": 5}), refused="'Cat' and 'cat' differ only by case, blanks or hyphens"
    ),
    "blank_at_the_end": Example(make=folders({"cat": 5, "cat ": 5}), refused="'cat' and 'cat ' differ only by"),
    "blank_within": Example(make=folders({"blue jay": 5, "blue  jay": 5}), refused="'blue  jay' and 'blue jay'"),
    "invisible_character": Example(
        make=folders({"cat": 5, "c\u200bat": 5}), refused="differ only by case, blanks or hyphens"
    ),
    "hyphens": Example(
        make=folders({"train/blue_jay": 5, "train/crow": 5, "test/blue-jay": 5, "test/crow": 5}),
        refused="'blue-jay' and 'blue_jay' differ only by case, blanks or hyphens",
    ),
    "hyphens_of_numbers": Example(
        make=folders({"1-2": 5, "12": 5, "A-": 5, "A": 5}),
        images={"1-2": 5, "12": 5, "A-": 5, "A": 5},
        split="fractions",
    ),
    "case_across_parts": Example(
        make=folders({"train/Cat": 5, "train/dog": 5, "test/cat": 5, "test/dog": 5}),
        refused="'Cat' and 'cat' differ only by case, blanks or hyphens",
    ),
    "case_is_meant": Example(
        make=folders({"A": 5, "a": 5}), settings={"classes": ["A", "a"]}, images={"A": 5, "a": 5}, split="fractions"
    ),
    # ----------------------------------------------------------------------------------------------------------- links
    "link_to_the_parent": Example(
        make=both(PETS, link("cat/up", "..")),
        images=PETS_IMAGES,
        split="fractions",
        said=["passed over: 1 link to folders that are read already: cat/up -> "],
    ),
    "link_above_the_folder": Example(
        make=both(PETS, link("cat/up", "../.."), link("further", "..")),
        images=PETS_IMAGES,
        split="fractions",
        said=["read already: cat/up -> "],
    ),
    "link_to_another_class": Example(
        make=both(PETS, link("cat/more", "../dog")),
        images=PETS_IMAGES,
        split="fractions",
        said=["read already: cat/more -> dog/"],
    ),
    "link_into_another_class": Example(
        make=both(PETS, folders({"dog/indoors": 3}), link("cat/more", "../dog/indoors")),
        images={"cat": TRAIN, "dog": TRAIN + 3},
        split="fractions",
        said=["read already: cat/more -> dog/indoors/"],
    ),
    "link_into_a_class_that_is_not_used": Example(
        make=both(PETS, folders({"owl/young": 3}), link("cat/more", "../owl/young")),
        settings={"classes": ["cat", "dog"]},
        images=PETS_IMAGES,
        split="fractions",
        said=["read already: cat/more -> owl/young/"],
    ),
    "class_is_a_link_to_another": Example(
        make=both(PETS, link("kitty", "cat")),
        images=PETS_IMAGES,
        split="fractions",
        said=["kitty/ is not used: a link to cat/"],
    ),
    "part_is_a_link_to_another": Example(
        make=both(parts(train="train", test="test"), link("val", "test")),
        images=pets("train", "test"),
        said=["val/ is not used: a link to test/", "12.5 % of train becomes val"],
    ),
    "links_in_a_circle": Example(
        make=both(PETS, link("cat/a", "b"), link("cat/b", "a")),
        images=PETS_IMAGES,
        split="fractions",
        said=[r"passed over: 2 links to what does not exist \(cat/a -> b, cat/b -> a\)"],
    ),
    "links_that_lead_nowhere": Example(
        make=both(PETS, link("owl", "/mnt/gone/owl"), link("cat/more", "../gone")),
        images=PETS_IMAGES,
        split="fractions",
        said=[r"passed over: 2 links to what does not exist \(cat/more -> ../gone, owl -> /mnt/gone/owl\)"],
    ),
    "links_to_files_of_another_class": Example(
        make=both(PETS, link("cat/other.png", "../dog/001.png")),
        images={"cat": TRAIN + 1, "dog": TRAIN},
        split="fractions",
        said=[
            "1 link to files of another class or part, which count as copies: cat/other.png -> dog/001.png",
            "in several classes: 1",
        ],
    ),
    "links_to_folders_elsewhere": Example(
        make=both(
            folders({"elsewhere/photographs": TRAIN, "pets/dog": TRAIN}), link("pets/cat", "../elsewhere/photographs")
        ),
        settings={"source": "pets"},
        images=PETS_IMAGES,
        split="fractions",
    ),
    "links_to_files_elsewhere": Example(
        make=both(
            folders({"all": 20}),
            *(link(f"pets/{kind}/{n}.png", f"../../all/{n:03d}.png") for n, kind in enumerate(["cat", "dog"] * 10)),
        ),
        settings={"source": "pets"},
        images=PETS_IMAGES,
        split="fractions",
    ),
}


def table(
    name: str, rows: Sequence[Sequence[object]], delimiter: str = ",", encoding: str = "utf-8"
) -> Callable[[Path], None]:
    """A function that writes a table as text."""

    def make(root: Path) -> None:
        with (root / name).open("w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)

    return make


NUM_FLAT = 12
FLAT = folders({"images": NUM_FLAT})
KINDS = ["cat", "dog"] * (NUM_FLAT // 2)
FLAT_IMAGES = {"cat": 6, "dog": 6}
PATHS = [f"images/{n:03d}.png" for n in range(NUM_FLAT)]
IDS = [f"{n:03d}" for n in range(NUM_FLAT)]
PARTS_OF_ROWS = ["train"] * 8 + ["test"] * 4
PARTS_IMAGES = {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}


def labelled(
    header: Sequence[str],
    *columns: Sequence[object],
    name: str = "labels.csv",
    delimiter: str = ",",
    encoding: str = "utf-8",
    images: Mapping[str, int] = FLAT_IMAGES,
    more: Sequence[Sequence[object]] = (),
    split: str = "fractions",
    **expected: Any,
) -> Example:
    """Twelve images in one folder and a table with these columns."""
    rows = [*([header] if header else []), *zip(*columns, strict=True), *more]
    settings = {"labels": name, **expected.pop("settings", {})}
    make = both(FLAT, table(name, rows, delimiter, encoding))
    return Example(make=make, settings=settings, images=images, split=split, **expected)


def write_records(root: Path) -> None:
    lines = [json.dumps({"file_name": path, "label": kind}) for path, kind in zip(PATHS, KINDS, strict=True)]
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def write_parquet_labels(root: Path) -> None:
    pandas.DataFrame({"id": IDS, "label": [float(n % 2) for n in range(NUM_FLAT)]}).to_parquet(root / "labels.parquet")


TABLES: dict[str, Example] = {
    "path_and_label": labelled(
        ["path", "label"], PATHS, KINDS, said=["labels.csv: files in column path, classes in column label"]
    ),
    "kaggle_ids": labelled(["id", "breed"], IDS, KINDS, said=["files in column id, classes in column breed"]),
    "names_alone": labelled(["filename", "class"], [path[7:] for path in PATHS], KINDS),
    "absolute_paths_of_another_machine": labelled(["image", "target"], [f"/home/ann/{path}" for path in PATHS], KINDS),
    "backslashes": labelled(["image", "target"], [path.replace("/", "\\") for path in PATHS], KINDS),
    "upper_case_names": labelled(["file", "label"], [path.upper() for path in PATHS], KINDS),
    "tabs": labelled(["path", "label"], PATHS, KINDS, name="labels.tsv", delimiter="\t"),
    "semicolons": labelled(["path", "label"], PATHS, KINDS, delimiter=";"),
    "no_header": labelled([], PATHS, KINDS, name="list.txt", delimiter=" ", said=["list.txt has no header"]),
    "marked_utf8": labelled(
        ["path", "label"], PATHS, ["thé", "café"] * 6, encoding="utf-8-sig", images={"thé": 6, "café": 6}
    ),
    "utf16": labelled(["path", "label"], PATHS, ["thé", "café"] * 6, encoding="utf-16", images={"thé": 6, "café": 6}),
    "windows_1252": labelled(
        ["path", "label"],
        PATHS,
        ["thé", "café"] * 6,
        encoding="cp1252",
        images={"thé": 6, "café": 6},
        said=["labels.csv is not in UTF-8 and was read as Windows-1252"],
    ),
    "jsonl": Example(
        make=both(FLAT, write_records), settings={"labels": "metadata.jsonl"}, images=FLAT_IMAGES, split="fractions"
    ),
    "parquet_table": Example(
        make=both(FLAT, write_parquet_labels),
        settings={"labels": "labels.parquet"},
        images={"0": 6, "1": 6},
        split="fractions",
    ),
    "numbers_in_order": labelled(["path", "label"], PATHS, [10, 9, 2] * 4, images={"2": 4, "9": 4, "10": 4}),
    "one_hot": labelled(
        ["image_id", "healthy", "rust"],
        IDS,
        [1, 0] * 6,
        [0, 1] * 6,
        images={"healthy": 6, "rust": 6},
        said=["classes in the columns healthy, rust"],
    ),
    "several_flags_in_a_row": labelled(
        ["image_id", "healthy", "rust"], IDS, [1] * 12, [0, 1] * 6, refused="gives 001 the classes healthy, rust"
    ),
    "part": labelled(
        ["path", "label", "part"],
        PATHS,
        KINDS,
        PARTS_OF_ROWS,
        images=PARTS_IMAGES,
        split="publisher",
        said=["parts in column part"],
    ),
    "part_in_other_words": labelled(
        ["path", "label", "Split"],
        PATHS,
        KINDS,
        [{"train": "Training", "test": "Testing"}[part] for part in PARTS_OF_ROWS],
        images=PARTS_IMAGES,
        split="publisher",
        said=["Training is train"],
    ),
    "part_not_understood": labelled(
        ["path", "label", "split"],
        PATHS,
        KINDS,
        [int(part == "test") for part in PARTS_OF_ROWS],
        refused=r"parts in labels.csv are 0, 1, and 0, 1 is not understood; .*data\.parts",
    ),
    "part_named": labelled(
        ["path", "label", "split"],
        PATHS,
        KINDS,
        [int(part == "test") for part in PARTS_OF_ROWS],
        settings={"parts": {"train": "0", "test": "1"}},
        images=PARTS_IMAGES,
        split="publisher",
    ),
    "is_test": labelled(
        ["path", "label", "is_test"],
        PATHS,
        KINDS,
        [part == "test" for part in PARTS_OF_ROWS],
        images=PARTS_IMAGES,
        split="publisher",
    ),
    "part_missing_in_a_row": labelled(
        ["path", "label", "part"],
        PATHS,
        KINDS,
        [*PARTS_OF_ROWS[:-1], ""],
        images={**PARTS_IMAGES, "test/dog": 1, "dog": 1},
        split="publisher",
        said=["rows of labels.csv without a part, which the publisher's split does not use: 1"],
    ),
    "parts_of_paths": Example(
        make=both(
            folders({"train": 8, "test": 4}),
            table(
                "labels.csv",
                [
                    ["path", "label"],
                    *([f"train/{n:03d}.png", "cd"[n % 2]] for n in range(8)),
                    *([f"test/{n:03d}.png", "cd"[n % 2]] for n in range(4)),
                ],
            ),
        ),
        settings={"labels": "labels.csv"},
        images={"train/c": 4, "train/d": 4, "test/c": 2, "test/d": 2},
    ),
    "labels_of_train_only": Example(
        make=both(
            folders({"train": NUM_FLAT, "test": 5}),
            table("train.csv", [["path", "label"], *zip([f"train/{n}" for n in IDS], KINDS, strict=True)]),
        ),
        settings={"labels": "train.csv"},
        images={"train/cat": 6, "train/dog": 6},
        split="fractions",
        said=[r"passed over: 5 images that no row of the table names \(test/ 5\)"],
    ),
    "fold": labelled(
        ["path", "label", "fold"],
        PATHS,
        KINDS,
        [n % 3 for n in range(12)],
        settings={"split": "folds", "folds": 3, "fold": 1},
        split="folds",
        said=["folds, for data.split folds, in column fold"],
    ),
    "number_of_folds": labelled(
        ["path", "label", "fold"],
        PATHS,
        KINDS,
        [n % 3 for n in range(12)],
        settings={"split": "folds", "fold": 1},
        refused=r"data\.folds: received 5, but the table of labels has 3 folds \(0, 1, 2\); give data\.folds 3",
    ),
    "class_is_chosen": labelled(
        ["path", "label"],
        PATHS,
        ["cat", "dog", "owl"] * 4,
        settings={"classes": ["owl", "cat"]},
        images={"owl": 4, "cat": 4},
    ),
    "case_of_labels": labelled(["path", "label"], PATHS, ["Cat", "cat"] * 6, refused="'Cat' and 'cat' differ only by"),
    "decomposed_names": Example(
        make=both(
            lambda root: [write_image(root / "all" / f"{NFD}{n}.png") for n in range(6)],
            table("labels.csv", [["path", "label"], *([f"{NFC}{n}.png", "ab"[n % 2]] for n in range(6))]),
        ),
        settings={"labels": "labels.csv"},
        images={"a": 3, "b": 3},
        split="fractions",
    ),
    "paths_of_another_folder": labelled(
        ["path", "label"],
        [path.replace("images", "photographs") for path in PATHS],
        KINDS,
        refused="none of the 12 rows names a file",
    ),
    "line_ends_of_old_macs": Example(
        make=both(
            FLAT,
            lambda root: (root / "labels.csv").write_text(
                "".join(f"{path},{kind}\r" for path, kind in zip(["path", *PATHS], ["label", *KINDS], strict=True)),
                newline="",
            ),
        ),
        settings={"labels": "labels.csv"},
        images=FLAT_IMAGES,
        split="fractions",
    ),
    "columns_not_understood": labelled(
        ["id_code", "diagnosis_2019", "age"],
        IDS,
        KINDS,
        range(12),
        refused=r"which of them has the files and which the classes is not understood; .*--data\.columns",
    ),
    "columns_named": labelled(
        ["scan", "diagnosis_2019", "age"],
        IDS,
        KINDS,
        range(12),
        settings={"columns": {"path": "scan", "label": "diagnosis_2019"}},
    ),
    "named_column_does_not_exist": labelled(
        ["path", "label"],
        PATHS,
        KINDS,
        settings={"columns": {"label": "kind"}},
        refused=r"data\.columns: received label: kind, but labels.csv has the columns path, label",
    ),
    "wrong_column": labelled(
        ["id", "label"], range(500, 512), KINDS, refused=r"none of the 12 rows names a file .*data\.columns"
    ),
    "several_labels": labelled(
        ["path", "labels"],
        PATHS,
        ["scab", "rust", "scab|rust"] * 4,
        refused=r"the label 'scab\|rust' holds the classes scab, rust, and an image has one class",
    ),
    "several_labels_with_blanks": labelled(
        ["path", "labels"], PATHS, ["scab", "rust", "rust scab"] * 4, refused="'rust scab' holds the classes rust, scab"
    ),
    "several_labels_are_meant": labelled(
        ["path", "label"],
        PATHS,
        ["apple", "pie", "apple pie"] * 4,
        settings={"classes": ["apple", "pie", "apple pie"]},
        images={"apple": 4, "pie": 4, "apple pie": 4},
    ),
    "lists_of_labels": Example(
        make=both(
            FLAT,
            lambda root: pandas.DataFrame({"path": PATHS, "label": [["a", "b"]] * 12}).to_json(
                root / "labels.jsonl", orient="records", lines=True
            ),
        ),
        settings={"labels": "labels.jsonl"},
        refused="labels.jsonl gives an image the classes a, b in label, and an image has one class",
    ),
    "labels_that_are_missing_values": labelled(
        ["path", "label"],
        PATHS,
        ["1.0", "2.0"] * 5 + ["nan", "N/A"],
        refused="2 files or class folders",
        listed=[
            r"line 12, images/010.png: no label \(nan; data.classes can name it\)",
            r"line 13, images/011.png: no label \(N/A; data.classes can name it\)",
        ],
    ),
    "labels_that_are_missing_values_left_out": labelled(
        ["path", "label"],
        PATHS,
        ["1.0", "2.0"] * 5 + ["nan", "nan"],
        settings={"on_bad_image": "skip"},
        images={"1": 5, "2": 5},
        said=["2 files or class folders left out as unreadable"],
    ),
    "no_rows": Example(
        make=both(FLAT, texts(labels_DOT_csv="path,label\n")),
        settings={"labels": "labels.csv"},
        refused=r"data\.labels: .*labels.csv has the columns path, label and no rows",
    ),
    "spreadsheet": Example(
        make=both(FLAT, lambda root: (root / "labels.csv").write_bytes(b"PK\x03\x04" + bytes(50))),
        settings={"labels": "labels.csv"},
        refused="is a spreadsheet or an archive; save the table as CSV",
    ),
    "table_does_not_exist": Example(
        make=FLAT,
        settings={"labels": "lables.csv"},
        refused=r"data\.labels: received 'lables\.csv', and there is no such",
    ),
    "one_column": Example(
        make=both(FLAT, texts(labels_DOT_csv="path\nimages/000.png\n")),
        settings={"labels": "labels.csv"},
        refused=r"has no columns \(first line: 'path'\)",
    ),
}

TABLES["bad_rows"] = labelled(
    ["path", "label"],
    PATHS,
    [*KINDS[:-1], ""],
    more=[
        ["images/999.png", "cat"],
        ["images/003.png", "cat"],
        ["images/004.png", "cat"],
        ["", "cat"],
        ["images/013.png", "dog", "owl"],
    ],
    refused="6 files or class folders in .* cannot be used",
    listed=[
        r"images/003.png: named in lines 5, 15 \(label cat, dog\)",
        r"images/004.png: named in lines 6, 16 \(label cat\)",
        "labels.csv line 17: no file",
        "labels.csv line 18: 3 cells, and the header has 2",
        "line 13, images/011.png: no label",
        "line 14, images/999.png: there is no such file",
    ],
)


# ---------------------------------------------------------------------------------- files that hold many images


def encoded(name: str) -> bytes:
    """An image of noise as PNG, another one for each name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    file = BytesIO()
    Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: Mapping[str, bytes], mode: Any = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def samples(prefix: str, number: int, label: Callable[[int], bytes], ending: str = ".cls") -> dict[str, bytes]:
    """Members of a WebDataset tar."""
    members = {}
    for index in range(number):
        members[f"{prefix}{index:04d}.png"] = encoded(f"{prefix}{index}")
        members[f"{prefix}{index:04d}{ending}"] = label(index)
    return members


def number(index: int) -> bytes:
    return str(index % 2).encode()


def write_shards(root: Path) -> None:
    for part, size in (("train", 5), ("test", 3)):
        for shard in range(2):
            prefix = f"{part}{shard}"
            tar(root / f"pets-{part}-{shard:06d}.tar", samples(prefix, 2 * size, number))


def write_json_tar(root: Path) -> Path:
    content = samples("", 12, lambda n: json.dumps({"label": ["cat", "dog"][n % 2], "width": 12}).encode(), ".json")
    tar(root / "pets.tar", {**content, "0003.caption": b"a cat", "README": b"none"})
    return root / "pets.tar"


def table_of(number: int, name: str, **columns: Sequence[Any]) -> Any:
    """An Arrow table of images as the library datasets writes it, without its metadata."""
    images = [{"bytes": encoded(f"{name}{index}"), "path": None} for index in range(number)]
    return pyarrow.table({"image": images, **columns})


def write_parquet_shards(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    for part, size in (("train", 12), ("test", 6)):
        content = table_of(size, part, label=[n % 2 for n in range(size)])
        pyarrow.parquet.write_table(content, root / "data" / f"{part}-00000-of-00001.parquet")


def write_one_parquet(root: Path) -> Path:
    content = pyarrow.table({"picture": [encoded(f"one{n}") for n in range(12)], "species": KINDS})
    pyarrow.parquet.write_table(content, root / "pets.parquet")
    return root / "pets.parquet"


def write_parquet_with_parts(root: Path) -> Path:
    content = table_of(NUM_FLAT, "parts", label=KINDS, split=PARTS_OF_ROWS)
    pyarrow.parquet.write_table(content, root / "pets.parquet")
    return root / "pets.parquet"


def write_two_labels(root: Path) -> Path:
    content = table_of(NUM_FLAT, "two", fine=[n % 4 for n in range(12)], coarse=[n % 2 for n in range(12)])
    pyarrow.parquet.write_table(content, root / "pets.parquet")
    return root / "pets.parquet"


def write_saved(
    root: Path,
    splits: Mapping[str, int] | None = None,
    unlabelled: str = "",
    names: Sequence[str] = ("dog", "cat"),  # not in alphabetical order
) -> None:
    """A data set as the library's save_to_disk writes it."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})

    def rows(size: int, name: str) -> Any:
        images = [{"bytes": encoded(f"{name}{n}"), "path": None} for n in range(size)]
        labels = [-1 if name == unlabelled else n % 2 for n in range(size)]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    if splits is None:
        rows(NUM_FLAT, "all").save_to_disk(root)
    else:
        datasets.DatasetDict({name: rows(size, name) for name, size in splits.items()}).save_to_disk(root)


CONTAINERS: dict[str, Example] = {
    "webdataset_shards": Example(
        make=write_shards,
        images={"train/0": 10, "train/1": 10, "test/0": 6, "test/1": 6},
        said=["publisher's split"],
    ),
    "webdataset_names": Example(
        make=both(lambda root: tar(root / "a.tar", samples("", 12, number)), texts(classnames_DOT_txt="dog\ncat\n")),
        images={"dog": 6, "cat": 6},
        split="fractions",
    ),
    "webdataset_number_without_name": Example(
        make=both(
            lambda root: tar(root / "a.tar", samples("", 12, lambda n: b"013"[n % 3 :][:1])),
            texts(classes_DOT_txt="dog\ncat\nowl\n"),
        ),
        settings={"on_bad_image": "skip"},
        images={"dog": 4, "cat": 4},
        split="fractions",
        said=["1 class without images, left out: owl", "4 files or class folders left out"],
    ),
    "webdataset_several_labels": Example(
        make=lambda root: tar(root / "a.tar", samples("", 12, lambda n: b'{"label": [1, 2]}', ".json")),
        refused=r"a.tar have several values as their label \(\[1, 2\]\)",
    ),
    "webdataset_json": Example(
        make=write_json_tar,
        images=FLAT_IMAGES,
        split="fractions",
        said=[r"passed over: 2 members \(.caption 1, no ending 1\)"],
    ),
    "webdataset_text_and_folders": Example(
        make=lambda root: tar(root / "train" / "0.tar", samples("a/b/", 12, lambda n: b"cd"[n % 2 :][:1], ".txt")),
        images={"train/c": 6, "train/d": 6},
        split="fractions",
    ),
    "webdataset_masks": Example(
        make=lambda root: tar(
            root / "a.tar",
            {**{f"{n:04d}.depth.png": encoded(f"depth{n}") for n in range(12)}, **samples("", 12, number)},
        ),
        images={"0": 6, "1": 6},
        split="fractions",
    ),
    "webdataset_several_images": Example(
        make=lambda root: tar(root / "a.tar", {"0.left.png": encoded("l"), "0.right.png": encoded("r"), "0.cls": b"0"}),
        refused=r"several images \(.left.png, .right.png\); .*data\.columns, such as \{path: left.png\}",
    ),
    "webdataset_pickles": Example(
        make=lambda root: tar(root / "a.tar", samples("", 12, lambda n: b"cos\nsystem\n(S'false'\ntR.", ".pyd")),
        refused="a.*has no samples with an image and a label",
    ),
    "tar_of_class_folders": Example(
        make=lambda root: tar(root / "a.tar", {f"{k}/{n}.png": encoded(f"{k}{n}") for k in "cd" for n in range(5)}),
        refused="has no samples with an image and a label .*unpack a tar of class folders with tar -xf",
    ),
    "compressed_tar": Example(
        make=lambda root: tar(root / "a.tar.gz", samples("", 12, number), "w:gz"), refused="a.tar.gz is compressed"
    ),
    "damaged_tar": Example(
        make=both(
            lambda root: tar(root / "a.tar", samples("", 12, number)),
            lambda root: (root / "a.tar").write_bytes((root / "a.tar").read_bytes()[:3000]),
        ),
        refused="a.tar is not a whole tar archive",
    ),
    "parquet_shards": Example(make=write_parquet_shards, images={"train/0": 6, "train/1": 6, "test/0": 3, "test/1": 3}),
    "parquet_and_tars": Example(
        make=both(write_shards, write_parquet_shards), refused=r"holds both \.parquet and \.tar files"
    ),
    "parquet_file": Example(
        make=write_one_parquet,
        images=FLAT_IMAGES,
        split="fractions",
        said=["images in column picture, classes in column species"],
    ),
    "parquet_with_a_column_of_parts": Example(make=write_parquet_with_parts, images=PARTS_IMAGES),
    "parquet_with_two_labels": Example(
        make=write_two_labels,
        refused=r"which has the classes is not understood; .*data\.columns, such as \{label: fine\}",
    ),
    "parquet_with_two_labels_named": Example(
        make=write_two_labels, settings={"columns": {"label": "coarse"}}, images={"0": 6, "1": 6}, split="fractions"
    ),
    "parquet_with_several_labels": Example(
        make=lambda root: pyarrow.parquet.write_table(
            table_of(12, "l", label=[[0, n % 2] for n in range(12)]), root / "a.parquet"
        ),
        refused=r"column label holds several values per image \(\[0, 0\]\)",
    ),
    "parquet_without_images": Example(
        make=lambda root: pyarrow.parquet.write_table(pyarrow.table({"label": KINDS}), root / "a.parquet"),
        refused=r"which has the images is not understood; .*data\.columns",
    ),
    "saved_dataset": Example(make=write_saved, images={"dog": 6, "cat": 6}, split="fractions"),
    "saved_class_without_images": Example(
        make=lambda root: write_saved(root, names=["dog", "cat", "owl"]),
        images={"dog": 6, "cat": 6},
        split="fractions",
        said=["1 class without images, left out: owl"],
    ),
    "saved_splits": Example(
        make=lambda root: write_saved(root, {"train": 12, "validation": 6, "test": 6}),
        images={"train/dog": 6, "train/cat": 6, "val/dog": 3, "val/cat": 3, "test/dog": 3, "test/cat": 3},
        said=["validation is val"],
    ),
    "saved_split_without_labels": Example(
        make=lambda root: write_saved(root, {"train": 12, "validation": 6, "test": 6}, unlabelled="test"),
        settings={"parts": {"train": "train", "test": "validation"}},
        images={"train/dog": 6, "train/cat": 6, "test/dog": 3, "test/cat": 3},
        said=["that data.parts does not name are not used: test"],
    ),
    "saved_splits_not_understood": Example(
        make=lambda root: write_saved(root, {"train": 12, "extra": 6, "test": 6}),
        refused=r"extra is not understood; .*data\.parts",
    ),
}


# ----------------------------------------------------------------------------------------------- kinds of files


def noise(seed: int, *shape: int, most: int = 255) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, shape or (24, 40, 3))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photograph(kind: str, seed: int = 7, **options: Any) -> bytes:
    return saved(Image.fromarray(noise(seed).astype(np.uint8)), kind, **options)


def added(**files: bytes) -> Callable[[Path], None]:
    """Ten cats and ten dogs, and files beside the cats; __ in a name is a dot."""

    def make(root: Path) -> None:
        PETS(root)
        for name, content in files.items():
            (root / "cat" / name.replace("__", ".")).write_bytes(content)

    return make


def more_cats(number: int) -> dict[str, int]:
    return {"cat": TRAIN + number, "dog": TRAIN}


def png_chunk(name: bytes, content: bytes, *, is_right: bool = True) -> bytes:
    checksum = zlib.crc32(name + content) ^ (not is_right)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_with(*chunks: bytes) -> bytes:
    """A PNG file with more chunks behind its header."""
    file = photograph("PNG")
    header = 8 + 25
    return file[:header] + b"".join(chunks) + file[header:]


def deep_folder(
    kind: str, most: int, dtype: Any = np.uint16, shape: tuple[int, ...] = (24, 40)
) -> Callable[[Path], None]:
    """Twelve cats and twelve dogs whose pixels are from 0 to `most`, in more than 8 bits."""

    def make(root: Path) -> None:
        for seed, name in enumerate(f"{of}/{n:02d}" for of in ("cat", "dog") for n in range(12)):
            pixels = noise(seed, *shape, most=most)
            pixels.flat[:2] = 0, most
            path = root / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if pixels.ndim == 3:
                assert cv2.imwrite(str(path), pixels.astype(dtype))
            else:
                Image.fromarray(pixels.astype(dtype)).save(path)

    return make


def dicom(pixels: np.ndarray, **elements: Any) -> bytes:
    """A DICOM file with these pixels: of shape (height, width), or (frames, height, width)."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    for name, value in elements.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype("<u2").tobytes()
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def heic(seed: int = 7) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return photograph("HEIF", seed)


def write_special_files(root: Path) -> None:
    PETS(root)
    os.mkfifo(root / "cat" / "fifo.jpg")
    here = os.getcwd()
    os.chdir(root / "cat")  # a socket's path may have 108 letters
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
    finally:
        os.chdir(here)


def write_names_that_are_not_utf8(root: Path) -> None:
    folders({"cat": TRAIN, "dog": TRAIN, "dog/more": 1})(root)
    (root / "dog/more").rename(root / "dog" / os.fsdecode(b"m\xe9re"))
    (root / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded("latin"))


DEEP = noise(99, 24, 40, most=65535).astype(np.uint16)
DEEP[0, 0] = 65535

PAGES = [Image.fromarray(noise(seed).astype(np.uint8)) for seed in (1, 2)]

JPEG = photograph("JPEG")
PROGRESSIVE = photograph("JPEG", progressive=True)

FILES: dict[str, Example] = {
    "other_endings": Example(
        make=added(
            a__jfif=JPEG,
            b__jpe=photograph("JPEG", 1),
            c__JPG=photograph("JPEG", 2),
            d__jp2=photograph("JPEG2000", 3),
            e__avif=photograph("AVIF", 4),
            f__bmp=photograph("BMP", 5),
            g__dib=photograph("DIB", 6),
            h__TIF=photograph("TIFF", 7),
            i__webp=photograph("WEBP", 8),
            j__pcx=photograph("PCX", 9),
            k__sgi=photograph("SGI", 10),
            l__tga=photograph("TGA", 11),
            m__ico=photograph("ICO", 12),
            n__dds=photograph("DDS", 13),
            o__icns=saved(Image.fromarray(noise(14, 16, 16, 3).astype(np.uint8)), "ICNS"),
            p__mpo=photograph("MPO", 15),
            q__apng=photograph("PNG", 16),
            r__pgm=saved(Image.fromarray(noise(17, 9, 9).astype(np.uint8)), "PPM"),
        ),
        images=more_cats(18),
        split="fractions",
    ),
    "images_by_content": Example(
        make=added(a__dat=JPEG, b=photograph("PNG"), c__png__bak=photograph("WEBP"), d__gif=photograph("JPEG", 1)),
        images=more_cats(4),
        split="fractions",
        said=[r"images by their content: 3 files \(.bak 1, .dat 1, no ending 1\)"],
    ),
    "heic": Example(
        make=added(a__heic=heic(), b__HEIC=heic(2), c__heif=heic(3)), images=more_cats(3), split="fractions"
    ),
    "dicom": Example(
        make=added(a__dcm=dicom(noise(1, 24, 40, most=4095)), b=dicom(noise(2, 24, 40, most=4095))),
        images=more_cats(2),
        split="fractions",
        said=[r"images by their content: 1 file \(no ending 1\)"],
    ),
    "dicom_without_pixels": Example(
        make=added(a__dcm=dicom(noise(1, 24, 40, most=4095))[:400]),
        refused="1 file.* cannot be used",
        listed=["cat/a.dcm: its DICOM pixels cannot be read"],
    ),
    "files_that_are_no_images": Example(
        make=added(
            a__svg=b"<svg/>",
            b__SVG=b"<svg/>",
            c__xml=b"<a/>",
            d__mp4=bytes(99),
            e__txt=b"BMP1",
            f__npy=b"\x93NUMPY",
            g__nef=photograph("TIFF"),
            h__dng=photograph("TIFF"),
            README=b"P6 of images",
        ),
        images=more_cats(0),
        split="fractions",
        said=[r"passed over: 9 files \(.svg 2, .dng 1, .mp4 1, .nef 1, .npy 1, .txt 1, .xml 1, no ending 1\)"],
    ),
    "class_without_readable_images": Example(
        make=both(PETS, texts(owl__a_DOT_svg="<svg/>", owl__b_DOT_svg="<svg/>")),
        refused="1 file",
        listed=[r"owl/: a class folder without images \(.svg 2\)"],
    ),
    "special_files": Example(
        make=write_special_files,
        images=more_cats(0),
        split="fractions",
        said=["passed over: 2 FIFOs, sockets or devices"],
    ),
    "names_that_are_not_utf8": Example(
        make=write_names_that_are_not_utf8,
        refused="2 files or class folders",
        listed=[r"cat/caf\\xe9.png: its name is not UTF-8", r"dog/m\\xe9re/: its name is not UTF-8"],
    ),
    "profile_of_2_megabytes": Example(
        make=added(a__png=png_with(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"x" * 2_000_000)))),
        images=more_cats(1),
        split="fractions",
        said=[r"PNG files whose text or colour profile is damaged or too long, .*: 1 \(cat/a.png\)"],
    ),
    "text_of_2_megabytes": Example(
        make=added(
            a__png=png_with(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2_000_000))),
            b__png=png_with(png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000))),
        ),
        images=more_cats(2),
        split="fractions",
        said=[r"text or colour profile.*: 2 \(cat/a.png, cat/b.png\)"],
    ),
    "wrong_checksums": Example(
        make=added(
            **{
                f"{name.decode()}__png": png_with(png_chunk(name, content, is_right=False))
                for name, content in {
                    b"tEXt": b"Title\0photograph",
                    b"pHYs": struct.pack(">IIB", 1, 1, 1),
                    b"gAMA": struct.pack(">I", 45455),
                    b"eXIf": b"MM\0*" + bytes(4),
                    b"prVt": b"private",
                }.items()
            }
        ),
        images=more_cats(5),
        split="fractions",
        said=[r"text or colour profile.*: 5 \("],
    ),
    "wrong_checksum_of_pixels": Example(
        make=added(a__png=png_with(png_chunk(b"tEXt", b"a\0b"))[:-20] + b"\0" * 4 + photograph("PNG")[-16:]),
        refused="1 file",
        listed=["cat/a.png: "],
    ),
    "no_end_mark": Example(
        make=added(a__jpg=JPEG[:-2], b__jpg=JPEG[:-1], c__jpg=PROGRESSIVE[:-2]),
        images=more_cats(3),
        split="fractions",
        said=[r"JPEG files without their end mark, whose pixels are complete: 3 \(cat/a.jpg, cat/b.jpg, cat/c.jpg\)"],
    ),
    "cut_off": Example(
        make=added(a__jpg=JPEG[:-40], b__jpg=PROGRESSIVE[:-200], c__png=photograph("PNG")[:-500], d__gif=b""),
        refused="4 files",
        listed=["cat/a.jpg: ", "cat/b.jpg: ", "cat/c.png: ", "cat/d.gif: the file is empty"],
    ),
    "several_pages": Example(
        make=added(
            a__tif=saved(PAGES[0], "TIFF", save_all=True, append_images=PAGES[1:]),
            b__gif=saved(PAGES[0], "GIF", save_all=True, append_images=PAGES[1:]),
            c__webp=saved(PAGES[0], "WEBP", save_all=True, append_images=PAGES[1:]),
            d__png=saved(PAGES[0], "PNG", save_all=True, append_images=PAGES[1:]),
            e__dcm=dicom(noise(3, 2, 24, 40, most=4095)),
            f__tif=saved(PAGES[0], "TIFF"),
        ),
        images=more_cats(6),
        split="fractions",
        said=[r"files with several pages or frames, of which the first is used: 5 \(cat/a.tif, cat/b.gif, cat/c.webp"],
    ),
    "too_many_pixels": Example(
        make=added(a__png=photograph("PNG")),
        settings={"max_pixels": 900},
        refused="1 file",
        listed=["cat/a.png: it has 960 pixels, and data.max_pixels allows 900; raise it if you trust the file"],
    ),
    "palettes_and_transparency": Example(
        make=added(
            a__png=saved(PAGES[0].convert("P"), "PNG", transparency=3),
            b__png=saved(PAGES[0].convert("LA"), "PNG"),
            c__gif=saved(PAGES[0].convert("P"), "GIF"),
            d__png=saved(PAGES[0].convert("1"), "PNG"),
            e__jpg=saved(PAGES[0].convert("CMYK"), "JPEG"),
        ),
        images=more_cats(5),
        split="fractions",
    ),
    "8_bits_in_16": Example(
        make=deep_folder("png", 255),
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[
            r"more than 8 bits per pixel in 24 images; black to white are assumed to be 0 to 255 \(8 bits; the largest"
        ],
    ),
    "8_bits_in_32": Example(
        make=deep_folder("tif", 255, np.int32), images={"cat": 12, "dog": 12}, split="fractions", said=["0 to 255 "]
    ),
    "10_bits": Example(
        make=deep_folder("tif", 1023), images={"cat": 12, "dog": 12}, split="fractions", said=[r"0 to 1,023 \(10 bits"]
    ),
    "12_bits": Example(
        make=deep_folder("png", 4095), images={"cat": 12, "dog": 12}, split="fractions", said=[r"0 to 4,095 \(12 bits"]
    ),
    "12_bits_in_colour": Example(
        make=deep_folder("png", 4095, shape=(24, 40, 3)),
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[r"0 to 4,095 \(12 bits"],
    ),
    "14_bits": Example(
        make=deep_folder("png", 16383),
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[r"0 to 16,383 \(14 bits"],
    ),
    "16_bits": Example(
        make=deep_folder("png", 65535),
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[r"0 to 65,535 \(16 bits"],
    ),
    "floating_point": Example(
        make=deep_folder("tif", 1, np.float32),
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[r"0 to 1 \(floating-point numbers; the largest level is 1\)"],
    ),
    "one_image_with_a_larger_range": Example(
        make=both(deep_folder("png", 4095), lambda root: Image.fromarray(DEEP).save(root / "cat/hot.png")),
        images={"cat": 13, "dog": 12},
        split="fractions",
        said=[r"0 to 65,535 \(16 bits; the largest level is 65,535, and half of the images reach at most 4,095\)"],
    ),
    "full_range_on_request": Example(
        make=deep_folder("png", 4095),
        settings={"pixel_range": "full"},
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=[r"taken to be 0 to 65,535 \(16 bits; the largest level is 4,095, and half of the images reach at most"],
    ),
    "range_of_each_image": Example(
        make=deep_folder("tif", 9_000_000, np.int32),
        settings={"pixel_range": "per_image"},
        images={"cat": 12, "dog": 12},
        split="fractions",
        said=["the smallest level of each becomes black and the largest white"],
    ),
    "no_known_range": Example(
        make=deep_folder("tif", 70_000, np.int32),
        refused="readable images of 0 classes",
        listed=[
            *(rf"cat/{n:02d}.tif: its pixels are from 0 to 70,000, .*; data.pixel_range per_image" for n in range(12)),
            "cat/: a class without any readable image",
            *(f"dog/{n:02d}.tif: " for n in range(12)),
            "dog/: a class without any readable image",
        ],
    ),
}


def write_messy_folder(root: Path) -> None:
    """Flowers as an archive from the web and a network drive leave them; the examples above have each kind alone."""
    flowers = root / "garden" / "garden"
    for part, size in (("Training", 24), ("Testing", 6)):
        for kind in ("daisy", "poppy", "tulip"):
            folder = flowers / part / kind
            folders({".": size}, ".JPG")(folder)
            folders({"@eaDir": 2})(folder)
            (folder / "last.jfif").write_bytes(photograph("JPEG", zlib.crc32(f"{part}{kind}".encode())))
            (folder / "outline.svg").write_text("<svg/>")
            (folder / ".DS_Store").touch()
    for copied in ("000.JPG", "001.JPG"):  # photographs of the test images, copied into training
        copy = (flowers / "Testing" / "daisy" / copied).read_bytes()
        (flowers / "Training" / "daisy" / f"copy of {copied}").write_bytes(copy)
    (flowers / "Training" / "poppy" / "005.JPG").write_bytes(JPEG[:300])
    folders({"__MACOSX/garden": 3})(root)


MESSY_IMAGES = {
    **{f"train/{kind}": number for kind, number in (("daisy", 27), ("poppy", 24), ("tulip", 25))},
    **{f"test/{kind}": 7 for kind in ("daisy", "poppy", "tulip")},
}

FILES["messy_folder"] = Example(
    make=write_messy_folder,
    settings={"on_bad_image": "skip"},
    images=MESSY_IMAGES,
    said=[
        r"publisher's split \(Training is train, Testing is test\); 12.5 % of train becomes val, since there is none",
        "looked into garden/garden/",
        r"passed over: 6 files \(.svg 6\); 7 folders of systems \(@eaDir 6, __MACOSX\); 6 hidden files",
        r"97 images of 3 classes \(train .*, val .*, test 21, unused 2\)",
        r"1 file or class folder left out as unreadable \(Training/poppy/005.JPG\); 4 images .*; left out: 2",
    ],
)


def all_examples() -> dict[str, Example]:
    """Every example by its name."""
    return {**LAYOUTS, **TABLES, **CONTAINERS, **FILES}


def main(folder: Path) -> None:
    for name, example in all_examples().items():
        (folder / name).mkdir(parents=True)
        example.make(folder / name)
    print(f"{len(all_examples())} examples in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
