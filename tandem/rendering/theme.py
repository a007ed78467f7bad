"""Look of all figures: colours, the light and dark templates, class axes, labels."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

# From Okabe and Ito's palette, which colour-blind people can distinguish.
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"

# With more classes their names would overlap on an axis; the name of a class appears under the mouse.
MAX_CLASSES_WITH_NAMES = 120
LONGEST_NAME = 24

PAGE_WIDTH = 1148  # width of a figure in pixels that page.css leaves

# For lines and words that belong to no run: readable on white and on black.
NEUTRAL_COLOR = "#7f868e"

_FONT = "system-ui, sans-serif"


def _template(*, text: str, background: str, grid: str, raised: str, shares: list[str]) -> go.layout.Template:
    """Template with the colours of a light or dark page.

    Args:
        text: Colour of text; this and the next three are the colours of page.css.
        background: Colour of the page.
        grid: Colour of lines.
        raised: Colour of boxes above the page.
        shares: Colours of heat maps at 0, 1, 10, 50 and 100 per cent: steep at the low end, so that single confusions
            are visible.
    """
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 14}},
        # Without it, the first numbers of the two axes touch in the corner.
        "ticklabelstandoff": 5,
    }
    places = (0, 0.01, 0.1, 0.5, 1)
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 13, "color": text},
            "paper_bgcolor": background,
            "plot_bgcolor": background,
            "margin": {"l": 60, "r": 20, "t": 24, "b": 50},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": raised, "bordercolor": grid, "font": {"color": text}, "namelength": -1},
            "updatemenudefaults": {"bgcolor": raised, "bordercolor": grid, "font": {"color": text}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL_COLOR, "activecolor": text},
        },
        data={
            "heatmap": [
                {
                    "colorscale": [list(pair) for pair in zip(places, shares, strict=True)],
                    "colorbar": {"thickness": 14, "outlinewidth": 0},
                }
            ]
        },
    )


LIGHT = _template(
    text="#1f2328",
    background="#ffffff",
    grid="#dfe4e9",
    raised="#f4f6f8",
    shares=["#ffffff", "#dbe7f3", "#b4cde4", "#4f8fc4", "#08306b"],
)
DARK = _template(
    text="#e6e9ed",
    background="#15181c",
    grid="#343b43",
    raised="#20252b",
    shares=["#15181c", "#274766", "#33669a", "#5aa0d8", "#e3f1fc"],
)


def arrange_panels(
    figure: go.Figure, *, panels: int, columns: int, panel_height: int, around: int, narrowest: int
) -> None:
    """Tells the page how to arrange the panels of a figure of make_subplots in fewer columns where it is narrow.

    Args:
        figure: With panels that fill its rows from left to right, with or without a title above each.
        panels: Their number.
        columns: Of the figure at its full width.
        panel_height: Of each row of panels, in pixels.
        around: Height of everything above and below the panels, in pixels.
        narrowest: Width of a column in pixels below which the page uses fewer columns.
    """
    rows = -(-panels // columns)
    meta = {"panels": panels, "columns": columns, "panelHeight": panel_height, "around": around, "narrowest": narrowest}
    figure.update_layout(meta=meta, height=around + rows * panel_height)


def mark_x(figure: go.Figure, x: float, text: str, *, color: str) -> None:
    """Draws a dashed vertical line with a text at its top; also on a logarithmic axis.

    Plotly's add_vline places its annotation at x itself, but on a logarithmic axis annotations are placed by the power
    of ten.

    Args:
        figure: With its type of x axis set.
        x: Place of the line, in the unit of the axis.
        text: Beside the line.
        color: Of line and text.
    """
    place = math.log10(x) if figure.layout.xaxis.type == "log" else x
    figure.add_shape(
        type="line", x0=x, x1=x, y0=0, y1=1, yref="y domain", line={"color": color, "width": 1.5, "dash": "dash"}
    )
    figure.add_annotation(
        x=place,
        y=1,
        yref="y domain",
        text=text,
        showarrow=False,
        xanchor="left",
        yanchor="top",
        xshift=4,
        font={"color": color},
    )


def wrapped(name: str) -> str:
    """A name beside an axis in lines of at most 24 characters, broken at spaces."""
    return "<br>".join(plain(line) for line in textwrap.wrap(name, LONGEST_NAME, break_long_words=False) or [""])


def class_axis(names: Iterable[str], pixels: int) -> dict[str, Any]:
    """Layout of a class axis, with all names in a font that fits, or for many classes as many names as fit.

    Zooming in shows the others.

    Args:
        names: The classes in the order of the axis.
        pixels: Length of the axis.
    """
    names = list(names)
    axis: dict[str, Any] = {
        "type": "category",  # names such as "0" and "1" are not numbers
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "mirror": True,
    }
    if len(names) > MAX_CLASSES_WITH_NAMES:
        short = {plain(name): plain(shorten(name)) for name in names if len(name) > LONGEST_NAME}
        return axis | {"tickmode": "auto", "nticks": 60, "tickfont": {"size": 9}, "labelalias": short}
    return axis | {
        "tickmode": "array",
        "tickvals": [plain(name) for name in names],
        "ticktext": [plain(shorten(name)) for name in names],
        "tickfont": {"size": int(np.clip(0.9 * pixels / len(names), 7, 13))},
    }


def shorten(name: str) -> str:
    """A name that fits beside an axis: a long one is reduced to its start and end."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 8] + "..." + name[-5:]


def plain(name: str) -> str:
    """A name with its markup escaped: plotly would interpret <b> and <br> in texts."""
    return html.escape(name, quote=False)
