"""Plotly figures of several rows; a row looks the same in all of them (tandem.comparison.styles)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tandem.comparison.recorded_settings import same_costs
from tandem.comparison.rows import Pair, Row
from tandem.comparison.styles import REGIME_COLORS, RunStyle, shaded
from tandem.evaluation.ties import merge_ties
from tandem.rendering.tables import Estimate
from tandem.rendering.theme import LIGHT, NEUTRAL_COLOR, arrange_panels, plain, wrapped
from tandem.tracking import vocabulary

_INTERVAL = {"thickness": 1.2, "width": 4}
# At the lower edge of the figure, whatever its height: on a phone the entries need more lines.
_LEGEND_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"}
_CURVES = (
    (1, 1, vocabulary.TRAIN_LOSS, "loss, training images"),
    (1, 2, vocabulary.VAL_LOSS, "loss, validation images"),
    (2, 1, vocabulary.TRAIN_ACCURACY, "accuracy, training images"),
    (2, 2, vocabulary.VAL_ACCURACY, "accuracy, validation images"),
)
_TIME_MARKS = (
    ("s", 1, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)),
    ("min", 60, (1, 2, 5, 10, 20, 30)),
    ("h", 3600, (1, 2, 5, 10, 20, 50, 100)),
)
_TEST_ACCURACY = "accuracy on test images"

RELIABILITY_COLUMNS = 4  # panels side by side
RELIABILITY_NARROWEST = 160  # width of a panel in pixels


def pareto_front(costs: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Indices of the points that no other point beats in one respect and equals or beats in the other, cheapest first.

    Args:
        costs: Of each point, such as seconds; less is better.
        accuracy: Of each point; more is better.
    """
    accuracy = merge_ties(accuracy)
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], -accuracy[index])):
        if not front or accuracy[index] > accuracy[front[-1]]:
            front.append(index)
    return front


