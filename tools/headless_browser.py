"""A headless Chromium, driven by playwright, for tests, benchmarks and screenshots of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Names of the executables that are searched on PATH."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowserError(Exception):
    """No browser can be started; the message says what is missing."""


@contextmanager
def headless_browser() -> Iterator[Any]:
    """Yield a running browser of playwright, which sends no requests of its own.

    Raises:
        NoBrowserError: If playwright or a browser is not installed.
    """
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        raise NoBrowserError(f"no browser found; one of {', '.join(BROWSERS)} on PATH is needed")
    if find_spec("playwright") is None:
        raise NoBrowserError("playwright is not installed; pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()
