"""Figures as files for papers and slides: PNG, SVG, PDF."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, get_args

import plotly.graph_objects as go

from tandem.errors import UserError

Format = Literal["png", "svg", "pdf"]

PIXELS_A_POINT = 2  # of PNG files, for print and for sharp screens
DEFAULT_WIDTH, DEFAULT_HEIGHT = 1000, 450  # of figures that take the room they are given


def write_figures(figures: Mapping[str, go.Figure], folder: Path, formats: Collection[Format]) -> list[Path]:
    """Writes figures as images, drawn by a Chrome or Chromium of this machine without a network.

    Args:
        figures: by the file's name without a suffix.
        folder: made when it is not there.
        formats: png, svg, pdf; of each figure one file for each.

    Returns:
        The files.

    Raises:
        UserError: an unknown format, no Chrome, or it does not start.
    """
    unknown = set(formats) - set(get_args(Format))
    if unknown:
        raise UserError(
            f"unknown format of figures {', '.join(sorted(unknown))}: allowed are {', '.join(get_args(Format))}"
        )
    import kaleido  # here, since most comparisons write none
    from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError

    jobs = [
        {
            "fig": figure.to_plotly_json(),
            "path": folder / f"{name}.{kind}",
            "opts": {
                "format": kind,
                "width": figure.layout.width or DEFAULT_WIDTH,
                "height": figure.layout.height or DEFAULT_HEIGHT,
                "scale": PIXELS_A_POINT if kind == "png" else 1,
            },
        }
        for name, figure in figures.items()
        for kind in formats
    ]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # MathJax would be loaded from the network.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise UserError(
            "figures as files are drawn by Chrome or Chromium, and none was found: install one, or give its path in "
            "BROWSER_PATH"
        ) from error
    except (BrowserFailedError, BrowserClosedError, OSError) as error:
        raise UserError(f"Chrome could not draw the figures: {str(error).splitlines()[0]}; see BROWSER_PATH") from error
    return [job["path"] for job in jobs]
