from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tandem.data.prepare import PreparedData
from tandem.data_report.statistics import DataSetStatistics, describe
from tandem.data_report.tables import key_numbers, make_tables, remarks, shorten_table
from tandem.rendering.tables import Table, render_csv, render_latex, render_markdown


@pytest.fixture(scope="module")
def statistics(messy_data: PreparedData) -> DataSetStatistics:
    return describe(messy_data, quiet=True)


@pytest.fixture(scope="module")
def tables(statistics: DataSetStatistics) -> dict[str, Table]:
    return make_tables("birds", statistics)


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows]


def test_every_table_that_has_rows_is_there(tables: dict[str, Table]) -> None:
    assert list(tables) == [
        *("summary", "classes", "file_sizes", "file_sizes_train", "image_sides", "image_sizes", "modes"),
        *("exact_copies", "near_duplicates", "unreadable", "passed_over", "remarks"),
    ]
    assert all(table.title.endswith(": birds") for table in tables.values())


def test_tables_without_rows_are_left_out(plain_data: PreparedData) -> None:
    tables = make_tables("digits", describe(plain_data, quiet=True))
    assert list(tables) == ["summary", "classes", "image_sides", "image_sizes", "modes", "remarks"]


def test_percentages_of_a_part_are_shares_of_its_images(tables: dict[str, Table]) -> None:
    emu, owl, everything = rows(tables["classes"])
    assert (emu["class"], owl["class"], everything["class"]) == ("emu", "owl", "all classes")
    assert (emu["all_images"], owl["all_images"], everything["all_images"]) == (6, 11 + 2, 19)
    assert (emu["test_images"], owl["test_images"]) == (3, 2)
    assert emu["test_percent"] == pytest.approx(60) and owl["test_percent"] == pytest.approx(40)
    assert emu["all_percent"] == pytest.approx(100 * 6 / 19)
    assert {everything[f"{part}_percent"] for part in ("all", "train", "val", "test")} == {100}


def test_class_named_all_is_a_class_like_others(statistics: DataSetStatistics) -> None:
    counts = statistics.counts.rename(index={"emu": "all"})
    assert statistics.file_sizes is not None
    sizes = statistics.file_sizes.rename(index={"emu": "all"})
    renamed = make_tables("birds", replace(statistics, counts=counts, file_sizes=sizes))
    assert [row[0] for row in renamed["classes"].rows] == ["all", "owl", "all classes"]
    assert [row[0] for row in renamed["file_sizes"].rows] == ["all", "owl", "all classes"]
    assert [row[1] for row in renamed["file_sizes"].rows] == [6, 13, 19]


def test_standard_deviation_of_a_single_file_is_empty(statistics: DataSetStatistics) -> None:
    assert statistics.file_sizes is not None
    sizes = statistics.file_sizes.copy()
    sizes.loc["emu"] = pd.Series([7]).describe()
    emu = rows(make_tables("birds", replace(statistics, file_sizes=sizes))["file_sizes"])[0]
    assert emu["mean_bytes"] == 7 and emu["std_bytes"] is None


def test_sides_count_every_image(statistics: DataSetStatistics) -> None:
    sizes = pd.DataFrame({"width": [10, 40], "height": [20, 20], "images": [3, 1]})
    width, height, ratio = rows(make_tables("birds", replace(statistics, image_sizes=sizes))["image_sides"])
    assert width["mean"] == 17.5 and width["50_percent"] == 10 and width["max"] == 40
    assert height["min"] == height["max"] == 20
    assert ratio["mean"] == 0.88  # (3 * 0.5 + 2) / 4, to two places


def test_copies_name_their_files_and_groups(tables: dict[str, Table]) -> None:
    copies = rows(tables["exact_copies"])
    assert [(row["group"], row["key"], row["across_parts"]) for row in copies] == [
        (1, "train/owl/0.png", "no"),
        (1, "train/owl/copy.png", "no"),
    ]
    (near,) = rows(tables["near_duplicates"])
    assert near["across_parts"] == "yes"
    assert [near["key_a"], near["part_a"], near["class_a"]] == ["test/owl/1.png", "test", "owl"]
    assert near["key_b"] == "train/owl/compressed.jpg" and near["part_b"] in ("train", "val")


def test_broken_files_are_listed_with_their_problem(tables: dict[str, Table]) -> None:
    assert [row[0] for row in tables["unreadable"].rows] == [
        "train/emu/empty.jpg: the file is empty",
        "train/emu/text.jpg: not an image, despite its name",
    ]


def test_files_that_are_not_used_are_listed(tables: dict[str, Table]) -> None:
    assert [row[0] for row in tables["passed_over"].rows] == ["passed over: 2 files (.svg 1, .txt 1)"]
    assert str(tables["remarks"].rows[0][0]).startswith("publisher's split (train, test); 25 % of train")


def test_key_numbers_add_up(statistics: DataSetStatistics) -> None:
    numbers = key_numbers(statistics)
    parts = ("train", "val", "test", "unused")
    assert numbers["num_images"] == sum(numbers[f"num_{part}_images"] for part in parts) == 19
    assert numbers["num_classes"] == 2 and numbers["num_unreadable"] == 2
    assert numbers["num_images_with_copies"] == 2 and numbers["num_images_with_copies_across_parts"] == 0
    assert numbers["num_near_pairs"] == numbers["num_near_pairs_across_parts"] == numbers["num_blank_images"] == 1


def test_near_pairs_are_not_counted_if_they_were_not_looked_for(plain_data: PreparedData) -> None:
    assert "num_near_pairs" not in key_numbers(describe(plain_data, quiet=True))


def test_remarks_say_what_is_wrong(statistics: DataSetStatistics) -> None:
    said = " ".join(remarks(statistics))
    assert "19 images of 2 classes: train" in said
    assert "The classes are uneven: owl has 13 images, emu 6" in said
    assert "2 images have exact copies, none in another part." in said
    assert "look almost the same: 1; across two parts of the split: 1." in said
    assert "left out: 2." in said and "a single colour: 1." in said


def test_remarks_on_copies_in_other_parts_and_classes(statistics: DataSetStatistics) -> None:
    copies = statistics.copies.assign(across_parts=True, **{"class": ["owl", "emu"]})
    said = " ".join(remarks(replace(statistics, copies=copies)))
    assert "2 images have exact copies in another part of the split" in said
    assert "Images with exact copies in different classes: 1" in said


def test_clean_data_is_described_as_clean(plain_data: PreparedData) -> None:
    first, copies, near = remarks(describe(plain_data, quiet=True))
    assert first.startswith("1,797 images of 10 classes: train 1,259, val 179, test 359.")
    assert copies == "No two images are exact copies."
    assert near.startswith("Near duplicates were not looked for: at 8 x 8 pixels")


def test_long_tables_say_how_many_rows_are_left_out(tables: dict[str, Table]) -> None:
    shortened = shorten_table(tables["image_sizes"], 3)
    assert shortened.rows == tables["image_sizes"].rows[:3]
    assert shortened.notes[-1] == f"The first 3 of {len(tables['image_sizes'].rows)} rows; image_sizes.csv has all."
    assert shorten_table(tables["classes"], 3) == tables["classes"]


def test_tables_can_be_written_in_every_form(tables: dict[str, Table]) -> None:
    for table in tables.values():
        assert len(render_csv(table).splitlines()) == 1 + len(table.rows)
        assert f"tab:{table.name}" in render_latex(table)
        assert render_markdown(table).startswith(f"## {table.title}")
