"""Summaries of stored runs, read from their summary files, or from all their files if a run has none."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import TypeVar

from initbench.analysis.damaged_runs import attach_damaged_runs, summarise_or_mark_damaged
from initbench.analysis.process_map import parallel_map
from initbench.analysis.run_summary import RunSummary, decode_summary
from initbench.store.store import Store
from initbench.store.summary_file import StoredSummary

Result = TypeVar("Result")

PATIENCE = 2.0
"""Seconds of reading after which the remaining time is printed."""


def load_run_summaries(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    """Load the summaries of the runs that match `patterns` (of all runs without any).

    The order is that of `Store.find`, which also defines the errors. A run that is removed in the meantime is
    skipped. A damaged run has the status "damaged", and `error` contains the file and the problem.
    """
    with garbage_collection_off():
        stored = store.read_summaries()
        run_ids = store.find(patterns, {run_id: summary.header for run_id, summary in stored.items()})
        return _load(store, run_ids, stored)


def load_listed_summaries(store: Store, run_ids: Iterable[str]) -> list[RunSummary]:
    """Load the summaries of those of `run_ids` that are stored; other runs of the store are not read."""
    with garbage_collection_off():
        directories = store.run_ids()
        present = [run_id for run_id in dict.fromkeys(run_ids) if run_id in directories]
        return _load(store, present, store.read_summaries(present))


def _load(store: Store, run_ids: Sequence[str], stored: dict[str, StoredSummary]) -> list[RunSummary]:
    """Return the runs in this order; `stored` is emptied, so that no run is in memory twice."""
    looks = (_decode(stored.pop(run_id, None)) for run_id in run_ids)
    summaries = {summary.run_id: summary for summary in looks if summary is not None}
    missing = [run_id for run_id in run_ids if run_id not in summaries]
    with closing(parallel_map(partial(_read_run, store), missing)) as results:
        action = f"reading {len(missing):,} runs without a summary"
        advice = " (`initbench upgrade` adds summaries)"
        for summary in report_remaining_time(results, len(missing), action, advice):
            if summary is not None:
                summaries[summary.run_id] = summary
    return attach_damaged_runs([summaries[run_id] for run_id in run_ids if run_id in summaries])


def _decode(stored: StoredSummary | None) -> RunSummary | None:
    try:
        return None if stored is None else decode_summary(stored)
    except ValueError:  # not a summary of ours although its hash is right: read the run's files instead
        return None


def _read_run(store: Store, run_id: str) -> RunSummary | None:
    """Read a run from all its files; None if it has been removed."""
    run = store.read_or_mark_damaged(run_id)
    return None if run is None else summarise_or_mark_damaged(run)


@cache
def _has_frozen_objects() -> bool:
    """Return whether the program that uses initbench has frozen objects, which would be unfrozen.

    Python walks through all of them to count them, so this is asked once per process.
    """
    return gc.get_freeze_count() > 0


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Disable garbage collection, which would take a third of the time; stored runs have no cycles.

    Afterwards the new objects count as old ones. Otherwise the next object to be created would start a
    collection of all of them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not _has_frozen_objects():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def report_remaining_time(
    results: Iterable[Result], total: int, action: str, advice: str = ""
) -> Iterator[Result]:
    """Yield the results; if they take long, print the action and the remaining time to stderr once."""
    begin, is_reported = time.monotonic(), False
    for done, result in enumerate(results, 1):
        yield result
        seconds = time.monotonic() - begin
        if not is_reported and seconds > PATIENCE and done < total:
            is_reported, seconds_left = True, seconds / done * (total - done)
            print(f"{action}: about {seconds_left:.0f} s left{advice}", file=sys.stderr, flush=True)
