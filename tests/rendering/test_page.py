from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tandem.rendering import page as report
from tandem.rendering.page import Gallery, Picture, Plot, Section, Text, render_page, write_page
from tandem.rendering.tables import Column, Estimate, Table
from tandem.rendering.theme import DARK, LIGHT
from tests.browser import CHROMIUM, draw_all, in_browser, wait_for_frames

SUMMARY = Table(
    name="summary",
    title="Models",
    columns=(
        Column(key="model", heading="model"),
        Column(key="framework", heading="framework"),
        Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
        Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
    ),
    rows=(
        ("net 10", "torch", Estimate(value=0.91234, low=0.9, high=0.93), 300.0),
        ("net 9", "keras", Estimate(value=0.91231, low=0.89, high=0.92), 90.0),
        ("net 1", "torch", 0.5, 7200.0),
        ("<b>net</b>", "keras", None, float("nan")),
        ("Net 2", "torch", 0.7, 4.0),
        ("other", "keras", 0.6, 5.0),
    ),
    notes=("a note",),
    tied=frozenset({(4, "accuracy")}),
)
CLASSES = Table(
    name="classes",
    title="Classes",
    columns=(Column(key="class", heading="class"), Column(key="f1", heading="F1", kind="score", better="higher")),
    rows=tuple((f"class {index:02}", index * 37 % 60 / 60) for index in range(60)),
)
ONE_COLOR = np.full((300, 200, 3), (200, 100, 50), np.uint8)


def heatmap() -> go.Figure:
    return go.Figure(go.Heatmap(z=np.arange(400, dtype=np.uint16).reshape(20, 20)), {"height": 300})


def line() -> go.Figure:
    return go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="</script><b>bird"), {"height": 300, "showlegend": True})


def section(anchor: str, *blocks: report.Block, folded: bool = False) -> Section:
    return Section(title=f"The {anchor}", anchor=anchor, blocks=blocks, folded=folded)


