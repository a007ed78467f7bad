"""Colours, symbols and lines of rows, the same in all figures of a report.

The colour shows the regime, its shade the backbone; symbol and line show the framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem.comparison.configurations import Configuration

# Okabe and Ito's palette, which colour-blind people can distinguish, without its yellow, black and sky blue, which are
# too close to the page's background or to shades of the other colours. Fixed, so that reports agree.
REGIME_COLORS = {
    "scratch": "#CC79A7",
    "frozen": "#0072B2",
    "two_stage": "#009E73",
    "finetune": "#D55E00",
    "off_the_shelf": "#E69F00",
    "gradual": "#882255",  # from Paul Tol's muted scheme, like the next ones
}
_MORE_COLORS = ("#999933", "#6699CC")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Of backbones: the share of the way to white, or if negative to black.
_SHADES = (0.0, 0.4, -0.3, 0.65, -0.5)


@dataclass(frozen=True, kw_only=True)
class RunStyle:
    """Appearance of a row in every figure."""

    backbone: str
    regime: str
    framework: str
    color: str
    """Colour of its regime in the shade of its backbone, #rrggbb."""
    shade: float
    """Shade of its backbone: the share of the way from the regime's colour to white, or if negative to black."""
    symbol: str
    """Symbol of its framework, by plotly's name."""
    dash: str
    """Line of its framework, by plotly's name."""


def run_styles(configurations: Sequence[Configuration]) -> dict[str, RunStyle]:
    """Style of each row by its label.

    Args:
        configurations: All rows of a report, so that they look the same in all of its figures.
    """
    regimes = list(dict.fromkeys(one.regime for one in configurations))
    others = iter(_MORE_COLORS * len(regimes))
    colors = {regime: REGIME_COLORS.get(regime) or next(others) for regime in regimes}
    # torch gets the first symbol, whichever row comes first.
    frameworks = sorted({one.framework for one in configurations}, key=lambda name: (name != "torch", name))
    backbones = list(dict.fromkeys(one.backbone for one in configurations))
    styles = {}
    for one in configurations:
        number = frameworks.index(one.framework) % len(_SYMBOLS)
        shade = _SHADES[backbones.index(one.backbone) % len(_SHADES)]
        styles[one.label] = RunStyle(
            backbone=one.backbone,
            regime=one.regime,
            framework=one.framework,
            color=shaded(colors[one.regime], shade),
            shade=shade,
            symbol=_SYMBOLS[number],
            dash=_DASHES[number],
        )
    return styles


def shaded(color: str, shade: float) -> str:
    """A colour #rrggbb moved by a share of the way to white, or if negative to black."""
    channels = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
    target = 255 if shade > 0 else 0
    return "#" + "".join(f"{round(value):02x}" for value in channels + abs(shade) * (target - channels))
