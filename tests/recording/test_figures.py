from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tandem.evaluation.predictions import Predictions, softmax
from tandem.recording.figures import confusion_heatmap, f1_bars, training_curves


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
