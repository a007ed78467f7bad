"""Figures as files for papers and slides: PNG, SVG and PDF."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, get_args

import plotly.graph_objects as go

from tandem.errors import UserError

Format = Literal["png", "svg", "pdf"]

PIXELS_PER_POINT = 2  # in PNG files, for print and sharp screens
DEFAULT_WIDTH, DEFAULT_HEIGHT = 1000, 450  # of figures without a size of their own


def write_figures(figures: Mapping[str, go.Figure], folder: Path, formats: Collection[Format]) -> list[Path]:
    """Writes figures as images, drawn by the Chrome or Chromium of this machine; needs no network.

    Args:
        figures: By file name without a suffix.
        folder: Created if it is missing.
        formats: png, svg, pdf; each figure is written in each of them.

    Returns:
        The files.

    Raises:
        UserError: A format is unknown, or Chrome is missing or does not start.
    """
    unknown = set(formats) - set(get_args(Format))
    if unknown:
        raise UserError(
            f"unknown figure format {', '.join(sorted(unknown))}: allowed are {', '.join(get_args(Format))}"
        )
    import kaleido  # slow to import, and most comparisons write no figures
    from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError

    jobs = [
        {
            "fig": figure.to_plotly_json(),
            "path": folder / f"{name}.{kind}",
            "opts": {
                "format": kind,
                "width": figure.layout.width or DEFAULT_WIDTH,
                "height": figure.layout.height or DEFAULT_HEIGHT,
                "scale": PIXELS_PER_POINT if kind == "png" else 1,
            },
        }
        for name, figure in figures.items()
        for kind in formats
    ]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Without MathJax, which would be loaded from the network.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise UserError(
            "writing figures needs Chrome or Chromium, and none was found: install one, or set BROWSER_PATH to it"
        ) from error
    except (BrowserFailedError, BrowserClosedError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"Chrome could not draw the figures: {reason}; check BROWSER_PATH") from error
    return [job["path"] for job in jobs]
