from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import pytest
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexNode, LatexWalker

from tandem.rendering.tables import (
    MARKS_NOTE,
    Column,
    Estimate,
    Table,
    escape_latex,
    format_value,
    render_csv,
    render_latex,
    render_markdown,
    sorted_by,
    supported_decimals,
    table_of,
    write_tables,
)

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

INTERVALS = Table(
    name="intervals",
    title="With intervals",
    columns=(
        Column(key="model", heading="model"),
        Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
        Column(key="gain", heading="gain", kind="difference"),
    ),
    rows=(
        ("a", Estimate(value=0.9123, low=0.9011, high=0.924), Estimate(value=-0.01, low=-0.02, high=0.001)),
        ("b", Estimate(value=0.91, low=0.9, high=0.92), None),
        ("c", 0.5, 0.0),
    ),
    tied=frozenset({(0, "accuracy"), (1, "accuracy")}),
)


def test_markdown_table() -> None:
    # 0.9123 is best twice: values that read the same share the first place.
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


def test_nothing_is_best_if_all_values_read_the_same() -> None:
    columns = (Column(key="parameters", heading="parameters", kind="amount", better="lower"),)
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,), (2_257_990,))).best_cells() == set()
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,),)).best_cells() == set()
    assert Table(name="x", title="x", columns=columns, rows=((2_257_984,), (5_288_548,))).best_cells() == {(0, 0)}


def test_row_with_too_few_values_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 4 values"):
        Table(name="x", title="x", columns=TABLE.columns, rows=(("a", 0.5, 1.0),))


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (0.87654, "score", "0.8765"),
        (1, "score", "1.0000"),
        (-0.01, "difference", "-0.0100"),
        (0.0312, "difference", "+0.0312"),
        (0.0479, "p_value", "0.0479"),
        (0.00001, "p_value", "<0.0001"),
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


def test_interval_follows_its_value() -> None:
    estimate = Estimate(value=0.0123, low=-0.0011, high=0.024)
    assert format_value(estimate, "score") == "0.0123 [-0.0011, 0.0240]"
    assert format_value(estimate, "difference") == "+0.0123 [-0.0011, +0.0240]"
    assert format_value(Estimate(value=300, low=240, high=360), "seconds") == "5.0 min [4.0 min, 6.0 min]"


def test_value_with_an_interval_can_be_best() -> None:
    assert INTERVALS.best_cells() == {(0, 1)}
    assert INTERVALS.tied_cells() == {(1, 1)}  # without the best itself


def test_markdown_underlines_and_explains_values_tied_with_the_best() -> None:
    lines = [re.sub(" +", " ", line) for line in render_markdown(INTERVALS).splitlines()]
    assert lines[4:] == [
        "| a | **0.9123 [0.9011, 0.9240]** | -0.0100 [-0.0200, +0.0010] |",
        "| b | <ins>0.9100 [0.9000, 0.9200]</ins> | - |",
        "| c | 0.5000 | +0.0000 |",
        "",
        f"- {MARKS_NOTE}",
    ]


def test_csv_has_three_columns_for_a_value_with_an_interval() -> None:
    assert render_csv(INTERVALS).splitlines() == [
        "model,accuracy,accuracy_low,accuracy_high,gain,gain_low,gain_high",
        "a,0.9123,0.9011,0.924,-0.01,-0.02,0.001",
        "b,0.91,0.9,0.92,,,",
        "c,0.5,,,0.0,,",
    ]


@pytest.mark.parametrize("cell", [(3, "accuracy"), (-1, "accuracy"), (0, "speed")])
def test_tied_cell_outside_the_table_is_refused(cell: tuple[int, str]) -> None:
    with pytest.raises(ValueError, match="tied cell"):
        dataclasses.replace(INTERVALS, tied=frozenset({cell}))


def environments(nodes: list[LatexNode]) -> list[LatexEnvironmentNode]:
    """All environments of a parsed LaTeX text, outer ones first."""
    found = []
    for node in nodes:
        if isinstance(node, LatexEnvironmentNode):
            found += [node, *environments(node.nodelist)]
    return found


