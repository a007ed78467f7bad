"""Tables and their files: Markdown, CSV and LaTeX (the terminal is in terminal.py, HTML in page.py)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from tandem.files import csv_cell, write_text

Kind = Literal["text", "score", "difference", "p_value", "ratio", "seconds", "milliseconds", "number", "amount"]

MISSING = "-"
DECIMALS = 4  # of scores and their differences, unless a table says otherwise
LEAST_DECIMALS = 2

# A longer table does not fit on a page of paper, and LaTeX has to break it.
LATEX_ROWS_ON_A_PAGE = 40

# Texts of at least so many characters are prose: they are broken into lines where a table has to be narrow.
PROSE = 60

MARKS_NOTE = "Bold is best; underlined is not significantly worse, which does not show that it is as good."


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its confidence interval, which need not be symmetric."""

    value: float
    low: float
    high: float


Value = str | float | int | Estimate | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    key: str
    """Name in CSV files; ends in the unit, if there is one. Intervals add the columns `<key>_low` and `<key>_high`."""
    heading: str
    """Name for people."""
    kind: Kind = "text"
    """Kind of the values, which decides their format: `score` 0..1, `difference` of two scores, `p_value`, `ratio`,
    `seconds`, `milliseconds`, `number` (written out), `amount` (3.5M) or `text`."""
    better: Literal["higher", "lower"] | None = None
    """Direction in which values improve; the best one is printed in bold. None without such a direction."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values under columns.

    Raises:
        ValueError: A row has another length, or a tied cell is not in the table.
    """

    name: str
    """Name of its files, without a suffix."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    """One value per column; None where nothing was measured."""
    notes: tuple[str, ...] = ()
    """Explanations below the table."""
    tied: frozenset[tuple[int, str]] = frozenset()
    """(row, column key) of the cells that are statistically tied with the best of their column, by a test of the
    caller. They are underlined unless they are the best themselves."""
    decimals: int = DECIMALS
    """Of scores and differences."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row needs {len(self.columns)} values. Received: {row}")
        keys = {column.key for column in self.columns}
        for number, key in self.tied:
            if key not in keys or not 0 <= number < len(self.rows):
                raise ValueError(
                    f"a tied cell is a row from 0 to {len(self.rows) - 1} and one of {', '.join(sorted(keys))}. "
                    f"Received: {(number, key)}"
                )

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, with an explanation of bold and underlined values if both occur."""
        return (*self.notes, MARKS_NOTE) if self.tied_cells() else self.notes

    @property
    def prose(self) -> set[int]:
        """Indices of the columns that hold prose."""
        return {
            index
            for index in range(len(self.columns))
            if any(isinstance(text := row[index], str) and len(text) >= PROSE for row in self.rows)
        }

    def tied_cells(self) -> set[tuple[int, int]]:
        """(row, column) of the cells that are tied with the best without being the best themselves."""
        index = {column.key: number for number, column in enumerate(self.columns)}
        return {(row, index[key]) for row, key in self.tied} - self.best_cells()

    def best_cells(self) -> set[tuple[int, int]]:
        """(row, column) of the best values of each column with a direction; none if all its values read the same.

        Values that read the same after rounding are best together.
        """
        cells: set[tuple[int, int]] = set()
        for index, column in enumerate(self.columns):
            if column.better is None:
                continue
            numbers = {
                row: number
                for row, values in enumerate(self.rows)
                if (number := number_of(values[index])) is not None and not math.isnan(number)
            }
            written = {row: self.format(number, column) for row, number in numbers.items()}
            if len(set(written.values())) < 2:
                continue
            best = max(numbers.values()) if column.better == "higher" else min(numbers.values())
            cells.update((row, index) for row, text in written.items() if text == self.format(best, column))
        return cells

    def format(self, value: Value, column: Column) -> str:
        """A value of a column for people."""
        return format_value(value, column.kind, self.decimals)


# Kinds of values that describe a row; equal measurements are a result, and stay in their column.
_DESCRIBING: tuple[Kind, ...] = ("text", "number", "amount")


def without_constant_columns(table: Table) -> tuple[Table, tuple[str, ...]]:
    """Takes the columns that say the same in every row out of a table.

    Args:
        table: With one or two rows, or with no other columns, it is left unchanged.

    Returns:
        The table without them, and each of them as "heading value".
    """
    constant = {
        column.key: f"{column.heading} {texts.pop()}"
        for index, column in enumerate(table.columns)
        if column.kind in _DESCRIBING
        and len(texts := {format_value(row[index], column.kind) for row in table.rows}) == 1
    }
    if len(table.rows) < 3 or len(constant) == len(table.columns):
        return table, ()
    return with_columns(table, [column.key for column in table.columns if column.key not in constant]), tuple(
        constant.values()
    )


def with_columns(table: Table, keys: Sequence[str]) -> Table:
    """The table with some of its columns, in their order there."""
    kept = [index for index, column in enumerate(table.columns) if column.key in keys]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
        tied=frozenset((row, key) for row, key in table.tied if key in keys),
    )


def sorted_by(table: Table, key: str) -> Table:
    """The table with its rows sorted by a column, the best first and missing values last."""
    ((index, column),) = [(index, column) for index, column in enumerate(table.columns) if column.key == key]
    sign = -1 if column.better == "higher" else 1

    def place(row: int) -> tuple[bool, float]:
        number = number_of(table.rows[row][index])
        is_missing = number is None or math.isnan(number)
        return is_missing, 0.0 if is_missing or number is None else sign * number

    order = sorted(range(len(table.rows)), key=place)
    return replace(
        table,
        rows=tuple(table.rows[row] for row in order),
        tied=frozenset((order.index(row), tied_key) for row, tied_key in table.tied),
    )


Item = TypeVar("Item")
Field = tuple[Column, Callable[[Item], Value]]
"""A column, and the function that gives its value for an item."""


def table_of(
    items: Sequence[Item],
    fields: Sequence[Field[Item]],
    *,
    name: str,
    title: str,
    notes: Sequence[str] = (),
    tied: frozenset[tuple[int, str]] = frozenset(),
) -> Table:
    """A table with one row per item and one column per field."""
    return Table(
        name=name,
        title=title,
        columns=tuple(column for column, _ in fields),
        rows=tuple(tuple(value_of(item) for _, value_of in fields) for item in items),
        notes=tuple(notes),
        tied=tied,
    )


def number_of(value: Value) -> float | None:
    """The number by which a value is sorted and compared; None for texts and missing values."""
    if isinstance(value, Estimate):
        return value.value
    return value if isinstance(value, int | float) else None


def format_value(value: Value, kind: Kind, decimals: int = DECIMALS) -> str:
    """A value for people; with an interval: `0.9123 [0.9011, 0.9240]`.

    Args:
        value: The value.
        kind: Decides the format.
        decimals: Of scores and differences.
    """
    if value is None:
        return MISSING
    if isinstance(value, str):
        return value
    if isinstance(value, Estimate):
        return f"{format_value(value.value, kind, decimals)} {format_interval(value, kind, decimals)}"
    if math.isnan(value):
        return "nan"
    match kind:
        case "score":
            return f"{_without_noise(value):.{decimals}f}"
        case "difference":
            return f"{_without_noise(value):+.{decimals}f}"
        case "p_value":
            return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
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


def supported_decimals(num_images: int) -> int:
    """Decimals of a score on so many images: enough to tell one image more or less apart, and at most 4.

    Args:
        num_images: At least 1.
    """
    return min(max(math.ceil(math.log10(num_images)), LEAST_DECIMALS), DECIMALS)


def format_interval(estimate: Estimate, kind: Kind, decimals: int = DECIMALS) -> str:
    """The interval alone: `[0.9011, 0.9240]`."""
    return f"[{format_value(estimate.low, kind, decimals)}, {format_value(estimate.high, kind, decimals)}]"


def _without_noise(value: float) -> float:
    """The value without rounding errors, which would otherwise decide whether 0.83335 reads 0.8333 or 0.8334."""
    return round(value, 12) + 0.0  # no negative zero


def _duration(seconds: float) -> str:
    # "90 s", not "1.5 min": the larger unit starts at two, so that times of similar length have the same unit.
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
    if abs(number) >= 0.995 or number == 0:
        return f"{number:.1f}" if number else "0"
    return f"{number:#.2g}"  # 0.010 beside 0.0048, with two digits both


def render_markdown(table: Table) -> str:
    """The table as a Markdown section: best values bold, columns padded so that the source is readable too.

    Markdown cannot underline; GitHub's documentation names `<ins>` for it and strips `<u>`.
    """
    best, tied = table.best_cells(), table.tied_cells()
    lines = [[_markdown_cell(column.heading) for column in table.columns]]
    for row, values in enumerate(table.rows):
        cells = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            cell = _markdown_cell(table.format(value, column))
            if (row, index) in best:
                cell = f"**{cell}**"
            elif (row, index) in tied:
                cell = f"<ins>{cell}</ins>"
            cells.append(cell)
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
    notes = "".join(f"\n- {note}" for note in table.all_notes)
    return f"## {table.title}\n\n" + "\n".join(written) + "\n" + (notes + "\n" if notes else "")


def _markdown_cell(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;") if re.search(r"<[A-Za-z/!?]|&#?\w+;", text) else text
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def render_csv(table: Table) -> str:
    """The table as CSV for other programs: unrounded values, empty where nothing was measured.

    A column with intervals becomes three: the value, `<key>_low` and `<key>_high`.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    with_interval = [any(isinstance(row[index], Estimate) for row in table.rows) for index in range(len(table.columns))]
    heads: list[str] = []
    for column, three in zip(table.columns, with_interval, strict=True):
        heads += [column.key, f"{column.key}_low", f"{column.key}_high"] if three else [column.key]
    writer.writerow(heads)
    for row in table.rows:
        written: list[str | float] = []
        for value, three in zip(row, with_interval, strict=True):
            if isinstance(value, Estimate):
                written += [value.value, value.low, value.high]
            else:
                written += ["" if value is None else csv_cell(value), *(["", ""] if three else [])]
        writer.writerow(written)
    return file.getvalue()


