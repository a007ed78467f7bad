"""Figures of a data set's report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tandem.data.split import PARTS, UNUSED
from tandem.data_report.statistics import ALL
from tandem.rendering.theme import LIGHT, NEUTRAL_COLOR, TRAIN_COLOR, VAL_COLOR, class_axis, plain

TEST_COLOR = "#009E73"  # from Okabe and Ito's palette, like the others
PART_COLORS = dict(zip((*PARTS, UNUSED), (TRAIN_COLOR, VAL_COLOR, TEST_COLOR, NEUTRAL_COLOR), strict=True))

LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}

MOST_SIZES = 2000  # marks; if there are more sizes, neighbouring ones are drawn as one
LARGEST_MARK = 40  # diameter in pixels


def class_bars(counts: pd.DataFrame) -> go.Figure:
    """Bars of the images of each class, by part of the split.

    Args:
        counts: Result of `count_images`.
    """
    names = [str(name) for name in counts.index]
    figure = go.Figure()
    for part in (*PARTS, UNUSED):
        if counts[part].any():
            figure.add_trace(
                go.Bar(
                    x=[plain(name) for name in names],
                    y=counts[part].to_numpy(),
                    name=part,
                    marker={"color": PART_COLORS[part]},
                    hovertemplate="%{x}<br>%{y:,} images",
                )
            )
    mean = float(counts[ALL].mean())
    figure.add_hline(
        y=mean,
        line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dash"},
        annotation={"text": f"mean {mean:,.0f}", "font": {"color": NEUTRAL_COLOR}},
        annotation_position="right",
    )
    figure.update_layout(template=LIGHT, height=400, barmode="stack", bargap=0.3 if len(names) <= 30 else 0.1)
    figure.update_layout(legend={**LEGEND, "traceorder": "normal"}, margin={"t": 50, "r": 80})
    figure.update_xaxes(**class_axis(names, 1000), tickangle=-90 if len(names) > 12 else None)
    figure.update_yaxes(title="images", range=[0, 1.1 * float(counts[ALL].max())])
    return figure


def class_share_bars(counts: pd.DataFrame) -> go.Figure:
    """Bars of each class's share of the images of a part, in percent, the parts side by side.

    Args:
        counts: Result of `count_images`.
    """
    names = [str(name) for name in counts.index]
    figure = go.Figure()
    for part in PARTS:
        if total := int(counts[part].sum()):
            figure.add_trace(
                go.Bar(
                    x=[plain(name) for name in names],
                    y=(100 * counts[part] / total).to_numpy(),
                    name=part,
                    marker={"color": PART_COLORS[part]},
                    hovertemplate="%{x}<br>%{y:.2f} % of " + part,
                )
            )
    equal = 100 / len(names)
    figure.add_hline(
        y=equal,
        line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dash"},
        annotation={"text": f"equal {equal:.3g} %", "font": {"color": NEUTRAL_COLOR}},
        annotation_position="right",
    )
    figure.update_layout(template=LIGHT, height=400, barmode="group", bargap=0.3 if len(names) <= 30 else 0.1)
    figure.update_layout(legend={**LEGEND, "traceorder": "normal"}, margin={"t": 50, "r": 80})
    figure.update_xaxes(**class_axis(names, 1000), tickangle=-90 if len(names) > 12 else 0)
    figure.update_yaxes(title="% of the part's images", rangemode="tozero")
    return figure


def file_size_boxes(sizes: pd.DataFrame) -> go.Figure:
    """Boxes of the sizes of each class's files: smallest, quartiles, largest, and the mean.

    The axis is logarithmic if the largest file is at least ten times as large as the smallest.

    Args:
        sizes: Result of `file_sizes`.
    """
    classes = sizes.iloc[:-1]
    names = [str(name) for name in classes.index]
    figure = go.Figure(
        go.Box(
            x=[plain(name) for name in names],
            lowerfence=classes["min"],
            q1=classes["25%"],
            median=classes["50%"],
            q3=classes["75%"],
            upperfence=classes["max"],
            name="smallest, quartiles, largest",
            marker={"color": TRAIN_COLOR},
            line={"width": 1.5},
            width=0.5,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[plain(name) for name in names],
            y=classes["mean"],
            name="mean",
            mode="markers",
            marker={"color": VAL_COLOR, "size": 8, "symbol": "diamond"},
            hovertemplate="%{x}<br>mean %{y:,.0f} bytes<extra></extra>",
        )
    )
    figure.update_layout(template=LIGHT, height=420, margin={"t": 50}, legend=LEGEND)
    figure.update_xaxes(**class_axis(names, 1000), tickangle=-90 if len(names) > 12 else None)
    if classes["max"].max() >= 10 * classes["min"].min():
        figure.update_yaxes(title="bytes, logarithmic", type="log", tickformat="~s", dtick="D2")
    else:
        figure.update_yaxes(title="bytes", rangemode="tozero")
    return figure


def image_size_marks(sizes: pd.DataFrame) -> go.Figure:
    """Marks of the images' widths and heights; the area of a mark is the number of images.

    Args:
        sizes: Columns width, height and images; one row per size.
    """
    step = 1
    rounded = sizes
    while len(rounded) > MOST_SIZES:
        step *= 2
        middles = {side: sizes[side] // step * step + step // 2 for side in ("width", "height")}
        rounded = sizes.assign(**middles).groupby(["width", "height"]).sum().reset_index()
    about = f" (to {step} pixels)" if step > 1 else ""
    figure = go.Figure(
        go.Scatter(
            x=rounded["width"],
            y=rounded["height"],
            mode="markers",
            customdata=rounded["images"],
            marker={
                "color": TRAIN_COLOR,
                "opacity": 0.5,
                "size": rounded["images"],
                "sizemode": "area",
                "sizeref": 2 * float(rounded["images"].max()) / LARGEST_MARK**2,
                "sizemin": 2.5,
                "line": {"width": 0},
            },
            hovertemplate="%{x} x %{y} pixels" + about + "<br>%{customdata:,} images<extra></extra>",
        )
    )
    longest = float(np.max(rounded[["width", "height"]].to_numpy()))
    figure.add_shape(
        type="line", x0=0, y0=0, x1=longest, y1=longest, line={"color": NEUTRAL_COLOR, "width": 1, "dash": "dot"}
    )
    figure.update_layout(template=LIGHT, height=480, showlegend=False)
    figure.update_xaxes(title=f"width in pixels{about}", rangemode="tozero")
    figure.update_yaxes(title=f"height in pixels{about}", rangemode="tozero")
    return figure
