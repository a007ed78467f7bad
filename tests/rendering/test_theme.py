from __future__ import annotations

import re
from pathlib import Path

import pytest

import tandem.rendering
from tandem.rendering.theme import DARK, LIGHT, class_axis, plain, shorten

CSS = (Path(tandem.rendering.__file__).parent / "page.css").read_text(encoding="utf-8")


def test_templates_have_the_colours_of_the_page() -> None:
    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", part)) for part in CSS.split("@media screen", 1))
    for template, colors in ((LIGHT, light), (DARK, dark)):
        assert template.layout.paper_bgcolor == template.layout.plot_bgcolor == colors["background"]
        assert template.layout.font.color == colors["text"]
        assert template.layout.hoverlabel.bgcolor == colors["raised"]


@pytest.mark.parametrize(
    ("name", "short"),
    [("owl", "owl"), ("a" * 24, "a" * 24), ("Indian paradise flycatcher", "Indian paradise ...tcher")],
)
def test_long_name_is_reduced_to_its_start_and_end(name: str, short: str) -> None:
    assert shorten(name) == short and len(short) <= 24


def test_markup_is_escaped() -> None:
    assert plain('<b>"a" & b') == '&lt;b&gt;"a" &amp; b'


def test_class_axis_names_all_classes_that_fit() -> None:
    few = class_axis(["<b>", "x" * 30], 400)
    assert few["tickvals"] == ["&lt;b&gt;", "x" * 30]
    assert few["ticktext"] == ["&lt;b&gt;", "x" * 16 + "..." + "x" * 5]
    many = class_axis(map(str, range(121)), 400)
    assert "tickvals" not in many and many["tickmode"] == "auto"


@pytest.mark.parametrize(("count", "size"), [(10, 13), (60, 9), (120, 7)])
def test_font_of_a_class_axis_fits(count: int, size: int) -> None:
    assert class_axis(map(str, range(count)), 600)["tickfont"]["size"] == size
