"""Plotly figures of classes over several rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tandem.evaluation.predictions import Predictions
from tandem.recording.figures import confusion_heatmap
from tandem.rendering.theme import LIGHT, class_axis, plain

MAX_CLASSES_WITH_NUMBERS = 30  # numbers of more classes would overlap


def f1_over_runs(f1: pd.DataFrame) -> go.Figure:
    """F1 of each class, from top to bottom, in each row of the comparison, from left to right.

    Args:
        f1: One row per class and one column per label of a row, 0..1; drawn in this order.
    """
    num_classes, num_runs = f1.shape
    few = num_classes <= MAX_CLASSES_WITH_NUMBERS
    heatmap = go.Heatmap(
        x=[plain(str(label)) for label in f1.columns],
        y=[plain(str(name)) for name in f1.index],
        z=f1.to_numpy(dtype=np.float32),
        zmin=0,
        zmax=1,
        # Of even brightness, also for colour-blind people; the template's scale shows no difference below 0.5.
        colorscale="Cividis",
        colorbar={"title": {"text": "F1"}},
        hovertemplate="%{y}<br>%{x}<br>F1 %{z:.4f}<extra></extra>",
        xgap=1,
        ygap=1 if few else 0,
    )
    if few:
        # Without a colour of its own, so that plotly chooses white or black by the background.
        heatmap.update(texttemplate="%{z:.2f}")
    figure = go.Figure(heatmap)
    height = int(np.clip(num_classes * 24, 200, 1000))
    longest = max(len(str(label)) for label in f1.columns)
    figure.update_layout(template=LIGHT, height=height + 60 + 6 * min(longest, 40))
    figure.update_xaxes(
        {"type": "category", "side": "top", "showgrid": False, "showline": True, "mirror": True},
        tickangle=-45 if num_runs > 4 else 0,
        # all of them, where plotly would leave some out
        tickmode="array",
        tickvals=list(heatmap.x),
        ticktext=list(heatmap.x),
    )
    figure.update_yaxes(class_axis([str(name) for name in f1.index], height), title="class", autorange="reversed")
    return figure


def confusion_over_runs(predictions: Mapping[str, Predictions]) -> go.Figure:
    """Confusion matrix of one row at a time, with a menu of rows.

    Args:
        predictions: By label, all of the same classes; the first is shown.
    """
    labels = list(predictions)
    figure = confusion_heatmap(predictions[labels[0]])
    for label in labels[1:]:
        (heatmap,) = confusion_heatmap(predictions[label]).data
        figure.add_trace(heatmap.update(visible=False))
    menu: dict[str, Any] = {
        "type": "dropdown",
        "buttons": [
            {"label": plain(label), "method": "restyle", "args": [{"visible": [other == label for other in labels]}]}
            for label in labels
        ],
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 8},
    }
    figure.update_layout(updatemenus=[menu], margin={"t": 70})
    return figure
