from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from choreographer.browsers.chromium import Chromium
from PIL import Image

from tandem.errors import UserError
from tandem.rendering.export import write_figures

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), {"width": 400, "height": 300, "title": "two points"})


@pytest.mark.skipif(Chromium.find_browser(skip_local=False) is None, reason="no Chrome or Chromium on this machine")
def test_figures_are_written_in_all_formats(tmp_path: Path) -> None:
    files = write_figures({"points": FIGURE}, tmp_path / "figures", ("png", "svg", "pdf"))
    assert [file.name for file in files] == ["points.png", "points.svg", "points.pdf"]
    png, svg, pdf = (file.read_bytes() for file in files)
    assert Image.open(io.BytesIO(png)).size == (800, 600)  # two pixels per point
    root = ElementTree.fromstring(svg)
    assert (root.get("width"), root.get("height")) == ("400", "300")
    assert "two points" in svg.decode()
    assert pdf.startswith(b"%PDF")


def test_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown figure format gif: allowed are png, svg, pdf"):
        write_figures({"points": FIGURE}, tmp_path, ("png", "gif"))  # type: ignore[arg-type]


def test_machine_without_chrome_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chromium, "find_browser", classmethod(lambda cls, **_: None))
    with pytest.raises(UserError, match="none was found: install one, or set BROWSER_PATH to it"):
        write_figures({"points": FIGURE}, tmp_path, ("png",))


def test_wrong_browser_path_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="BROWSER_PATH") as caught:
        write_figures({"points": FIGURE}, tmp_path, ("png",))
    assert "\n" not in str(caught.value)
