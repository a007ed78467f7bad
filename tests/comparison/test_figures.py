from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from choreographer.browsers.chromium import Chromium
from playwright.sync_api import sync_playwright

from benchmarks.comparison_page import made_page
from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.comparison.figures import (
    Difference,
    Thawing,
    TimedScore,
    accuracy_against_time,
    critical_difference_diagram,
    curves_over_runs,
    differences_with_intervals,
    pareto_front,
    reliability_over_runs,
    thawing_gains,
)
from tandem.comparison.styles import RunLabel, RunStyle, run_styles
from tandem.evaluation.predictions import Predictions
from tandem.rendering.page import write_page
from tandem.rendering.tables import Estimate

BACKBONES = ("mobilenet_v2", "resnet50")
REGIMES = ("scratch", "frozen", "two_stage", "finetune")
FRAMEWORKS = ("torch", "keras")
LABELS = [
    RunLabel(name=" ".join(parts), backbone=parts[0], regime=parts[1], framework=parts[2])
    for parts in itertools.product(BACKBONES, REGIMES, FRAMEWORKS)
]
STYLES = run_styles(LABELS)
SCRATCH, TWO_STAGE = "mobilenet_v2 scratch torch", "mobilenet_v2 two_stage keras"


def named(figure: go.Figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def timed(name: str, seconds: float, accuracy: float) -> TimedScore:
    estimate = Estimate(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.01)
    return TimedScore(name=name, train_seconds=seconds, accuracy=estimate)


def test_every_run_looks_unlike_the_others() -> None:
    looks = {(style.color, style.symbol, style.dash) for style in STYLES.values()}
    assert len(looks) == len(LABELS) == 16


def test_colour_is_the_regime_symbol_and_dash_are_the_framework() -> None:
    def of_all(field: str, **wanted: str) -> set[str]:
        return {
            getattr(style, field)
            for style in STYLES.values()
            if all(getattr(style.label, key) == value for key, value in wanted.items())
        }

    for framework in FRAMEWORKS:
        assert len(of_all("symbol", framework=framework)) == len(of_all("dash", framework=framework)) == 1
    for backbone, regime in itertools.product(BACKBONES, REGIMES):
        assert len(of_all("color", backbone=backbone, regime=regime)) == 1
    assert len(of_all("color", backbone=BACKBONES[0])) == len(REGIMES)


def test_known_regime_has_the_same_colour_in_every_report() -> None:
    (label,) = [label for label in LABELS if label.name == "mobilenet_v2 finetune torch"]
    assert run_styles([label])[label.name].color == STYLES[label.name].color == "#d55e00"


def test_many_unknown_regimes_and_frameworks_get_marks() -> None:
    labels = [RunLabel(name=str(n), backbone=f"b{n}", regime=f"r{n}", framework=f"f{n}") for n in range(20)]
    assert all(style.color.startswith("#") and len(style.color) == 7 for style in run_styles(labels).values())


def test_pareto_front_is_what_no_other_point_beats() -> None:
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


def test_accuracy_stands_over_seconds_with_its_interval() -> None:
    figure = accuracy_against_time([timed(SCRATCH, 100, 0.7), timed(TWO_STAGE, 50, 0.9)], STYLES)
    (point,) = named(figure, SCRATCH)
    assert (point.x, point.y) == ((100,), (0.7,))
    assert point.error_y.array == pytest.approx([0.01])
    assert point.error_y.arrayminus == pytest.approx([0.02])
    assert point.marker.color == STYLES[SCRATCH].color
    assert figure.layout.xaxis.type == "log"
    assert not named(figure, "Pareto front")  # one run beats the other in both
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == ["scratch", "two_stage", "torch", "keras"]


def test_pareto_front_is_drawn_from_the_fastest_to_the_most_accurate() -> None:
    points = [timed(SCRATCH, 100, 0.9), timed(TWO_STAGE, 50, 0.7), timed("mobilenet_v2 frozen torch", 200, 0.8)]
    (front,) = named(accuracy_against_time(points, STYLES), "Pareto front")
    assert (front.x, front.y) == ((50, 100), (0.7, 0.9))


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        ((1, 8), ["1 s", "2 s", "5 s", "10 s"]),
        ((60, 600), ["1 min", "2 min", "5 min", "10 min"]),
        ((7200, 9000), ["2 h"]),
    ],
)
def test_times_are_marked_in_units_for_people(seconds: tuple[float, float], ticks: list[str]) -> None:
    figure = accuracy_against_time([timed(SCRATCH, seconds[0], 0.7), timed(TWO_STAGE, seconds[1], 0.9)], STYLES)
    assert list(figure.layout.xaxis.ticktext) == ticks


