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
from initbench.store.index import Index, IndexEntry, records_of, stamp_of
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
_Look = tuple[RunSummary | None, IndexEntry | None]


def read_facts(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    """The runs that `patterns` name (all of them when there are none), in the order of `Store.find`.

    A run that is removed meanwhile is left out. One that is damaged has the status "damaged", and the file
    and its fault in `error`. Raises as `Store.find` does.
    """
    with _without_collector():
        return _read_facts(store, patterns)


def _read_facts(store: Store, patterns: Sequence[str]) -> list[RunSummary]:
    index = Index(store.root, NAME, version())
    entries = index.entries()
    fresh = index.fresh(entries)
    run_ids = store.find(patterns, records_of(fresh))
    found = {run_id: facts for run_id in run_ids if (facts := _decoded(fresh.get(run_id)))}
    added: list[IndexEntry] = []
    try:
        missing = [run_id for run_id in run_ids if run_id not in found]
        with closing(parallel_map(partial(_read, store), missing)) as looks:
            for facts, entry in _told(looks, len(missing)):
                if facts is not None:
                    found[facts.run_id] = facts
                if entry is not None:
                    added.append(entry)
    finally:  # what has been read need not be read again, whatever ended it
        stale = entries.keys() - fresh.keys()
        if added or stale:
            index.update(added, stale)
    return attach_damaged_runs([found[run_id] for run_id in run_ids if run_id in found])


def version() -> str:
    """Hash of the code that the contents of the index depend on."""
    package = Path(initbench.__file__).parent
    digest = hashlib.sha256()
    for part in _MAKERS:
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _read(store: Store, run_id: str) -> _Look:
    """The facts as the run's files have them, and their entry where the run ended and stays as it is."""
    before = stamp_of(store.root, run_id)
    run = store.read_or_mark_damaged(run_id)
    if run is None:
        return None, None
    facts = summarise_or_mark_damaged(run)
    lasting = facts.is_complete and before is not None and before.is_settled
    if not lasting or before is None or before != stamp_of(store.root, run_id):
        return facts, None
    created = str(run.record.get("created"))
    return facts, IndexEntry(run_id, before.digest, created, facts.experiment, encoded(facts))


def encoded(facts: RunSummary) -> bytes:
    """The facts as a document of the index."""
    values = vars(facts)
    numbers: list[float | None] = [number for row in facts.evaluations for number in row]
    for layers in facts.layers.values():
        numbers += [number for layer in layers for number in layer.values()]
    missing = [i for i, number in enumerate(numbers) if number is None]
    packed = struct.pack(f"<{len(numbers)}d", *(0.0 if number is None else number for number in numbers))
    shared = {name: values[name] for name in _SHARED}
    kept = (name for name in RunSummary.__dataclass_fields__ if name not in _SHARED + _PACKED)
    forms = {moment: [len(layers), *map(list, layers[:1])] for moment, layers in facts.layers.items()}
    rest = [{name: values[name] for name in kept}, len(facts.evaluations), forms, missing]
    # Plain JSON of the standard library: unlike that of stored files it writes NaN so that it comes back.
    lines = (json.dumps(part, separators=(",", ":")).encode() for part in (shared, rest))
    return b"\n".join([*lines, packed])


def decoded(document: bytes) -> RunSummary:
    """The facts that `encoded` was given; some error for any other document."""
    shared, rest, packed = document.split(b"\n", 2)
    plain, evaluations, forms, missing = json.loads(rest)
    numbers: list[float | None] = list(struct.unpack(f"<{len(packed) // 8}d", packed))
    for i in missing:
        numbers[i] = None
    left = iter(numbers)
    rows = [list(islice(left, _COLUMNS)) for _ in range(evaluations)]
    layers = {moment: list(_layers(left, *form)) for moment, form in forms.items()}
    common, keys = _shared(shared)
    facts = RunSummary(**plain, **common, evaluations=rows, layers=layers)
    vars(facts)["config_keys"] = keys  # what the property would find, again for each seed
    return facts


def _layers(numbers: Iterator[float | None], count: int, names: Sequence[str] = ()) -> Iterator[Layer]:
    """So many layers of these statistics, in the order of `names`."""
    for _ in range(count):
        yield dict(zip(names, islice(numbers, len(names)), strict=True))


@lru_cache(maxsize=4096)
def _shared(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and identity, and `config_keys`: all seeds have them in common, and nobody changes them."""
    common: dict[str, Any] = json.loads(text)
    return common, computation_keys(common["config"])


def _decoded(entry: IndexEntry | None) -> RunSummary | None:
    try:
        facts = None if entry is None else decoded(entry.document)
    except (ValueError, TypeError, AttributeError, LookupError, struct.error, RecursionError):
        return None  # not of our making, its checksum notwithstanding: the run itself is asked
    return facts if facts and entry and facts.run_id == entry.run_id else None


@contextmanager
def _without_collector() -> Iterator[None]:
    """The facts have no cycles; looking for some among all their lists would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _told(looks: Iterable[_Look], total: int) -> Iterator[_Look]:
    """The same looks; one line on stderr where there are many that take long."""
    begin, told = time.monotonic(), False
    for done, look in enumerate(looks, 1):
        yield look
        seconds = time.monotonic() - begin
        if not told and seconds > PATIENCE and done < total:
            told, left = True, seconds / done * (total - done)
            print(
                f"reading {total:,} runs that are not in the index: about {left:.0f} s more",
                file=sys.stderr,
                flush=True,
            )
