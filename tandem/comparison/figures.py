"""Plotly figures of several runs, in each of which a run looks the same (tandem/comparison/styles.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tandem.comparison.styles import REGIME_COLORS, RunStyle, shaded
from tandem.rendering.tables import Estimate
from tandem.rendering.theme import (
    LIGHT,
    NEUTRAL_COLOR,
    plain,
)
from tandem.tracking import vocabulary

_INTERVAL = {"thickness": 1.2, "width": 4}
_LEGEND_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top"}


@dataclass(frozen=True, kw_only=True)
class TimedScore:
    """What a run reached, and how long it trained for it.

    Args:
        name: of the run.
        train_seconds: training and validation of all phases.
        accuracy: on the test images, 0..1.
    """

    name: str
    train_seconds: float
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two scores.

    Args:
        label: what was compared, unique in its figure.
        estimate: of the difference.
        significant: whether the test that goes with it finds one; such ones are filled.
    """

    label: str
    estimate: Estimate
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Thawing:
    """A run before and after its backbone was thawed.

    Args:
        name: of the run.
        before, after: accuracy on the test images, 0..1, and seconds of training up to then.
    """

    name: str
    before: TimedScore
    after: TimedScore


def pareto_front(seconds: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in one and equals in the other, from the fastest to the most accurate.

    Args:
        seconds: of each point; less is better.
        accuracy: of each point; more is better.
    """
    front: list[int] = []
    for index in sorted(range(len(seconds)), key=lambda index: (seconds[index], -accuracy[index])):
        if not front or accuracy[index] > accuracy[front[-1]]:
            front.append(index)
    return front


def curves_over_runs(histories: Mapping[str, pd.DataFrame], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Loss and accuracy of training and validation images, one line a run, with a star where the backbone was thawed.

    Args:
        histories: by the run's name; one row an epoch with the columns epoch (from 0), phase (from 1), train/loss,
            val/loss, train/accuracy, val/accuracy.
        styles: of run_styles.
    """
    panels = (
        (1, 1, vocabulary.TRAIN_LOSS, "loss, training images"),
        (1, 2, vocabulary.VAL_LOSS, "loss, validation images"),
        (2, 1, vocabulary.TRAIN_ACCURACY, "accuracy, training images"),
        (2, 2, vocabulary.VAL_ACCURACY, "accuracy, validation images"),
    )
    figure = make_subplots(
        rows=2,
        cols=2,
        shared_xaxes=True,
        shared_yaxes="rows",
        horizontal_spacing=0.04,
        vertical_spacing=0.1,
        subplot_titles=[title for *_, title in panels],
    )
    any_thawed = False
    for name, history in histories.items():
        style = styles[name]
        phases = history["phase"].to_numpy()
        thawed = history.iloc[1:][phases[1:] != phases[:-1]]
        any_thawed = any_thawed or len(thawed) > 0
        for row, column, metric, _ in panels:
            shared = {"legendgroup": name, "name": plain(name)}
            figure.add_scatter(
                x=history["epoch"].to_numpy(),
                y=history[metric].to_numpy(),
                mode="lines",
                line={"color": style.color, "width": 2, "dash": style.dash},
                showlegend=(row, column) == (1, 1),
                hovertemplate="epoch %{x}: %{y:.4f}",
                row=row,
                col=column,
                **shared,
            )
            if len(thawed):
                figure.add_scatter(
                    x=thawed["epoch"].to_numpy(),
                    y=thawed[metric].to_numpy(),
                    mode="markers",
                    marker={"symbol": "star", "size": 11, "color": style.color},
                    showlegend=False,
                    hovertemplate="first epoch after thawing<extra>%{fullData.name}</extra>",
                    row=row,
                    col=column,
                    **shared,
                )
    if any_thawed:
        _legend_entry(figure, "first epoch after thawing", marker={"symbol": "star", "size": 11})
    figure.update_xaxes(title="epoch", row=2)
    figure.update_xaxes(tickformat="d")
    figure.update_yaxes(rangemode="tozero", row=1)
    # Below in rows, since runs have long names; each run is switched on and off by a click on its own.
    figure.update_layout(
        template=LIGHT, height=560 + 12 * len(histories), legend=_LEGEND_BELOW | {"y": -0.12}, hovermode="closest"
    )
    return figure


def accuracy_against_time(points: Sequence[TimedScore], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy against training time with the Pareto front: what no other run beats in both.

    Args:
        points: one a run; train_seconds above 0.
        styles: of run_styles.
    """
    figure = go.Figure()
    front = pareto_front([point.train_seconds for point in points], [point.accuracy.value for point in points])
    if len(front) > 1:
        figure.add_scatter(
            x=[points[index].train_seconds for index in front],
            y=[points[index].accuracy.value for index in front],
            mode="lines",
            # Between two points of the front nothing has been measured: steps, not slopes.
            line={"color": NEUTRAL_COLOR, "width": 1.5, "dash": "dot", "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    for index, point in enumerate(points):
        style = styles[point.name]
        figure.add_scatter(
            x=[point.train_seconds],
            y=[point.accuracy.value],
            error_y=_error_bars([point.accuracy]) | {"color": style.color},
            mode="markers",
            marker={
                "symbol": style.symbol,
                "size": 14 if index in front else 10,
                "color": style.color,
                "line": {"width": 1.5 if index in front else 0, "color": NEUTRAL_COLOR},
            },
            name=plain(point.name),
            showlegend=False,
            hovertemplate="%{x:,.1f} s of training<br>accuracy %{y:.4f} "
            + f"[{point.accuracy.low:.4f}, {point.accuracy.high:.4f}]",
        )
    shown = [styles[point.name] for point in points]
    for regime, style in _first_of_each(shown, "regime").items():
        _legend_entry(figure, regime, marker={"symbol": "circle", "size": 10, "color": style.color})
    for framework, style in _first_of_each(shown, "framework").items():
        _legend_entry(figure, framework, marker={"symbol": f"{style.symbol}-open", "size": 10})
    backbones = _first_of_each(shown, "backbone")
    if len(backbones) > 1:
        for backbone, style in backbones.items():
            marker = {"symbol": "hexagon", "size": 10, "color": shaded(NEUTRAL_COLOR, style.shade)}
            _legend_entry(figure, backbone, marker=marker)
    figure.update_xaxes(_seconds_axis([point.train_seconds for point in points]), title="training time")
    figure.update_yaxes(title="accuracy on test images")
    figure.update_layout(template=LIGHT, height=460, legend=_LEGEND_BELOW, hovermode="closest")
    return figure


def reliability_over_runs(bins: Mapping[str, pd.DataFrame], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy against the probability that the network gave to its own prediction, one line a run.

    Args:
        bins: by the run's name; of tandem.evaluation.metrics.reliability_bins. Bins without images are left out.
        styles: of run_styles.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dot"},
        name="calibrated",
        hoverinfo="skip",
    )
    for name, rows in bins.items():
        filled = rows[rows["images"] > 0]
        share = filled["images"] / filled["images"].sum()
        style = styles[name]
        figure.add_scatter(
            x=filled["confidence"].to_numpy(),
            y=filled["accuracy"].to_numpy(),
            customdata=filled["images"].to_numpy(),
            mode="lines+markers",
            line={"color": style.color, "width": 1.5, "dash": style.dash},
            # The area says how many images there are in a bin.
            marker={
                "symbol": style.symbol,
                "color": style.color,
                "size": (4 + 20 * np.sqrt(share)).to_numpy(),
                "line": {"width": 0},
            },
            name=plain(name),
            hovertemplate="confidence %{x:.3f}<br>accuracy %{y:.3f}<br>images %{customdata}",
        )
    figure.update_xaxes(title="confidence", range=[0, 1.02], constrain="domain", constraintoward="left")
    figure.update_yaxes(title="accuracy", range=[0, 1.02], scaleanchor="x", constrain="domain")
    # Not as wide as the page: the legend would be far from what it explains.
    figure.update_layout(template=LIGHT, height=520, width=800, hovermode="closest")
    return figure


def differences_with_intervals(differences: Sequence[Difference], axis: str) -> go.Figure:
    """Differences from top to bottom with their intervals and a line at zero; filled where a test finds one.

    Args:
        differences: in the order in which they are shown.
        axis: what is subtracted from what: "accuracy, Keras minus PyTorch".
    """
    figure = go.Figure()
    for significant, words in ((True, "significant"), (False, "not significant")):
        rows = [difference for difference in differences if difference.significant == significant]
        if not rows:
            continue
        color = REGIME_COLORS["frozen"] if significant else NEUTRAL_COLOR
        figure.add_scatter(
            x=[row.estimate.value for row in rows],
            y=[plain(row.label) for row in rows],
            error_x=_error_bars([row.estimate for row in rows]) | {"color": color},
            customdata=[[row.estimate.low, row.estimate.high] for row in rows],
            mode="markers",
            marker={"size": 10, "symbol": "circle" if significant else "circle-open", "color": color},
            name=words,
            hovertemplate="%{y}<br>%{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": NEUTRAL_COLOR, "width": 1})
    order = [plain(difference.label) for difference in differences]
    figure.update_xaxes(title=axis, tickformat="+.3~f", zeroline=False)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=order, autorange="reversed")
    figure.update_layout(
        template=LIGHT,
        height=130 + 30 * len(order),
        margin={"t": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    )
    return figure


def critical_difference_diagram(
    ranks: Mapping[str, float], cliques: Sequence[Sequence[str]], critical_difference: float
) -> go.Figure:
    """Average ranks over data sets on one line, with bars over those that are not significantly different.

    The form is that of Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", figure 1.

    Args:
        ranks: average rank by model; 1 is best.
        cliques: groups of models within which no difference is significant; those of one model are not drawn.
        critical_difference: of average ranks, drawn as a scale.
    """
    ordered = sorted(ranks, key=lambda name: (ranks[name], name))
    left, right = ordered[: (len(ordered) + 1) // 2], ordered[(len(ordered) + 1) // 2 :][::-1]
    bars = [sorted(ranks[name] for name in clique) for clique in cliques if len(clique) > 1]
    bars.sort()
    figure = go.Figure()
    low, high = 1.0, float(max(2, np.ceil(max(ranks.values()))))
    margin = 0.04 * (high - low)
    # Downwards from the axis at 0: the bars, one below the other, then the names.
    for number, bar in enumerate(bars, start=1):
        figure.add_scatter(
            x=[bar[0] - margin / 2, bar[-1] + margin / 2],
            y=[-0.5 * number] * 2,
            mode="lines",
            line={"color": REGIME_COLORS["finetune"], "width": 6},
            hovertemplate="no significant difference between ranks %{x:.2f}<extra></extra>",
        )
    first = -0.5 * (len(bars) + 1) - 0.3
    for names, end, anchor in ((left, low - margin, "right"), (right, high + margin, "left")):
        for number, name in enumerate(names):
            y = first - 0.8 * number
            figure.add_scatter(
                x=[ranks[name], ranks[name], end],
                y=[0, y, y],
                mode="lines",
                line={"color": NEUTRAL_COLOR, "width": 1.2},
                hovertemplate=f"{plain(name)}: average rank {ranks[name]:.2f}<extra></extra>",
            )
            figure.add_annotation(
                x=end,
                y=y,
                text=f"{plain(name)} {ranks[name]:.2f}",
                showarrow=False,
                xanchor=anchor,
            )
    figure.add_scatter(
        x=[low, min(low + critical_difference, high)],
        y=[1.1, 1.1],
        mode="lines+markers",
        line={"color": NEUTRAL_COLOR, "width": 2},
        marker={"symbol": "line-ns-open", "size": 8, "color": NEUTRAL_COLOR},
        hoverinfo="skip",
    )
    figure.add_annotation(
        x=low, y=1.1, text=f"critical difference {critical_difference:.2f}", showarrow=False, xanchor="left", yshift=14
    )
    lowest = first - 0.8 * max(len(left) - 1, 0) - 0.6
    # Of a fixed width, so that there is room for the names on both sides: about 7 pixels a character.
    width = 1000
    share = min(0.35, (max(len(name) for name in ranks) + 8) * 7 / width)
    room = share / (1 - 2 * share) * (high - low)
    figure.update_xaxes(
        range=[low - room, high + room],
        visible=False,
    )
    # The axis is drawn by hand: it ends at the ranks, and the figure goes on for the names.
    figure.add_scatter(
        x=np.arange(low, high + 1),
        y=np.zeros(round(high - low) + 1),
        mode="lines+markers+text",
        text=[f"{rank:.0f}" for rank in np.arange(low, high + 1)],
        textposition="top center",
        line={"color": NEUTRAL_COLOR, "width": 2},
        marker={"symbol": "line-ns-open", "size": 8, "color": NEUTRAL_COLOR},
        hoverinfo="skip",
    )
    figure.update_yaxes(range=[lowest, 2.1], visible=False)
    figure.update_layout(
        template=LIGHT,
        width=width,
        height=int(60 + 34 * (2.1 - lowest)),
        showlegend=False,
        hovermode="closest",
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
    )
    return figure


def thawing_gains(thawings: Sequence[Thawing], styles: Mapping[str, RunStyle]) -> go.Figure:
    """Accuracy before and after thawing against the time of training, one line a run.

    Args:
        thawings: one a run.
        styles: of run_styles.
    """
    figure = go.Figure()
    for thawing in thawings:
        ends = (thawing.before, thawing.after)
        style = styles[thawing.name]
        figure.add_scatter(
            x=[end.train_seconds for end in ends],
            y=[end.accuracy.value for end in ends],
            error_y=_error_bars([end.accuracy for end in ends]) | {"color": style.color},
            text=["head only", "thawed"],
            mode="lines+markers",
            line={"color": style.color, "width": 2, "dash": style.dash},
            marker={"symbol": [f"{style.symbol}-open", style.symbol], "size": 11, "color": style.color},
            name=plain(thawing.name),
            hovertemplate="%{text}: accuracy %{y:.4f} after %{x:,.1f} s",
        )
    seconds = [end.train_seconds for thawing in thawings for end in (thawing.before, thawing.after)]
    figure.update_xaxes(_seconds_axis(seconds), title="training time: open with the head alone trained, filled in all")
    figure.update_yaxes(title="accuracy on test images")
    figure.update_layout(
        template=LIGHT, height=440 + 10 * len(thawings), legend=_LEGEND_BELOW, hovermode="closest", showlegend=True
    )
    return figure


def _first_of_each(styles: Sequence[RunStyle], field: str) -> dict[str, RunStyle]:
    found: dict[str, RunStyle] = {}
    for style in styles:
        found.setdefault(getattr(style.label, field), style)
    return found


def _error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    return _INTERVAL | {
        "type": "data",
        "symmetric": False,
        "array": [estimate.high - estimate.value for estimate in estimates],
        "arrayminus": [estimate.value - estimate.low for estimate in estimates],
    }


def _legend_entry(figure: go.Figure, name: str, *, marker: dict[str, Any]) -> None:
    """A line of the legend that stands for no run of its own."""
    figure.add_scatter(
        x=[None], y=[None], mode="markers", marker={"color": NEUTRAL_COLOR} | marker, name=name, hoverinfo="skip"
    )


def _seconds_axis(seconds: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis of seconds, marked in seconds, minutes, hours."""
    steps = [
        (step * length, f"{step:g} {unit}")
        for unit, length, choices in (
            ("s", 1, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)),
            ("min", 60, (1, 2, 5, 10, 20, 30)),
            ("h", 3600, (1, 2, 5, 10, 20, 50, 100)),
        )
        for step in choices
    ]
    low, high = min(seconds) / 1.3, max(seconds) * 1.3
    shown = [(value, text) for value, text in steps if low <= value <= high]
    return {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": [value for value, _ in shown],
        "ticktext": [text for _, text in shown],
    }
