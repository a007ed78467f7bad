"""Prints a comparison and writes its tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tandem.comparison.comparison import Comparison
from tandem.errors import UserError
from tandem.rendering.tables import Table, print_table, write_tables

PRINTED_TABLES = ("summary", "frameworks", "thawing")  # the others are only in the files and on the page
MOST_PRINTED_ROWS = 60  # of a table of published results


def print_comparison(comparison: Comparison, folder: Path) -> None:
    """Prints the main tables, the recommendations and the notes.

    Args:
        comparison: Of the experiment.
        folder: Where all tables will be written.
    """
    for compared in comparison.groups:
        for name in PRINTED_TABLES:
            if name in compared.tables:
                print_table(compared.tables[name])
        print(f"Recommendation: {compared.group.title}")
        for sentence in compared.recommendation:
            print(f"- {sentence}")
        print()
    for table in comparison.over_data_sets:
        print_table(table)
    print_published(comparison.published, folder)
    for note in comparison.notes:
        print(note)


def print_published(tables: Sequence[Table], folder: Path | None) -> None:
    """Prints a document's tables; of long ones only their place.

    Args:
        tables: From tandem.published.tables.
        folder: Where they will be written; None if they will not, then long ones are left out.
    """
    for table in tables:
        if len(table.rows) <= MOST_PRINTED_ROWS:
            print_table(table)
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
