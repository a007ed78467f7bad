"""Reports on a data set: classes, examples, sizes of files and images, copies, unreadable files.

    python -m tandem.data_report FOLDER --html report.html --data.split publisher

prints what the images are like, and writes it as tables and as one page that needs no network. A training script logs
the same page once for each data set in its MLflow experiment. It needs neither PyTorch nor Keras.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from tandem.data.console import say
from tandem.errors import UserError, run_program
from tandem.protocol.parser import read_data_settings
from tandem.protocol.settings import DataSettings, TrackingSettings

PROGRAM = "python -m tandem.data_report"
MOST_PRINTED = 20  # rows of a table that has not one row a class
PRINTED_TABLES = ("classes", "file_sizes", "image_sides", "image_sizes", "modes", "exact_copies", "near_duplicates")


def parse_arguments(argv: list[str] | None) -> Namespace:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=PROGRAM,
        description="Reports on a data set: images per class, sizes of files and images, exact and near copies, those "
        "that stand on two sides of the split, and unreadable files.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="What data.source of the training scripts takes.")
    parser.add_argument("--html", metavar="FILE", help="Write everything to this page, which needs no network.")
    parser.add_argument(
        "--output", metavar="FOLDER", help="Write every table here as .md, .csv and .tex, and all of them in tables.md."
    )
    parser.add_argument(
        "--experiment", help="Log the report to this MLflow experiment as well, unless it has it already."
    )
    parser.add_argument(
        "--tracking.uri",
        metavar="URI",
        help="MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, else a sqlite file mlflow.db in this folder.",
    )
    # unreadable files are what a report is for: it never stops at them
    parser.add_class_arguments(DataSettings, "data", skip={"source", "on_bad_image"})
    return read_data_settings(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    # After parsing: these take seconds to import, and --help shall not wait for them.
    from tandem.data.prepare import prepare
    from tandem.data_report.report import (
        make_data_report,
        record_data_report,
        write_report_page,
        write_report_tables,
    )
    from tandem.data_report.tables import remarks, shorten_table
    from tandem.rendering.tables import print_table

    settings = dataclasses.replace(arguments.data, source=arguments.source, on_bad_image="skip")
    data = prepare(settings)
    report = make_data_report(data)
    for name in PRINTED_TABLES:
        if table := report.tables.get(name):
            print_table(table if name in ("classes", "file_sizes") else shorten_table(table, MOST_PRINTED))
    for line in data.bad_images:
        print(f"left out: {line}")
    for sentence in remarks(report.statistics):
        print(sentence)
    try:
        if arguments.output:
            write_report_tables(report, Path(arguments.output))
            say(f"Written to {arguments.output}/ ({len(report.tables)} tables)", quiet=False)
        if arguments.html:
            write_report_page(report, Path(arguments.html))
            say(f"Written to {arguments.html} ({Path(arguments.html).stat().st_size / 1e6:.1f} MB)", quiet=False)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {error.filename}: {error.strerror}; choose another --html or --output"
        ) from error
    if arguments.experiment:
        tracking = TrackingSettings(uri=arguments["tracking.uri"], experiment=arguments.experiment)
        run_id = record_data_report(data, tracking, report)
        where = f"as the run {run_id}" if run_id else "already"
        say(f"Logged to the experiment {arguments.experiment} {where}", quiet=False)


if __name__ == "__main__":
    run_program(PROGRAM, main)
