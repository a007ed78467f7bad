"""HTML pages in one file, with texts, tables, figures and images, that need no network.

    page = Page(title="Birds", sections=(Section(title="Summary", anchor="summary", blocks=(table, Plot(...))),))
    write_page(Path("report.html"), page)

Style and program are page.css and page.js beside this module; plotly.js comes from the plotly package and is in the
file once. Figures are stored as JSON and drawn when they come into view; parts that several of them share (class names,
arrays) are stored once.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from tandem.files import write_text
from tandem.rendering.tables import (
    Column,
    Estimate,
    Table,
    Value,
    format_interval,
    number_of,
    without_constant_columns,
)
from tandem.rendering.theme import DARK, LIGHT

LARGEST_THUMBNAIL = 256  # pixels per side: twice the 128 at which it is shown, for sharp screens
SMALL_IMAGE = 64  # largest side in pixels of images that are enlarged without blurring
SHORT_TEXT = 32  # most characters of a table cell that stays on one line, except on a phone
MINUS = "\N{MINUS SIGN}"
SHARED_FROM = 200  # characters of JSON of the smallest part of a figure that is stored separately

# The page cannot load anything, whatever it contains.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs of plain text."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line to be copied."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Plot:
    """A figure with its caption."""

    figure: go.Figure
    """Its template is replaced by the light or dark one of the page."""
    caption: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image with its caption."""

    image: bytes | np.ndarray
    """Bytes of a PNG or JPEG file, or uint8 of shape (height, width, 3) or (height, width), 0..255."""
    caption: str
    """One or more lines."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images side by side, shrunk to thumbnails."""

    title: str
    pictures: tuple[Picture, ...]
    """In reading order; without any the page says "None."."""
    note: str = ""
    """A paragraph below the title."""


