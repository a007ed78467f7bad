"""The page of a data set, which needs no network: classes, examples, sizes, copies, unreadable files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tandem.data.prepare import PreparedData
from tandem.data_report.figures import class_bars, class_share_bars, file_size_boxes, image_size_marks
from tandem.data_report.statistics import DataSetStatistics, example_rows
from tandem.data_report.tables import remarks, shorten_table
from tandem.rendering.page import Block, Gallery, Page, Picture, Plot, Section, Text
from tandem.rendering.tables import Table

MOST_LISTED = 200  # rows of a table on the page; more would take megabytes
WHOLE_TABLES = (
    "classes",
    "file_sizes",
    "file_sizes_train",
)  # tables with one row per class, which are shown completely
MOST_EXAMPLES = 96  # images
EXAMPLES_PER_CLASS = 8  # one row of the page
MOST_PAIRS_SHOWN = 16


def make_data_page(data: PreparedData, statistics: DataSetStatistics, tables: Mapping[str, Table]) -> Page:
    """Makes the page of a data set.

    Args:
        data: The images.
        statistics: Statistics of the images.
        tables: Result of `make_tables`.
    """
    sections: list[Section] = []

    def add(title: str, anchor: str, *blocks: Block | str | None, folded: bool = False) -> None:
        found = [tables.get(block) if isinstance(block, str) else block for block in blocks]
        shown = tuple(
            shorten_table(block, MOST_LISTED) if isinstance(block, Table) and block.name not in WHOLE_TABLES else block
            for block in found
            if block is not None
        )
        if shown:
            sections.append(Section(title=title, anchor=anchor, blocks=shown, folded=folded))

    sizes = statistics.image_sizes
    add("Summary", "summary", Text(paragraphs=remarks(statistics)), "summary")
    add(
        "Classes",
        "classes",
        Plot(figure=class_bars(statistics.counts), caption="Images of each class, by part of the split."),
        "classes",
        Plot(
            figure=class_share_bars(statistics.counts),
            caption="Share of each class in the images of a part, in percent.",
        ),
    )
    add("Examples", "examples", _examples(data))
    add("File sizes", "file-sizes", *_file_size_blocks(statistics))
    add(
        "Image sizes and modes",
        "image-sizes",
        Plot(
            figure=image_size_marks(sizes),
            caption="Width and height of the images in their files; the area of a mark is the number of images. Square "
            "images are on the dotted line.",
        )
        if len(sizes) > 1
        else Text(paragraphs=(f"All images are {sizes['width'][0]:,} x {sizes['height'][0]:,} pixels.",)),
        "image_sides" if len(sizes) > 1 else None,
        "image_sizes" if len(sizes) > 1 else None,
        "modes",
    )
    near = Text(paragraphs=(statistics.near.skipped,)) if statistics.near.skipped else None
    add("Copies", "copies", "exact_copies", near, _pairs(data, statistics), "near_duplicates")
    add("Unreadable files", "unreadable", "unreadable")
    add("What is not used, and what was assumed", "passed-over", "passed_over", "remarks")
    add("Where the data is from", "origin", _origin(data), folded=True)
    lead = f"{len(data.keys):,} images of {len(data.classes)} classes"
    return Page(title=f"Data set: {data.name}", lead=lead, sections=tuple(sections))


def _file_size_blocks(statistics: DataSetStatistics) -> list[Block | str | None]:
    if statistics.file_sizes is None:
        return [Text(paragraphs=("These images come from an array and have no files.",))]
    caption = "Smallest size, quartiles, largest size and mean of each class's {}, in bytes."
    blocks: list[Block | str | None] = [
        Plot(figure=file_size_boxes(statistics.file_sizes), caption=caption.format("files")),
        "file_sizes",
    ]
    if statistics.train_file_sizes is not None:
        figure = file_size_boxes(statistics.train_file_sizes)
        blocks += [Plot(figure=figure, caption=caption.format("training files")), "file_sizes_train"]
    return blocks


def _examples(data: PreparedData) -> Gallery:
    num_classes = len(data.classes)
    per_class = int(np.clip(MOST_EXAMPLES // num_classes, 1, EXAMPLES_PER_CLASS))
    by_class = example_rows(data, per_class)
    note = "A random choice that is always the same, as the images are stored for the networks."
    if num_classes > MOST_EXAMPLES:
        chosen = np.linspace(0, num_classes - 1, MOST_EXAMPLES).astype(int)
        by_class = [by_class[label] for label in chosen]
        note += f" {MOST_EXAMPLES} of the {num_classes} classes are shown."
    pictures = tuple(
        Picture(image=np.asarray(data.images[row]), caption=data.classes[data.labels[row]])
        for rows in by_class
        for row in rows
    )
    return Gallery(title="Some images of each class", pictures=pictures, note=note)


def _pairs(data: PreparedData, statistics: DataSetStatistics) -> Gallery | None:
    pairs = statistics.near.pairs
    if pairs.empty:
        return None
    pictures = []
    shown = pairs.head(MOST_PAIRS_SHOWN).to_dict("records")
    for number, pair in enumerate(shown, start=1):
        for side in "ab":
            caption = f"{number}{side.upper()}, {pair['distance']} bits\n{pair[f'part_{side}']}: {pair[f'key_{side}']}"
            pictures.append(Picture(image=np.asarray(data.images[pair[f"row_{side}"]]), caption=caption))
    return Gallery(
        title=f"The nearest {len(shown)} of {len(pairs):,} pairs that look almost the same, those across parts first",
        pictures=tuple(pictures),
        note="A and B with the same number are a pair. Judge for yourself if they are copies.",
    )


def _origin(data: PreparedData) -> Text:
    split = data.report["split"]
    store = data.report["store"]
    return Text(
        paragraphs=(
            f"Source: {data.report['source']}.",
            f"Split: {split['kind']} with data.split_seed {split['seed']}; hash {split['hash']}, of the test images "
            f"and classes {split['test_hash']}.",
            f"Stored for the networks: {store['width']} x {store['height']} pixels, {store['bytes'] / 1e6:,.1f} MB.",
        )
    )
