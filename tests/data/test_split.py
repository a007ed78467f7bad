from __future__ import annotations

import csv
import dataclasses
import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tandem.data.manifest import COLUMNS, Manifest
from tandem.data.split import Split, split_images
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

Image = tuple[str, str, str, str]
"""Key, class, publisher's part, content."""


def images_of(class_name: str, number: int, part: str = "") -> list[Image]:
    keys = [f"{part or 'all'}/{class_name}/{index:03d}" for index in range(number)]
    return [(key, class_name, part, key) for key in keys]


def manifest_of(images: list[Image], classes: tuple[str, ...] | None = None) -> Manifest:
    classes = classes or tuple(sorted({class_name for _, class_name, _, _ in images}))
    rows = [
        (key, classes.index(class_name), part, hashlib.sha256(content.encode()).hexdigest(), 8, 8, "L", 64, "")
        for key, class_name, part, content in images
    ]
    return Manifest(name="some", classes=classes, images=pd.DataFrame(rows, columns=list(COLUMNS)))


def split_of(images: list[Image], classes: tuple[str, ...] | None = None, **settings: Any) -> Split:
    return split_images(manifest_of(images, classes), DataSettings(**{"fold": 0, **settings}))


def sizes(split: Split, class_name: str | None = None) -> dict[str, int]:
    names = split.manifest.class_names
    return dict(Counter(p for p, name in zip(split.parts, names, strict=True) if class_name in (None, name)))


def part_of_keys(split: Split) -> dict[str, str]:
    return dict(zip(split.manifest.images["key"], split.parts, strict=True))


def parts_of_contents(split: Split) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for content, part in zip(split.manifest.images["hash"], split.parts, strict=True):
        found.setdefault(content, set()).add(part)
    return found


@pytest.mark.parametrize(
    ("number", "expected"),
    [(100, (70, 10, 20)), (10, (7, 1, 2)), (13, (9, 1, 3)), (5, (3, 1, 1)), (3, (1, 1, 1))],
)
def test_fractions_hold_in_each_class(number: int, expected: tuple[int, int, int]) -> None:
    split = split_of(images_of("cat", number) + images_of("dog", 40))
    assert sizes(split, "cat") == dict(zip(("train", "val", "test"), expected, strict=True))
    assert sizes(split, "dog") == {"train": 28, "val": 4, "test": 8}


def test_fractions_merge_the_publishers_parts() -> None:
    split = split_of(
        images_of("cat", 50, "train")
        + images_of("cat", 50, "test")
        + images_of("dog", 90, "train")
        + images_of("dog", 10)
    )
    assert sizes(split) == {"train": 140, "val": 20, "test": 40}
    published = split.manifest.images["part"].to_numpy()
    assert set(published[split.rows("train")]) == {"train", "test", ""}


def test_rows_are_ascending_and_cover_every_image_once() -> None:
    split = split_of(images_of("cat", 30) + images_of("dog", 30))
    rows = [split.rows(part) for part in ("train", "val", "test")]
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in rows)
    assert sorted(np.concatenate(rows)) == list(range(60))


@pytest.mark.parametrize("kind", ["fractions", "folds"])
@pytest.mark.parametrize("duplicates", ["together", "allow"])
@pytest.mark.parametrize("limits", [{}, {"images_per_class": 18, "train_images_per_class": 7}])
def test_split_is_the_same_whatever_the_order_of_files_and_classes(
    kind: str, duplicates: str, limits: dict[str, Any]
) -> None:
    images = images_of("cat", 30) + images_of("dog", 40) + images_of("owl", 20)
    images += [(f"copy/{index}", "owl", "", f"all/owl/{index:03d}") for index in range(15)]
    images += [(f"stray/{index}", "owl", "", f"all/cat/{index:03d}") for index in range(15)]
    shuffled = random.Random(0).sample(images, len(images))
    first = split_of(images, split=kind, duplicates=duplicates, **limits)
    second = split_of(shuffled, ("owl", "cat", "dog"), split=kind, duplicates=duplicates, **limits)
    assert part_of_keys(first) == part_of_keys(second)
    assert first.hash == second.hash


def test_split_is_that_of_earlier_versions() -> None:
    split = split_of(images_of("cat", 10) + images_of("dog", 10))
    tested = [key for key, part in part_of_keys(split).items() if part == "test"]
    assert tested == ["all/cat/006", "all/cat/007", "all/dog/003", "all/dog/005"]
    assert split.hash == "ea32f7b7ccaa70fd11e3599055473e099ac7efb1b9c4aaa5f3abeeae2eaafbb5"


