"""Plotly figures of classes, over several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tandem.evaluation.predictions import Predictions
from tandem.recording.figures import confusion_heatmap
from tandem.rendering.theme import LIGHT, class_axis, plain


def f1_over_runs(f1: pd.DataFrame) -> go.Figure:
    """F1 of each class in each run, the hardest classes on top.

    Args:
        f1: one row a class and one column a run, both named, 0..1.
    """
    ordered = f1.loc[f1.mean(axis=1).sort_values(kind="stable").index]
    num_classes, num_runs = ordered.shape
    classes = [plain(str(name)) for name in ordered.index]
    few = num_classes <= 30
    heatmap = go.Heatmap(
        x=[plain(str(name)) for name in ordered.columns],
        y=classes,
        z=ordered.to_numpy(dtype=np.float32),
        zmin=0,
        zmax=1,
        # Evenly bright from low to high, to colour-blind people too; the template's would not show what is below 0.5.
        colorscale="Cividis",
        colorbar={"title": {"text": "F1"}},
        hovertemplate="%{y}<br>%{x}<br>F1 %{z:.4f}<extra></extra>",
        xgap=1,
        ygap=1 if few else 0,
    )
    if few:
        # White or black by what is behind them.
        heatmap.update(texttemplate="%{z:.2f}")
    figure = go.Figure(heatmap)
    rows = int(np.clip(num_classes * 24, 200, 1000))
    longest = max(len(str(name)) for name in ordered.columns)
    figure.update_layout(template=LIGHT, height=rows + 60 + 6 * min(longest, 40))
    figure.update_xaxes(
        {"type": "category", "side": "top", "showgrid": False, "showline": True, "mirror": True},
        tickangle=-45 if num_runs > 4 else 0,
    )
    figure.update_yaxes(class_axis([str(name) for name in ordered.index], rows), autorange="reversed")
    return figure


def confusion_over_runs(predictions: Mapping[str, Predictions]) -> go.Figure:
    """The confusion matrix of one run at a time, with a menu of runs.

    Args:
        predictions: by the run's name, all of the same classes; the first is shown.
    """
    names = list(predictions)
    figure = confusion_heatmap(predictions[names[0]])
    for name in names[1:]:
        (heatmap,) = confusion_heatmap(predictions[name]).data
        figure.add_trace(heatmap.update(visible=False))
    menu: dict[str, Any] = {
        "type": "dropdown",
        "buttons": [
            {
                "label": plain(name),
                "method": "restyle",
                "args": [{"visible": [other == name for other in names]}],
            }
            for name in names
        ],
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 8},
    }
    figure.update_layout(updatemenus=[menu], margin={"t": 70})
    return figure
