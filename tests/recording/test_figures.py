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
    assert [(line["x0"], line["x1"]) for line in layout["shapes"]] == [(2.5, 2.5)] * 2
    assert [text["text"] for text in layout["annotations"]].count("backbone thawed") == 2


def test_one_phase_has_no_mark() -> None:
    layout = layout_of(training_curves(make_history([1, 1, 1])))
    assert "shapes" not in layout


def test_curves_show_the_history() -> None:
    history = make_history([1, 1, 2])
    figure = training_curves(history)
    assert [trace.name for trace in figure.data] == ["train", "val", "train", "val"]
    metrics = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
    for trace, metric in zip(figure.data, metrics, strict=True):
        np.testing.assert_array_equal(trace.x, history["epoch"])
        np.testing.assert_array_equal(trace.y, history[metric])


def test_heatmap_shows_shares_of_the_true_class() -> None:
    predictions = Predictions(
        keys=tuple("123456"),
        hashes=tuple("123456"),
        truth=np.array([0, 0, 0, 0, 1, 1]),
        probabilities=np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 0, 0]],
        classes=("cat", "dog"),
    )
    (heatmap,) = confusion_heatmap(predictions).data
    assert np.asarray(heatmap.z).tolist() == [[75, 25], [100, 0]]
    assert np.asarray(heatmap.customdata).tolist() == [[3, 1], [2, 0]]
    assert np.asarray(heatmap.text).tolist() == [["3", "1"], ["2", ""]]


@pytest.mark.parametrize(("num_classes", "numbers", "names"), [(10, True, 10), (100, False, 100), (300, False, None)])
def test_numbers_and_names_are_left_out_where_they_have_no_room(
    num_classes: int, numbers: bool, names: int | None
) -> None:
    predictions = make_predictions(num_classes)
    figure = confusion_heatmap(predictions)
    assert (figure.data[0].texttemplate is not None) == numbers
    for axis in (figure.layout.xaxis, figure.layout.yaxis, f1_bars(predictions).layout.xaxis):
        assert axis.type == "category"
        # None: plotly writes as many names as fit, and more when zoomed in.
        assert (None if axis.ticktext is None else len(axis.ticktext)) == names
    assert figure.layout.width <= 1148  # the page's width


def test_bars_are_sorted_by_f1() -> None:
    (bars,) = f1_bars(make_predictions(30)).data
    assert list(bars.y) == sorted(bars.y)
    assert sorted(bars.x) == sorted(str(index) for index in range(30))