def accuracies(rows: Sequence[Row], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy of each row with its interval, the best on top, and a band over the interval of the best.

    Rows that are tied with the best are filled.

    Args:
        rows: With an accuracy, the best first.
        styles: From run_styles.
    """
    figure = go.Figure()
    best = _accuracy(rows[0])
    if best.high > best.low:
        figure.add_vrect(
            x0=best.low, x1=best.high, fillcolor=NEUTRAL_COLOR, opacity=0.15, line={"width": 0}, layer="below"
        )
    for row in rows:
        style, accuracy = styles[row.label], _accuracy(row)
        is_tied = row is rows[0] or "accuracy" in row.tied_with_best
        figure.add_scatter(
            x=[accuracy.value],
            y=[wrapped(row.label)],
            error_x=_error_bars([accuracy]) | {"color": style.color},
            mode="markers",
            marker={
                "symbol": style.symbol if is_tied else f"{style.symbol}-open",
                "size": 11,
                "color": style.color,
                "line": {"width": 2, "color": style.color},
            },
            name=plain(row.label),
            showlegend=False,
            hovertemplate=f"{plain(row.label)}<br>accuracy %{{x:.4f}} [{accuracy.low:.4f}, {accuracy.high:.4f}]"
            "<extra></extra>",
        )
    order = [wrapped(row.label) for row in rows]
    figure.update_xaxes(title=_TEST_ACCURACY, zeroline=False)
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=order, autorange="reversed", ticksuffix="  "
    )
    lines = max(label.count("<br>") + 1 for label in order)
    figure.update_layout(template=LIGHT, height=90 + (16 + 16 * lines) * len(order))
    return figure


def curves_over_runs(histories: Mapping[str, pd.DataFrame], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Loss and accuracy per epoch, one line per row, with a star where the backbone was thawed.

    Rows with several phases are wide lines below the others, because their first phase may be the same as the whole
    training of another row.

    Args:
        histories: By label; one line per epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss,
            train/accuracy, val/accuracy.
        styles: From run_styles.
    """
    figure = make_subplots(
        rows=2,
        cols=2,
        shared_xaxes="all",
        shared_yaxes="rows",
        horizontal_spacing=0.04,
        vertical_spacing=0.12,
        subplot_titles=[title for *_, title in _CURVES],
    )
    any_thawed = False
    for label, history in sorted(histories.items(), key=lambda item: item[1]["phase"].nunique(), reverse=True):
        phases = history["phase"].to_numpy()
        thawed = history.iloc[1:][phases[1:] != phases[:-1]]
        any_thawed = any_thawed or len(thawed) > 0
        _add_curves(figure, label, history, thawed, styles[label])
    if any_thawed:
        _legend_entry(figure, "first epoch after thawing", marker={"symbol": "star", "size": 11})
    figure.update_xaxes(title="epoch", row=2)
    figure.update_xaxes(tickformat="d", showticklabels=True)
    figure.update_yaxes(rangemode="tozero", row=1)
    # The legend is below, because names are long; a click on an entry hides its row.
    figure.update_layout(template=LIGHT, legend=_LEGEND_BELOW, hovermode="closest", margin={"t": 40})
    arrange_panels(figure, panels=4, columns=2, panel_height=240, around=100 + 22 * (len(histories) + 1), narrowest=300)
    return figure


def _add_curves(figure: go.Figure, label: str, history: pd.DataFrame, thawed: pd.DataFrame, style: RunStyle) -> None:
    is_wide = len(thawed) > 0
    for row, column, metric, _ in _CURVES:
        place: dict[str, Any] = {"row": row, "col": column, "legendgroup": label, "name": plain(label)}
        figure.add_scatter(
            x=history["epoch"].to_numpy() + 1,  # people count from 1
            y=history[metric].to_numpy(),
            mode="lines",
            line={"color": style.color, "width": 6 if is_wide else 2, "dash": style.dash},
            opacity=0.55 if is_wide else 1,
            showlegend=(row, column) == (1, 1),
            hovertemplate="epoch %{x}: %{y:.4f}",
            **place,
        )
        if len(thawed):
            figure.add_scatter(
                x=thawed["epoch"].to_numpy() + 1,
                y=thawed[metric].to_numpy(),
                mode="markers",
                marker={"symbol": "star", "size": 11, "color": style.color},
                showlegend=False,
                hovertemplate="first epoch after thawing<extra>%{fullData.name}</extra>",
                **place,
            )


def accuracy_against_time(rows: Sequence[Row], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy against training time, with the Pareto front: the rows that no other row beats in both.

    Times on different machines are not compared, so that such rows have no front.

    Args:
        rows: With an accuracy and a training time above 0.
        styles: From run_styles.
    """
    seconds = [_train_seconds(row) for row in rows]
    comparable = same_costs(row.configuration.costs for row in rows)
    figure = _accuracy_against(rows, seconds, styles, with_front=comparable, hover="%{x:,.1f} s of training")
    figure.update_xaxes(_seconds_axis(seconds), title="training time")
    return figure


def accuracy_against_parameters(rows: Sequence[Row], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy against the number of parameters, with the Pareto front: the rows that no other row beats in both.

    Args:
        rows: With an accuracy and a number of parameters above 0.
        styles: From run_styles.
    """
    parameters = [parameters_of(row) for row in rows]
    figure = _accuracy_against(rows, parameters, styles, with_front=True, hover="%{x:,.0f} parameters")
    figure.update_xaxes(type="log", title="parameters, logarithmic", tickformat="~s", dtick="D2")
    return figure


def parameters_of(row: Row) -> float:
    """Number of parameters; 0 where it is unknown. The first phase has the network of the whole run."""
    return row.configuration.mean(vocabulary.PARAMETERS) or 0.0


def _accuracy_against(
    rows: Sequence[Row], costs: Sequence[float], styles: Mapping[str, RunStyle], *, with_front: bool, hover: str
) -> go.Figure:
    figure = go.Figure()
    accuracies = [_accuracy(row) for row in rows]
    front = pareto_front(costs, [accuracy.value for accuracy in accuracies]) if with_front else []
    if len(front) > 1:
        figure.add_scatter(
            x=[costs[index] for index in front],
            y=[accuracies[index].value for index in front],
            mode="lines",
            # Steps and not slopes, because nothing was measured between two points.
            line={"color": NEUTRAL_COLOR, "width": 1.5, "dash": "dot", "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    for index, (row, cost, accuracy) in enumerate(zip(rows, costs, accuracies, strict=True)):
        style = styles[row.configuration.label]
        figure.add_scatter(
            x=[cost],
            y=[accuracy.value],
            error_y=_error_bars([accuracy]) | {"color": style.color},
            mode="markers",
            marker={
                "symbol": style.symbol,
                "size": 14 if index in front else 10,
                "color": style.color,
                "line": {"width": 1.5 if index in front else 0, "color": NEUTRAL_COLOR},
            },
            name=plain(row.label),
            showlegend=False,
            hovertemplate=f"{hover}<br>accuracy %{{y:.4f}} [{accuracy.low:.4f}, {accuracy.high:.4f}]",
        )
    _style_legend(figure, [styles[row.configuration.label] for row in rows])
    figure.update_yaxes(title=_TEST_ACCURACY)
    figure.update_layout(template=LIGHT, height=460, legend=_LEGEND_BELOW, hovermode="closest")
    return figure


def reliability_over_runs(bins: Mapping[str, pd.DataFrame], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy against confidence, the probability that a network gives its own prediction; one panel per row.

    Args:
        bins: By label; from tandem.evaluation.metrics.reliability_bins. Bins without images are left out.
        styles: From run_styles.
    """
    columns = min(RELIABILITY_COLUMNS, len(bins))
    figure = make_subplots(
        rows=-(-len(bins) // columns),
        cols=columns,
        horizontal_spacing=0.05,
        subplot_titles=[wrapped(label) for label in bins],
    )
    for panel, (label, all_bins) in enumerate(bins.items()):
        filled = all_bins[all_bins["images"] > 0]
        share = filled["images"] / filled["images"].sum()
        style = styles[label]
        place: dict[str, Any] = {"row": panel // columns + 1, "col": panel % columns + 1}
        figure.add_scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            **place,
        )
        figure.add_scatter(
            x=filled["confidence"].to_numpy(),
            y=filled["accuracy"].to_numpy(),
            customdata=filled["images"].to_numpy(),
            mode="lines+markers",
            line={"color": style.color, "width": 1.5, "dash": style.dash},
            # The area of a mark grows with the number of images in its bin.
            marker={
                "symbol": style.symbol,
                "color": style.color,
                "size": (4 + 16 * np.sqrt(share)).to_numpy(),
                "line": {"width": 0},
            },
            name=plain(label),
            hovertemplate="confidence %{x:.3f}<br>accuracy %{y:.3f}<br>images %{customdata}",
            **place,
        )
    figure.update_xaxes(range=[0, 1.05], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    figure.update_yaxes(range=[0, 1.05], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    figure.update_annotations(font={"size": 13})
    lines = max(wrapped(label).count("<br>") + 1 for label in bins)
    figure.update_layout(template=LIGHT, hovermode="closest", showlegend=False, margin={"t": 8 + 18 * lines, "b": 40})
    arrange_panels(
        figure,
        panels=len(bins),
        columns=columns,
        panel_height=210 + 16 * lines,
        around=48 + 18 * lines,
        narrowest=RELIABILITY_NARROWEST,
    )
    return figure


def accuracy_differences(pairs: Sequence[Pair], title: str) -> go.Figure:
    """Differences in accuracy with their intervals and a line at zero; significant ones are filled.

    Args:
        pairs: Tested; from top to bottom, named after their first row.
        title: Of the axis, such as "accuracy, Keras minus PyTorch".
    """
    figure = go.Figure()
    for significant, words in ((True, "significant"), (False, "not significant")):
        shown = [pair for pair in pairs if pair.tested["accuracy"].significant == significant]
        if not shown:
            continue
        differences = [pair.tested["accuracy"].value for pair in shown]
        color = REGIME_COLORS["frozen"] if significant else NEUTRAL_COLOR
        figure.add_scatter(
            x=[difference.value for difference in differences],
            y=[wrapped(pair.first.label) for pair in shown],
            error_x=_error_bars(differences) | {"color": color},
            customdata=[[difference.low, difference.high] for difference in differences],
            mode="markers",
            marker={"size": 10, "symbol": "circle" if significant else "circle-open", "color": color},
            name=words,
            hovertemplate="%{y}<br>%{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": NEUTRAL_COLOR, "width": 1})
    order = [wrapped(pair.first.label) for pair in pairs]
    figure.update_xaxes(title=title, tickformat="+.3~f", zeroline=False)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=order, autorange="reversed")
    figure.update_layout(
        template=LIGHT,
        height=130 + (14 + 16 * max(label.count("<br>") + 1 for label in order)) * len(order),
        margin={"t": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    )
    return figure


def thawing_gains(pairs: Sequence[Pair], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy before and after thawing against training time, one line per row.

    Args:
        pairs: Of Analysis.thawing; with accuracies and training times above 0.
        styles: From run_styles.
    """
    figure = go.Figure()
    all_seconds: list[float] = []
    for pair in pairs:
        ends = (pair.second, pair.first)
        style = styles[pair.first.label]
        accuracies, seconds = [_accuracy(row) for row in ends], [_train_seconds(row) for row in ends]
        all_seconds += seconds
        figure.add_scatter(
            x=seconds,
            y=[accuracy.value for accuracy in accuracies],
            error_y=_error_bars(accuracies) | {"color": style.color},
            text=["head only", "thawed"],
            mode="lines+markers",
            line={"color": style.color, "width": 2, "dash": style.dash},
            marker={"symbol": [f"{style.symbol}-open", style.symbol], "size": 11, "color": style.color},
            name=plain(pair.first.label),
            hovertemplate="%{text}: accuracy %{y:.4f} after %{x:,.1f} s",
        )
    figure.update_xaxes(_seconds_axis(all_seconds), title="training time (open: head only, filled: thawed)")
    figure.update_yaxes(title=_TEST_ACCURACY)
    figure.update_layout(
        template=LIGHT, height=440 + 10 * len(pairs), legend=_LEGEND_BELOW, hovermode="closest", showlegend=True
    )
    return figure


def _accuracy(row: Row) -> Estimate:
    """Accuracy with its interval, of no width where it is unknown."""
    score = row.score("accuracy")
    assert score is not None
    return score if isinstance(score, Estimate) else Estimate(value=score, low=score, high=score)


def _train_seconds(row: Row) -> float:
    seconds = row.mean(vocabulary.TRAIN_SECONDS)
    assert seconds is not None
    return seconds


def _style_legend(figure: go.Figure, styles: Sequence[RunStyle]) -> None:
    """Entries for each regime (colour), each framework (symbol), and each backbone (shade) if there are several."""
    for regime, style in _first_of_each(styles, "regime").items():
        _legend_entry(figure, regime, marker={"symbol": "circle", "size": 10, "color": style.color})
    for framework, style in _first_of_each(styles, "framework").items():
        _legend_entry(figure, framework, marker={"symbol": f"{style.symbol}-open", "size": 10})
    backbones = _first_of_each(styles, "backbone")
    if len(backbones) > 1:
        for backbone, style in backbones.items():
            marker = {"symbol": "hexagon", "size": 10, "color": shaded(NEUTRAL_COLOR, style.shade)}
            _legend_entry(figure, backbone, marker=marker)


def _first_of_each(styles: Sequence[RunStyle], field: str) -> dict[str, RunStyle]:
    found: dict[str, RunStyle] = {}
    for style in styles:
        found.setdefault(getattr(style, field), style)
    return found


def _error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    return _INTERVAL | {
        "type": "data",
        "symmetric": False,
        "array": [estimate.high - estimate.value for estimate in estimates],
        "arrayminus": [estimate.value - estimate.low for estimate in estimates],
    }


def _legend_entry(figure: go.Figure, name: str, *, marker: dict[str, Any]) -> None:
    """An entry of the legend that belongs to no single row."""
    figure.add_scatter(
        x=[None], y=[None], mode="markers", marker={"color": NEUTRAL_COLOR} | marker, name=name, hoverinfo="skip"
    )


def _seconds_axis(seconds: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis of seconds, marked in seconds, minutes and hours."""
    low, high = min(seconds) / 1.3, max(seconds) * 1.3
    marks = [(step * length, f"{step:g} {unit}") for unit, length, steps in _TIME_MARKS for step in steps]
    shown = [(value, text) for value, text in marks if low <= value <= high]
    return {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": [value for value, _ in shown],
        "ticktext": [text for _, text in shown],
    }
