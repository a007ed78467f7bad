"""The browser in which tests open pages."""

from __future__ import annotations

import pytest
from choreographer.browsers.chromium import Chromium
from playwright.sync_api import Page

CHROMIUM = Chromium.find_browser(skip_local=False)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chrome or Chromium on this machine")

TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def draw_all(tab: Page) -> None:
    """Draws all figures that are visible, as scrolling through the page does."""
    wait_for_frames(tab)
    for plot in tab.locator(".plot > div:visible").all():
        plot.scroll_into_view_if_needed()
        plot.and_(tab.locator("[data-state=drawn]")).wait_for()


def wait_for_frames(tab: Page) -> None:
    """Waits until a page has answered another size or color scheme, which it hears of with its next frame."""
    tab.evaluate(TWO_FRAMES)
