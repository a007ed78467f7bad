from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tandem.evaluation.predictions import Predictions, softmax
from tandem.evaluation.ranking import ranking_table
from tandem.recording.figures import class_curves, confusion_heatmap, f1_bars, training_curves


def make_predictions(num_classes: int) -> Predictions:
    random = np.random.default_rng(0)
    truth = np.arange(num_classes * 5) % num_classes
    logits = random.normal(size=(len(truth), num_classes))
    logits[np.arange(len(truth)), truth] += 3
    return Predictions(
        keys=tuple(str(index) for index in range(len(truth))),
        hashes=tuple(str(index) for index in range(len(truth))),
        truth=truth,
        probabilities=softmax(logits),
        classes=tuple(str(index) for index in range(num_classes)),
    )


def make_history(phases: list[int]) -> pd.DataFrame:
    epochs = np.arange(len(phases))
    return pd.DataFrame(
        {
            "epoch": epochs,
            "phase": phases,
            "train/loss": 2.0 - epochs / 10,
            "val/loss": 2.1 - epochs / 10,
            "train/accuracy": epochs / 10,
            "val/accuracy": epochs / 11,
        }
    )


def layout_of(figure: go.Figure) -> dict[str, Any]:
    return json.loads(figure.to_json())["layout"]


def test_thawing_is_marked_between_the_phases() -> None:
    layout = layout_of(training_curves(make_history([1, 1, 1, 2, 2])))
    assert [(line["x0"], line["x1"]) for line in layout["shapes"]] == [(3.5, 3.5)] * 2
    assert [text["text"] for text in layout["annotations"]].count("backbone thawed") == 2


def test_one_phase_has_no_mark() -> None:
    layout = layout_of(training_curves(make_history([1, 1, 1])))
    assert "shapes" not in layout


def test_curves_show_the_history() -> None:
    history = make_history([1, 1, 2])
    figure = training_curves(history)
    assert [trace.name for trace in figure.data] == ["train", "val", "train", "val"]
    metrics = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
    for trace, metric, panel in zip(figure.data, metrics, ("x", "x", "x2", "x2"), strict=True):
        assert trace.xaxis == panel
        np.testing.assert_array_equal(trace.x, [1, 2, 3])
        np.testing.assert_array_equal(trace.y, history[metric])
    # The title of each panel is that of its metrics.
    assert [annotation.text for annotation in figure.layout.annotations][:2] == ["loss", "accuracy"]
    assert [figure.layout[axis].title.text for axis in ("xaxis", "xaxis2")] == ["epoch", "epoch"]


def test_heatmap_has_true_classes_in_rows_and_predicted_classes_in_columns() -> None:
    predictions = Predictions(
        keys=tuple("123456"),
        hashes=tuple("123456"),
        truth=np.array([0, 0, 0, 0, 1, 1]),
        probabilities=np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 0, 0]],
        classes=("cat", "dog"),
    )
    figure = confusion_heatmap(predictions)
    (heatmap,) = figure.data
    # Of two dogs (second row) both are predicted as cats (first column).
    assert np.asarray(heatmap.z).tolist() == [[75, 25], [100, 0]]
    assert np.asarray(heatmap.customdata).tolist() == [[3, 1], [2, 0]]
    assert np.asarray(heatmap.text).tolist() == [["3", "1"], ["2", ""]]
    assert (list(heatmap.x), list(heatmap.y)) == (["cat", "dog"], ["cat", "dog"])
    assert figure.layout.xaxis.title.text == "predicted class"
    assert figure.layout.yaxis.title.text == "true class"
    assert figure.layout.yaxis.autorange == "reversed"  # the first row on top
    assert heatmap.hovertemplate.startswith("true class: %{y}<br>predicted class: %{x}<br>")
    assert heatmap.colorbar.title.text == "% of the<br>true class"