def test_curves_of_each_run_are_switched_together_and_thawing_is_marked() -> None:
    def history(phases: list[int]) -> pd.DataFrame:
        columns = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
        numbers = {name: np.arange(len(phases)) + 10 * index for index, name in enumerate(columns)}
        return pd.DataFrame({"epoch": np.arange(len(phases)), "phase": phases, **numbers})

    figure = curves_over_runs({SCRATCH: history([1, 1, 1]), TWO_STAGE: history([1, 1, 2])}, STYLES)
    curves = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.legendgroup for trace in curves] == [SCRATCH] * 4 + [TWO_STAGE] * 4
    assert [trace.showlegend for trace in curves] == [True, False, False, False] * 2
    assert [list(trace.y) for trace in curves[:4]] == [[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]]
    stars = [trace for trace in figure.data if trace.mode == "markers" and trace.legendgroup]
    assert [(trace.legendgroup, trace.x.tolist(), trace.y.tolist()) for trace in stars] == [
        (TWO_STAGE, [2], [2 + 10 * panel]) for panel in range(4)
    ]


def test_f1_map_shows_the_hardest_classes_on_top() -> None:
    f1 = pd.DataFrame({"a": [0.9, 0.2, 0.5], "b": [0.7, 0.4, 0.0]}, index=["owl", "emu", "kiwi"])
    figure = f1_over_runs(f1)
    (heatmap,) = figure.data
    assert list(heatmap.y) == ["kiwi", "emu", "owl"]
    assert list(heatmap.x) == ["a", "b"]
    for name, values in zip(heatmap.y, np.asarray(heatmap.z), strict=True):
        np.testing.assert_allclose(values, f1.loc[name], rtol=1e-6)
    assert figure.layout.yaxis.autorange == "reversed"


@pytest.mark.parametrize(("num_classes", "numbers"), [(3, True), (100, False), (300, False)])
def test_f1_map_stays_on_a_screen(num_classes: int, numbers: bool) -> None:
    random = np.random.default_rng(0)
    f1 = pd.DataFrame(random.random((num_classes, 12)), index=[f"class {index}" for index in range(num_classes)])
    figure = f1_over_runs(f1)
    assert (figure.data[0].texttemplate is not None) == numbers
    assert figure.layout.height < 1200


def test_menu_shows_the_confusions_of_one_run() -> None:
    def predictions(predicted: list[int]) -> Predictions:
        return Predictions(
            keys=tuple("1234"),
            hashes=tuple("1234"),
            truth=np.array([0, 0, 1, 1]),
            probabilities=np.eye(2, dtype=np.float32)[predicted],
            classes=("cat", "dog"),
        )

    figure = confusion_over_runs({"a": predictions([0, 0, 1, 1]), "b": predictions([0, 1, 1, 1])})
    assert [trace.visible for trace in figure.data] == [None, False]
    assert np.asarray(figure.data[1].customdata).tolist() == [[1, 1], [0, 2]]
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["a", "b"]
    assert [list(button.args[0]["visible"]) for button in menu.buttons] == [[True, False], [False, True]]