_LATEX_CHARACTERS = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: "\\" + character for character in "&%$#_{}"},
        # LaTeX's default font encoding prints these as other characters.
        **{character: f"${character}$" for character in "<>|"},
        "\n": " ",
    }
)


def escape_latex(text: str) -> str:
    """Escapes the special characters of LaTeX; characters outside ASCII are left to the document's encoding."""
    return text.translate(_LATEX_CHARACTERS)


def render_latex(table: Table) -> str:
    """The table for LaTeX with the booktabs package: best values bold, values tied with them underlined.

    The title is the caption and `tab:<name>` the label. Columns of prose share three quarters of a line. A table with
    more than 40 rows is a longtable (package longtable), which breaks over pages and repeats its head.
    """
    best, tied, prose = table.best_cells(), table.tied_cells(), table.prose
    width = rf"p{{{0.75 / max(len(prose), 1):.2f}\linewidth}}"
    alignment = "".join(
        width if index in prose else "l" if column.kind == "text" else "r" for index, column in enumerate(table.columns)
    )
    head = " & ".join(escape_latex(column.heading) for column in table.columns) + r" \\"
    body = []
    for row, values in enumerate(table.rows):
        cells = []
        for index, (value, column) in enumerate(zip(values, table.columns, strict=True)):
            cell = _latex_cell(table.format(value, column), value, column.kind)
            if (row, index) in best:
                cell = rf"\textbf{{{cell}}}"
            elif (row, index) in tied:
                cell = rf"\underline{{{cell}}}"
            cells.append(cell)
        line = " & ".join(cells) + r" \\"
        # After a line break LaTeX would read a bracket or a star as an argument.
        body.append("{}" + line if line.startswith(("[", "*")) else line)
    caption, label = rf"\caption{{{escape_latex(table.title)}}}", rf"\label{{tab:{table.name}}}"
    notes = [rf"\par\smallskip\footnotesize {escape_latex(note)}" for note in table.all_notes]
    if len(table.rows) <= LATEX_ROWS_ON_A_PAGE:
        lines = [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            caption,
            label,
            rf"\begin{{tabular}}{{{alignment}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            *notes,
            r"\end{table}",
        ]
    else:
        lines = [
            "% needs \\usepackage{booktabs,longtable}",
            rf"\begin{{longtable}}{{{alignment}}}",
            rf"{caption} {label} \\",
            *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
            *(r"\toprule", head, r"\midrule", r"\endhead"),
            *(r"\bottomrule", r"\endfoot"),
            *body,
            r"\end{longtable}",
            *(["{" + notes[0], *notes[1:], r"\par}"] if notes else []),
        ]
    return "\n".join(lines) + "\n"


