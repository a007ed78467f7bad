"""Plotly figures of one run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tandem.evaluation.metrics import confusion_matrix, per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import CURVE_RATES, rank
from tandem.rendering.theme import (
    LIGHT,
    LONGEST_NAME,
    NEUTRAL_COLOR,
    PAGE_WIDTH,
    TRAIN_COLOR,
    VAL_COLOR,
    arrange_panels,
    class_axis,
    plain,
    shorten,
)
from tandem.tracking import vocabulary

# With more classes the numbers in cells would overlap; the number of a cell appears under the mouse.
MAX_CLASSES_WITH_COUNTS = 30

# Colours of lines that people can tell apart, from Okabe and Ito's palette and Paul Tol's muted scheme.
_CLASS_COLORS = (VAL_COLOR, "#E69F00", "#CC79A7", TRAIN_COLOR, "#009E73", "#6699CC")
MOST_CLASSES_WITH_CURVES = len(_CLASS_COLORS)
EXTREME_CLASSES = MOST_CLASSES_WITH_CURVES // 2  # drawn of the lowest, and of the highest


def training_curves(history: pd.DataFrame) -> go.Figure:
    """Loss and accuracy on training and validation images per epoch, with a line where the backbone was thawed.

    Args:
        history: One line per epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss,
            train/accuracy, val/accuracy.
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
                x=history["epoch"] + 1,  # people count from 1
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
        between = float(history["epoch"].iloc[index] + history["epoch"].iloc[index + 1]) / 2 + 1
        for column in (1, 2):
            figure.add_vline(
                x=between,
                row=1,
                col=column,
                line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dash"},
                annotation={"text": "backbone thawed", "textangle": -90, "font": {"color": NEUTRAL_COLOR, "size": 11}},
                # Away from the curves: losses fall, accuracies rise.
                annotation_position="top right" if column == 1 else "bottom right",
            )
    figure.update_xaxes(title="epoch", tickformat="d")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_layout(template=LIGHT, margin={"t": 40}, hovermode="x unified")
    figure.update_layout(
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "yref": "container", "y": 0, "yanchor": "bottom"}
    )
    arrange_panels(figure, panels=2, columns=2, panel_height=260, around=120, narrowest=300)
    return figure


def confusion_heatmap(predictions: Predictions) -> go.Figure:
    """Share of the images of each true class (rows) by predicted class (columns); numbers appear under the mouse."""
    counts = confusion_matrix(predictions).to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    num_classes = len(counts)
    gap = 1 if num_classes <= MAX_CLASSES_WITH_COUNTS else 0
    names = [plain(name) for name in predictions.classes]
    heatmap = go.Heatmap(
        x=names,
        y=names,
        # Whole per cents, one byte per cell, keep the page small with hundreds of classes.
        z=np.ceil(shares * 100).astype(np.uint8),
        zmin=0,
        zmax=100,
        colorbar={"title": {"text": "% of the<br>true class"}, "len": 0.5},
        # The fewest bytes per cell, for the same reason.
        customdata=counts.astype(np.min_scalar_type(counts.max())),
        hovertemplate="true class: %{y}<br>predicted class: %{x}<br>images: %{customdata}<extra></extra>",
        xgap=gap,
        ygap=gap,
    )
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        heatmap.update(text=np.where(counts > 0, counts.astype(str), ""), texttemplate="%{text}")
    figure = go.Figure(heatmap)
    side = int(np.clip(num_classes * 28, 420, 940))
    # For few classes their names make the figure wider; for many the page limits its width.
    names_room = int(6.5 * min(LONGEST_NAME, max(len(name) for name in predictions.classes)))
    width = min(side + 190 + names_room, PAGE_WIDTH)
    figure.update_layout(template=LIGHT, width=width, height=width - 80)
    axis = class_axis(predictions.classes, side)
    figure.update_xaxes(**axis, title="predicted class", tickangle=-90 if num_classes > 6 else None)
    figure.update_yaxes(**axis, title="true class", autorange="reversed", scaleanchor="x", constrain="domain")
    figure.update_xaxes(constrain="domain")
    return figure