PAGE = report.Page(
    title="Birds & <others>",
    lead="60 classes",
    sections=(
        section(
            "summary", Text(paragraphs=("The best is <net 10>.",)), SUMMARY, Plot(figure=line(), caption="A line.")
        ),
        section("classes", CLASSES, Plot(figure=heatmap(), caption="A map."), Plot(figure=heatmap(), caption="Again.")),
        section(
            "images", Gallery(title="Wrong", pictures=(Picture(image=ONE_COLOR, caption="owl\npredicted as emu"),))
        ),
        section("more", Plot(figure=line(), caption="In the folded section."), folded=True),
    ),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "new folder" / "page.html"
    write_page(path, PAGE)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    """The page in a window of 1280 pixels; fails at the end if there were errors or requests to a network."""
    complaints: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {file.as_uri()}


def table(tab: Page, title: str) -> Locator:
    return tab.get_by_role("region", name=title)


def column(tab: Page, title: str, index: int) -> list[str]:
    return table(tab, title).locator(f"tbody td:nth-child({index + 1})").all_inner_texts()


def layout_color(tab: Page, index: int) -> str:
    return tab.locator(".plot > div").nth(index).evaluate("plot => plot._fullLayout.paper_bgcolor")


# without a browser


def test_sections_need_different_anchors() -> None:
    with pytest.raises(ValueError, match="anchors"):
        report.Page(title="x", lead="", sections=(section("a"), section("a")))


def test_parts_that_figures_share_are_on_the_page_once() -> None:
    content = render_page(PAGE)
    array = base64.b64encode(np.arange(400, dtype=np.uint16).tobytes()).decode()
    assert len(re.findall(re.escape(array[:60]), content)) == 1
    assert len(re.findall(r"plotly\.js v\d", content)) == 1


def test_page_without_figures_has_no_plotly() -> None:
    assert len(render_page(report.Page(title="x", lead="", sections=(section("a", SUMMARY),)))) < 50_000


def test_no_text_can_end_a_script() -> None:
    content = render_page(PAGE)
    assert "</script><b>bird" not in content
    assert "<b>net</b>" not in content


@pytest.mark.parametrize("size", [32, 64, 65, 900])
def test_images_are_shrunk_and_small_ones_are_exact(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, size=(size, size // 2, 3), dtype=np.uint8)
    gallery = Gallery(title="x", pictures=(Picture(image=pixels, caption=""),))
    content = render_page(report.Page(title="x", lead="", sections=(section("a", gallery),)))
    ((kind, data),) = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', content)
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(shown.size) == min(size, 256)
    assert kind == ("png" if size <= 64 else "jpeg")
    if size <= 64:
        np.testing.assert_array_equal(np.asarray(shown), pixels)


def test_image_files_and_grey_arrays_are_shown() -> None:
    file = io.BytesIO()
    Image.fromarray(ONE_COLOR).save(file, "PNG")
    pictures = (Picture(image=file.getvalue(), caption="a"), Picture(image=np.zeros((8, 8), np.uint8), caption="b"))
    content = render_page(
        report.Page(title="x", lead="", sections=(section("a", Gallery(title="x", pictures=pictures)),))
    )
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', content)]
    assert [image.size for image in shown] == [(171, 256), (8, 8)]


# in a browser


@in_browser
def test_figures_are_drawn_when_they_come_into_view(opened: Page) -> None:
    last = opened.locator(".plot > div").nth(2)
    assert last.get_attribute("data-state") is None  # far below
    draw_all(opened)
    assert opened.locator(".plot > div[data-state=drawn] .main-svg").count() >= 3
    assert (
        opened.locator(".plot .legendtext").first.text_content() == "</script>bird"
    )  # without plotly's markup, and without ending the script


@in_browser
def test_figure_in_a_folded_section_is_drawn_when_it_is_opened(opened: Page) -> None:
    folded = opened.locator("#more .plot > div")
    assert not folded.is_visible()
    opened.get_by_text("The more", exact=True).last.click()
    folded.scroll_into_view_if_needed()
    opened.locator("#more .plot > div[data-state=drawn]").wait_for()
    assert folded.locator(".main-svg").first.bounding_box()["width"] > 600  # type: ignore[index]


@in_browser
def test_link_of_the_contents_opens_a_folded_section(opened: Page) -> None:
    opened.get_by_role("navigation").get_by_text("The more").click()
    opened.locator("#more[open] .plot > div[data-state=drawn]").wait_for()


@in_browser
def test_click_sorts_by_unrounded_numbers_with_missing_values_last(opened: Page) -> None:
    head = table(opened, "Models").locator("th", has_text="accuracy")
    before = column(opened, "Models", 0)
    head.get_by_role("button").click()  # the best first
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, "Models", 0) == ["net 10", "net 9", "Net 2", "other", "net 1", "<b>net</b>"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(opened, "Models", 0) == ["net 1", "other", "Net 2", "net 9", "net 10", "<b>net</b>"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(opened, "Models", 0) == before


@in_browser
def test_keyboard_sorts_texts_with_numbers_and_durations(opened: Page) -> None:
    table(opened, "Models").locator("th button").first.focus()
    opened.keyboard.press("Enter")
    assert column(opened, "Models", 0) == ["<b>net</b>", "net 1", "Net 2", "net 9", "net 10", "other"]
    for _ in range(3):
        opened.keyboard.press("Tab")
    opened.keyboard.press("Space")
    assert column(opened, "Models", 3) == ["4.0 s", "5.0 s", "90.0 s", "5.0 min", "2.0 h", "nan"]
    assert table(opened, "Models").locator("th[aria-sort]").count() == 1


@in_browser
def test_filters_hide_rows_and_count_them(opened: Page) -> None:
    controls = opened.locator(".controls").first
    box = controls.get_by_role("searchbox")
    box.fill("NET torch")
    assert column(opened, "Models", 0) == ["net 10", "net 1", "Net 2"]
    assert controls.get_by_role("status").inner_text() == "3 of 6 rows"
    box.fill("")
    controls.get_by_label("framework").select_option("keras")
    assert column(opened, "Models", 0) == ["net 9", "<b>net</b>", "other"]
    box.fill("nothing like this")
    assert column(opened, "Models", 0) == []
    controls.get_by_label("framework").select_option("all")
    box.fill("")
    assert controls.get_by_role("status").inner_text() == "6 rows"
    assert opened.locator(".controls").nth(1).get_by_role("combobox").count() == 0  # 60 classes are no menu


@in_browser
def test_long_table_shows_its_ends_until_all_rows_are_asked_for(opened: Page) -> None:
    names = [f"class {index:02}" for index in range(60)]
    assert column(opened, "Classes", 0) == [*names[:10], "40 more", *names[-10:]]
    table(opened, "Classes").get_by_role("button", name="F1").click()
    assert column(opened, "Classes", 1) == [f"{number / 60:.4f}" for number in (*range(59, 49, -1), *range(9, -1, -1))]
    opened.get_by_role("button", name="Show all 60").click()
    assert column(opened, "Classes", 1) == [f"{number / 60:.4f}" for number in range(59, -1, -1)]
    opened.get_by_role("button", name="Show the first and last 10").click()
    assert len(column(opened, "Classes", 0)) == 21


@in_browser
def test_best_is_bold_and_tied_is_underlined(opened: Page) -> None:
    cells = table(opened, "Models").locator("tbody")
    assert cells.locator("strong").all_inner_texts() == ["0.9123", "0.9123", "4.0 s"]
    assert cells.locator("u").all_inner_texts() == ["0.7000"]
    assert cells.locator("td").nth(2).inner_text() == "0.9123 [0.9000, 0.9300]"
    assert opened.locator(".notes li").all_inner_texts()[0] == "a note"


@in_browser
def test_page_does_not_scroll_sideways_on_a_phone(opened: Page) -> None:
    opened.set_viewport_size({"width": 360, "height": 740})
    draw_all(opened)
    assert opened.evaluate("document.documentElement.scrollWidth") == 360
    box = table(opened, "Models").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 360


@in_browser
def test_page_and_figures_follow_dark_mode(opened: Page) -> None:
    draw_all(opened)
    body = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(body) == "rgb(255, 255, 255)"
    assert layout_color(opened, 0) == LIGHT.layout.paper_bgcolor == "#ffffff"
    opened.emulate_media(color_scheme="dark")
    wait_for_frames(opened)
    assert opened.evaluate(body) == "rgb(21, 24, 28)"
    assert layout_color(opened, 0) == layout_color(opened, 2) == DARK.layout.paper_bgcolor == "#15181c"
    opened.reload()
    draw_all(opened)
    assert layout_color(opened, 1) == "#15181c"


@in_browser
def test_paper_shows_everything_in_light_colours_and_the_screen_is_restored(opened: Page) -> None:
    opened.emulate_media(color_scheme="dark")
    draw_all(opened)
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("#more .plot .main-svg").first.is_visible()
    assert len(column(opened, "Classes", 0)) == 60
    assert {layout_color(opened, index) for index in range(4)} == {"#ffffff"}
    opened.emulate_media(media="print", color_scheme="dark")
    wait_for_frames(opened)
    assert not opened.locator(".controls").first.is_visible()
    opened.emulate_media(media="screen", color_scheme="dark")
    wait_for_frames(opened)
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not opened.locator("#more .plot").is_visible()
    assert len(column(opened, "Classes", 0)) == 21
    assert layout_color(opened, 0) == "#15181c"
