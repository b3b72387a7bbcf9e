"""Pages of synthetic stored runs, and one headless browser for all tests of a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.cli.main import run_command

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ROWS = (
    SyntheticRow("healthy \"quoted\" & 'single'", 1.0, seeds=2),
    SyntheticRow("<script>alert(1)</script>", 0.5, seeds=2),
    SyntheticRow(
        "</script><b>🚀 a name that is quite long, longer than most, for a net of six layers",
        2.0,
        diverges=True,
        findings=[
            {
                "code": "diverged",
                "layer": 3,
                "value": 2.0,
                "threshold": None,
                "message": "the loss was no longer finite after 2 updates; layer 3 was the first to overflow."
                " Check train.lr</details></script>",
                "level": "warning",
            }
        ],
    ),
    SyntheticRow("=1+1", 0.8),
)


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with runs of odd names."""
    root = tmp_path_factory.mktemp("report") / "runs"
    write_runs(root, ROWS, depth=6, probes=4, bins=8)
    return root


@pytest.fixture(scope="session")
def page_file(store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of these runs."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert run_command(["report", "--runs-dir", str(store_root), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; tests are skipped where none is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser found; one of {', '.join(BROWSERS)} on PATH is needed")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class OpenPage:
    """A page in the browser, with everything it complained about or asked for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Wait until all figures near the window are drawn and no update is running."""
        self.page.wait_for_function(
            "!document.body.dataset.ready || !document.querySelector('.plot:not([data-drawn])')"
        )

    def draw_all(self) -> None:
        """Scroll every figure into view, so that all are drawn."""
        self.page.wait_for_function("document.body.dataset.ready === 'true'")
        self.page.evaluate("document.querySelectorAll('figure').forEach((f) => f.scrollIntoView())")
        for figure in self.page.query_selector_all("figure"):
            figure.scroll_into_view_if_needed()
        self.settle()
        self.page.evaluate("window.scrollTo(0, 0)")

    def change(self, act: Callable[[], Any]) -> None:
        """Do something that changes the figures, and wait until they show it."""
        before = self.page.evaluate("document.body.dataset.updates ?? '0'")
        act()
        self.page.wait_for_function("(n) => (document.body.dataset.updates ?? '0') !== n", arg=before)

    def plots(self) -> dict[str, str]:
        """Return the marks of each figure by its key."""
        script = (
            "[...document.querySelectorAll('figure')].map((f) => [f.id, f.querySelector('.plot').innerHTML])"
        )
        return dict(self.page.evaluate(script))


@pytest.fixture
def open_page(chromium: Any, page_file: Path) -> Iterator[Callable[..., OpenPage]]:
    """Open the report in a context of its own; at the end it must have been quiet and offline."""
    contexts = []
    opened: list[OpenPage] = []

    def open_(
        fragment: str = "", *, width: int = 1200, path: Path = page_file, draw: bool = True, **options: Any
    ) -> OpenPage:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        result = OpenPage(context.new_page())
        context.route(
            lambda url: not url.startswith("file:"),
            lambda route: (result.requests.append(route.request.url), route.abort()),
        )
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("console", lambda message: result.messages.append(f"{message.type}: {message.text}"))
        result.page.on("pageerror", lambda error: result.messages.append(str(error)))
        result.page.on("dialog", lambda dialog: (result.messages.append("dialog"), dialog.dismiss()))
        result.page.goto(path.as_uri() + fragment)
        if draw and options.get("java_script_enabled", True):
            result.draw_all()
        opened.append(result)
        return result

    yield open_
    for result in opened:
        assert result.messages == []
        external = [url for url in result.requests if not url.startswith(("file:", "blob:", "data:"))]
        assert external == []
        assert len({url.partition("#")[0] for url in result.requests if url.startswith("file:")}) == 1
    for context in contexts:
        context.close()
