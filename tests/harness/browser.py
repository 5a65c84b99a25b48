"""A headless Chromium that shows the dashboard to a test, and notes every fault of a page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TIMEOUT_MS = 10_000
PROGRAM = "chromium"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright. Skips the test when Chromium is missing."""
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"{PROGRAM} is not installed here")
    from playwright.sync_api import sync_playwright  # Playwright has an event loop while it runs: keep that time short

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, as in CI. /dev/shm may be tiny in a container.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=2 * TIMEOUT_MS
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One window and the events in it; a context manager.

    Args:
        browser: the browser from `chromium`.
        width, height: the size of the window, in CSS pixels.
        dark: whether the system prefers dark colours.
        calm: whether the system asks for reduced motion.

    Attributes:
        page: the page of Playwright.
        faults: errors of scripts, and violations of the Content-Security-Policy.
        requests: the requested addresses.
    """

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False, calm: bool = True) -> None:
        self._context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce" if calm else "no-preference",
            service_workers="block",
        )
        self._context.set_default_timeout(TIMEOUT_MS)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(f"{error}\n{error.stack or ''}"))
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self._dialog(dialog))

    def _heard(self, kind: str, text: str) -> None:
        # The browser itself reports a failed request. A page whose proxy has stopped cannot prevent that.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.faults.append(text)

    def _dialog(self, dialog: object) -> None:
        self.faults.append(f"a dialog: {dialog}")
        dialog.dismiss()  # type: ignore[attr-defined]

    def open(self, url: str) -> Page:
        """Open an address. Returns the page."""
        self.page.goto(url)
        return self.page

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.close()
