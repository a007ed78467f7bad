"""Look of all figures: colours, the light and dark templates, class axes, labels."""

from __future__ import annotations

import html
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
    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "automargin": True, "title": {"standoff": 8}}
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
        return axis | {"tickmode": "auto", "nticks": 60, "tickfont": {"size": 9}}
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
