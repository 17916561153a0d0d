"""Reports in a real browser: drawn, quiet, deaf and dumb. One start of headless Chromium.

Debian's package `chromium-headless-shell` or `chromium` brings it; where there is none, these tests skip. With
FLIGHTBAG_DRILL, screenshots are left in `.screenshots/`.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import flightbag
from tests.support.stores import REPOSITORY_ROOT
from tests.tools.test_report import reported as reported
from tools.legend import SIGNS, rgb

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
PATIENCE_MS = 30_000


class Browser:
    """A page of headless Chromium, and everything that it said, asked for and wanted to show."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.requests: list[str] = []
        self.stopped: list[tuple[str, str]] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.stopped.append((request.url, request.failure)))

    def open(self, path: Path, scheme: str = "light") -> None:
        self.said.clear()
        self.requests.clear()
        self.stopped.clear()
        self.page.emulate_media(media="screen", color_scheme=scheme)
        self.page.goto(path.as_uri(), wait_until="load")

    def shot(self, selector: str = "") -> Any:
        data = self.page.locator(selector).first.screenshot() if selector else self.page.screenshot(full_page=True)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"{' or '.join(PROGRAMS)}: not installed")
    library = pytest.importorskip("playwright.sync_api")
    with library.sync_playwright() as running:
        # Root has no sandbox to give; what is opened here are files of this test.
        chromium = running.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=PATIENCE_MS)
        try:
            page = chromium.new_context(viewport={"width": 1000, "height": 900}).new_page()
            page.set_default_timeout(PATIENCE_MS)
            yield Browser(page)
        finally:
            chromium.close()


@pytest.fixture(scope="module")
def pages(reported: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, mission in (("mission", ["ridge"]), ("store", [])):
        found[name] = folder / f"{name}.html"
        ran = flightbag("report", reported.store, *mission, "--trust", reported.root, "-o", found[name])
        assert ran.status == 0, ran.err
    return found


@pytest.mark.parametrize("name", ["mission", "store"])
def test_a_report_is_drawn_and_says_and_asks_for_nothing(browser: Browser, pages: dict[str, Path], name: str) -> None:
    shots = {}
    for scheme in ("light", "dark"):
        browser.open(pages[name], scheme)
        shots[scheme] = browser.shot()
        keep(name, scheme, shots[scheme])
        assert not browser.said
        assert browser.requests == [pages[name].as_uri()], "no request leaves the file"
    assert shots["light"][2, 2].min() > 200
    assert shots["dark"][2, 2].max() < 60
    assert browser.page.evaluate("document.scripts.length") == 0
    assert "GO" in browser.page.inner_text("main")
    # A narrow screen scrolls wide tables, and not the page.
    browser.page.set_viewport_size({"width": 375, "height": 700})
    assert browser.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    browser.page.set_viewport_size({"width": 1000, "height": 900})


def test_the_map_shows_each_reason_by_its_pattern(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mission"])
    colours = {tuple(pixel) for pixel in browser.shot("svg.map").reshape(-1, 3).tolist()}
    for name, sign in SIGNS.items():
        for colour in {sign.paper, *([sign.ink] if any(sign.bits) else [])}:
            near = min(max(abs(a - b) for a, b in zip(rgb(colour), other, strict=True)) for other in colours)
            assert near <= 24, f"{name}: {colour} is not to be seen"


def test_a_report_is_read_with_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mission"])
    page = browser.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    closed = page.locator("details:not([open]) > summary").first
    closed.focus()
    before = page.locator("details[open]").count()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == before + 1
    # On paper everything is open, and the parts of the page are no links.
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("td.mono").last.is_visible()


def test_the_policy_of_the_file_stops_what_an_escape_would_let_through(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """As if a name had come through as it is: nothing runs, nothing is loaded, nothing is sent."""
    hostile = (
        "<script>alert(1)</script><img src='https://example.invalid/x.png' onerror='alert(2)'>"
        "<iframe src='https://example.invalid/'></iframe><style>body{display:none}</style>"
        "<p id='styled' style='color: rgb(1, 2, 3)'>x</p><link rel=stylesheet href='https://example.invalid/x.css'>"
    )
    path = tmp_path / "hostile.html"
    path.write_text(pages["mission"].read_text().replace('<main id="main"', f'{hostile}<main id="main"', 1))
    browser.open(path)
    assert not [text for text in browser.said if text.startswith("dialog")]
    assert any("Content Security Policy" in text for text in browser.said)
    assert browser.page.locator("main").is_visible()
    assert browser.page.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
    asked = [url for url in browser.requests if not url.startswith("file:")]
    assert sorted(browser.stopped) == [(url, "csp") for url in sorted(asked)], "by the policy"


def keep(name: str, scheme: str, pixels: Any) -> None:
    """Leave a screenshot, where the drill asks for it."""
    if os.environ.get("FLIGHTBAG_DRILL"):
        folder = REPOSITORY_ROOT / ".screenshots"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"report-{name}-{scheme}.png")
