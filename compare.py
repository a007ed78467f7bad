"""Compares the runs of an MLflow experiment: models, ways of training, and frameworks.

    python compare.py --experiment demo

prints the tables and writes them to comparison/ as Markdown and CSV. It needs neither PyTorch nor Keras.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tandem.errors import UserError, run_program
from tandem.protocol.settings import TrackingSettings


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description="Compares the runs of an MLflow experiment in tables, on the screen and in files.",
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
        help="folder for the tables: one .md and one .csv each, and tables.md with all of them (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    # After parsing: MLflow takes seconds to import, and --help shall not wait for it.
    from tandem.report.comparison import compare_runs
    from tandem.report.tables import print_table, render_csv, render_markdown
    from tandem.tracking.reader import read_runs

    comparison = compare_runs(read_runs(arguments.tracking_uri, arguments.experiment))
    for table in comparison.tables:
        print_table(table)
    for note in comparison.notes:
        print(note)
    if not comparison.tables:
        raise UserError(
            f"experiment {arguments.experiment!r} has no finished run with results on test images; "
            "wait for one to finish, or start one with train_torch.py or train_keras.py"
        )

    markdown = [render_markdown(table) for table in comparison.tables]
    title = f"# Experiment {arguments.experiment}\n"
    notes = "".join(f"- {note}\n" for note in comparison.notes)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for table, text in zip(comparison.tables, markdown, strict=True):
            (arguments.output / f"{table.name}.md").write_text(text, encoding="utf-8")
            (arguments.output / f"{table.name}.csv").write_text(render_csv(table), encoding="utf-8")
        (arguments.output / "tables.md").write_text("\n".join([title, *markdown, notes]), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the tables to {arguments.output}: {error.strerror}; choose another --output"
        ) from error
    print(f"Written to {arguments.output}/ ({len(comparison.tables)} tables as .md and .csv, all in tables.md)")


if __name__ == "__main__":
    run_program("compare.py", main)
