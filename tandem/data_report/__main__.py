"""Reports on a data set: classes, examples, sizes of files and images, copies, unreadable files.

    python -m tandem.data_report FOLDER --html report.html --data.split publisher

prints tables on the images, and writes a page that needs no network. Training scripts log the same page, once per data
set in an MLflow experiment. The program needs neither PyTorch nor Keras.
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
MOST_PRINTED = 20  # rows of a table, unless it has one row per class
PRINTED_TABLES = ("classes", "file_sizes", "image_sides", "image_sizes", "modes", "exact_copies", "near_duplicates")


def parse_arguments(argv: list[str] | None) -> Namespace:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} SOURCE [--html FILE] [--data.NAME VALUE ...]",
        description="Reports on a data set: images per class, sizes of files and images, exact and near copies, copies "
        "in different parts of the split, and unreadable files.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="A folder or a data set's name, as data.source of the scripts."
    )
    parser.add_argument("--html", metavar="FILE", help="Write a page with everything, which needs no network.")
    parser.add_argument(
        "--output", metavar="FOLDER", help="Write each table as .md, .csv and .tex here, and all together as tables.md."
    )
    parser.add_argument(
        "--experiment", help="Log the report to this MLflow experiment, too, unless the experiment has it already."
    )
    parser.add_argument(
        "--tracking.uri",
        metavar="URI",
        help="MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, or else mlflow.db in the current folder.",
    )
    # a report lists unreadable files and never stops at them
    parser.add_class_arguments(DataSettings, "data", skip={"source", "on_bad_image"})
    return read_data_settings(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    # imported after parsing, since they take seconds, and --help should not wait for them
    from tandem.data.prepare import prepare
    from tandem.data_report.report import (
        make_data_report,
        record_data_report,
        write_report_page,
        write_report_tables,
    )
    from tandem.data_report.tables import remarks, shorten_table
    from tandem.rendering.terminal import print_table

    settings = dataclasses.replace(arguments.data, source=arguments.source, on_bad_image="skip")
    data = prepare(settings)
    report = make_data_report(data)
    for name in PRINTED_TABLES:
        if table := report.tables.get(name):
            print_table(table if name in ("classes", "file_sizes") else shorten_table(table, MOST_PRINTED))
    for line in (*data.remarks, *data.passed_over):
        print(line)
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
