from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.output import print_comparison, print_published, write_comparison_tables
from tandem.errors import UserError
from tandem.rendering.tables import Column, Table
from tests.compared import MakeRun


@pytest.fixture
def comparison(make_run: MakeRun) -> Comparison:
    return compare_runs([make_run("torch"), make_run("keras"), make_run(status="FAILED", run_id="broken")])


def table_with(rows: int) -> Table:
    columns = (Column(key="number", heading="number", kind="number"),)
    return Table(name="published", title="Published", columns=columns, rows=tuple((number,) for number in range(rows)))


def test_recommendation_main_table_and_notes_are_printed(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(comparison, tmp_path)
    printed = capsys.readouterr().out
    parts = ["Recommendation: digits", "- ", "Models, regimes, frameworks: digits", "1 FAILED"]
    assert [printed.index(part) for part in parts] == sorted(printed.index(part) for part in parts)
    assert "Keras against PyTorch" not in printed and "Time and cost" not in printed


def test_all_tables_are_printed_on_request(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(comparison, tmp_path, all_tables=True)
    printed = capsys.readouterr().out
    assert all(
        title in printed for title in ("Models, regimes", "All scores", "Keras against PyTorch", "Time and cost")
    )


@pytest.mark.parametrize(("rows", "printed"), [(60, "59"), (61, "Published: 61 rows, in out/published.md")])
def test_long_published_table_is_printed_as_its_place(
    rows: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_published([table_with(rows)], Path("out"))
    assert printed in capsys.readouterr().out


def test_long_published_table_that_is_not_written_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    print_published([table_with(61)], None)
    assert capsys.readouterr().out == ""


def test_all_tables_are_written_with_recommendations_before_and_notes_after(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_comparison_tables(comparison, "demo", tmp_path / "out")
    names = [table.name for table in comparison.tables]
    assert names == ["summary", "scores", "frameworks", "cost"]
    files = {f"{name}.{kind}" for name in names for kind in ("md", "csv", "tex")} | {"tables.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text.startswith("# Experiment demo\n\n## Recommendation: digits 5-9")
    assert text.endswith("- Left out because they are not finished (1 FAILED): mobilenet_v2-finetune-torch (broken).\n")
    assert "(4 tables as .md, .csv and .tex, all in tables.md)" in capsys.readouterr().out


def test_single_table_is_counted_in_the_singular(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_comparison_tables(replace(comparison, groups=(), published=(table_with(1),)), "demo", tmp_path)
    assert "(1 table as .md" in capsys.readouterr().out


def test_failure_to_write_names_the_option(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the tables to .*taken: .*choose another --output"):
        write_comparison_tables(comparison, "demo", tmp_path / "taken")
