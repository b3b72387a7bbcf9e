"""Measure how long `initbench report` takes, how large its page is, and how fast a browser opens it.

Each time is the median, with the smallest and the largest. The runs are synthetic: 50 layers, 10 probes, and
three histograms of 32 bins in each layer. The time to open a page ends when its first figure is drawn and
its controls work. Without Chromium the page is not opened.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from tools.headless_browser import NoBrowserError, headless_browser


def main() -> None:
    """Write the runs, measure, and print one line for each page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 10, 50], help="(default 1 10 50)")
    parser.add_argument("--layers", type=int, default=50, help="layers of each net (default 50)")
    parser.add_argument("-n", type=int, default=5, help="measurements (default 5)")
    options = parser.parse_args()
    start_up = [_seconds("--help") for _ in range(options.n)]
    print(f"start-up (`initbench --help`): {_both(start_up)}, n = {options.n}")
    with tempfile.TemporaryDirectory() as folder, _browser() as browser:
        for rows in options.rows:
            runs, page = Path(folder) / f"runs{rows}", Path(folder) / f"report{rows}.html"
            names = [SyntheticRow(f"net_{i:02}", 0.9 + 0.2 * i / rows, diverges=i == 17) for i in range(rows)]
            write_runs(runs, names, depth=options.layers)
            command = ("report", "--runs-dir", str(runs), "-o", str(page))
            made = [_seconds(*command) for _ in range(options.n)]
            opened = [_seconds_to_open(browser, page) for _ in range(options.n)] if browser else []
            words = f"opened in {_spread(opened)} s" if opened else "not opened: no browser found"
            size = page.stat().st_size / 1e6
            print(f"{rows} rows: made in {_both(made)}, {size:.2f} MB, {words}", flush=True)


def _seconds(*arguments: str) -> tuple[float, float]:
    """Return wall and CPU time of a command in seconds."""
    start, cpu = time.perf_counter(), _cpu_of_children()
    subprocess.run([sys.executable, "-m", "initbench", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start, _cpu_of_children() - cpu


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _browser() -> Iterator[Any]:
    """Yield a running browser, or None if none is installed."""
    with ExitStack() as stack:
        browser = None
        with suppress(NoBrowserError):
            browser = stack.enter_context(headless_browser())
        yield browser


def _seconds_to_open(browser: Any, page: Path) -> float:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_function("document.body?.dataset.ready === 'true'")
    tab.evaluate("document.querySelector('figure').scrollIntoView()")
    tab.wait_for_function("document.querySelector('.plot[data-drawn]') !== null")
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def _both(measured: Sequence[tuple[float, float]]) -> str:
    wall, cpu = zip(*measured, strict=True)
    return f"{_spread(wall)} s, CPU {_spread(cpu)} s"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
