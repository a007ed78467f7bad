"""How a run looks in all figures of several runs.

Its colour says how it was trained, its symbol and its line what computed it, and a shade of the colour which backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Okabe and Ito's palette, which colour-blind people can tell apart, without its yellow, black and sky blue, which are
# too close to the page's background or to another colour's shades. Fixed for the known regimes, so that reports agree.
REGIME_COLORS = {
    "scratch": "#CC79A7",
    "frozen": "#0072B2",
    "two_stage": "#009E73",
    "finetune": "#D55E00",
    "off_the_shelf": "#E69F00",
    "gradual": "#882255",  # Paul Tol's muted scheme, as the following
}
_MORE_COLORS = ("#999933", "#6699CC")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# How far a backbone's shade goes towards white, or if negative towards black.
_SHADES = (0.0, 0.4, -0.3, 0.65, -0.5)


@dataclass(frozen=True, kw_only=True)
class RunLabel:
    """What a run is called in figures, and what decides how it looks.

    Args:
        name: unique among the runs of a report.
        backbone: of the network.
        regime: how it was trained.
        framework: what computed it, with its backend where there are several: torch, keras, keras (jax).
    """

    name: str
    backbone: str
    regime: str
    framework: str


@dataclass(frozen=True, kw_only=True)
class RunStyle:
    """How a run looks in every figure.

    Args:
        label: of the run.
        color: of its regime and backbone, as #rrggbb.
        shade: of its backbone: how far the colour goes from its regime's towards white, or if negative towards black.
        symbol, dash: of its framework, by plotly's names.
    """

    label: RunLabel
    color: str
    shade: float
    symbol: str
    dash: str


def run_styles(runs: Sequence[RunLabel]) -> dict[str, RunStyle]:
    """How each run looks, by its name.

    Args:
        runs: all runs of a report, so that they look the same in all of its figures.
    """
    regimes = list(dict.fromkeys(run.regime for run in runs))
    others = iter(_MORE_COLORS * len(regimes))
    colors = {regime: REGIME_COLORS.get(regime) or next(others) for regime in regimes}
    # torch before keras in the order of symbols, whichever run comes first.
    frameworks = sorted({run.framework for run in runs}, key=lambda name: (name != "torch", name))
    backbones = list(dict.fromkeys(run.backbone for run in runs))
    styles = {}
    for run in runs:
        number = frameworks.index(run.framework) % len(_SYMBOLS)
        shade = _SHADES[backbones.index(run.backbone) % len(_SHADES)]
        styles[run.name] = RunStyle(
            label=run,
            color=shaded(colors[run.regime], shade),
            shade=shade,
            symbol=_SYMBOLS[number],
            dash=_DASHES[number],
        )
    return styles


def shaded(color: str, shade: float) -> str:
    """A colour, #rrggbb, moved by that share towards white, or if negative towards black."""
    channels = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
    target = 255 if shade > 0 else 0
    return "#" + "".join(f"{round(value):02x}" for value in channels + abs(shade) * (target - channels))
