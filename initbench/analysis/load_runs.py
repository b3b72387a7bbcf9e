"""Summaries of stored runs, read from the index if its entry is fresh and from the run's files otherwise.

Parsing the files of a run takes milliseconds, mainly because of its histograms, but a comparison needs only a
few kilobytes of them. The summaries of complete runs are therefore kept in an index
(`initbench.store.index`). A document of the index is a line with config and identity, a line with the other
fields, and the numbers of all evaluations and layers in binary form, since parsing them as text would take
most of the time. Config and identity are the same for all seeds and are parsed once.
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
"""Seconds of reading after which the remaining time is printed."""

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
"""Code that the contents of the index depend on: completeness of a run, its summary, and the encoding."""
_SHARED, _PACKED = ("config", "identity"), ("evaluations", "layers")
_COLUMNS = 4
_ReadResult = tuple[RunSummary | None, IndexEntry | None]


def load_run_summaries(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    """Load the summaries of the runs that match `patterns` (of all runs without any).

    The order is that of `Store.find`, which also defines the errors. A run that is removed in the meantime is
    skipped. A damaged run has the status "damaged", and `error` contains the file and the problem.
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
    finally:  # summaries already read are kept even if reading was interrupted
        stale = entries.keys() - fresh.keys()
        if added or stale:
            index.update(added, stale)
    return attach_damaged_runs([summaries[run_id] for run_id in run_ids if run_id in summaries])


def index_version() -> str:
    """Return the hash of the code that the contents of the index depend on."""
    package = Path(initbench.__file__).parent
    digest = hashlib.sha256()
    for part in _MAKERS:
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _read_run(store: Store, run_id: str) -> _ReadResult:
    """Read a run from its files; the index entry is None unless the run is complete and unchanged since.

    Both are None if the run has been removed.
    """
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
    """Encode a summary as a document of the index."""
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
    # The json module writes NaN so that it can be read again; the strict JSON of stored files does not.
    lines = (json.dumps(part, separators=(",", ":")).encode() for part in (shared, rest))
    return b"\n".join([*lines, packed])


def decode_summary(document: bytes) -> RunSummary:
    """Decode a document that `encode_summary` returned; any other document raises some exception."""
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
    vars(summary)["config_keys"] = keys  # sets the cached property, which is the same for all seeds
    return summary


def _unpack_layers(numbers: Iterator[float | None], count: int, names: Sequence[str] = ()) -> Iterator[Layer]:
    """Yield `count` layers, each with the next numbers under the given names."""
    for _ in range(count):
        yield dict(zip(names, islice(numbers, len(names)), strict=True))


@lru_cache(maxsize=4096)
def _parse_shared(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and identity, and `config_keys`; all seeds share the result, so do not mutate it."""
    common: dict[str, Any] = json.loads(text)
    return common, computation_keys(common["config"])


def _decode_entry(entry: IndexEntry | None) -> RunSummary | None:
    try:
        summary = None if entry is None else decode_summary(entry.document)
    except (ValueError, TypeError, AttributeError, LookupError, struct.error, RecursionError):
        return None  # not a document of ours although its checksum is valid: read the run's files instead
    return summary if summary and entry and summary.run_id == entry.run_id else None


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Disable garbage collection, which would take a third of the time; summaries have no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _report_slow_reading(results: Iterable[_ReadResult], total: int) -> Iterator[_ReadResult]:
    """Yield the results; if reading takes long, print the remaining time to stderr once."""
    begin, is_reported = time.monotonic(), False
    for done, result in enumerate(results, 1):
        yield result
        seconds = time.monotonic() - begin
        if not is_reported and seconds > PATIENCE and done < total:
            is_reported, seconds_left = True, seconds / done * (total - done)
            print(
                f"reading {total:,} runs that are not in the index: about {seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
