"""Compares the runs of an MLflow experiment: models, ways of training, and frameworks.

    python compare.py --experiment demo --html report.html

prints what the runs say and writes every table to comparison/ as Markdown, CSV and LaTeX, and all tables and figures as
one page. It needs neither PyTorch nor Keras.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.errors import UserError, run_program
from tandem.protocol.settings import TrackingSettings

if TYPE_CHECKING:
    from tandem.comparison.comparison import Comparison
    from tandem.rendering.tables import Table
    from tandem.tracking.reader import RunRecord

# The others are in the files and on the page.
PRINTED_TABLES = ("summary", "frameworks", "thawing")
MOST_PRINTED_ROWS = 60  # of a table of published results


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description="Compares the runs of an MLflow experiment: on the screen, in tables, in figures, and on one page.",
    )
    parser.add_argument(
        "--experiment",
        default=TrackingSettings().experiment,
        help="MLflow experiment whose runs are compared (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking_uri",
        help="MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, else the sqlite file mlflow.db in this folder",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison"),
        help="folder for the tables: .md, .csv and .tex of each, and tables.md with all of them (default: %(default)s)",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write everything to this page, which needs no network, and log it to the experiment in MLflow as well",
    )
    parser.add_argument(
        "--figures",
        choices=("png", "svg", "pdf"),
        help="write the figures to the folder figures in --output as files of this kind; needs Chrome or Chromium",
    )
    parser.add_argument(
        "--published",
        metavar="NAME",
        help="show what a document publishes beside these runs, and which of its claims hold: birds, "
        "cifar100_lightweight, eight_datasets, imagenette or mobilenet_vs_efficientnetv2; with it, and neither --html "
        "nor --figures, it is no error that there are no runs or no such experiment",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    # After parsing: MLflow takes seconds to import, and --help shall not wait for it.
    from tandem.comparison.comparison import compare_runs
    from tandem.comparison.predictions import read_predictions
    from tandem.published.documents import read_document
    from tandem.published.tables import published_tables
    from tandem.tracking.reader import NoRuns, metric_history, read_runs

    document = None if arguments.published is None else read_document(arguments.published)

    # What the libraries are made of stays: Python's garbage collector need not look at it again, which takes a second
    # with 1,000 runs.
    gc.freeze()
    without_runs: NoRuns | None = None
    try:
        runs = read_runs(arguments.tracking_uri, arguments.experiment)
    except NoRuns as error:
        if document is None:
            raise
        runs, without_runs = [], error
    except UserError:
        # The published numbers stand on their own.
        if document is not None:
            print_published(published_tables(document, ()), None)
        raise
    with tempfile.TemporaryDirectory(prefix="tandem-compare-") as name:
        folder = Path(name)
        comparison = compare_runs(runs, lambda cells: read_predictions(cells, folder))
        if document is not None:
            comparison = replace(comparison, published=published_tables(document, comparison.groups, metric_history))
        print_comparison(comparison, arguments.output)
        if not comparison.groups and without_runs is None:
            without_runs = NoRuns(
                f"experiment {arguments.experiment!r} has no finished run with results on test images; "
                "wait for one to finish, or start one with train_torch.py or train_keras.py"
            )
        if without_runs is not None and document is None:
            raise without_runs
        try:
            write_tables(comparison, arguments.experiment, arguments.output)
        except OSError as error:
            raise UserError(
                f"cannot write the tables to {arguments.output}: {error.strerror}; choose another --output"
            ) from error
        if without_runs is not None:
            if arguments.html or arguments.figures:
                raise without_runs
            print(without_runs)
        elif arguments.html or arguments.figures:
            draw(comparison, runs, arguments, folder)


def print_comparison(comparison: Comparison, output: Path) -> None:
    """The tables that answer most questions, what follows from them, and what is not in them."""
    from tandem.rendering.tables import print_table

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
    print_published(comparison.published, output)
    for note in comparison.notes:
        print(note)


def print_published(tables: Sequence[Table], output: Path | None) -> None:
    """What a document publishes, but for its longest lists, which are to be written to that folder."""
    from tandem.rendering.tables import print_table

    for table in tables:
        if len(table.rows) <= MOST_PRINTED_ROWS:
            print_table(table)
        elif output is not None:
            print(f"{table.title}: {len(table.rows)} rows, in {output / table.name}.md\n")


def write_tables(comparison: Comparison, experiment: str, output: Path) -> None:
    """Every table as Markdown, CSV and LaTeX, and all of them with the recommendations in tables.md."""
    from tandem.rendering.tables import render_csv, render_latex, render_markdown

    output.mkdir(parents=True, exist_ok=True)
    everything = [f"# Experiment {experiment}\n"]
    for compared in comparison.groups:
        sentences = "".join(f"- {sentence}\n" for sentence in compared.recommendation)
        everything.append(f"## Recommendation: {compared.group.title}\n\n{sentences}")
    for table in comparison.tables:
        everything.append(render_markdown(table))
        (output / f"{table.name}.md").write_text(everything[-1], encoding="utf-8")
        (output / f"{table.name}.csv").write_text(render_csv(table), encoding="utf-8")
        (output / f"{table.name}.tex").write_text(render_latex(table), encoding="utf-8")
    everything.append("".join(f"- {note}\n" for note in comparison.notes))
    (output / "tables.md").write_text("\n".join(everything), encoding="utf-8")
    tables = "1 table" if len(comparison.tables) == 1 else f"{len(comparison.tables)} tables"
    print(f"Written to {output}/ ({tables} as .md, .csv and .tex, all in tables.md)")


def draw(comparison: Comparison, runs: Sequence[RunRecord], arguments: argparse.Namespace, folder: Path) -> None:
    """The page, and the figures as files."""
    from tandem.comparison.analysis import choose_cells
    from tandem.comparison.page import make_figures, make_page, make_plots, read_histories
    from tandem.comparison.record import record_comparison
    from tandem.rendering.export import write_figures
    from tandem.rendering.page import write_page

    plots = [make_plots(compared, read_histories(choose_cells(compared.group.cells))) for compared in comparison.groups]
    if arguments.html:
        page = make_page(comparison, plots, experiment=arguments.experiment, folder=folder)
        try:
            write_page(arguments.html, page)
        except OSError as error:
            raise UserError(
                f"cannot write the page to {arguments.html}: {error.strerror}; choose another --html"
            ) from error
        print(f"Written to {arguments.html} ({arguments.html.stat().st_size / 1e6:.1f} MB)")
        run_id = record_comparison(runs, arguments.experiment, arguments.html)
        print(f"Logged to the experiment {arguments.experiment} as the run {run_id}")
    if arguments.figures:
        files = write_figures(
            make_figures(comparison, plots), arguments.output / "figures", formats=(arguments.figures,)
        )
        print(f"Written to {arguments.output / 'figures'}/ ({len(files)} figures)")


if __name__ == "__main__":
    run_program("compare.py", main)