Block = Text | Command | Table | Plot | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page that can be folded."""

    title: str
    """Its heading, and its entry in the table of contents."""
    anchor: str
    """The part of its address after "#"; unique on the page."""
    blocks: tuple[Block, ...]
    folded: bool = False
    """True if the reader has to open it."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of sections.

    Raises:
        ValueError: Two sections have the same anchor.
    """

    title: str
    lead: str
    """One line below the title."""
    headline: tuple[str, ...] = ()
    """The results in large type, one paragraph each, above everything else."""
    sections: tuple[Section, ...]
    """More than one gets a table of contents."""

    def __post_init__(self) -> None:
        anchors = [section.anchor for section in self.sections]
        if len(set(anchors)) < len(anchors):
            raise ValueError(f"the anchors of a page's sections have to differ. Received: {anchors}")


def write_page(path: Path, page: Page) -> None:
    """Writes a page.

    Args:
        path: The HTML file; a missing folder is created. A page with figures includes 4.8 MB of plotly.js.
        page: Its content.
    """
    write_text(path, render_page(page))


def render_page(page: Page) -> str:
    """The page as HTML."""
    shared: dict[str, int] = {}
    figures: list[str] = []
    sections = [_section(section, figures, shared) for section in page.sections]
    links = [
        f'<li><a href="#{html.escape(section.anchor)}">{html.escape(section.title)}</a></li>'
        for section in page.sections
    ]
    contents = f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>' if len(links) > 1 else ""
    templates = json.dumps({"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()})
    program = [
        _json_script("templates", templates),
        *(_json_script(f"shared-{number}", content) for content, number in shared.items()),
        *(_json_script(f"figure-{number}", content) for number, content in enumerate(figures)),
        # At the end, so that texts and tables can be read before the browser has loaded 5 MB of program.
        f"<script>{get_plotlyjs()}</script>" if figures else "",
        f"<script>{_beside('page.js')}</script>",
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(page.title)}</title>",
            f"<style>{_beside('page.css')}</style></head>\n<body>",
            f'<header><h1>{html.escape(page.title)}</h1><p class="quiet">{_prose(page.lead)}</p>',
            *(f'<p class="headline">{_prose(paragraph)}</p>' for paragraph in page.headline),
            "</header>",
            contents,
            "<main>",
            *sections,
            "</main>",
            *program,
            "</body></html>\n",
        ]
    )


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _json_script(identifier: str, content: str) -> str:
    # "</script>" in a text would end the script.
    content = content.replace("<", "\\u003c")
    return f'<script type="application/json" id="{identifier}">{content}</script>'


def _section(section: Section, figures: list[str], shared: dict[str, int]) -> str:
    blocks = []
    for block in section.blocks:
        if isinstance(block, Text):
            blocks += [f"<p>{_prose(paragraph)}</p>" for paragraph in block.paragraphs]
        elif isinstance(block, Command):
            blocks.append(f"<pre><code>{html.escape(block.text)}</code></pre>")
        elif isinstance(block, Table):
            blocks.append(_table(block))
        elif isinstance(block, Gallery):
            blocks.append(_gallery(block))
        else:
            blocks.append(_plot(block, len(figures)))
            figures.append(_compact(block.figure, shared))
    state = "" if section.folded else " open"
    return (
        f'<details class="section" id="{html.escape(section.anchor)}"{state}>'
        f"<summary><h2>{html.escape(section.title)}</h2></summary>\n" + "\n".join(blocks) + "\n</details>"
    )


def _plot(plot: Plot, number: int) -> str:
    caption = _prose(plot.caption)
    # The height of the drawn figure, so that the content below does not jump.
    height = plot.figure.layout.height or 450
    return (
        f'<figure><div class="plot"><div data-figure="figure-{number}" style="height: {height}px" role="group" '
        f'aria-label="{caption}"></div></div><figcaption>{caption}</figcaption></figure>'
    )


def _compact(figure: go.Figure, shared: dict[str, int]) -> str:
    """JSON of a figure without its template, with numbers in place of its large parts.

    Args:
        figure: Left unchanged.
        shared: Number of each large part by its JSON; new parts are added.
    """
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)

    def replaced(node: Any) -> Any:
        is_array = isinstance(node, dict) and "bdata" in node
        is_values = isinstance(node, list) and not any(isinstance(value, dict | list) for value in node)
        if is_array or is_values:
            written = _dump(node)
            if len(written) < SHARED_FROM:
                return node
            return {"_shared": shared.setdefault(written, len(shared))}
        if isinstance(node, dict):
            return {key: replaced(value) for key, value in node.items()}
        return [replaced(value) for value in node] if isinstance(node, list) else node

    return _dump({"data": replaced(content["data"]), "layout": replaced(content["layout"])})


def _dump(node: Any) -> str:
    return json.dumps(node, ensure_ascii=False, separators=(",", ":"))


def _prose(text: str) -> str:
    """A text as HTML, with minus signs, as in figures, for the hyphens before numbers."""
    return html.escape(re.sub(r"(?<![\w.\-])-(?=\d)", MINUS, text))


def _table(full: Table) -> str:
    table, constant = without_constant_columns(full)
    best, tied = table.best_cells(), table.tied_cells()
    names = _name_columns(table)
    rows = []
    for row, values in enumerate(table.rows):
        cells = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            mark = "strong" if (row, index) in best else "u" if (row, index) in tied else None
            attributes = ' class="short name"' if 0 < index < names else ""
            if index == 0 and names > 1:
                more = ", ".join(str(name) for name in values[1:names])
                attributes = f' class="short" data-names="{html.escape(more)}"'
            cells.append(_cell(table, value, column, mark, attributes))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    others = ", ".join(column.heading for column in table.columns[1:names])
    heads = "".join(
        _head(column, is_name=0 < index < names, others=others if index == 0 else "")
        for index, column in enumerate(table.columns)
    )
    title = html.escape(table.title)
    same = [f"In every row: {'; '.join(constant)}."] if constant else []
    notes = "".join(f"<li>{_prose(note)}</li>" for note in (*same, *table.all_notes))
    return (
        # tabindex makes it scrollable by keyboard.
        f'<h3>{title}</h3>\n<div class="table" role="region" aria-label="{title}" tabindex="0"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></div>"
        + (f'\n<ul class="notes">{notes}</ul>' if notes else "")
    )


def _name_columns(table: Table) -> int:
    """Number of short texts at the start of each row, which together name it; on a phone they share one column."""
    kinds = [column.kind == "text" for column in table.columns]
    if all(kinds):
        return 0
    first_number = kinds.index(False)
    texts = [row[index] for row in table.rows for index in range(first_number)]
    return first_number if all(isinstance(text, str) and len(text) <= SHORT_TEXT for text in texts) else 0


def _head(column: Column, *, is_name: bool, others: str) -> str:
    """A heading; `others` are those of the columns that share its column on a phone."""
    kind = (' class="name"' if is_name else "") if column.kind == "text" else ' class="number"'
    first = ' data-first="descending"' if column.better == "higher" else ""
    names = f' data-names="{html.escape(others)}"' if others else ""
    return f'<th scope="col"{kind}{first}{names}>{html.escape(column.heading)}</th>'


def _cell(table: Table, value: Value, column: Column, mark: str | None, attributes: str) -> str:
    """A cell.

    Args:
        table: Of the cell.
        value: Its value.
        column: Its column.
        mark: The element around the value; None for no mark.
        attributes: Of a cell that names the row; "" for the others.
    """
    number = number_of(value)
    interval = ""
    if isinstance(value, Estimate):
        limits = format_interval(value, column.kind, table.decimals)
        interval = f' <span class="interval">{html.escape(_number(limits))}</span>'
    if column.kind == "text":
        written = html.escape(table.format(value, column))
        attributes = attributes or (' class="short"' if len(written) <= SHORT_TEXT else "")
    else:
        written = html.escape(_number(table.format(value if isinstance(value, str) else number, column)))
        attributes = ' class="number"'
    if mark:
        written = f"<{mark}>{written}</{mark}>"
    sorted_by = "" if number is None or math.isnan(number) else f' data-value="{number:.9g}"'
    return f"<td{attributes}{sorted_by}>{written}{interval}</td>"


def _number(text: str) -> str:
    """Formatted numbers with minus signs, as in figures, and zeros without a sign."""
    text = re.sub(r"(?<![\w.])[+-](?=0(?:\.0+)?(?![\d.]))", "", text)
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def _gallery(gallery: Gallery) -> str:
    shown = []
    for picture in gallery.pictures:
        address, is_small = _thumbnail(picture.image)
        caption = html.escape(picture.caption)
        kind = ' class="small"' if is_small else ""
        shown.append(f'<figure><img{kind} src="{address}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    note = f"<p>{html.escape(gallery.note)}</p>" if gallery.note else ""
    images = f'<div class="images">{"".join(shown)}</div>' if shown else "<p>None.</p>"
    return f"<h3>{html.escape(gallery.title)}</h3>\n{note}{images}"


def _thumbnail(image: bytes | np.ndarray) -> tuple[str, bool]:
    """Data URI of an image, and True if the image is so small that it is shown with visible pixels."""
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else Image.fromarray(image)
    opened = opened.convert("RGB")
    is_small = max(opened.size) <= SMALL_IMAGE
    opened.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL))
    # PNG keeps small images exact; JPEG is for photographs.
    file = io.BytesIO()
    opened.save(file, **_FORMATS[is_small])
    kind = _FORMATS[is_small]["format"].lower()
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", is_small


_FORMATS: Mapping[bool, dict[str, Any]] = {
    True: {"format": "PNG", "optimize": True},
    False: {"format": "JPEG", "quality": 85},
}
