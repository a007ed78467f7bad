"""The record of a learning-rate range test: its losses, their figure, and the suggested rate."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from rich.console import Console

from tandem.files import whole_file
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.rendering.page import Page, Plot, Section, write_page
from tandem.rendering.theme import LIGHT, NEUTRAL_COLOR, TRAIN_COLOR, VAL_COLOR, mark_x
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.run import Run

NEIGHBOURS = 4  # on either side of a step, for the median in the figure


def record_learning_rate_finder(run: Run, finder: LearningRateFinder, title: str) -> None:
    """Logs the steps, the table and the page of the test, and prints the suggested rate.

    Args:
        run: The test's run.
        finder: After its last step.
        title: Backbone, regime and data set, for the page.
    """
    steps = list(zip(finder.rates, finder.losses, finder.smoothed, strict=True))
    names = (vocabulary.RANGE_LEARNING_RATE, vocabulary.RANGE_LOSS, vocabulary.RANGE_SMOOTHED_LOSS)
    for step, values in enumerate(steps):
        run.log_metrics(dict(zip(names, values, strict=True)), step=step)
    table = run.folder / vocabulary.RANGE_TEST_FILE
    with whole_file(table, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "learning_rate", "loss", "smoothed_loss"))
        writer.writerows((step, *values) for step, values in enumerate(steps))
    words = in_words(finder)
    plot = Plot(
        figure=finder_figure(finder),
        caption="Loss of each training step's batch over the learning rate of the step, and its median over "
        f"{2 * NEIGHBOURS + 1} steps. The dashed line is the suggestion: there the running mean of the test, which "
        "follows the loss with a delay, falls fastest.",
    )
    page = run.folder / vocabulary.RANGE_TEST_PAGE_FILE
    write_page(
        page,
        Page(
            title=f"Learning-rate range test: {title}",
            lead=f"{len(finder.losses)} training steps, each with a higher learning rate than the one before.",
            headline=(f"{words[0].upper()}{words[1:]}.",),
            sections=(Section(title="Loss", anchor="loss", blocks=(plot,)),),
        ),
    )
    for file_of_run in (table, page):
        run.log_artifact(file_of_run)
    suggestion = finder.suggestion()
    if suggestion is not None:
        run.log_metrics({vocabulary.RANGE_SUGGESTION: suggestion})
    run.set_tags({vocabulary.RANGE_TEST: words})
    for line in (f"Learning-rate range test: {words}", *run.where_to_look(), f"Page of the test: {page}"):
        # paths and addresses are there to be copied
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


def in_words(finder: LearningRateFinder) -> str:
    """The result in one line."""
    end = "until the loss exploded at" if finder.has_diverged() else "to the end of the range at"
    took = f"{len(finder.losses)} steps, {end} {finder.rates[-1]:.2g}"
    suggestion = finder.suggestion()
    if suggestion is None:
        return f"no suggestion, since the loss did not fall; {took}"
    rate = f"{suggestion:.2g}"
    return f"the loss fell fastest at {rate} ({took}); use --learning_rate {rate}, or try rates near it"


def finder_figure(finder: LearningRateFinder) -> go.Figure:
    """Loss over the learning rate, with a line at the suggested rate."""
    figure = go.Figure()
    figure.add_scatter(
        x=finder.rates, y=finder.losses, name="loss", mode="lines", line={"color": NEUTRAL_COLOR, "width": 1}
    )
    figure.add_scatter(
        x=finder.rates,
        y=centred_medians(finder.losses),
        name=f"median over {2 * NEIGHBOURS + 1} steps",
        mode="lines",
        line={"color": TRAIN_COLOR, "width": 2.5},
    )
    # an exploding loss would hide the rest
    highest = 1.5 * max(finder.smoothed[:1] + [value for value in finder.smoothed if value <= finder.smoothed[0]])
    # one mark per power of ten
    figure.update_xaxes(title="learning rate", type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(title="loss of the batch", range=[0, highest])
    figure.update_layout(
        template=LIGHT, height=450, legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    )
    suggestion = finder.suggestion()
    if suggestion is not None:
        mark_x(figure, suggestion, f"{suggestion:.2g}", color=VAL_COLOR)
    return figure


def centred_medians(losses: Sequence[float]) -> list[float]:
    """Median of each loss and its neighbours on both sides, which follows the losses without a delay.

    Args:
        losses: Of consecutive steps. At the ends there are fewer neighbours, as many on either side.
    """
    medians = []
    for step in range(len(losses)):
        reach = min(NEIGHBOURS, step, len(losses) - 1 - step)
        medians.append(statistics.median(losses[step - reach : step + reach + 1]))
    return medians