def parsed(latex: str) -> list[LatexNode]:
    return LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()[0]


def test_latex_table() -> None:
    latex = render_latex(INTERVALS)
    assert [node.environmentname for node in environments(parsed(latex))] == ["table", "tabular"]
    assert latex.splitlines()[1:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{With intervals}",
        r"\label{tab:intervals}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model & accuracy & gain \\",
        r"\midrule",
        r"a & \textbf{0.9123 [0.9011, 0.9240]} & $-$0.0100 [$-$0.0200, +0.0010] \\",
        r"b & \underline{0.9100 [0.9000, 0.9200]} & -- \\",
        r"c & 0.5000 & +0.0000 \\",
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\smallskip\footnotesize {MARKS_NOTE}",
        r"\end{table}",
    ]


def test_long_latex_table_breaks_over_pages_and_repeats_its_head() -> None:
    columns = (Column(key="class", heading="bird"), Column(key="f1", heading="F1", kind="score"))
    table = Table(
        name="x", title="x", columns=columns, rows=tuple((f"b{index}", 0.5) for index in range(41)), notes=("a", "b")
    )
    latex = render_latex(table)
    assert [node.environmentname for node in environments(parsed(latex))] == ["longtable"]
    assert latex.count(r"bird & F1 \\") == 2
    assert latex.count("0.5000") == 41
    assert latex.index(r"\endfirsthead") < latex.index(r"\endhead") < latex.index(r"\endfoot") < latex.index("b0 &")
    # Forty rows fit on a page.
    short = render_latex(dataclasses.replace(table, rows=table.rows[:40]))
    assert [node.environmentname for node in environments(parsed(short))] == ["table", "tabular"]


@pytest.mark.parametrize(
    "text", ["50% & more", "a_b", "#1 {x} $5", "~home ^2", "C:\\temp", "<b>|</b>", "\\textbf{no}", "caf\u00e9"]
)
def test_latex_prints_any_text_unchanged(text: str) -> None:
    # The parser reads back another circumflex than LaTeX sets.
    assert LatexNodes2Text().latex_to_text(escape_latex(text)).replace("\u02c6", "^") == text


@pytest.mark.parametrize("name", ["[256]", "*starred"])
def test_row_does_not_become_an_argument_of_the_line_before(name: str) -> None:
    columns = (Column(key="name", heading="name"),)
    latex = render_latex(Table(name="x", title="x", columns=columns, rows=(("a",), (name,))))
    assert f"a \\\\\n{{}}{name} " in latex


PROSE_TABLE = Table(
    name="claims",
    title="Claims",
    columns=(
        Column(key="claim", heading="claim"),
        Column(key="verdict", heading="verdict"),
        Column(key="because", heading="because"),
        Column(key="accuracy", heading="accuracy", kind="score"),
    ),
    rows=(("a claim of many words " * 5, "holds", "the numbers that decide " * 10, 0.5), ("short", "fails", "b", 0.75)),
)


def test_prose_shares_the_line_in_latex() -> None:
    assert r"\begin{tabular}{p{0.38\linewidth}lp{0.38\linewidth}r}" in render_latex(PROSE_TABLE)


@pytest.mark.parametrize(("value", "kind"), [(0.83335, "score"), (0.83345, "score"), (-0.00005, "difference")])
def test_last_bit_of_a_score_does_not_decide_how_it_reads(value: float, kind: str) -> None:
    neighbours = (math.nextafter(value, -1), value, math.nextafter(value, 1))
    assert len({format_value(one, kind) for one in neighbours}) == 1  # type: ignore[arg-type]


def test_rounding_error_is_no_negative_difference() -> None:
    assert format_value(0.3 - (0.1 + 0.2), "difference") == "+0.0000"


def test_equal_scores_share_the_first_place_whatever_their_last_bit() -> None:
    columns = (Column(key="accuracy", heading="accuracy", kind="score", better="higher"),)
    rows = tuple((value,) for value in (math.nextafter(0.83335, 0), math.nextafter(0.83335, 1), 0.5))
    assert Table(name="x", title="x", columns=columns, rows=rows).best_cells() == {(0, 0), (1, 0)}


