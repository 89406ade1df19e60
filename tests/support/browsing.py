"""Debian's Chromium, as the tests of the console's pages use it.

An action is followed by a wait for what it leads to (Playwright's `expect`, or `wait_for` of a
condition), never by a look at the page as it is at that moment.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from programs import path_of
from waiting import PATIENCE_S, wait_for

expect.set_options(timeout=PATIENCE_S * 1000)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own; without Chromium the test is skipped, and fails in CI."""
    path = path_of("chromium")
    with sync_playwright() as played:
        opened = played.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE_S * 1000
        )
        try:
            yield opened
        finally:
            opened.close()


def profile(browser: Browser, **options: Any) -> BrowserContext:
    """A context with cookies of its own, in which nothing moves by itself and patience is long."""
    made = browser.new_context(reduced_motion="reduce", **options)
    made.set_default_timeout(PATIENCE_S * 1000)
    return made


def fits(page: Page, width: int) -> None:
    """Make the window so narrow, and wait until nothing on the page is wider than it.

    A chart follows a new width only in a later frame.
    """
    page.set_viewport_size({"width": width, "height": 844})
    wide = "[innerWidth, document.documentElement.scrollWidth]"
    seen: list[list[int]] = []

    def fitting() -> bool:
        seen.append(page.evaluate(wide))
        return seen[-1][0] == width and seen[-1][1] <= width

    try:
        wait_for(fitting)
    except AssertionError:
        raise AssertionError(f"window and content are {seen[-1]} px wide, not {width}") from None


def drawn(page: Page) -> None:
    """Wait until the scripts of the page have run and its chart, if it has one, is drawn."""
    wait_for(
        lambda: page.evaluate(
            "document.readyState === 'complete' && [...document.querySelectorAll('#usage-chart')]"
            ".every(panel => !panel.hidden && panel.querySelector('canvas'))"
        )
    )
