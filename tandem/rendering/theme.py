"""The look of all figures: colours, the light and dark templates, axes of classes, names as labels."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

# The first two colours of Okabe and Ito's palette, which colour-blind people can tell apart.
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"

# Beyond this number names on an axis run into each other; they show where the mouse points.
MAX_CLASSES_WITH_NAMES = 120
LONGEST_NAME = 24

PAGE_WIDTH = 1148  # pixels that page.css leaves to figures

# For lines and words that belong to no run: to be read on white as on black.
NEUTRAL_COLOR = "#7f868e"

_FONT = "system-ui, sans-serif"


def _template(*, text: str, background: str, grid: str, raised: str, shares: list[str]) -> go.layout.Template:
    """Everything about a figure that depends on whether the page is light or dark.

    Args:
        text, background, grid, raised: colours; those of page.css.
        shares: colours of heat maps at 0, 1, 10, 50 and 100 per cent: steep at the low end, so that single confusions
            are seen.
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
    """Layout of an axis of classes: every name, as small as it has to be, or where there is no room as many as fit.

    In the latter case zooming in shows the others.
    """
    names = list(names)
    axis: dict[str, Any] = {
        "type": "category",  # names like "0" and "1" are no numbers
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
    """A name that fits beside an axis: its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 8] + "..." + name[-5:]


def plain(name: str) -> str:
    """A name as plotly writes it out, who reads <b> and <br> in texts as markup."""
    return html.escape(name, quote=False)