def _latex_cell(text: str, value: Value, kind: Kind) -> str:
    if value is None:
        return "--"
    written = escape_latex(text)
    if isinstance(value, str):
        return written
    # Minus signs instead of hyphens, and numbers that stay with their units.
    written = written.replace("-", "$-$").replace("x", r"$\times$")
    return written.replace(" ", "~") if kind in ("seconds", "milliseconds") else written


def write_tables(
    folder: Path,
    tables: Sequence[Table],
    *,
    before: Sequence[str],
    after: Sequence[str] = (),
    shorten: Callable[[Table], Table] | None = None,
) -> None:
    """Writes each table as Markdown, CSV and LaTeX, and all of them to tables.md.

    Args:
        folder: Where the files go; created if it is missing.
        tables: Each with another name.
        before: Markdown blocks at the start of tables.md.
        after: Markdown blocks at its end.
        shorten: Applied to a table before it is written as Markdown and LaTeX; CSV files hold all rows.
    """
    blocks = list(before)
    for table in tables:
        shown = table if shorten is None else shorten(table)
        blocks.append(render_markdown(shown))
        write_text(folder / f"{table.name}.md", blocks[-1])
        write_text(folder / f"{table.name}.tex", render_latex(shown))
        write_text(folder / f"{table.name}.csv", render_csv(table))
    write_text(folder / "tables.md", "\n".join([*blocks, *after]))