def test_split_seed_changes_the_split() -> None:
    images = images_of("cat", 50) + images_of("dog", 50)
    first, second = split_of(images, split_seed=0), split_of(images, split_seed=1)
    assert first.hash != second.hash
    assert first.test_hash != second.test_hash
    # a fifth of a fifth is expected in both
    assert len(set(first.rows("test")) & set(second.rows("test"))) < 12


def test_renamed_files_stay_in_their_part() -> None:
    images = images_of("cat", 30) + images_of("dog", 30)
    renamed = [(f"new/{index}", name, part, content) for index, (_, name, part, content) in enumerate(images)]
    first, second = split_of(images), split_of(renamed)
    assert first.parts == second.parts
    assert first.test_hash == second.test_hash
    assert first.hash != second.hash


def test_test_hash_tells_classes_and_their_order_apart() -> None:
    images = images_of("cat", 10) + images_of("dog", 10)
    assert split_of(images).test_hash != split_of(images, ("dog", "cat")).test_hash
    assert split_of(images).test_hash == split_of(images, train_images_per_class=2).test_hash
    assert split_of(images).hash != split_of(images, train_images_per_class=2).hash


def test_test_images_are_the_same_whatever_the_order_of_their_classes() -> None:
    images = images_of("cat", 10) + images_of("dog", 10)
    assert split_of(images).test_images_hash == split_of(images, ("dog", "cat")).test_images_hash
    assert split_of(images).test_images_hash != split_of(images, split_seed=1).test_images_hash
    swapped = [(key, "dog" if name == "cat" else "cat", part, content) for key, name, part, content in images]
    assert split_of(images).test_images_hash != split_of(swapped).test_images_hash
    # that of older runs, whose classes are in alphabetical order by default
    assert split_of(images).test_images_hash == split_of(images).test_hash


@pytest.mark.parametrize("kind", ["fractions", "folds"])
@pytest.mark.parametrize("seed", range(5))
def test_exact_copies_stay_together(kind: str, seed: int) -> None:
    images = images_of("cat", 40) + images_of("dog", 40)
    copies = [(f"copy/{index}", "cat", "", f"all/cat/{index % 15:03d}") for index in range(30)]
    split = split_of(images + copies, split=kind, split_seed=seed)
    assert max(len(parts) for parts in parts_of_contents(split).values()) == 1
    assert sizes(split, "cat")["test"] == 14  # a fifth in both cases
    allowed = split_of(images + copies, split=kind, split_seed=seed, duplicates="allow")
    assert max(len(parts) for parts in parts_of_contents(allowed).values()) > 1


def test_copies_in_two_classes_stay_together() -> None:
    images = images_of("cat", 40) + images_of("dog", 40)
    strays = [(f"stray/{index}", "dog", "", f"all/cat/{index:03d}") for index in range(20)]
    split = split_of(images + strays)
    assert max(len(parts) for parts in parts_of_contents(split).values()) == 1


def test_without_copies_both_settings_for_duplicates_agree() -> None:
    images = images_of("cat", 40) + images_of("dog", 40)
    assert split_of(images).hash == split_of(images, duplicates="allow").hash


