from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from playwright.sync_api import sync_playwright

from tandem.data.prepare import PreparedData
from tandem.data_report.page import make_data_page
from tandem.data_report.statistics import describe
from tandem.data_report.tables import make_tables
from tandem.rendering.page import Gallery, Page, Plot, Section, Text, write_page
from tandem.rendering.tables import Table
from tests.browser import CHROMIUM, in_browser


def page_of(data: PreparedData) -> Page:
    statistics = describe(data, quiet=True)
    return make_data_page(data, statistics, make_tables(data.name, statistics))


@pytest.fixture(scope="module")
def messy(messy_data: PreparedData) -> Page:
    return page_of(messy_data)


def section(page: Page, anchor: str) -> Section:
    (found,) = [section for section in page.sections if section.anchor == anchor]
    return found


def test_every_finding_has_a_section(messy: Page) -> None:
    assert [section.anchor for section in messy.sections] == [
        *(
            "summary",
            "classes",
            "examples",
            "file-sizes",
            "image-sizes",
            "copies",
            "unreadable",
            "passed-over",
            "origin",
        ),
    ]
    assert messy.title == "Data set: birds" and messy.lead == "19 images of 2 classes"
    kinds = [type(block) for block in section(messy, "copies").blocks]
    assert kinds == [Table, Gallery, Table]


def test_clean_data_has_no_empty_sections(plain_data: PreparedData) -> None:
    page = page_of(plain_data)
    assert [section.anchor for section in page.sections] == [
        *("summary", "classes", "examples", "file-sizes", "image-sizes", "copies", "passed-over", "origin"),
    ]
    (no_files,) = section(page, "file-sizes").blocks
    assert isinstance(no_files, Text) and "have no files" in no_files.paragraphs[0]
    one_size = section(page, "image-sizes").blocks[0]
    assert isinstance(one_size, Text) and one_size.paragraphs == ("All images are 8 x 8 pixels.",)
    (skipped,) = section(page, "copies").blocks
    assert isinstance(skipped, Text) and "were not looked for" in skipped.paragraphs[0]


def test_examples_show_each_class_in_turn(messy: Page, messy_data: PreparedData) -> None:
    (gallery,) = section(messy, "examples").blocks
    assert isinstance(gallery, Gallery)
    assert [picture.caption for picture in gallery.pictures] == ["emu"] * 6 + ["owl"] * 8
    emus = [row for row, key in enumerate(messy_data.keys) if "/emu/" in key]
    first = min(emus, key=lambda row: messy_data.hashes[row])
    assert np.array_equal(gallery.pictures[0].image, messy_data.images[first])


def test_many_classes_are_shown_with_one_image_each_up_to_a_limit(plain_data: PreparedData) -> None:
    num_classes = 300
    data = dataclasses.replace(
        plain_data,
        classes=tuple(str(number) for number in range(num_classes)),
        labels=np.arange(len(plain_data.labels)) % num_classes,
    )
    page = make_data_page(data, describe(plain_data, quiet=True), {})
    (gallery,) = section(page, "examples").blocks
    assert isinstance(gallery, Gallery)
    captions = [picture.caption for picture in gallery.pictures]
    assert len(captions) == len(set(captions)) == 96 and captions[0] == "0" and captions[-1] == "299"
    assert "96 of the 300 classes are shown" in gallery.note


def test_pairs_stand_side_by_side(messy: Page, messy_data: PreparedData) -> None:
    gallery = section(messy, "copies").blocks[1]
    assert isinstance(gallery, Gallery) and len(gallery.pictures) == 2
    captions = [picture.caption.split("\n") for picture in gallery.pictures]
    assert [caption[0].split(",")[0] for caption in captions] == ["1A", "1B"]
    assert captions[0][1] == "test: test/owl/1.png" and captions[1][1].endswith(": train/owl/compressed.jpg")
    shown = messy_data.images[messy_data.keys.index("test/owl/1.png")]
    assert np.array_equal(gallery.pictures[0].image, shown)


def test_long_lists_are_cut_except_classes(messy_data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.data_report.page.MOST_LISTED", 1)
    page = page_of(messy_data)
    (unreadable,) = section(page, "unreadable").blocks
    assert isinstance(unreadable, Table) and len(unreadable.rows) == 1
    classes = section(page, "classes").blocks[1]
    assert isinstance(classes, Table) and len(classes.rows) == 3


def test_figures_are_those_of_classes_files_and_sizes(messy: Page) -> None:
    plots = [block for section in messy.sections for block in section.blocks if isinstance(block, Plot)]
    assert [type(plot.figure.data[0]) for plot in plots] == [go.Bar, go.Bar, go.Box, go.Box, go.Scatter]


@in_browser
def test_page_draws_everything_without_a_network(messy: Page, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", messy)
    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        tab = browser.new_context(viewport={"width": 1280, "height": 6000}, offline=True).new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "page.html").as_uri())
        for number in range(4):
            tab.locator(".plot > div[data-state=drawn]").nth(number).wait_for()
        assert tab.locator(".images img").evaluate_all("all => all.filter(img => img.naturalWidth > 0).length") == 16
        box = tab.locator("[data-figure=figure-2]")
        assert "owl" in box.inner_text() and "bytes" in box.inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") == 1280
        browser.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {(tmp_path / "page.html").as_uri()}
