"""Tables of a data set's report, and sentences that sum them up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tandem.data.split import PARTS, UNUSED
from tandem.data_report.statistics import ALL, NEAR_BITS, DataSetStatistics
from tandem.rendering.tables import Column, Table, Value

UNEVEN = 2
"""Ratio of the largest to the smallest class from which on the report mentions it."""

ALL_CLASSES = "all classes"

PERCENTILES = ("25%", "50%", "75%")


def make_tables(name: str, statistics: DataSetStatistics) -> dict[str, Table]:
    """Makes all tables that have rows, by their names, in the order of the page.

    Args:
        name: Name of the data set.
        statistics: Statistics of the data set.
    """
    made = [
        _summary(statistics),
        _classes(statistics.counts),
        _file_sizes(statistics.file_sizes),
        _train_file_sizes(statistics.train_file_sizes),
        _sides(statistics.image_sizes),
        _image_sizes(statistics.image_sizes),
        _modes(statistics.modes),
        _exact_copies(statistics.copies),
        _near_duplicates(statistics.near.pairs),
        _lines("unreadable", "Files and class folders that were left out", "file and problem", statistics.unreadable),
        _lines("passed_over", "Files and folders that are not used", "what", statistics.passed_over),
        _lines("remarks", "What was assumed", "remark", statistics.remarks),
    ]
    return {table.name: replace(table, title=f"{table.title}: {name}") for table in made if table.rows}


def shorten_table(table: Table, most: int) -> Table:
    """The first rows of a table; if some are left out, with a note on how many there are."""
    if len(table.rows) <= most:
        return table
    note = f"The first {most:,} of {len(table.rows):,} rows; {table.name}.csv has all."
    return replace(table, rows=table.rows[:most], notes=(*table.notes, note))


def key_numbers(statistics: DataSetStatistics) -> dict[str, int]:
    """Key numbers of a data set, by names that begin with num_."""
    copies, pairs = statistics.copies, statistics.near.pairs
    numbers = {f"num_{part}_images": int(statistics.counts[part].sum()) for part in (*PARTS, UNUSED)}
    numbers = {
        "num_images": sum(numbers.values()),
        "num_classes": len(statistics.counts),
        **numbers,
        "num_unreadable": len(statistics.unreadable),
        "num_images_with_copies": len(copies),
        "num_images_with_copies_across_parts": int(copies["across_parts"].sum()),
    }
    if not statistics.near.skipped:
        numbers["num_near_pairs"] = len(pairs)
        numbers["num_near_pairs_across_parts"] = int(pairs["across_parts"].sum())
        numbers["num_blank_images"] = statistics.near.num_blank
    return numbers


def remarks(statistics: DataSetStatistics) -> tuple[str, ...]:
    """Sentences on what a user who trains on these images should know."""
    numbers = key_numbers(statistics)
    sentences = [
        f"{numbers['num_images']:,} images of {numbers['num_classes']} classes: "
        + ", ".join(
            f"{part} {numbers[f'num_{part}_images']:,}"
            for part in (*PARTS, UNUSED)
            if numbers[f"num_{part}_images"] or part != UNUSED
        )
        + "."
    ]
    per_class = statistics.counts[ALL]
    if per_class.max() >= UNEVEN * per_class.min():
        sentences.append(
            f"The classes are uneven: {per_class.idxmax()} has {per_class.max():,} images, {per_class.idxmin()} "
            f"{per_class.min():,}; macro averages and per-class scores tell more than accuracy."
        )
    if statistics.passed_over:
        sentences.append("Some files or folders are not used; the list of them is below.")
    if statistics.unreadable:
        sentences.append(f"Unreadable files and class folders, which were left out: {len(statistics.unreadable):,}.")
    sentences += _about_copies(statistics, numbers)
    return tuple(sentences)


def _about_copies(statistics: DataSetStatistics, numbers: dict[str, int]) -> list[str]:
    sentences = []
    if across := numbers["num_images_with_copies_across_parts"]:
        sentences.append(
            f"{across:,} images have exact copies in another part of the split, which makes scores too high; "
            "`data.duplicates: together` keeps copies in one part."
        )
    elif numbers["num_images_with_copies"]:
        sentences.append(f"{numbers['num_images_with_copies']:,} images have exact copies, none in another part.")
    else:
        sentences.append("No two images are exact copies.")
    if contradictory := int((statistics.copies.groupby("hash")["class"].nunique() > 1).sum()):
        sentences.append(
            f"Images with exact copies in different classes: {contradictory:,}; one of the labels is wrong."
        )
    near = statistics.near
    if near.skipped:
        sentences.append(near.skipped)
    elif numbers["num_near_pairs"]:
        across = numbers["num_near_pairs_across_parts"]
        sentences.append(
            f"Pairs of images that look almost the same: {numbers['num_near_pairs']:,}; across two parts of the split: "
            f"{across:,}. If the latter are copies, they make scores too high; different images can look alike, too."
        )
    else:
        sentences.append(f"No two images look almost the same (perceptual hashes within {NEAR_BITS} bits).")
    if near.num_blank:
        sentences.append(f"Blank images, of a single colour: {near.num_blank:,}.")
    return sentences


_SUMMARY_WORDS = {
    "num_images": "images",
    "num_classes": "classes",
    **{f"num_{part}_images": f"{part} images" for part in (*PARTS, UNUSED)},
    "num_unreadable": "unreadable files and class folders",
    "num_images_with_copies": "images with exact copies",
    "num_images_with_copies_across_parts": "images with exact copies in another part",
    "num_near_pairs": "pairs of near duplicates",
    "num_near_pairs_across_parts": "pairs of near duplicates across two parts",
    "num_blank_images": "blank images",
}


def _summary(statistics: DataSetStatistics) -> Table:
    return Table(
        name="summary",
        title="Data set",
        columns=(Column(key="what", heading="what"), Column(key="number", heading="number", kind="number")),
        rows=tuple((_SUMMARY_WORDS[name], number) for name, number in key_numbers(statistics).items()),
    )


def _classes(counts: pd.DataFrame) -> Table:
    shown = [ALL, *(part for part in (*PARTS, UNUSED) if counts[part].any())]
    totals = {part: int(counts[part].sum()) for part in shown}
    columns = [Column(key="class", heading="class")]
    for part in shown:
        columns.append(Column(key=f"{part}_images", heading="images" if part == ALL else part, kind="number"))
        columns.append(Column(key=f"{part}_percent", heading=f"% of {part}", kind="number"))
    rows: list[tuple[Value, ...]] = []
    by_class: list[dict[Any, int]] = [*counts[shown].to_dict("records"), totals]
    for name, of_class in zip([*counts.index, ALL_CLASSES], by_class, strict=True):
        numbers = [(int(of_class[part]), 100 * of_class[part] / totals[part]) for part in shown]
        rows.append((str(name), *(value for pair in numbers for value in pair)))
    return Table(name="classes", title="Images of each class", columns=tuple(columns), rows=tuple(rows))


def _file_sizes(sizes: pd.DataFrame | None) -> Table:
    statistics = ("count", "mean", "std", "min", *PERCENTILES, "max")
    rows: list[tuple[Value, ...]] = []
    if sizes is not None:
        names = [*sizes.index[:-1], ALL_CLASSES]
        for name, of_class in zip(names, sizes[list(statistics)].to_numpy().tolist(), strict=True):
            rows.append((str(name), *map(_value, of_class)))
    return Table(
        name="file_sizes",
        title="Bytes of each class's files",
        columns=(
            Column(key="class", heading="class"),
            Column(key="count", heading="files", kind="number"),
            *(
                Column(key=f"{key.replace('%', '_percent')}_bytes", heading=key.replace("%", " %"), kind="number")
                for key in statistics[1:]
            ),
        ),
        rows=tuple(rows),
        notes=(
            "std is that of a sample (n - 1); quartiles are interpolated.",
            "A mean far above the median is due to a few very large files.",
        ),
    )


def _train_file_sizes(sizes: pd.DataFrame | None) -> Table:
    return replace(_file_sizes(sizes), name="file_sizes_train", title="Bytes of each class's training files")


def _sides(sizes: pd.DataFrame) -> Table:
    sides = {"width": sizes["width"], "height": sizes["height"], "width / height": sizes["width"] / sizes["height"]}
    times = sizes["images"].to_numpy()
    described = {name: pd.Series(np.repeat(side.to_numpy(), times)).describe() for name, side in sides.items()}
    statistics = ("min", *PERCENTILES, "max", "mean")
    return Table(
        name="image_sides",
        title="Width and height in pixels",
        columns=(
            Column(key="side", heading="side"),
            *(
                Column(key=key.replace("%", "_percent"), heading=key.replace("%", " %"), kind="number")
                for key in statistics
            ),
        ),
        rows=tuple((name, *(round(float(row[key]), 2) for key in statistics)) for name, row in described.items()),
        notes=("Sizes of the upright images in their files.",),
    )


def _image_sizes(sizes: pd.DataFrame) -> Table:
    total = int(sizes["images"].sum())
    return Table(
        name="image_sizes",
        title="Image sizes, the most frequent first",
        columns=(
            Column(key="width", heading="width", kind="number"),
            Column(key="height", heading="height", kind="number"),
            Column(key="images", heading="images", kind="number"),
            Column(key="percent", heading="%", kind="number"),
        ),
        rows=tuple(
            (int(width), int(height), int(images), 100 * int(images) / total)
            for width, height, images in sizes[["width", "height", "images"]].to_numpy().tolist()
        ),
    )


# from Pillow's documentation (Concepts); other modes are shown without an explanation
_MODE_WORDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, with transparency",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour, with transparency",
    "CMYK": "printing colours",
    "YCbCr": "colour video",
    "I": "grey, 32 bits",
    "I;16": "grey, 16 bits",
}


def _modes(modes: pd.DataFrame) -> Table:
    total = int(modes["images"].sum())
    return Table(
        name="modes",
        title="Pixel formats",
        columns=(
            Column(key="mode", heading="mode"),
            Column(key="meaning", heading="meaning"),
            Column(key="images", heading="images", kind="number"),
            Column(key="percent", heading="%", kind="number"),
        ),
        rows=tuple(
            (mode, _MODE_WORDS.get(mode), int(images), 100 * int(images) / total)
            for mode, images in zip(modes["mode"], modes["images"], strict=True)
        ),
        notes=("Modes are Pillow's names. All images are converted to RGB.",),
    )


def _exact_copies(copies: pd.DataFrame) -> Table:
    columns = ("key", "class", "part", "note")
    numbers = {value: number for number, value in enumerate(copies["hash"].unique(), start=1)}
    return Table(
        name="exact_copies",
        title="Exact copies",
        columns=(
            Column(key="group", heading="group", kind="number"),
            Column(key="across_parts", heading="across parts"),
            *(Column(key=key, heading=heading) for key, heading in zip(columns, ("file", *columns[1:]), strict=True)),
        ),
        rows=tuple(
            (numbers[row["hash"]], _yes_or_no(row["across_parts"]), *(str(row[key]) for key in columns))
            for row in copies.to_dict("records")
        ),
        notes=("Files of one group have the same bytes.",),
    )


def _near_duplicates(pairs: pd.DataFrame) -> Table:
    keys = [f"{key}_{side}" for side in "ab" for key in ("key", "class", "part")]
    headings = [f"{word} {side}" for side in "AB" for word in ("file", "class", "part")]
    return Table(
        name="near_duplicates",
        title="Images that look almost the same",
        columns=(
            Column(key="distance", heading="bits apart", kind="number"),
            Column(key="across_parts", heading="across parts"),
            *(Column(key=key, heading=heading) for key, heading in zip(keys, headings, strict=True)),
        ),
        rows=tuple(
            (int(row["distance"]), _yes_or_no(row["across_parts"]), *(str(row[key]) for key in keys))
            for row in pairs.to_dict("records")
        ),
        notes=(
            f"Pairs whose perceptual hashes (pHash, 64 bits) differ in at most {NEAR_BITS} bits, without exact copies.",
            "Different images can be listed, too; mirrored, rotated or strongly cropped copies are not found.",
        ),
    )


def _lines(name: str, title: str, heading: str, lines: tuple[str, ...]) -> Table:
    key = {"unreadable": "problem"}.get(name, "line")
    return Table(
        name=name,
        title=title,
        columns=(Column(key=key, heading=heading),),
        rows=tuple((line,) for line in lines),
    )


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _value(number: float) -> Value:
    # the standard deviation of a single file
    return None if math.isnan(number) else float(number)
