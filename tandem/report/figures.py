"""Plotly figures of one run."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tandem.evaluation.metrics import confusion_matrix, per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.tracking import vocabulary

# The first two colours of Okabe and Ito's palette, which colour-blind people can tell apart.
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"

# Beyond these sizes numbers in cells and names on axes run into each other; they show where the mouse points.
MAX_CLASSES_WITH_COUNTS = 30
MAX_CLASSES_WITH_NAMES = 120
LONGEST_NAME = 24

_LAYOUT = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
}


def training_curves(history: pd.DataFrame) -> go.Figure:
    """Loss and accuracy of training and validation images over all phases, with a line where the backbone was thawed.

    Args:
        history: one row an epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss, train/accuracy,
            val/accuracy.
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=("loss", "accuracy"), horizontal_spacing=0.08)
    curves = (
        (1, "train", vocabulary.TRAIN_LOSS, TRAIN_COLOR),
        (1, "val", vocabulary.VAL_LOSS, VAL_COLOR),
        (2, "train", vocabulary.TRAIN_ACCURACY, TRAIN_COLOR),
        (2, "val", vocabulary.VAL_ACCURACY, VAL_COLOR),
    )
    for column, split, metric, color in curves:
        figure.add_trace(
            go.Scatter(
                x=history["epoch"],
                y=history[metric],
                name=split,
                legendgroup=split,
                showlegend=column == 1,
                mode="lines+markers",
                marker={"size": 5},
                line={"color": color, "width": 2},
                hovertemplate="epoch %{x}: %{y:.4f}",
            ),
            row=1,
            col=column,
        )
    phases = history["phase"].to_numpy()
    for index in np.flatnonzero(phases[1:] != phases[:-1]):
        between = float(history["epoch"].iloc[index] + history["epoch"].iloc[index + 1]) / 2
        for column in (1, 2):
            figure.add_vline(
                x=between,
                row=1,
                col=column,
                line={"color": "#666", "width": 1, "dash": "dash"},
                annotation={"text": "backbone thawed", "textangle": -90, "font": {"color": "#666", "size": 11}},
                # Where the curves are not: losses fall, accuracies rise.
                annotation_position="top right" if column == 1 else "bottom right",
            )
    figure.update_xaxes(title="epoch", tickformat="d")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_layout(**_LAYOUT, height=380, hovermode="x unified")
    figure.update_layout(legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.18})
    return figure


def confusion_heatmap(predictions: Predictions) -> go.Figure:
    """Shares of each true class's images by predicted class; the numbers of images show where the mouse points."""
    counts = confusion_matrix(predictions).to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    num_classes = len(counts)
    gap = 1 if num_classes <= MAX_CLASSES_WITH_COUNTS else 0
    names = [_plain(name) for name in predictions.classes]
    heatmap = go.Heatmap(
        x=names,
        y=names,
        # Whole per cents: one byte a cell keeps the page small with hundreds of classes.
        z=np.ceil(shares * 100).astype(np.uint8),
        zmin=0,
        zmax=100,
        # Steep at the low end, so that single confusions are seen.
        colorscale=[[0, "#ffffff"], [0.01, "#dbe7f3"], [0.1, "#b4cde4"], [0.5, "#4f8fc4"], [1, "#08306b"]],
        colorbar={"title": {"text": "% of the<br>true class"}, "thickness": 14, "outlinewidth": 0, "len": 0.5},
        customdata=counts.astype(np.int32),
        hovertemplate="true class: %{y}<br>taken for: %{x}<br>images: %{customdata}<extra></extra>",
        xgap=gap,
        ygap=gap,
    )
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        heatmap.update(text=np.where(counts > 0, counts.astype(str), ""), texttemplate="%{text}")
    figure = go.Figure(heatmap)
    side = int(np.clip(num_classes * 28, 420, 940))
    figure.update_layout(**_LAYOUT, width=side + 200, height=side + 120)
    axis = _class_axis(predictions.classes, side)
    figure.update_xaxes(**axis, title="predicted class", tickangle=-90 if num_classes > 6 else 0)
    figure.update_yaxes(**axis, title="true class", autorange="reversed", scaleanchor="x", constrain="domain")
    figure.update_xaxes(constrain="domain")
    return figure


def f1_bars(predictions: Predictions) -> go.Figure:
    """F1 of each class, lowest first."""
    table = per_class_table(predictions).sort_values("f1", kind="stable")
    names = [_plain(name) for name in table["class"]]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=table["f1"],
            marker={"color": TRAIN_COLOR},
            customdata=table[["precision", "recall", "support"]].to_numpy(),
            hovertemplate="%{x}<br>F1 %{y:.4f}<br>precision %{customdata[0]:.4f}<br>recall %{customdata[1]:.4f}"
            "<br>test images %{customdata[2]}<extra></extra>",
        )
    )
    mean = float(table["f1"].mean())
    figure.add_hline(
        y=mean,
        line={"color": VAL_COLOR, "width": 1, "dash": "dash"},
        annotation={"text": f"mean {mean:.4f}", "font": {"color": VAL_COLOR}},
        annotation_position="top right",
    )
    few = len(names) <= 30
    figure.update_layout(**_LAYOUT, height=400, bargap=0.3 if few else 0.1)
    figure.update_xaxes(**_class_axis(table["class"], 1000), tickangle=-90 if len(names) > 12 else 0)
    figure.update_yaxes(title="F1", range=[0, 1.05])
    return figure


def _class_axis(names: Iterable[str], pixels: int) -> dict[str, Any]:
    """Layout of an axis of classes: every name, as small as it has to be, or none where there is no room."""
    names = list(names)
    shown = len(names) <= MAX_CLASSES_WITH_NAMES
    return {
        "type": "category",  # names like "0" and "1" are no numbers
        "tickmode": "array",
        "tickvals": [_plain(name) for name in names] if shown else [],
        "ticktext": [_plain(_shorten(name)) for name in names] if shown else [],
        "tickfont": {"size": int(np.clip(0.9 * pixels / len(names), 7, 13))},
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 8] + "..." + name[-5:]


def _plain(name: str) -> str:
    # Plotly reads <b> and <br> in texts as markup.
    return html.escape(name, quote=False)
