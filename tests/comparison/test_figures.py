from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from playwright.sync_api import sync_playwright

from benchmarks.comparison_page import made_page
from tandem.comparison.figures import (
    accuracies,
    accuracy_against_parameters,
    accuracy_against_time,
    accuracy_differences,
    curves_over_runs,
    pareto_front,
    reliability_over_runs,
    thawing_gains,
)
from tandem.comparison.rows import Pair, Row
from tandem.comparison.styles import run_styles
from tandem.rendering.page import write_page
from tandem.rendering.tables import Estimate
from tests.browser import CHROMIUM, in_browser
from tests.comparison.made_rows import configuration, difference, pair, row

STYLES = run_styles(
    [
        configuration(" ".join(parts), backbone=parts[0], regime=parts[1], framework=parts[2])
        for parts in itertools.product(
            ("mobilenet_v2", "resnet50"), ("scratch", "frozen", "two_stage", "finetune"), ("torch", "keras")
        )
    ]
)
SCRATCH, TWO_STAGE = "mobilenet_v2 scratch torch", "mobilenet_v2 two_stage keras"


def named(figure: go.Figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def timed(label: str, seconds: float, accuracy: float, *, after_first_phase: bool = False) -> Row:
    estimate = Estimate(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.01)
    return row(label, accuracy=estimate, seconds=seconds, after_first_phase=after_first_phase)


def thawed(label: str) -> Pair:
    return pair(timed(label, 60, 0.8), timed(label, 20, 0.6, after_first_phase=True), difference(0.2))


def titles(figure: go.Figure) -> tuple[str | None, str | None]:
    """Titles of the horizontal and of the vertical axis."""
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def test_pareto_front_holds_the_points_that_no_other_beats() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        # Few distinct values, so that there are ties in both.
        seconds, accuracy = random.integers(1, 8, size=12).tolist(), random.integers(1, 8, size=12).tolist()
        front = pareto_front(seconds, accuracy)
        unbeaten = {
            (s, a)
            for s, a in zip(seconds, accuracy, strict=True)
            if not any((s2 <= s and a2 >= a) and (s2 < s or a2 > a) for s2, a2 in zip(seconds, accuracy, strict=True))
        }
        points = [(seconds[index], accuracy[index]) for index in front]
        assert set(points) == unbeaten
        assert points == sorted(unbeaten)


def test_last_bit_of_an_accuracy_makes_no_pareto_front() -> None:
    assert pareto_front([10, 20], [0.3, 0.1 + 0.2]) == pareto_front([10, 20], [0.1 + 0.2, 0.3]) == [0]


def test_accuracy_is_drawn_over_seconds_with_its_interval() -> None:
    figure = accuracy_against_time([timed(SCRATCH, 100, 0.7), timed(TWO_STAGE, 50, 0.9)], STYLES)
    (point,) = named(figure, SCRATCH)
    assert (point.x, point.y) == ((100,), (0.7,))
    assert point.error_y.array == pytest.approx([0.01])
    assert point.error_y.arrayminus == pytest.approx([0.02])
    assert point.marker.color == STYLES[SCRATCH].color
    assert figure.layout.xaxis.type == "log"
    assert titles(figure) == ("training time", "accuracy on test images")
    assert not named(figure, "Pareto front")  # one run beats the other in both
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == ["scratch", "two_stage", "torch", "keras"]


def test_accuracy_without_an_interval_has_a_bar_of_no_length() -> None:
    figure = accuracy_against_time([row(SCRATCH, accuracy=0.7, seconds=10)], STYLES)
    (point,) = named(figure, SCRATCH)
    assert (point.y, point.error_y.array, point.error_y.arrayminus) == ((0.7,), (0,), (0,))


def test_pareto_front_is_drawn_from_the_fastest_to_the_most_accurate() -> None:
    points = [timed(SCRATCH, 100, 0.9), timed(TWO_STAGE, 50, 0.7), timed("mobilenet_v2 frozen torch", 200, 0.8)]
    (front,) = named(accuracy_against_time(points, STYLES), "Pareto front")
    assert (front.x, front.y) == ((50, 100), (0.7, 0.9))


def test_times_on_different_machines_have_no_pareto_front() -> None:
    estimates = [Estimate(value=value, low=value - 0.02, high=value + 0.01) for value in (0.7, 0.9)]
    points = [
        row(label, accuracy=accuracy, seconds=seconds, hardware=hardware)
        for label, accuracy, seconds, hardware in (
            (TWO_STAGE, estimates[0], 50, "2 cores"),
            (SCRATCH, estimates[1], 100, "H200"),
        )
    ]
    assert not named(accuracy_against_time(points, STYLES), "Pareto front")


def test_accuracy_is_drawn_over_parameters_with_its_front() -> None:
    labels = (SCRATCH, TWO_STAGE, "resnet50 frozen torch")
    points = [
        row(label, accuracy=accuracy, parameters=parameters)
        for label, accuracy, parameters in zip(labels, (0.7, 0.6, 0.9), (2e6, 3e6, 25e6), strict=True)
    ]
    figure = accuracy_against_parameters(points, STYLES)
    (front,) = named(figure, "Pareto front")
    assert (front.x, front.y) == ((2e6, 25e6), (0.7, 0.9))
    (point,) = named(figure, TWO_STAGE)
    assert (point.x, point.y) == ((3e6,), (0.6,))
    assert titles(figure) == ("parameters, logarithmic", "accuracy on test images")
    assert figure.layout.xaxis.type == "log"


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        ((1, 8), ["1 s", "2 s", "5 s", "10 s"]),
        ((60, 600), ["1 min", "2 min", "5 min", "10 min"]),
        ((7200, 9000), ["2 h"]),
    ],
)
def test_time_axis_has_readable_units(seconds: tuple[float, float], ticks: list[str]) -> None:
    figure = accuracy_against_time([timed(SCRATCH, seconds[0], 0.7), timed(TWO_STAGE, seconds[1], 0.9)], STYLES)
    assert list(figure.layout.xaxis.ticktext) == ticks