def test_large_groups_of_copies_leave_no_part_empty() -> None:
    images = [(f"cat/{index}", "cat", "", "abc"[min(index // 3, 2)]) for index in range(7)] + images_of("dog", 10)
    assert set(sizes(split_of(images), "cat")) == {"train", "val", "test"}


def test_every_image_is_tested_in_one_fold() -> None:
    images = images_of("cat", 23) + images_of("dog", 17)
    images += [("copy", "dog", "", "all/dog/003")]
    splits = [split_of(images, split="folds", folds=4, fold=fold) for fold in range(4)]
    assert sorted(np.concatenate([split.rows("test") for split in splits])) == list(range(41))
    for split in splits:
        assert sizes(split, "cat")["test"] in (5, 6)
        # an eighth of the images that are not test images is for validation: 0.1 / (0.7 + 0.1)
        assert sizes(split, "cat")["val"] == 2


def test_remaining_images_do_not_all_go_to_the_first_fold() -> None:
    images = [image for index in range(20) for image in images_of(f"class {index}", 6)]
    in_folds = [len(split_of(images, split="folds", folds=5, fold=fold).rows("test")) for fold in range(5)]
    assert sum(in_folds) == 120
    assert max(in_folds) < 32  # 40 would be the first fold's if every class gave it its sixth image


def test_publishers_test_images_are_kept_and_validation_taken_from_train() -> None:
    split = split_of(
        images_of("cat", 40, "train")
        + images_of("cat", 9, "test")
        + images_of("dog", 80, "train")
        + images_of("dog", 5, "test"),
        split="publisher",
    )
    assert sizes(split, "cat") == {"train": 35, "val": 5, "test": 9}
    assert sizes(split, "dog") == {"train": 70, "val": 10, "test": 5}
    assert all((part == "test") == key.startswith("test/") for key, part in part_of_keys(split).items())


def test_publishers_validation_is_kept() -> None:
    images = [
        image
        for name in ("cat", "dog")
        for part, number in (("train", 6), ("val", 3), ("test", 2))
        for image in images_of(name, number, part)
    ]
    split = split_of(images, split="publisher")
    assert all(part == key.split("/")[0] for key, part in part_of_keys(split).items())


def test_publishers_copies_are_dropped_from_the_earlier_part() -> None:
    images = [
        image for name in ("cat", "dog") for part in ("train", "val", "test") for image in images_of(name, 6, part)
    ]
    copies = [
        ("train/cat/x", "cat", "train", "test/cat/001"),
        ("train/cat/y", "cat", "train", "val/cat/002"),
        ("val/dog/x", "dog", "val", "test/cat/001"),
        ("test/dog/x", "dog", "test", "test/dog/002"),
    ]
    split = split_of(images + copies, split="publisher")
    parts = part_of_keys(split)
    assert [parts[key] for key, _, _, _ in copies] == ["unused", "unused", "unused", "test"]
    dropped = {split.manifest.images["key"][row]: why for row, why in split.dropped.items()}
    assert dropped == {
        "train/cat/x": "left out of train: a copy is in test",
        "train/cat/y": "left out of train: a copy is in val",
        "val/dog/x": "left out of val: a copy is in test",
    }
    allowed = split_of(images + copies, split="publisher", duplicates="allow")
    assert allowed.dropped == {}
    assert part_of_keys(allowed)["train/cat/x"] == "train"


def test_folds_within_the_publishers_training_images_keep_its_test_images() -> None:
    images = [
        image
        for name, numbers in (("cat", (20, 5, 7)), ("dog", (13, 2, 4)))
        for part, number in zip(("train", "val", "test"), numbers, strict=True)
        for image in images_of(name, number, part)
    ]
    splits = [split_of(images, split="publisher_folds", folds=5, fold=fold) for fold in range(5)]
    # 25 cats and 15 dogs are dealt to five folds; each validates once.
    assert [sizes(split, "cat") for split in splits] == [{"train": 20, "val": 5, "test": 7}] * 5
    assert [sizes(split, "dog") for split in splits] == [{"train": 12, "val": 3, "test": 4}] * 5
    parts = [part_of_keys(split) for split in splits]
    for key, _, published, _ in images:
        found = Counter(part[key] for part in parts)
        assert found == ({"test": 5} if published == "test" else {"train": 4, "val": 1}), key
    assert len({split.test_hash for split in splits}) == 1
    assert {split.kind for split in splits} == {"publisher_folds"}


def test_copies_of_test_images_are_in_no_fold_of_the_training_images() -> None:
    images = [image for name in ("cat", "dog") for part in ("train", "test") for image in images_of(name, 6, part)]
    copy = ("train/cat/x", "cat", "train", "test/cat/001")
    split = split_of([*images, copy], split="publisher_folds", folds=2, fold=0)
    assert part_of_keys(split)["train/cat/x"] == "unused"
    assert list(split.dropped.values()) == ["left out of train: a copy is in test"]


def test_folds_within_the_training_images_need_the_publishers_parts_and_enough_images() -> None:
    with pytest.raises(UserError, match=r"data\.split: received publisher_folds, but some has no train and test"):
        split_of(images_of("cat", 10) + images_of("dog", 10), split="publisher_folds", fold=0)
    images = [image for name in ("cat", "dog") for part in ("train", "test") for image in images_of(name, 3, part)]
    with pytest.raises(UserError, match=r"at least 5 different images outside the publisher's test with 5 folds"):
        split_of(images, split="publisher_folds", folds=5, fold=0)
    with pytest.raises(UserError, match=r"data\.fold: received None, allowed: 0 to 4"):
        split_of(images, split="publisher_folds", folds=5, fold=None)


def test_publishers_split_needs_the_publishers_parts() -> None:
    with pytest.raises(UserError, match=r"data\.split: received publisher, but some has no .* allowed here: fractions"):
        split_of(images_of("cat", 10) + images_of("dog", 10), split="publisher")


def test_images_per_class_limits_before_the_split() -> None:
    images = images_of("cat", 100) + images_of("dog", 15)
    split = split_of(images, images_per_class=20)
    assert sizes(split, "cat") == {"train": 14, "val": 2, "test": 4, "unused": 80}
    assert sizes(split, "dog") == sizes(split_of(images), "dog")


def test_images_per_class_keeps_the_proportions_of_a_publishers_split() -> None:
    split = split_of(
        images_of("cat", 50, "train")
        + images_of("cat", 10, "test")
        + images_of("dog", 8, "train")
        + images_of("dog", 8, "test"),
        split="publisher",
        images_per_class=12,
    )
    assert sizes(split, "cat") == {"train": 9, "val": 1, "test": 2, "unused": 48}
    assert sizes(split, "dog")["test"] == 6


def test_images_per_class_leaves_none_of_the_publishers_parts_empty() -> None:
    images = [
        image
        for name in ("cat", "dog")
        for part, number in (("train", 50), ("val", 2), ("test", 1))
        for image in images_of(name, number, part)
    ]
    split = split_of(images, split="publisher", images_per_class=6)
    assert sizes(split, "cat") == {"train": 4, "val": 1, "test": 1, "unused": 47}


def test_train_images_per_class_limits_training_alone_and_grows_by_adding() -> None:
    images = images_of("cat", 100) + images_of("dog", 10)
    full, ten, twenty = (split_of(images, train_images_per_class=limit) for limit in (None, 10, 20))
    assert sizes(ten, "cat") == {"train": 10, "val": 10, "test": 20, "unused": 60}
    assert sizes(ten, "dog") == {"train": 7, "val": 1, "test": 2}
    assert set(ten.rows("train")) < set(twenty.rows("train")) < set(full.rows("train"))
    assert np.array_equal(ten.rows("val"), full.rows("val"))


@pytest.mark.parametrize(
    ("settings", "needed"),
    [({}, "at least 3 different images"), ({"split": "folds", "folds": 6}, "at least 6 different images with 6 folds")],
)
def test_class_too_small_to_split_is_named(settings: dict[str, Any], needed: str) -> None:
    images = images_of("cat", 2) + images_of("dog", 20) + [(f"owl/{index}", "owl", "", "same") for index in range(9)]
    with pytest.raises(UserError) as caught:
        split_of(images, **settings)
    message = str(caught.value)
    assert "2 of 3 classes have too few images" in message
    assert "cat has 2 (" in message
    assert "owl has 9, 1 of them different (" in message
    assert "dog has" not in message
    assert needed in message


@pytest.mark.parametrize(("folds", "enough"), [(2, 4), (3, 3), (5, 5)])
def test_stated_number_of_images_is_enough_for_all_folds(folds: int, enough: int) -> None:
    for fold in range(folds):
        split = split_of(images_of("cat", enough) + images_of("dog", 20), split="folds", folds=folds, fold=fold)
        assert set(sizes(split, "cat")) == {"train", "val", "test"}
    with pytest.raises(UserError, match=f"at least {enough} different images"):
        for fold in range(folds):
            images = images_of("cat", enough - 1) + images_of("dog", 20)
            split_of(images, split="folds", folds=folds, fold=fold)


def test_publishers_class_without_test_images_is_named() -> None:
    images = images_of("cat", 9, "train") + images_of("dog", 9, "train") + images_of("dog", 2, "test")
    with pytest.raises(UserError, match=r"1 of 2 classes are not in every part of some: cat \(none in test\)"):
        split_of(images, split="publisher")


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.7, 0.2, 0.2], [0.8, 0.0, 0.2], [1.2, -0.4, 0.2]])
def test_bad_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(UserError, match=r"data\.fractions: received .*three numbers above 0"):
        split_of(images_of("cat", 10) + images_of("dog", 10), fractions=fractions)


def test_bad_fold_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.fold: received 3, allowed: 0 to 2"):
        split_of(images_of("cat", 10) + images_of("dog", 10), split="folds", folds=3, fold=3)


def test_written_split_holds_every_image_sorted_by_key(tmp_path: Path) -> None:
    split = split_of(images_of("dog", 10) + images_of('a "cat", red', 10), images_per_class=8)
    split.write(tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "hash", "class", "part"]
    assert {row["key"]: row["part"] for row in rows} == part_of_keys(split)
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)


def test_split_hash_depends_on_key_content_class_and_part() -> None:
    images = images_of("cat", 10) + images_of("dog", 10)
    split = split_of(images)
    train, val = split.rows("train")[0], split.rows("val")[0]
    parts = list(split.parts)
    parts[train], parts[val] = parts[val], parts[train]
    assert dataclasses.replace(split, parts=tuple(parts)).hash != split.hash
    other_label = 1 - split.manifest.images["label"][train]
    for column, value in (("key", "other"), ("hash", "0" * 64), ("label", other_label)):
        table = split.manifest.images.copy()
        table.loc[train, column] = value
        changed = dataclasses.replace(split, manifest=dataclasses.replace(split.manifest, images=table))
        assert changed.hash != split.hash, column
