"""The critical-difference diagram: average ranks of models over several data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from tandem.comparison.styles import REGIME_COLORS
from tandem.evaluation.ties import merge_ties
from tandem.rendering.theme import LIGHT, NEUTRAL_COLOR, plain

WIDTH = 1000  # pixels


def critical_difference_diagram(
    ranks: Mapping[str, float], cliques: Sequence[Sequence[str]], critical_difference: float
) -> go.Figure:
    """Average ranks over data sets on one line, with bars that join models without a significant difference.

    The form is that of Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", figure 1.

    Args:
        ranks: Average rank by model; 1 is the best.
        cliques: Groups of models within which no difference is significant; those of one model are not drawn.
        critical_difference: Of two average ranks; drawn as a scale.
    """
    figure = go.Figure()
    low, high = 1.0, float(max(2, np.ceil(max(ranks.values()))))
    # Downwards from the axis at 0: the bars, one below the other, then the names.
    bars = sorted(sorted(ranks[name] for name in clique) for clique in cliques if len(clique) > 1)
    _add_cliques(figure, bars, overhang=0.02 * (high - low))
    lowest = _add_names(figure, ranks, first=-0.5 * (len(bars) + 1) - 0.3, low=low, high=high)
    _add_rank_scale(figure, low, min(low + critical_difference, high), f"critical difference {critical_difference:.2f}")
    _add_rank_axis(figure, low, high)
    # Names are on both sides of the axis, about 7 pixels per character.
    share = min(0.35, (max(len(name) for name in ranks) + 8) * 7 / WIDTH)
    room = share / (1 - 2 * share) * (high - low)
    figure.update_xaxes(range=[low - room, high + room], visible=False)
    figure.update_yaxes(range=[lowest, 2.1], visible=False)
    figure.update_layout(
        template=LIGHT,
        width=WIDTH,
        height=int(60 + 34 * (2.1 - lowest)),
        showlegend=False,
        hovermode="closest",
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        # The room for the names is a share of the width.
        meta={"zoomed": True},
    )
    return figure


def _add_cliques(figure: go.Figure, bars: Sequence[Sequence[float]], *, overhang: float) -> None:
    for number, bar in enumerate(bars, start=1):
        figure.add_scatter(
            x=[bar[0] - overhang, bar[-1] + overhang],
            y=[-0.5 * number] * 2,
            mode="lines",
            line={"color": REGIME_COLORS["finetune"], "width": 6},
            hovertemplate="no significant difference between ranks %{x:.2f}<extra></extra>",
        )


def _add_names(figure: go.Figure, ranks: Mapping[str, float], *, first: float, low: float, high: float) -> float:
    """Draws the better half of the models on the left and the others on the right, each with a line to its rank.

    Args:
        figure: To which they are added.
        ranks: By model.
        first: Height of the first name on either side.
        low: Left end of the axis.
        high: Right end of the axis.

    Returns:
        The lower end of the diagram.
    """
    merged = dict(zip(ranks, merge_ties(list(ranks.values())), strict=True))
    ordered = sorted(ranks, key=lambda name: (merged[name], name))
    half = (len(ordered) + 1) // 2
    margin = 0.04 * (high - low)
    for names, end, anchor in ((ordered[:half], low - margin, "right"), (ordered[half:][::-1], high + margin, "left")):
        for number, name in enumerate(names):
            y = first - 0.8 * number
            figure.add_scatter(
                x=[ranks[name], ranks[name], end],
                y=[0, y, y],
                mode="lines",
                line={"color": NEUTRAL_COLOR, "width": 1.2},
                hovertemplate=f"{plain(name)}: average rank {ranks[name]:.2f}<extra></extra>",
            )
            figure.add_annotation(x=end, y=y, text=f"{plain(name)} {ranks[name]:.2f}", showarrow=False, xanchor=anchor)
    return first - 0.8 * (half - 1) - 0.6


def _add_rank_scale(figure: go.Figure, start: float, end: float, text: str) -> None:
    figure.add_scatter(
        x=[start, end],
        y=[1.1, 1.1],
        mode="lines+markers",
        line={"color": NEUTRAL_COLOR, "width": 2},
        marker={"symbol": "line-ns-open", "size": 8, "color": NEUTRAL_COLOR},
        hoverinfo="skip",
    )
    figure.add_annotation(x=start, y=1.1, text=text, showarrow=False, xanchor="left", yshift=14)


def _add_rank_axis(figure: go.Figure, low: float, high: float) -> None:
    # Not plotly's axis, which would be as wide as the figure.
    marks = np.arange(low, high + 1)
    figure.add_scatter(
        x=marks,
        y=np.zeros(len(marks)),
        mode="lines+markers+text",
        text=[f"{rank:.0f}" for rank in marks],
        textposition="top center",
        line={"color": NEUTRAL_COLOR, "width": 2},
        marker={"symbol": "line-ns-open", "size": 8, "color": NEUTRAL_COLOR},
        hoverinfo="skip",
    )
