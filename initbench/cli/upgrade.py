"""`initbench upgrade`: add summaries to the runs of earlier versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from initbench.cli.options import RunPatterns, RunsDir, runs_root
from initbench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def upgrade(patterns: RunPatterns = None, runs_dir: RunsDir = None) -> None:
    """Add to runs of earlier versions the summaries with which `compare` and `ls` are fast.

    No other file of a run changes, except for the list in its manifest. Unfinished runs are skipped.
    Exit 3 if a run is damaged or has changed since it was stored; it is reported and not changed.
    """
    from collections import Counter

    from initbench.render.text import plural
    from initbench.store.store import Store
    from initbench.store.upgrading import CURRENT, UNFINISHED, UPGRADED, remove_index, upgrade_run

    store = Store(runs_root(runs_dir))
    counts: Counter[str] = Counter()
    problems = []
    for run_id in _with_progress(store.find(patterns or [])):
        try:
            counts[upgrade_run(store, run_id)] += 1
        except StoreError as error:
            problems.append(f"{run_id}: {error}")
    remove_index(store.root)
    words = {CURRENT: "already up to date", UNFINISHED: "unfinished"}
    notes = [f"{counts[name]:,} {text}" for name, text in words.items() if counts[name]]
    typer.echo(", ".join([f"{plural(counts[UPGRADED], 'run')} upgraded", *notes]))
    if problems:
        raise StoreError("\n".join(problems))


def _with_progress(run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the run ids; on a terminal, print on stderr how many are done."""
    import sys
    import time

    is_terminal, printed = sys.stderr.isatty(), time.monotonic()
    for done, run_id in enumerate(run_ids):
        yield run_id
        if is_terminal and time.monotonic() - printed > 1:
            printed = time.monotonic()
            print(f"\r{done + 1:,} of {len(run_ids):,} runs", end="", file=sys.stderr, flush=True)
    if is_terminal and run_ids:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
