"""A page in a real browser: Chromium without a window, through playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def launched() -> Iterator:
    """A browser of playwright's; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if program is None:
        pytest.skip("needs Chromium on the PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(path: Path, widths: tuple[int, ...]) -> Iterator[list]:
    """The file at each width (pixels): [(playwright page, problems)]; skips the test where there is no browser.

    problems: what the browser complained of while loading: messages on its console, errors, requests it made.
    """
    with launched() as browser:
        yield [_load(browser, path, width) for width in widths]


def fits(page) -> bool:
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def assert_readable(page, images: int, headings: int) -> None:
    """At least so many pictures and headings, all of them seen; nothing wider than the window; no tiny letters."""
    width = page.evaluate("document.documentElement.clientWidth")
    assert fits(page)
    found = page.locator("img").all()
    assert len(found) >= images
    for image in found:
        assert image.evaluate("i => i.complete && i.naturalWidth > 0") and image.get_attribute("alt")
        box = image.bounding_box()
        assert box["width"] > 300 and box["height"] > 100 and box["x"] + box["width"] <= width
    found = page.locator("h1, h2").all()
    assert len(found) >= headings and all(heading.is_visible() for heading in found)
    sizes = "[...document.querySelectorAll('p, td, th, pre')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(page.evaluate(sizes)) >= 13  # pixels: readable without zooming


def _load(browser, path: Path, width: int):
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:100]}"))
    own = path.resolve().as_uri()
    page.on("request", lambda r: r.url.startswith((own, "data:")) or problems.append(f"request: {r.url[:100]}"))
    page.goto(own, wait_until="networkidle")
    return page, problems
