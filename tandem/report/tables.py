"""A table's content, apart from how it is written down: on a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Literal

import rich.box
import rich.console
import rich.table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

Value = str | float | int | None
Kind = Literal["text", "score", "difference", "ratio", "seconds", "milliseconds", "number", "amount"]

MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        key: name in CSV files, where values stand unrounded; ends in the unit if there is one.
        heading: name for people.
        kind: what the values are, which decides how they are written: `score` 0..1, `difference` of two scores,
            `ratio`, `seconds`, `milliseconds`, `number` (written out), `amount` (3.5M), or `text`.
        better: which values are good ones, if that can be said.
    """

    key: str
    heading: str
    kind: Kind = "text"
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values under columns.

    Args:
        name: the files' name, without a suffix.
        title: stands above the table.
        columns: from left to right.
        rows: one value a column; None where nothing was measured.
        notes: lines below the table that say what is in it and what is not.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row needs {len(self.columns)} values. Received: {row}")

    def best_cells(self) -> set[tuple[int, int]]:
        """(row, column) of the best value of each column that has a direction; none where all values are written alike.

        Values that are written alike share the first place.
        """
        cells: set[tuple[int, int]] = set()
        for index, column in enumerate(self.columns):
            if column.better is None:
                continue
            numbers = {
                row: value
                for row, values in enumerate(self.rows)
                if isinstance(value := values[index], int | float) and not math.isnan(value)
            }
            written = {row: format_value(value, column.kind) for row, value in numbers.items()}
            if len(set(written.values())) < 2:
                continue
            best = max(numbers.values()) if column.better == "higher" else min(numbers.values())
            cells.update((row, index) for row, text in written.items() if text == format_value(best, column.kind))
        return cells


def format_value(value: Value, kind: Kind) -> str:
    """A value as people read it."""
    if value is None:
        return MISSING
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "nan"
    match kind:
        case "score":
            return f"{value:.4f}"
        case "difference":
            return f"{value:+.4f}"
        case "ratio":
            return f"{value:.2f}x"
        case "seconds":
            return _duration(value)
        case "milliseconds":
            return f"{_three_digits(value)} ms"
        case "amount":
            return _amount(value)
        case _:
            return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    # Two of a unit before the next one begins: "90 s" and "1.5 min" side by side are harder to compare.
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{_three_digits(seconds / length)} {unit}"
    return f"{_three_digits(seconds)} s"


def _amount(number: float) -> str:
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{_three_digits(number / size)}{letter}"
    return f"{number:.0f}"


def _three_digits(number: float) -> str:
    if abs(number) >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 0.995 else f"{number:.2g}"


def render_terminal(table: Table, *, compact: bool = False) -> rich.console.Group:
    """The table for rich's console, best values bold.

    Args:
        compact: columns close together and headings broken at each space, for narrow terminals.
    """
    best = table.best_cells()
    cells = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if compact else 1, 0, 0))
    for column in table.columns:
        heading = column.heading.replace(" ", "\n") if compact else column.heading
        # Where there is no room, long names of backbones and settings break; numbers never do.
        is_text = column.kind == "text"
        cells.add_column(
            Text(heading),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            vertical="bottom",
        )
    for row, values in enumerate(table.rows):
        written = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            written.append(Text(format_value(value, column.kind), style="bold" if (row, index) in best else ""))
        cells.add_row(*written)
    # Not rich's own title and caption, which break where the table ends.
    notes: list[Text | str] = ["", *(Text(note) for note in table.notes)] if table.notes else []
    return rich.console.Group(Text(table.title, style="bold"), "", cells, *notes, "")


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table; in a file or a pipe it is as wide as it needs to be."""
    console = console or Console()
    rendered = render_terminal(table)
    width = Measurement.get(console, console.options.update(max_width=10_000), rendered).maximum
    if not console.is_terminal:
        console = Console(file=console.file, width=max(console.width, width))
    elif width > console.width:
        rendered = render_terminal(table, compact=True)
    console.print(rendered)


def render_markdown(table: Table) -> str:
    """The table as a Markdown section, best values bold, columns padded so that the source reads well too."""
    best = table.best_cells()
    lines = [[_markdown_cell(column.heading) for column in table.columns]]
    for row, values in enumerate(table.rows):
        cells = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            cell = _markdown_cell(format_value(value, column.kind))
            cells.append(f"**{cell}**" if (row, index) in best else cell)
        lines.append(cells)
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(table.columns))]
    left = [column.kind == "text" for column in table.columns]
    written = []
    for line in lines:
        padded = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, widths, left, strict=True)
        ]
        written.append("| " + " | ".join(padded) + " |")
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    written.insert(1, "| " + " | ".join(rule) + " |")
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"## {table.title}\n\n" + "\n".join(written) + "\n" + (notes + "\n" if notes else "")


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def render_csv(table: Table) -> str:
    """The table as CSV for other programs: unrounded values, nothing where nothing was measured."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([["" if value is None else value for value in row] for row in table.rows])
    return file.getvalue()
