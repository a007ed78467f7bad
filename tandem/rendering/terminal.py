"""Tables on a terminal."""

from __future__ import annotations

import rich.box
import rich.console
import rich.table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from tandem.rendering.tables import Table, with_columns, without_constant_columns

PROSE_WIDTH = 160  # characters per line of a table with prose, in a file or a pipe
# Characters per line to which long texts break in a narrow terminal.
LEAST_TEXT_WIDTH = 10
LEAST_PROSE_WIDTH = 24


def print_table(table: Table, console: Console | None = None, *, file: str = "") -> None:
    """Prints a table; on a terminal as wide as that, elsewhere as wide as its content.

    Columns that say the same in every row are a line above the table. On a narrow terminal long texts break, and if
    that is not enough, columns are left out from the right, and named below the table. Numbers are never cut. In a file
    or a pipe nothing is left out; lines of prose have at most 160 characters.

    Args:
        table: The content.
        console: Standard output by default.
        file: Where all columns are, for the line about columns that are left out.
    """
    console = console or Console()
    shown, constant = without_constant_columns(table)
    if not console.is_terminal:
        rendered = render_table(shown, constant)
        width = _widths(rendered, console).maximum
        width = min(width, PROSE_WIDTH) if shown.prose else width
        Console(file=console.file, width=max(console.width, width)).print(rendered)
        return
    kept = [column.key for column in shown.columns]
    while True:
        left_out = [column.heading for column in shown.columns if column.key not in kept]
        narrow = with_columns(shown, kept)
        for compact in (False, True):
            cells = _cells(narrow, compact=compact)
            needed = _least_width(cells) if compact else _widths(cells, console).maximum
            if needed <= console.width or (compact and len(kept) == 1):
                console.print(render_table(narrow, constant, compact=compact, left_out=left_out, file=file))
                return
        kept.pop()


def render_table(
    table: Table,
    constant: tuple[str, ...] = (),
    *,
    compact: bool = False,
    left_out: list[str] | None = None,
    file: str = "",
) -> rich.console.Group:
    """The table for rich's console: best values bold, values tied with them underlined.

    Args:
        table: The content.
        constant: "heading value" of the columns that are not in it because they say the same in every row.
        compact: Narrow gaps and one word of a heading per line, for narrow terminals.
        left_out: Headings of the columns for which the terminal is too narrow.
        file: Where those are.
    """
    # Not rich's own title and caption, which break at the width of the table.
    above: list[Text | str] = [Text(table.title, style="bold")]
    if constant:
        above.append(Text(f"In every row: {'; '.join(constant)}."))
    below: list[Text | str] = []
    if left_out:
        place = f"; all {len(table.columns) + len(left_out)} columns are in {file}" if file else ""
        below.append(Text(f"Too narrow for {', '.join(left_out)}{place}."))
    below += [Text(note) for note in table.all_notes]
    return rich.console.Group(*above, "", _cells(table, compact=compact), *(["", *below] if below else []), "")


def _cells(table: Table, *, compact: bool) -> rich.table.Table:
    best, tied, prose = table.best_cells(), table.tied_cells(), table.prose
    cells = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if compact else 1, 0, 0), leading=1 if prose else 0
    )
    for index, column in enumerate(table.columns):
        is_text = column.kind == "text"
        texts = [table.format(row[index], column) for row in table.rows]
        longest = max(len(text) for text in (*texts, *(column.heading.split() if compact else (column.heading,))))
        cells.add_column(
            Text(column.heading.replace(" ", "\n") if compact else column.heading),
            justify="left" if is_text else "right",
            min_width=min(longest, LEAST_PROSE_WIDTH if index in prose else LEAST_TEXT_WIDTH) if is_text else longest,
            no_wrap=not is_text,
            overflow="fold",
            vertical="top" if prose else "bottom",
        )
    for row, values in enumerate(table.rows):
        written = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            style = "bold" if (row, index) in best else "underline" if (row, index) in tied else ""
            # Styles the text and not the cell, whose padding would be underlined.
            written.append(Text.assemble((table.format(value, column), style)))
        cells.add_row(*written)
    return cells


def _least_width(cells: rich.table.Table) -> int:
    padding = cells.padding[1] + cells.padding[3]
    return sum((column.min_width or 0) + padding + 1 for column in cells.columns) - 1


def _widths(rendered: rich.console.RenderableType, console: Console) -> Measurement:
    return Measurement.get(console, console.options.update(max_width=10_000), rendered)
