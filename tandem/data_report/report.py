"""The report of a data set: tables and a page, as files and once in MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem.data.console import say
from tandem.data.prepare import PreparedData
from tandem.data_report.page import make_data_page
from tandem.data_report.record import log_data_report
from tandem.data_report.statistics import DataSetStatistics, describe
from tandem.data_report.tables import key_numbers, make_tables, remarks, shorten_table
from tandem.errors import one_line
from tandem.protocol.settings import TrackingSettings
from tandem.rendering.page import write_page
from tandem.rendering.tables import Table, write_tables

PAGE_FILE = "data_set.html"
TABLES_FOLDER = "tables"

MOST_ROWS = 1000  # of tables as Markdown and LaTeX; CSV files have all rows


@dataclass(frozen=True, kw_only=True, eq=False)
class DataReport:
    """The content of a data set's report."""

    data: PreparedData
    """The images."""
    statistics: DataSetStatistics
    """Statistics of the images."""
    tables: dict[str, Table]
    """Tables by their names."""


def make_data_report(data: PreparedData, *, quiet: bool = False) -> DataReport:
    """Makes the report of a data set.

    Args:
        data: The images.
        quiet: Shows no progress bar.
    """
    statistics = describe(data, quiet=quiet)
    return DataReport(data=data, statistics=statistics, tables=make_tables(data.name, statistics))


def write_report_page(report: DataReport, path: Path) -> None:
    """Writes the page, one HTML file of at least 5 MB, most of which is plotly.js."""
    write_page(path, make_data_page(report.data, report.statistics, report.tables))


def write_report_tables(report: DataReport, folder: Path) -> None:
    """Writes every table as Markdown, CSV and LaTeX, and all of them to tables.md."""
    sentences = "".join(f"- {sentence}\n" for sentence in remarks(report.statistics))
    write_tables(
        folder,
        list(report.tables.values()),
        before=[f"# Data set {report.data.name}\n\n{sentences}"],
        shorten=lambda table: shorten_table(table, MOST_ROWS),
    )


def record_data_report(data: PreparedData, tracking: TrackingSettings, report: DataReport | None = None) -> str | None:
    """Logs the report as a run of its own, unless the experiment has it already.

    Args:
        data: The images.
        tracking: MLflow server and experiment.
        report: Report of the images; None to make it if it is needed.

    Returns:
        The run's id; None if the experiment has the report already.

    Raises:
        UserError: MLflow does not answer, or its experiment cannot be written.
    """

    def make(folder: Path) -> dict[str, float]:
        made = report or make_data_report(data, quiet=True)
        write_report_page(made, folder / PAGE_FILE)
        write_report_tables(made, folder / TABLES_FOLDER)
        return {name: float(number) for name, number in key_numbers(made.statistics).items()}

    return log_data_report(
        tracking.uri,
        tracking.experiment,
        name=data.name,
        split_hash=data.split.hash,
        params=_params(data),
        lock_folder=_cache_of(data),
        make=make,
    )


def record_data_report_after_run(data: PreparedData, tracking: TrackingSettings) -> None:
    """As record_data_report, for a run that has finished: an error is one line of warning and does not fail the run."""
    try:
        run_id = record_data_report(data, tracking)
    except Exception as error:  # the run and its results are complete, whatever happened here
        say(f"warning: no report of the data set {data.name} was recorded: {one_line(error)}", quiet=False)
        return
    if run_id is not None:
        say(f"Report of the data set {data.name}: run {run_id} of {tracking.experiment}, {PAGE_FILE}", quiet=False)


def _cache_of(data: PreparedData) -> Path | None:
    """Folder of the stores of images."""
    file = data.images.filename if isinstance(data.images, np.memmap) else None
    return None if file is None else Path(file).parent.parent


def _params(data: PreparedData) -> dict[str, Any]:
    """Parameters that describe the images, under the settings' names."""
    split, store = data.report["split"], data.report["store"]
    return {
        "data.source": data.report["source"],
        "data.split": split["kind"],
        "data.split_seed": split["seed"],
        "data.stored_size": [store["height"], store["width"]],
    }
