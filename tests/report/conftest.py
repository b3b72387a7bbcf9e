"""Pages of synthetic stored runs, and one headless browser for all tests of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.cli.main import run_command
from tools.headless_browser import NoBrowserError, headless_browser

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
    try:
        with headless_browser() as browser:
            yield browser
    except NoBrowserError as error:
        pytest.skip(str(error))


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

    def check_silence(self) -> None:
        """Check that the page complained about nothing and read no file but its own."""
        assert self.messages == []
        read = {url.partition("#")[0] for url in self.requests if not url.startswith(("blob:", "data:"))}
        assert read == {self.page.url.partition("#")[0]}

    def plots(self) -> dict[str, str]:
        """Return the marks of each figure by its key, each mark as often and in the order it is drawn."""
        plots = (
            "[...document.querySelectorAll('figure')].map((f) => [f.id, f.querySelector('.plot').innerHTML])"
        )
        return dict(self.page.evaluate(plots))

    def contents(self) -> dict[str, list[str]]:
        """Return the texts and the colours of the marks of each figure, sorted.

        Unlike ticks, positions and order, they do not depend on what was shown before.
        """
        return dict(
            self.page.evaluate(
                """[...document.querySelectorAll("figure")].map((figure) => {
                  const marks = [...figure.querySelectorAll(".plot .role-mark > *")];
                  const look = (mark) => ["fill", "stroke"].map((name) => mark.getAttribute(name)).join();
                  return [figure.id, marks.map((mark) => mark.textContent + look(mark)).sort()];
                })"""
            )
        )


Opener = Callable[..., OpenPage]


@contextmanager
def _opener(chromium: Any, page_file: Path) -> Iterator[Opener]:
    """Yield a function that opens pages; at the end they must have been quiet and offline."""
    opened: list[OpenPage] = []

    def open_(
        fragment: str = "", *, width: int = 1200, path: Path = page_file, draw: bool = True, **options: Any
    ) -> OpenPage:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
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
        opened.append(result)
        if draw:
            result.draw_all()
        return result

    yield open_
    for result in opened:
        result.check_silence()
        result.page.context.close()


@pytest.fixture
def open_page(chromium: Any, page_file: Path) -> Iterator[Opener]:
    """Open the report in contexts of their own."""
    with _opener(chromium, page_file) as open_:
        yield open_


@pytest.fixture(scope="session")
def _shared_page(chromium: Any, page_file: Path) -> Iterator[OpenPage]:
    with _opener(chromium, page_file) as open_:
        yield open_()


@pytest.fixture
def report(_shared_page: OpenPage) -> Iterator[OpenPage]:
    """The report in a wide window, with all figures drawn, as it is when it is opened."""
    yield _shared_page
    _shared_page.page.mouse.move(0, 0)
    _shared_page.change(lambda: _shared_page.page.click("#reset"))
    _shared_page.check_silence()
