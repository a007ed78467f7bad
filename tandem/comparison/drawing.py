"""Writes the page and the figures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tandem.comparison.analysis import choose_tested
from tandem.comparison.comparison import Comparison
from tandem.comparison.output import writing
from tandem.comparison.page import make_figures, make_page, make_plots, read_histories
from tandem.comparison.record import record_comparison
from tandem.rendering.export import Format, write_figures
from tandem.rendering.page import write_page
from tandem.tracking.reader import RunRecord


def draw_comparison(
    comparison: Comparison,
    runs: Sequence[RunRecord],
    *,
    experiment: str,
    page: Path | None,
    figures: Path,
    kind: Format | None,
    folder: Path,
) -> None:
    """Writes the page and logs it to MLflow, and writes the figures, as far as they are asked for.

    Args:
        comparison: Of the experiment.
        runs: Of the experiment, at least one.
        experiment: Its name.
        page: The HTML file; None for no page.
        figures: Folder of the figures.
        kind: Format of the figures; None for no figures.
        folder: Where files of the runs are copied to.

    Raises:
        UserError: A file cannot be written, Chrome cannot draw, or MLflow does not answer.
    """
    plots = [
        make_plots(compared, read_histories(choose_tested(compared.group.configurations)))
        for compared in comparison.groups
    ]
    if page is not None:
        made = make_page(comparison, plots, experiment=experiment, folder=folder)
        with writing("the page", page, "--html"):
            write_page(page, made)
        print(f"Written to {page} ({page.stat().st_size / 1e6:.1f} MB)")
        run_id = record_comparison(runs, experiment, page)
        print(f"Logged to the experiment {experiment} as the run {run_id}")
    if kind is not None:
        with writing("the figures", figures, "--output"):
            files = write_figures(make_figures(comparison, plots), figures, formats=(kind,))
        print(f"Written to {figures}/ ({len(files)} figure{'' if len(files) == 1 else 's'})")