def test_reliability_leaves_out_empty_bins() -> None:
    bins = pd.DataFrame({"confidence": [0.5, np.nan, 0.9], "accuracy": [0.4, np.nan, 0.95], "images": [10, 0, 30]})
    figure = reliability_over_runs({SCRATCH: bins}, STYLES)
    (line,) = named(figure, SCRATCH)
    assert (list(line.x), list(line.y), list(line.customdata)) == ([0.5, 0.9], [0.4, 0.95], [10, 30])
    # Areas as the numbers of images, apart from the least size of 4.
    small, large = (np.array(line.marker.size) - 4) ** 2
    assert large / small == pytest.approx(3)


def test_differences_stand_in_the_given_order_and_significant_ones_are_filled() -> None:
    rows = [
        Difference(label="b", estimate=Estimate(value=0.02, low=0.01, high=0.05), significant=True),
        Difference(label="a", estimate=Estimate(value=-0.01, low=-0.03, high=0.02), significant=False),
    ]
    figure = differences_with_intervals(rows, "accuracy, Keras minus PyTorch")
    filled, open_ = figure.data
    assert (filled.y, open_.y) == (("b",), ("a",))
    assert filled.error_x.array == pytest.approx([0.03])
    assert filled.error_x.arrayminus == pytest.approx([0.01])
    assert (filled.marker.symbol, open_.marker.symbol) == ("circle", "circle-open")
    assert figure.layout.yaxis.categoryarray == ("b", "a")
    assert [(line.x0, line.x1) for line in figure.layout.shapes] == [(0, 0)]


def test_critical_difference_diagram_names_all_and_joins_cliques() -> None:
    ranks = {"worst": 3.5, "best": 1.5, "second": 2.0, "third": 3.0}
    figure = critical_difference_diagram(ranks, [["best", "second"], ["third", "worst"], ["best"]], 0.8)
    names = [annotation.text for annotation in figure.layout.annotations]
    assert names == ["best 1.50", "second 2.00", "worst 3.50", "third 3.00", "critical difference 0.80"]
    bars = [trace for trace in figure.data if trace.line.width == 6]
    spans = [(round(bar.x[0], 1), round(bar.x[1], 1)) for bar in bars]
    assert spans == [(1.4, 2.1), (2.9, 3.6)]  # from rank to rank, and a little beyond
    (scale,) = [trace for trace in figure.data if list(trace.y) == [1.1, 1.1]]
    assert scale.x[1] - scale.x[0] == pytest.approx(0.8)


def test_thawing_goes_from_before_to_after() -> None:
    thawing = Thawing(name=TWO_STAGE, before=timed(TWO_STAGE, 20, 0.6), after=timed(TWO_STAGE, 60, 0.8))
    (line,) = thawing_gains([thawing], STYLES).data
    assert (line.x, line.y) == ((20, 60), (0.6, 0.8))
    assert line.marker.symbol == ("square-open", "square")


def test_names_are_no_markup() -> None:
    label = RunLabel(name="<b>a", backbone="x", regime="frozen", framework="torch")
    styles: dict[str, RunStyle] = run_styles([label])
    (line,) = thawing_gains(
        [Thawing(name="<b>a", before=timed("<b>a", 1, 0.5), after=timed("<b>a", 2, 0.6))], styles
    ).data
    assert line.name == "&lt;b&gt;a"


@pytest.mark.skipif(Chromium.find_browser(skip_local=False) is None, reason="no Chrome or Chromium on this machine")
@pytest.mark.parametrize("num_classes", [10, 100])
def test_browser_draws_every_figure_without_a_complaint(num_classes: int, tmp_path: Path) -> None:
    complaints: list[str] = []
    write_page(tmp_path / "page.html", made_page(num_classes=num_classes, num_runs=8, images_per_class=5))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=Chromium.find_browser(skip_local=False))
        tab = browser.new_page(viewport={"width": 1280, "height": 12_000})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        tab.locator(".plot > div:not([data-state=drawn])").first.wait_for(state="detached")
        assert tab.locator(".plot > div[data-state=drawn] > .plot-container").count() == 8
        browser.close()
    assert complaints == []
