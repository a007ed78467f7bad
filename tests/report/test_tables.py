from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from tandem.report.tables import Column, Table, format_value, print_table, render_csv, render_markdown

TABLE = Table(
    name="summary",
    title="Birds",
    columns=(
        Column(key="model", heading="model"),
        Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
        Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
        Column(key="epochs", heading="epochs", kind="number"),
    ),
    rows=(
        ("a|b", 0.912345, 300.0, 12),
        ("c,d", 0.912349, 90.04, 7),
        ("e", None, 4.0, None),
        ("f", 0.5, float("nan"), 3),
    ),
    notes=("f diverged",),
)


def print_plainly(table: Table, *, width: int, terminal: bool = False) -> str:
    file = io.StringIO()
    print_table(table, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


def test_markdown_table() -> None:
    # 0.9123 is best twice: what reads alike shares the first place.
    assert render_markdown(TABLE).splitlines() == [
        "## Birds",
        "",
        "| model |   accuracy |  training | epochs |",
        "| ----- | ---------: | --------: | -----: |",
        "| a\\|b  | **0.9123** |   5.0 min |     12 |",
        "| c,d   | **0.9123** |    90.0 s |      7 |",
        "| e     |          - | **4.0 s** |      - |",
        "| f     |     0.5000 |       nan |      3 |",
        "",
        "- f diverged",
    ]


def test_csv_keeps_every_digit_and_leaves_gaps_empty() -> None:
    rows = list(csv.reader(io.StringIO(render_csv(TABLE))))
    assert rows[0] == ["model", "accuracy", "train_seconds", "epochs"]
    assert rows[1] == ["a|b", "0.912345", "300.0", "12"]
    assert rows[2][0] == "c,d"
    assert rows[3] == ["e", "", "4.0", ""]


def test_terminal_table_marks_the_best_in_bold() -> None:
    file = io.StringIO()
    print_table(TABLE, Console(file=file, width=100, force_terminal=True, color_system="standard"))
    bold = [part.split("\x1b[0m")[0].strip() for part in file.getvalue().split("\x1b[1m")]
    assert [text for text in bold if text[:1].isdigit()] == ["0.9123", "0.9123", "4.0 s"]


def test_output_that_is_no_terminal_breaks_no_line() -> None:
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


def test_nothing_is_best_where_all_read_alike() -> None:
    columns = (Column(key="parameters", heading="parameters", kind="amount", better="lower"),)
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,), (2_257_990,))).best_cells() == set()
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,),)).best_cells() == set()
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,), (5_288_548,))).best_cells() == {(0, 0)}


def test_row_with_a_value_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 4 values"):
        Table(name="x", title="x", columns=TABLE.columns, rows=(("a", 0.5, 1.0),))


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (0.87654, "score", "0.8765"),
        (1, "score", "1.0000"),
        (-0.01, "difference", "-0.0100"),
        (0.0312, "difference", "+0.0312"),
        (1.278, "ratio", "1.28x"),
        (0.0345, "seconds", "0.035 s"),
        (4.26, "seconds", "4.3 s"),
        (119.6, "seconds", "120 s"),
        (120, "seconds", "2.0 min"),
        (5432, "seconds", "90.5 min"),
        (18000, "seconds", "5.0 h"),
        (2.345, "milliseconds", "2.3 ms"),
        (3_504_872, "amount", "3.5M"),
        (138_357_544, "amount", "138M"),
        (999_960, "amount", "1,000k"),
        (512, "amount", "512"),
        (12, "number", "12"),
        (1234.0, "number", "1,234"),
        (2.5, "number", "2.5"),
        (None, "score", "-"),
        ("two_stage", "text", "two_stage"),
    ],
)
def test_values_are_written_for_people(value, kind, written) -> None:
    assert format_value(value, kind) == written