@pytest.mark.parametrize(("num_classes", "numbers", "names"), [(10, True, 10), (100, False, 100), (300, False, None)])
def test_numbers_and_names_are_left_out_if_they_do_not_fit(num_classes: int, numbers: bool, names: int | None) -> None:
    predictions = make_predictions(num_classes)
    figure = confusion_heatmap(predictions)
    assert (figure.data[0].texttemplate is not None) == numbers
    for axis in (figure.layout.xaxis, figure.layout.yaxis, f1_bars(predictions).layout.xaxis):
        assert axis.type == "category"
        # None: plotly writes as many names as fit, and more when zoomed in.
        assert (None if axis.ticktext is None else len(axis.ticktext)) == names
    assert figure.layout.width <= 1148  # the page's width


def test_bars_are_sorted_by_f1() -> None:
    figure = f1_bars(make_predictions(30))
    (bars,) = figure.data
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("class", "F1")
    assert list(bars.y) == sorted(bars.y)
    assert sorted(bars.x) == sorted(str(index) for index in range(30))


def shown_curves(figure: go.Figure | None) -> dict[str, list[go.Scatter]]:
    """The curves by name; the line of chance has none."""
    assert figure is not None
    found: dict[str, list[go.Scatter]] = {}
    for trace in figure.data:
        if trace.name is not None:
            found.setdefault(trace.legendgroup, []).append(trace)
    return found


def test_curves_of_few_classes_are_those_of_each() -> None:
    keys = tuple("1234")
    second = np.array([0.9, 0.8, 0.7, 0.4], np.float32)
    predictions = Predictions(
        keys=keys,
        hashes=keys,
        truth=np.array([1, 0, 1, 0]),
        probabilities=np.stack([1 - second, second], axis=1),
        classes=("cat", "<b>dog"),
    )
    curves = shown_curves(class_curves(predictions))
    assert list(curves) == ["cat", "&lt;b&gt;dog"]
    roc, precision = curves["&lt;b&gt;dog"]
    assert (roc.xaxis, precision.xaxis) == ("x", "x2")
    # Ranked: dog, cat, dog, cat. It begins at the threshold above all images.
    assert list(zip(roc.x, roc.y, strict=True))[:2] == [(0, 0), (0, 0.5)]
    assert dict(zip(roc.x, roc.y, strict=True))[0.5] == 1
    assert (precision.y[50], precision.y[51]) == (1, 0.6667)
    assert (roc.showlegend, precision.showlegend) == (True, False)


@pytest.mark.parametrize("num_classes", [7, 200])
def test_curves_of_many_classes_are_their_mean_and_the_extremes(num_classes: int) -> None:
    predictions = make_predictions(num_classes)
    by_precision = ranking_table(predictions).sort_values("average_precision", kind="stable")["class"].tolist()
    curves = shown_curves(class_curves(predictions))
    assert list(curves) == [f"mean of {num_classes} classes", *by_precision[:3], *by_precision[-3:]]
    assert len({trace.line.color for trace, _ in curves.values()}) == 7
    lowest, mean, highest = (
        np.mean(curves[name][1].y) for name in (by_precision[0], next(iter(curves)), by_precision[-1])
    )
    assert lowest < mean < highest


def test_long_names_are_shortened_and_kept_apart() -> None:
    long = tuple(f"great spotted woodpecker of {kind} forests" for kind in ("northern", "southern"))
    curves = shown_curves(class_curves(replace(make_predictions(2), classes=long)))
    assert {name: [trace.name for trace in traces] for name, traces in curves.items()} == {
        name: ["great spotted wo...rests"] * 2 for name in long
    }


def test_class_without_images_has_no_curve() -> None:
    predictions = make_predictions(3)
    absent = replace(predictions, truth=np.where(predictions.truth == 2, 0, predictions.truth))
    assert list(shown_curves(class_curves(absent))) == ["0", "1"]
    assert class_curves(replace(predictions, truth=np.zeros_like(predictions.truth))) is None
