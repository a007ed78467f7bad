from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from tandem.rendering.tables import MARKS_NOTE, Column, Estimate, Table, format_value, without_constant_columns
from tandem.rendering.terminal import print_table
from tests.rendering.test_tables import INTERVALS, PROSE_TABLE, TABLE


def print_plainly(table: Table, *, width: int, terminal: bool = False) -> str:
    file = io.StringIO()
    print_table(table, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


def test_terminal_table_marks_the_best_in_bold() -> None:
    file = io.StringIO()
    print_table(TABLE, Console(file=file, width=100, force_terminal=True, color_system="standard"))
    bold = [part.split("\x1b[0m")[0].strip() for part in file.getvalue().split("\x1b[1m")]
    assert [text for text in bold if text[:1].isdigit()] == ["0.9123", "0.9123", "4.0 s"]


def test_lines_are_not_broken_outside_a_terminal() -> None:
    long = "a_backbone_with_a_name_that_is_much_longer_than_a_line"
    table = Table(name="x", title="x", columns=TABLE.columns, rows=((long, 0.5, 1.0, 1),), notes=("a note " * 20,))
    lines = print_plainly(table, width=40).splitlines()
    assert [line.split() for line in lines if long in line] == [[long, "0.5000", "1.0", "s", "1"]]
    assert ("a note " * 20).strip() in [line.strip() for line in lines]


def test_numbers_do_not_break_in_a_narrow_terminal() -> None:
    file = io.StringIO()
    table = Table(
        name="x",
        title="x",
        columns=(
            Column(key="backbone", heading="backbone"),
            *(Column(key=str(index), heading="train seconds", kind="seconds") for index in range(4)),
        ),
        rows=(("mobilenet_v2_with_a_long_name", 300.0, 4.25, 50.0, 7200.0),),
    )
    print_table(table, Console(file=file, width=45, force_terminal=True, color_system=None))
    lines = file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 45
    (row,) = [line.split() for line in lines if " min " in line]
    assert row[-8:] == ["5.0", "min", "4.2", "s", "50.0", "s", "2.0", "h"]


def test_square_brackets_are_printed_as_they_are() -> None:
    table = Table(
        name="x",
        title="[bold]title",
        columns=(Column(key="hidden", heading="[red]hidden"),),
        rows=(("[256]",), ("[/]",)),
        notes=("[dim]",),
    )
    printed = print_plainly(table, width=80)
    for text in ("[bold]title", "[red]hidden", "[256]", "[/]", "[dim]"):
        assert text in printed


def test_terminal_underlines_values_tied_with_the_best() -> None:
    file = io.StringIO()
    print_table(INTERVALS, Console(file=file, width=100, force_terminal=True, color_system="standard"))
    assert re.findall(r"\x1b\[4m(.*?)\x1b\[0m", file.getvalue()) == ["0.9100 [0.9000, 0.9200]"]
    assert MARKS_NOTE in file.getvalue()


def test_prose_is_broken_into_lines_in_a_pipe_beside_its_row() -> None:
    file = io.StringIO()
    print_table(PROSE_TABLE, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert 120 < max(map(len, lines)) <= 160
    (first,) = [line for line in lines if "holds" in line]
    assert first.startswith("a claim of many words") and first.rstrip().endswith("0.5000")
    assert "the numbers that decide" in first


def wide_table(num_columns: int, num_rows: int = 6) -> Table:
    """Scores with intervals, times and counts that are all different, under headings of several words."""
    random = np.random.default_rng(num_columns)
    kinds = ("score", "seconds", "amount", "p_value", "difference")
    columns = tuple(
        Column(key=f"column_{index}", heading=f"measured value {index}", kind=kinds[index % len(kinds)])  # type: ignore[arg-type]
        for index in range(num_columns)
    )

    def value(kind: str) -> float | Estimate:
        number = float(random.random())
        if kind == "score":
            return Estimate(value=number, low=number / 2, high=(1 + number) / 2)
        return number * {"seconds": 9999, "amount": 1e9}.get(kind, 1)

    rows = tuple((f"network_{row}", *(value(column.kind) for column in columns)) for row in range(num_rows))
    return Table(name="wide", title="Wide", columns=(Column(key="network", heading="network"), *columns), rows=rows)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 120, 155, 200, 400])
@pytest.mark.parametrize("num_columns", [1, 4, 12])
def test_no_number_is_cut_and_no_line_is_too_long_whatever_the_width(width: int, num_columns: int) -> None:
    table = wide_table(num_columns)
    lines = print_plainly(table, width=width, terminal=True).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= max(width, 20)
    left_out = re.search(r"Too narrow for (.*?)\.", " ".join(" ".join(lines).split()))
    named = left_out[1].split(", ") if left_out else []
    assert named == [column.heading for column in table.columns[len(table.columns) - len(named) :]]
    assert not (named and width == 400)
    rows = [line.split() for line in lines if line.startswith("network_")]
    for row, values in zip(rows, table.rows, strict=True):
        texts = [format_value(value, column.kind) for value, column in zip(values, table.columns, strict=True)]
        assert " ".join(row) == " ".join(texts[: len(texts) - len(named)])


def test_columns_that_are_left_out_are_in_the_named_file() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, color_system=None)
    print_table(wide_table(12), console, file="comparison/wide.md")
    printed = " ".join(file.getvalue().split())
    assert "measured value 11; all 13 columns are in comparison/wide.md." in printed


def test_column_that_says_the_same_in_every_row_is_a_line_above_the_table() -> None:
    table = Table(
        name="x",
        title="Runs",
        columns=(
            Column(key="backbone", heading="backbone"),
            Column(key="regime", heading="regime"),
            Column(key="accuracy", heading="accuracy", kind="score"),
            Column(key="runs", heading="runs", kind="number"),
        ),
        rows=tuple(("resnet50", regime, 0.5, 3) for regime in ("scratch", "frozen", "finetune")),
        tied=frozenset({(1, "accuracy")}),
    )
    shown, constant = without_constant_columns(table)
    # equal accuracies are a result, and stay
    assert [column.key for column in shown.columns] == ["regime", "accuracy"]
    assert shown.rows == (("scratch", 0.5), ("frozen", 0.5), ("finetune", 0.5)) and shown.tied == table.tied
    assert constant == ("backbone resnet50", "runs 3")
    lines = print_plainly(table, width=80).splitlines()
    assert lines[:2] == ["Runs", "In every row: backbone resnet50; runs 3."]


def test_table_of_two_rows_or_of_equal_rows_keeps_its_columns() -> None:
    two = Table(name="x", title="x", columns=TABLE.columns, rows=(("a", 0.1, 1.0, 3), ("a", 0.2, 2.0, 3)))
    assert without_constant_columns(two) == (two, ())
    equal = Table(name="x", title="x", columns=TABLE.columns[:1], rows=(("a",), ("a",), ("a",)))
    assert without_constant_columns(equal) == (equal, ())
