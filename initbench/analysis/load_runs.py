"""The facts of stored runs: from the index where it is fresh, else from the run's own files.

Parsing what is stored of one run takes milliseconds, for its histograms; what a comparison needs of it is a
few kilobytes. So the facts of finished runs are kept in an index (`initbench.store.index`), in this form:
a line with config and identity, a line with the rest, and all numbers of evaluations and layers, packed,
since parsing them is what would take the time. Configs are the same for all seeds and are parsed once.
"""

from __future__ import annotations

import gc
import hashlib
import json
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import initbench
from initbench.analysis.damaged_runs import attach_damaged_runs, summarise_or_mark_damaged
from initbench.analysis.process_map import parallel_map
from initbench.analysis.run_summary import Layer, RunSummary, computation_keys
from initbench.store.index import Index, IndexEntry, fingerprint_of, records_of
from initbench.store.store import Store

NAME = "compare"
PATIENCE = 2.0
"""Seconds of reading after which a person is told how long it is going to take."""

_MAKERS = (
    "store",
    *(
        f"analysis/{name}"
        for name in (
            "run_summary.py",
            "damaged_runs.py",
            "recorded_defaults.py",
            "defaults.json",
            "load_runs.py",
        )
    ),
)
"""What decides whether a run counts as finished, what its facts are, and how they are written."""
_SHARED, _PACKED = ("config", "identity"), ("evaluations", "layers")
_COLUMNS = 4
_ReadResult = tuple[RunSummary | None, IndexEntry | None]


def load_run_summaries(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    """The runs that `patterns` name (all of them when there are none), in the order of `Store.find`.

    A run that is removed meanwhile is left out. One that is damaged has the status "damaged", and the file
    and its fault in `error`. Raises as `Store.find` does.
    """
    with _garbage_collection_off():
        return _load_run_summaries(store, patterns)


def _load_run_summaries(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    index = Index(store.root, NAME, index_version())
    entries = index.entries()
    fresh = index.fresh(entries)
    run_ids = store.find(patterns, records_of(fresh))
    summaries = {run_id: summary for run_id in run_ids if (summary := _decode_entry(fresh.get(run_id)))}
    added: list[IndexEntry] = []
    try:
        missing = [run_id for run_id in run_ids if run_id not in summaries]
        with closing(parallel_map(partial(_read_run, store), missing)) as results:
            for summary, entry in _report_slow_reading(results, len(missing)):
                if summary is not None:
                    summaries[summary.run_id] = summary
                if entry is not None:
                    added.append(entry)
    finally:  # what has been read need not be read again, whatever ended it
        stale = entries.keys() - fresh.keys()
        if added or stale:
            index.update(added, stale)
    return attach_damaged_runs([summaries[run_id] for run_id in run_ids if run_id in summaries])


def index_version() -> str:
    """Hash of the code that the contents of the index depend on."""
    package = Path(initbench.__file__).parent
    digest = hashlib.sha256()
    for part in _MAKERS:
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _read_run(store: Store, run_id: str) -> _ReadResult:
    """The facts as the run's files have them, and their entry where the run ended and stays as it is."""
    stamp = fingerprint_of(store.root, run_id)
    run = store.read_or_mark_damaged(run_id)
    if run is None:
        return None, None
    summary = summarise_or_mark_damaged(run)
    is_final = summary.is_complete and stamp is not None and stamp.is_settled
    if not is_final or stamp is None or stamp != fingerprint_of(store.root, run_id):
        return summary, None
    created = str(run.record.get("created"))
    return summary, IndexEntry(run_id, stamp.digest, created, summary.experiment, encode_summary(summary))


def encode_summary(summary: RunSummary) -> bytes:
    """The facts as a document of the index."""
    values = vars(summary)
    numbers: list[float | None] = [number for row in summary.evaluations for number in row]
    for layers in summary.layers.values():
        numbers += [number for layer in layers for number in layer.values()]
    missing = [i for i, number in enumerate(numbers) if number is None]
    packed = struct.pack(f"<{len(numbers)}d", *(0.0 if number is None else number for number in numbers))
    shared = {name: values[name] for name in _SHARED}
    names = (name for name in RunSummary.__dataclass_fields__ if name not in _SHARED + _PACKED)
    layouts = {moment: [len(layers), *map(list, layers[:1])] for moment, layers in summary.layers.items()}
    rest = [{name: values[name] for name in names}, len(summary.evaluations), layouts, missing]
    # Plain JSON of the standard library: unlike that of stored files it writes NaN so that it comes back.
    lines = (json.dumps(part, separators=(",", ":")).encode() for part in (shared, rest))
    return b"\n".join([*lines, packed])


def decode_summary(document: bytes) -> RunSummary:
    """The facts that `encoded` was given; some error for any other document."""
    shared, rest, packed = document.split(b"\n", 2)
    plain, evaluations, layouts, missing = json.loads(rest)
    numbers: list[float | None] = list(struct.unpack(f"<{len(packed) // 8}d", packed))
    for i in missing:
        numbers[i] = None
    remaining = iter(numbers)
    rows = [list(islice(remaining, _COLUMNS)) for _ in range(evaluations)]
    layers = {moment: list(_unpack_layers(remaining, *layout)) for moment, layout in layouts.items()}
    common, keys = _parse_shared(shared)
    summary = RunSummary(**plain, **common, evaluations=rows, layers=layers)
    vars(summary)["config_keys"] = keys  # what the property would find, again for each seed
    return summary


def _unpack_layers(numbers: Iterator[float | None], count: int, names: Sequence[str] = ()) -> Iterator[Layer]:
    """So many layers of these statistics, in the order of `names`."""
    for _ in range(count):
        yield dict(zip(names, islice(numbers, len(names)), strict=True))


@lru_cache(maxsize=4096)
def _parse_shared(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and identity, and `config_keys`: all seeds have them in common, and nobody changes them."""
    common: dict[str, Any] = json.loads(text)
    return common, computation_keys(common["config"])


def _decode_entry(entry: IndexEntry | None) -> RunSummary | None:
    try:
        summary = None if entry is None else decode_summary(entry.document)
    except (ValueError, TypeError, AttributeError, LookupError, struct.error, RecursionError):
        return None  # not of our making, its checksum notwithstanding: the run itself is asked
    return summary if summary and entry and summary.run_id == entry.run_id else None


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """The facts have no cycles; looking for some among all their lists would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _report_slow_reading(results: Iterable[_ReadResult], total: int) -> Iterator[_ReadResult]:
    """The same looks; one line on stderr where there are many that take long."""
    begin, is_reported = time.monotonic(), False
    for done, result in enumerate(results, 1):
        yield result
        seconds = time.monotonic() - begin
        if not is_reported and seconds > PATIENCE and done < total:
            is_reported, seconds_left = True, seconds / done * (total - done)
            print(
                f"reading {total:,} runs that are not in the index: about {seconds_left:.0f} s more",
                file=sys.stderr,
                flush=True,
            )