def test_table_has_one_row_per_item_and_one_column_per_field() -> None:
    fields = (
        (Column(key="name", heading="name"), str.upper),
        (Column(key="length", heading="length", kind="number"), len),
    )
    table = table_of(["owl", "emu", "kiwi"], fields, name="birds", title="Birds", notes=["a note"], tied=frozenset())
    assert [column.key for column in table.columns] == ["name", "length"]
    assert table.rows == (("OWL", 3), ("EMU", 3), ("KIWI", 4))
    assert (table.name, table.title, table.notes) == ("birds", "Birds", ("a note",))


def test_tables_are_written_one_by_one_and_all_together(tmp_path: Path) -> None:
    write_tables(tmp_path / "new" / "folder", [TABLE, INTERVALS], before=["# Title\n"], after=["- an end\n"])
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {
        "tables.md",
        *(f"{name}.{kind}" for name in ("summary", "intervals") for kind in ("md", "csv", "tex")),
    }
    assert (folder / "summary.csv").read_text() == render_csv(TABLE)
    assert (folder / "summary.tex").read_text() == render_latex(TABLE)
    assert (folder / "summary.md").read_text() == render_markdown(TABLE)
    everything = ["# Title\n", render_markdown(TABLE), render_markdown(INTERVALS), "- an end\n"]
    assert (folder / "tables.md").read_text() == "\n".join(everything)


def test_shortened_tables_are_whole_in_csv_files(tmp_path: Path) -> None:
    write_tables(tmp_path, [TABLE], before=[], shorten=lambda table: dataclasses.replace(table, rows=table.rows[:1]))
    lines = {kind: (tmp_path / f"summary.{kind}").read_text().count("0.5") for kind in ("md", "tex", "csv")}
    assert lines == {"md": 0, "tex": 0, "csv": 1}
    assert "0.5000" not in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(("images", "decimals"), [(1, 2), (100, 2), (101, 3), (179, 3), (1000, 3), (50_000, 4)])
def test_decimals_tell_one_image_more_apart(images: int, decimals: int) -> None:
    assert supported_decimals(images) == decimals


def test_rows_are_sorted_with_their_marks_and_missing_values_last() -> None:
    columns = (Column(key="name", heading="name"), Column(key="score", heading="score", kind="score", better="higher"))
    rows = (("a", 0.5), ("b", None), ("c", Estimate(value=0.9, low=0.8, high=1.0)), ("d", 0.7), ("e", math.nan))
    table = Table(name="x", title="x", columns=columns, rows=rows, tied=frozenset({(3, "score")}))
    found = sorted_by(table, "score")
    assert [row[0] for row in found.rows] == ["c", "d", "a", "b", "e"]
    assert found.tied == {(1, "score")}


def test_table_has_its_own_number_of_decimals() -> None:
    columns = (Column(key="score", heading="score", kind="score", better="higher"),)
    rows = ((0.6912,), (Estimate(value=0.6914, low=0.5, high=0.75),), (0.5,))
    table = Table(name="x", title="x", columns=columns, rows=rows, decimals=2)
    # Values that read the same are best together.
    assert table.best_cells() == {(0, 0), (1, 0)}
    assert "0.69 [0.50, 0.75]" in render_markdown(table) and "0.6912" in render_csv(table)


def test_small_durations_have_two_digits() -> None:
    assert [format_value(value, "seconds") for value in (0.0048, 0.01, 0.51, 0)] == [
        "0.0048 s",
        "0.010 s",
        "0.51 s",
        "0 s",
    ]


def test_cells_from_others_are_neither_formulas_nor_html() -> None:
    column = Column(key="class", heading="class")
    evil = "<img src=x onerror=alert(1)>"
    table = Table(name="t", title="t", columns=(column,), rows=(("=1+1",), (evil,), ("a < b & c",), ("&lt;b&gt;",)))
    assert render_csv(table).splitlines()[1] == "'=1+1"
    lines = render_markdown(table).splitlines()
    assert "| &lt;img src=x onerror=alert(1)>" in lines[5]
    assert "| a < b & c" in lines[6] and "| &amp;lt;b&amp;gt;" in lines[7]
