"""Prints a comparison and writes its tables."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from tandem.comparison.comparison import Comparison
from tandem.errors import UserError
from tandem.rendering.tables import Table, write_tables
from tandem.rendering.terminal import print_table

PRINTED_TABLES = ("summary",)  # the others are in the files and on the page, and printed on request
MOST_PRINTED_ROWS = 60  # of a table of published results


def print_comparison(comparison: Comparison, folder: Path, *, all_tables: bool = False) -> None:
    """Prints the recommendations, the main tables and the notes.

    Args:
        comparison: Of the experiment.
        folder: Where all tables will be written.
        all_tables: Print every table.
    """
    console = Console()
    for compared in comparison.groups:
        print(f"Recommendation: {compared.group.title}")
        for sentence in compared.recommendation:
            _print_item(sentence, console)
        print()
        for name, table in compared.tables.items():
            if all_tables or name in PRINTED_TABLES:
                print_table(table, console, file=f"{folder / table.name}.md")
    for table in comparison.over_data_sets:
        print_table(table, console, file=f"{folder / table.name}.md")
    print_published(comparison.published, folder)
    for note in comparison.notes:
        print(note)


def _print_item(sentence: str, console: Console) -> None:
    """Prints an item of a list; on a terminal broken between words, with its lines aligned."""
    if not console.is_terminal:
        print(f"- {sentence}")
        return
    lines = textwrap.wrap(sentence, max(20, console.width - 3), break_on_hyphens=False)
    print("\n".join([f"- {lines[0]}", *(f"  {line}" for line in lines[1:])]))


def print_published(tables: Sequence[Table], folder: Path | None) -> None:
    """Prints a document's tables; of long ones only their place.

    Args:
        tables: From tandem.published.tables.
        folder: Where they will be written; None if they will not, then long ones are left out.
    """
    for table in tables:
        if len(table.rows) <= MOST_PRINTED_ROWS:
            print_table(table, file="" if folder is None else f"{folder / table.name}.md")
        elif folder is not None:
            print(f"{table.title}: {len(table.rows)} rows, in {folder / table.name}.md\n")


def write_comparison_tables(comparison: Comparison, experiment: str, folder: Path) -> None:
    """Writes each table as Markdown, CSV and LaTeX, and all of them with the recommendations to tables.md.

    Raises:
        UserError: The folder cannot be written.
    """
    recommendations = [
        f"## Recommendation: {compared.group.title}\n\n{_as_list(compared.recommendation)}"
        for compared in comparison.groups
    ]
    with writing("the tables", folder, "--output"):
        write_tables(
            folder,
            comparison.tables,
            before=[f"# Experiment {experiment}\n", *recommendations],
            after=[_as_list(comparison.notes)],
        )
    count = len(comparison.tables)
    print(f"Written to {folder}/ ({count} table{'' if count == 1 else 's'} as .md, .csv and .tex, all in tables.md)")


@contextlib.contextmanager
def writing(what: str, path: Path, option: str) -> Iterator[None]:
    """Turns a failure to write into one line that names the option to change."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what} to {path}: {error.strerror}; choose another {option}") from error


def _as_list(sentences: Sequence[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