def test_curves_of_a_row_are_switched_together_and_thawing_is_marked() -> None:
    def history(phases: list[int]) -> pd.DataFrame:
        columns = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
        numbers = {name: np.arange(len(phases)) + 10 * panel for name, panel in zip(columns, (0, 1, 2, 3), strict=True)}
        return pd.DataFrame({"epoch": np.arange(len(phases)), "phase": phases, **numbers})

    figure = curves_over_runs({SCRATCH: history([1, 1, 1]), TWO_STAGE: history([1, 1, 2])}, STYLES)
    curves = [trace for trace in figure.data if trace.mode == "lines"]
    # The row with two phases is below the other, and wider, so that equal curves are both visible.
    assert [trace.legendgroup for trace in curves] == [TWO_STAGE] * 4 + [SCRATCH] * 4
    assert [trace.line.width for trace in curves] == [6] * 4 + [2] * 4
    assert [trace.showlegend for trace in curves] == [True, False, False, False] * 2
    assert [list(trace.y) for trace in curves[:4]] == [[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]]
    stars = [trace for trace in figure.data if trace.mode == "markers" and trace.legendgroup]
    assert [(trace.legendgroup, trace.x.tolist(), trace.y.tolist()) for trace in stars] == [
        (TWO_STAGE, [3], [2 + 10 * panel]) for panel in range(4)
    ]
    # Panels in reading order: each curve is below the title of its metric.
    panels = [f"{name}, {images} images" for name in ("loss", "accuracy") for images in ("training", "validation")]
    assert [annotation.text for annotation in figure.layout.annotations] == panels
    assert [(trace.xaxis, trace.yaxis) for trace in curves[:4]] == [
        ("x", "y"),
        ("x2", "y2"),
        ("x3", "y3"),
        ("x4", "y4"),
    ]
    assert [figure.layout[axis].title.text for axis in ("xaxis3", "xaxis4")] == ["epoch", "epoch"]


def test_reliability_leaves_out_empty_bins() -> None:
    bins = pd.DataFrame({"confidence": [0.5, np.nan, 0.9], "accuracy": [0.4, np.nan, 0.95], "images": [10, 0, 30]})
    figure = reliability_over_runs({SCRATCH: bins}, STYLES)
    (line,) = named(figure, SCRATCH)
    assert (list(line.x), list(line.y), list(line.customdata)) == ([0.5, 0.9], [0.4, 0.95], [10, 30])
    # The area beyond the smallest size of 4 is proportional to the number of images.
    small, large = (np.array(line.marker.size) - 4) ** 2
    assert large / small == pytest.approx(3)