def f1_bars(predictions: Predictions) -> go.Figure:
    """F1 of each class, lowest first, with a line at the mean."""
    table = per_class_table(predictions).sort_values("f1", kind="stable")
    names = [plain(name) for name in table["class"]]
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
        annotation_position="top left",  # above the lowest bars
    )
    few = len(names) <= 30
    figure.update_layout(template=LIGHT, height=400, bargap=0.3 if few else 0.1)
    figure.update_xaxes(**class_axis(table["class"], 1000), title="class", tickangle=-90 if len(names) > 12 else None)
    figure.update_yaxes(title="F1", range=[0, 1.05])
    return figure


def class_curves(predictions: Predictions) -> go.Figure | None:
    """ROC and precision-recall curves of each class against the rest.

    With more than MOST_CLASSES_WITH_CURVES, the mean curve of all, and the curves of the three classes with the lowest
    and the three with the highest average precision. A mean curve averages at equal rates: Fawcett 2006, "An
    introduction to ROC analysis", section 8.1.

    Returns:
        None if all test images have one class.
    """
    rankings = [(index, rank(predictions, index)) for index in range(len(predictions.classes))]
    curves = [
        (index, ranking.average_precision, ranking.roc_curve(), ranking.precision_recall_curve())
        for index, ranking in rankings
        if ranking is not None
    ]
    if not curves:
        return None
    lines = [(predictions.classes[index], roc, precision) for index, _, roc, precision in curves]
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("ROC: true positive rate", "precision"), horizontal_spacing=0.08
    )
    chance = {"color": NEUTRAL_COLOR, "width": 1, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=chance, showlegend=False, hoverinfo="skip", row=1, col=1)
    if len(curves) > MOST_CLASSES_WITH_CURVES:
        mean = (np.mean([roc for _, roc, _ in lines], axis=0), np.mean([precision for *_, precision in lines], axis=0))
        _add_curves(figure, f"mean of {len(lines)} classes", *mean, line={"color": NEUTRAL_COLOR, "width": 4})
        order = np.argsort([average_precision for _, average_precision, *_ in curves], kind="stable")
        lines = [lines[place] for place in (*order[:EXTREME_CLASSES], *order[-EXTREME_CLASSES:])]
    for (name, roc, precision), color in zip(lines, _CLASS_COLORS, strict=False):
        _add_curves(figure, name, roc, precision, line={"color": color, "width": 2})
    figure.update_xaxes(title="false positive rate", row=1, col=1)
    figure.update_xaxes(title="recall", row=1, col=2)
    figure.update_xaxes(range=[-0.01, 1.01])
    figure.update_yaxes(range=[-0.02, 1.02])
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"}
    figure.update_layout(template=LIGHT, margin={"t": 40}, hovermode="closest", legend=legend, showlegend=True)
    arrange_panels(figure, panels=2, columns=2, panel_height=300, around=120 + 22 * (len(lines) + 1), narrowest=300)
    return figure


def _add_curves(
    figure: go.Figure, name: str, roc: np.ndarray, precision: np.ndarray, *, line: dict[str, object]
) -> None:
    # The ROC curve begins at the threshold above all images, which is not among the rates.
    for column, x, y in ((1, [0.0, *CURVE_RATES], [0.0, *roc]), (2, CURVE_RATES, precision)):
        figure.add_scatter(
            x=np.round(x, 4),
            y=np.round(y, 4),
            mode="lines",
            line=line,
            name=plain(shorten(name)),
            legendgroup=plain(name),  # shortened names may be equal
            showlegend=column == 1,
            hovertemplate="%{x:.2f}: %{y:.4f}",
            row=1,
            col=column,
        )
