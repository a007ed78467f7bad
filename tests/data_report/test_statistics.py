from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

import tandem.data_report.statistics as module
from tandem.data.prepare import PreparedData, prepare
from tandem.data_report.statistics import (
    count_images,
    describe,
    exact_copies,
    example_rows,
    file_sizes,
    near_duplicates,
    near_pairs,
)
from tandem.protocol.settings import DataSettings

WriteImages = Callable[..., Path]


def scene(seed: int, size: int = 96) -> Image.Image:
    """Large soft spots of colour, with most detail at low frequencies, as in a photograph."""
    spots = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Class folders a and b with ten different scenes each."""
    folder = tmp_path / "scenes"
    for number in range(20):
        path = folder / "ab"[number // 10] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    return folder


def prepared(folder: Path | str, tmp_path: Path, **settings: Any) -> PreparedData:
    values = {"image_size": 64, "cache_folder": str(tmp_path / "cache"), "on_bad_image": "skip", **settings}
    return prepare(DataSettings(source=str(folder), **values), quiet=True)


def found_pairs(data: PreparedData) -> set[tuple[str, str]]:
    pairs = near_duplicates(data, quiet=True).pairs
    return {(min(pair), max(pair)) for pair in zip(pairs["key_a"], pairs["key_b"], strict=True)}


# counts and sizes


def test_images_are_counted_by_class_and_part(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"train/cat": 12, "train/dog": 20, "test/cat": 4, "test/dog": 6})
    copy = (folder / "test/dog/001.png").read_bytes()
    (folder / "train/dog/copy.png").write_bytes(copy)
    counts = count_images(prepared(folder, tmp_path, split="publisher", fractions=[0.6, 0.2, 0.2]))
    assert counts.to_dict("index") == {
        "cat": {"train": 9, "val": 3, "test": 4, "unused": 0, "all": 16},
        "dog": {"train": 15, "val": 5, "test": 6, "unused": 1, "all": 27},
    }


def test_file_sizes_are_those_that_pandas_finds_on_disk(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 5, "dog": 7})
    write_images({"cat": 6}, size=(40, 30))
    sizes = file_sizes(prepared(folder, tmp_path))
    assert sizes is not None
    on_disk = {name: [file.stat().st_size for file in (folder / name).iterdir()] for name in ("cat", "dog")}
    for name, values in {**on_disk, "all": on_disk["cat"] + on_disk["dog"]}.items():
        row = sizes.loc[name]
        assert row["count"] == len(values)
        assert row["mean"] == pytest.approx(sum(values) / len(values))
        assert row["std"] == pytest.approx(np.std(values, ddof=1))
        assert [row["min"], row["max"]] == [min(values), max(values)]
        assert row[["25%", "50%", "75%"]].tolist() == pytest.approx(np.percentile(values, [25, 50, 75]).tolist())


def test_file_sizes_of_training_files_leave_out_the_others(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"train/cat": 8, "train/dog": 8})
    write_images({"test/cat": 4, "test/dog": 4}, size=(60, 50))
    data = prepared(folder, tmp_path)
    sizes, everything = file_sizes(data, part="train"), file_sizes(data)
    assert sizes is not None and everything is not None
    on_disk = [(folder / data.keys[row]).stat().st_size for row in data.rows("train")]
    assert [sizes.loc["all", name] for name in ("count", "mean", "max")] == [14, np.mean(on_disk), max(on_disk)]
    assert everything.loc["all", "max"] > 2 * sizes.loc["all", "max"]


def test_raw_pixels_have_no_file_sizes(tmp_path: Path) -> None:
    assert file_sizes(prepared("digits", tmp_path)) is None


def test_sizes_and_modes_are_those_in_the_files(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 4, "dog": 4}, size=(12, 10))
    Image.new("L", (30, 20)).save(folder / "dog/grey.png")
    statistics = describe(prepared(folder, tmp_path), quiet=True)
    assert statistics.image_sizes.to_numpy().tolist() == [[12, 10, 8], [30, 20, 1]]
    assert statistics.modes.to_numpy().tolist() == [["RGB", 8], ["L", 1]]


def test_unreadable_files_are_listed(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 4, "dog": 4})
    (folder / "cat/text.jpg").write_text("this is a text")
    (folder / "dog/empty.png").touch()
    (folder / "owl").mkdir()
    unreadable = describe(prepared(folder, tmp_path), quiet=True).unreadable
    assert [line.split(":")[0] for line in unreadable] == ["cat/text.jpg", "dog/empty.png", "owl/"]


# exact copies


def test_exact_copies_in_two_parts_are_flagged(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"train/cat": 5, "train/dog": 5, "test/cat": 2, "test/dog": 2})
    (folder / "train/cat/crossing.png").write_bytes((folder / "test/cat/001.png").read_bytes())
    (folder / "test/dog/inside.png").write_bytes((folder / "test/dog/001.png").read_bytes())
    allowed = exact_copies(prepared(folder, tmp_path, split="publisher", duplicates="allow"))
    assert dict(zip(allowed["key"], allowed["across_parts"], strict=True)) == {
        "test/cat/001.png": True,
        "train/cat/crossing.png": True,
        "test/dog/001.png": False,
        "test/dog/inside.png": False,
    }
    assert allowed["across_parts"].tolist() == [True, True, False, False]
    together = exact_copies(prepared(folder, tmp_path, split="publisher"))
    assert len(together) == 4 and not together["across_parts"].any()


# near duplicates


def test_slightly_changed_copies_are_found(scenes: Path, tmp_path: Path) -> None:
    original = scenes / "a/03.png"
    with Image.open(original) as image:
        image.save(scenes / "b/compressed.jpg", quality=60)
        ImageEnhance.Brightness(image).enhance(1.15).save(scenes / "a/brightened.png")
        image.resize((48, 48)).save(scenes / "a/small.png")
    copies = ["a/03.png", "a/brightened.png", "a/small.png", "b/compressed.jpg"]
    assert found_pairs(prepared(scenes, tmp_path)) == set(itertools.combinations(copies, 2))


def test_different_images_are_not_near_duplicates(scenes: Path, tmp_path: Path) -> None:
    near = near_duplicates(prepared(scenes, tmp_path), quiet=True)
    assert near.pairs.empty and near.num_blank == 0 and near.skipped == ""


def test_images_are_near_up_to_six_bits(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(scenes, tmp_path)
    hashes = np.random.default_rng(0).integers(0, 2**64, len(data.keys), dtype=np.uint64)
    hashes[1] = hashes[0] ^ np.uint64(0b111111)
    hashes[3] = hashes[2] ^ np.uint64(0b1111111)
    monkeypatch.setattr(module, "on_all_cores", lambda work, rows, **_: [int(hashes[row]) for row in rows])
    pairs = near_duplicates(data, quiet=True).pairs
    assert pairs[["row_a", "row_b", "distance"]].to_numpy().tolist() == [[0, 1, 6]]


def test_distance_is_that_of_the_stored_images_hashes(scenes: Path, tmp_path: Path) -> None:
    with Image.open(scenes / "a/03.png") as image:
        ImageEnhance.Contrast(image).enhance(0.6).save(scenes / "b/pale.png")
    data = prepared(scenes, tmp_path)
    (pair,) = near_duplicates(data, quiet=True).pairs.to_dict("records")
    hashes = [imagehash.phash(Image.fromarray(data.images[pair[row]])) for row in ("row_a", "row_b")]
    assert pair["distance"] == hashes[0] - hashes[1]
    assert [pair["class_a"], pair["class_b"]] == ["a", "b"]
    assert [data.keys[pair["row_a"]], data.keys[pair["row_b"]]] == ["a/03.png", "b/pale.png"]


def test_pairs_across_parts_are_flagged_and_come_first(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    for number, part in enumerate(("train", "train", "train", "test", "test")):
        for name in "ab":
            path = folder / part / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(number + (100 if name == "b" else 0)).save(path)
    scene(0).save(folder / "train/a/within.jpg")
    scene(3).save(folder / "train/a/leaked.jpg")
    data = prepared(folder, tmp_path, split="publisher", fractions=[0.6, 0.2, 0.2])
    pairs = near_duplicates(data, quiet=True).pairs
    leaked = pairs[pairs["key_b"] == "train/a/leaked.jpg"].iloc[0]
    assert leaked["key_a"] == "test/a/3.png" and leaked["part_a"] == "test" and leaked["across_parts"]
    within = pairs[pairs["key_b"] == "train/a/within.jpg"].iloc[0]
    assert within["across_parts"] == (within["part_a"] != within["part_b"])
    assert pairs["across_parts"].tolist() == sorted(pairs["across_parts"], reverse=True)


def test_exact_copies_are_not_near_duplicates(scenes: Path, tmp_path: Path) -> None:
    (scenes / "b/exact.png").write_bytes((scenes / "a/03.png").read_bytes())
    assert found_pairs(prepared(scenes, tmp_path)) == set()


def test_copies_are_across_parts_whichever_image_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    for seed, (part, name) in enumerate(itertools.product(("train", "val", "test"), "ab"), start=10):
        path = folder / part / name / "other.png"
        path.parent.mkdir(parents=True)
        scene(seed).save(path)
    for part in ("test", "train"):
        scene(1).save(folder / part / "a/same.png")
    scene(1).save(folder / "test/a/compressed.jpg")
    data = prepared(folder, tmp_path, split="publisher", duplicates="allow")
    pairs = near_duplicates(data, quiet=True).pairs
    across = dict(zip(pairs["key_b"], pairs["across_parts"], strict=True))
    assert across == {"test/a/same.png": False, "train/a/same.png": True}


def test_blank_images_are_counted_and_not_compared(scenes: Path, tmp_path: Path) -> None:
    for level in range(0, 200, 2):
        Image.new("RGB", (40, 40), (level, level, level)).save(scenes / "b" / f"blank{level}.png")
    near = near_duplicates(prepared(scenes, tmp_path), quiet=True)
    assert near.num_blank == 100 and near.pairs.empty


def test_small_images_are_not_compared(tmp_path: Path) -> None:
    near = near_duplicates(prepared("digits", tmp_path), quiet=True)
    assert near.pairs.empty and "8 x 8 pixels" in near.skipped and "32 x 32" in near.skipped


def test_search_ends_if_all_images_are_alike(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        with Image.open(scenes / "a/03.png") as image:
            image.save(scenes / "a" / f"copy{number}.jpg", quality=70 + number)
    data = prepared(scenes, tmp_path)
    assert len(near_duplicates(data, quiet=True).pairs) == 15
    monkeypatch.setattr(module, "MOST_PAIRS", 14)
    near = near_duplicates(data, quiet=True)
    assert near.pairs.empty and near.skipped.startswith("Near duplicates are not listed: more than 14 pairs")


@pytest.mark.parametrize("max_distance", [0, 1, 4, 6, 11])
def test_pair_search_agrees_with_comparing_all(max_distance: int) -> None:
    generator = np.random.default_rng(max_distance)
    hashes = generator.integers(0, 2**64, 300, dtype=np.uint64)
    for index in range(1, 300, 2):  # every second hash is the one before it with 0 to 13 random bits flipped
        hashes[index] = hashes[index - 1]
        for bit in generator.choice(64, generator.integers(0, 14), replace=False):
            hashes[index] ^= np.uint64(1) << np.uint64(bit)
    expected = [
        [a, b]
        for a, b in itertools.combinations(range(300), 2)
        if bin(int(hashes[a]) ^ int(hashes[b])).count("1") <= max_distance
    ]
    assert len(expected) > 3
    found = near_pairs(hashes, max_distance, most=10_000)
    assert found is not None and found.tolist() == expected


def test_pair_search_in_many_equal_hashes_is_given_up_early() -> None:
    assert near_pairs(np.full(100_000, 5, np.uint64), 6, most=1000) is None
    assert near_pairs(np.full(10, 5, np.uint64), 6, most=44) is None
    found = near_pairs(np.full(10, 5, np.uint64), 6, most=45)
    assert found is not None and len(found) == 45


@pytest.mark.parametrize("count", [0, 1])
def test_pair_search_needs_two_hashes(count: int) -> None:
    found = near_pairs(np.zeros(count, np.uint64), 6, most=10)
    assert found is not None and found.shape == (0, 2)


# examples


def test_examples_do_not_depend_on_file_names(write_images: WriteImages, tmp_path: Path) -> None:
    folder = write_images({"cat": 8, "dog": 8})
    data = prepared(folder, tmp_path)
    chosen = example_rows(data, 3)
    assert [len(rows) for rows in chosen] == [3, 3]
    assert [{data.labels[row] for row in rows} for rows in chosen] == [{0}, {1}]
    before = {data.hashes[row] for row in itertools.chain(*chosen)}
    for file in sorted((folder / "cat").iterdir()):
        file.rename(file.with_name(f"{999 - int(file.stem)}.png"))
    renamed = prepared(folder, tmp_path)
    assert {renamed.hashes[row] for row in itertools.chain(*example_rows(renamed, 3))} == before


def test_examples_are_images_in_use_if_there_are_enough(write_images: WriteImages, tmp_path: Path) -> None:
    data = prepared(write_images({"cat": 12, "dog": 12}), tmp_path, images_per_class=4)
    for rows in example_rows(data, 4):
        assert "unused" not in {data.split.parts[row] for row in rows}
    assert [len(rows) for rows in example_rows(data, 6)] == [6, 6]


def test_unused_parts_are_not_mentioned(scenes: Path, tmp_path: Path) -> None:
    with Image.open(scenes / "a/03.png") as image:
        image.save(scenes / "a/copy.jpg")
    data = prepared(scenes, tmp_path)
    parts = list(data.split.parts)
    parts[data.keys.index("a/copy.jpg")] = "unused"
    data = dataclasses.replace(data, split=dataclasses.replace(data.split, parts=tuple(parts)))
    (pair,) = near_duplicates(data, quiet=True).pairs.to_dict("records")
    assert not pair["across_parts"]