def test_reliability_has_a_panel_per_row() -> None:
    bins = pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.4, 0.95], "images": [10, 30]})
    labels = list(STYLES)[:6]
    figure = reliability_over_runs(dict.fromkeys(labels, bins), STYLES)
    assert [trace.xaxis for trace in figure.data if trace.name] == ["x", "x2", "x3", "x4", "x5", "x6"]
    assert [title.text.replace("<br>", " ") for title in figure.layout.annotations] == labels
    assert (figure.layout.meta["panels"], figure.layout.meta["columns"]) == (6, 4)


def test_accuracies_keep_their_order_and_rows_tied_with_the_best_are_filled() -> None:
    best, tied, worse = (
        timed(label, 1, value) for label, value in zip(list(STYLES)[:3], (0.9, 0.89, 0.6), strict=True)
    )
    tied = dataclasses.replace(tied, tied_with_best=frozenset({"accuracy"}))
    figure = accuracies([best, tied, worse], STYLES)
    assert [trace.marker.symbol for trace in figure.data] == ["circle", "square", "circle-open"]
    assert [trace.x[0] for trace in figure.data] == [0.9, 0.89, 0.6]
    assert [label.replace("<br>", " ") for label in figure.layout.yaxis.categoryarray] == list(STYLES)[:3]
    assert figure.layout.yaxis.autorange == "reversed"
    (band,) = figure.layout.shapes
    assert (band.x0, band.x1) == pytest.approx((0.88, 0.91))
    assert figure.data[0].error_x.array[0] == pytest.approx(0.01)


def test_differences_are_in_the_given_order_and_significant_ones_are_filled() -> None:
    pairs = [
        pair(row("b"), row("x"), difference(0.02, below=0.01, above=0.03, significant=True)),
        pair(row("a"), row("x"), difference(-0.01)),
    ]
    figure = accuracy_differences(pairs, "accuracy, Keras minus PyTorch")
    filled, open_ = figure.data
    assert (filled.y, open_.y) == (("b",), ("a",))
    assert filled.error_x.array == pytest.approx([0.03])
    assert filled.error_x.arrayminus == pytest.approx([0.01])
    assert (filled.marker.symbol, open_.marker.symbol) == ("circle", "circle-open")
    assert figure.layout.yaxis.categoryarray == ("b", "a")
    assert [(line.x0, line.x1) for line in figure.layout.shapes] == [(0, 0)]
    assert (filled.x, open_.x) == ((0.02,), (-0.01,))
    assert titles(figure) == ("accuracy, Keras minus PyTorch", None)
    assert figure.layout.yaxis.autorange == "reversed"  # the first on top


def test_thawing_is_drawn_from_before_to_after() -> None:
    figure = thawing_gains([thawed(TWO_STAGE)], STYLES)
    (line,) = figure.data
    assert (line.x, line.y, line.text) == ((20, 60), (0.6, 0.8), ("head only", "thawed"))
    assert titles(figure) == ("training time (open: head only, filled: thawed)", "accuracy on test images")
    assert line.marker.symbol == ("square-open", "square")


def test_markup_in_names_is_escaped() -> None:
    (line,) = thawing_gains([thawed("<b>a")], run_styles([configuration("<b>a")])).data
    assert line.name == "&lt;b&gt;a"


@in_browser
@pytest.mark.parametrize("num_classes", [10, 100])
def test_browser_draws_every_figure_without_errors(num_classes: int, tmp_path: Path) -> None:
    complaints: list[str] = []
    write_page(tmp_path / "page.html", made_page(num_classes=num_classes, num_runs=8, images_per_class=5))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        tab = browser.new_page(viewport={"width": 1280, "height": 12_000})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        tab.locator(".plot > div:not([data-state=drawn])").first.wait_for(state="detached")
        assert tab.locator(".plot > div[data-state=drawn] > .plot-container").count() == 8
        browser.close()
    assert complaints == []
