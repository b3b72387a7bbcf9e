"""A cache of one small document per finished run, so that thousands of runs are not parsed again and again.

It is never the truth. An entry counts only while the run's directory and files are, by their inodes, sizes
and times, the ones it was made of; an entry, or a whole file, that is damaged, foreign or of another
version is as good as none. Whoever cannot write it does without. Nothing here knows what the documents mean.

    line 1        {"schema": "initbench.index/1", "version": …}
    each entry    length and CRC-32 of what follows (4 bytes each, little-endian);
                  [run_id, stamp, created, experiment] as a line of JSON; the document
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from initbench.errors import StoreError
from initbench.store.files import TEMPORARY, write_atomic
from initbench.store.locks import acquire_lock
from initbench.store.manifest import MANIFEST
from initbench.store.run_directory import LISTED, Record, is_run_id

SCHEMA = "initbench.index/1"
SETTLED_SECONDS = 2.0
"""Seconds that a run has to be unchanged before it is indexed: the coarsest clock of a file system in use."""

_FILES = (MANIFEST, *LISTED)
_FRAME = struct.Struct("<II")


@dataclass(frozen=True)
class RunFingerprint:
    """What changes when a run changes."""

    digest: str
    """Of the inode, size and times of the run's directory and of each of its files, or of its absence."""
    newest: int
    """The last of the times, in nanoseconds."""

    @property
    def is_settled(self) -> bool:
        """Whether a change from now on is bound to show: a file may change twice at one tick of the clock."""
        return time.time_ns() - self.newest > SETTLED_SECONDS * 1e9


@dataclass(frozen=True)
class IndexEntry:
    """What is kept of a run."""

    run_id: str
    stamp: str
    """`Stamp.digest` of the run that the document was made of."""
    created: str
    experiment: str
    document: bytes

    @property
    def record(self) -> Record:
        """So much of run.json as tells which runs a pattern means, and their order."""
        return {"run_id": self.run_id, "created": self.created, "experiment": self.experiment}


class Index:
    """The file `.<name>.index` among the runs of `root`; nothing is read or made before a method is called.

    `version` names the code that makes and reads the documents: an index of another version is not read.
    No method raises OSError or StoreError.
    """

    def __init__(self, root: Path, name: str, version: str) -> None:
        self.path = root / f".{name}.index"
        self._lock = root / f".{name}.index.lock"
        self._header = json.dumps({"schema": SCHEMA, "version": version}).encode() + b"\n"

    def entries(self) -> dict[str, IndexEntry]:
        """Every entry that can be read, fresh or not, by run id."""
        return {
            entry.run_id: entry for body in _unpack_frames(self._content()) if (entry := _parse_entry(body))
        }

    def fresh(self, entries: Mapping[str, IndexEntry]) -> dict[str, IndexEntry]:
        """Those of `entries` whose runs are as they were when they were indexed."""
        root = self.path.parent
        return {
            run_id: entry
            for run_id, entry in entries.items()
            if (stamp := fingerprint_of(root, run_id)) is not None and stamp.digest == entry.stamp
        }

    def update(self, added: Iterable[IndexEntry], dropped: Collection[str]) -> None:
        """Put `added` in and take the runs `dropped` out; what another process has put in stays.

        While another process writes it, or where the system refuses, nothing is done.
        """
        with suppress(OSError, StoreError):
            lock = acquire_lock(self._lock)
            if lock is None:
                return
            try:
                self._tidy()
                entries = {run_id: entry for run_id, entry in self.entries().items() if run_id not in dropped}
                entries |= {entry.run_id: entry for entry in added}
                write_atomic(self.path, b"".join([self._header, *map(_pack_entry, entries.values())]))
            finally:
                lock.release()

    def _content(self) -> bytes:
        """What stands below a header of ours; nothing where there is none."""
        try:
            # A pipe in its place must not keep us waiting.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return file.read() if plain and file.read(len(self._header)) == self._header else b""
        except (OSError, MemoryError):
            return b""

    def _tidy(self) -> None:
        """Remove what a writer left that was killed; called under the lock, so that there is no other."""
        for path in self.path.parent.glob(f".{self.path.name}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def fingerprint_of(root: Path, run_id: str) -> RunFingerprint | None:
    """The stamp of the run in its own place, or None when it is not there."""
    directory = f"{root}/{run_id}"
    try:
        first = os.stat(directory)  # noqa: PTH116 - a Path takes several times as long
    except (OSError, ValueError):
        return None
    looks = [first, *(_stat_or_none(f"{directory}/{name}") for name in _FILES)]
    there = [look for look in looks if look is not None]
    stats = [look and (look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns) for look in looks]
    newest = max(max(look.st_mtime_ns, look.st_ctime_ns) for look in there)
    return RunFingerprint(hashlib.blake2b(repr(stats).encode(), digest_size=12).hexdigest(), newest)


def _stat_or_none(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None


def _pack_entry(entry: IndexEntry) -> bytes:
    head = json.dumps([entry.run_id, entry.stamp, entry.created, entry.experiment])
    body = head.encode() + b"\n" + entry.document
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _unpack_frames(content: bytes) -> Iterator[bytes]:
    """What is in the frames; one that is damaged is left out, and so is all that follows a torn one."""
    start = 0
    while start + _FRAME.size <= len(content):
        size, checksum = _FRAME.unpack_from(content, start)
        start += _FRAME.size
        body = content[start : start + size]
        start += size
        if len(body) == size and zlib.crc32(body) == checksum:
            yield body


def _parse_entry(body: bytes) -> IndexEntry | None:
    """The entry in a frame, or None for one that no index has written."""
    head, _, document = body.partition(b"\n")
    try:
        run_id, stamp, created, experiment = json.loads(head)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = all(isinstance(word, str) for word in (run_id, stamp, created, experiment)) and is_run_id(run_id)
    return IndexEntry(run_id, stamp, created, experiment, document) if fits else None


def records_of(entries: Mapping[str, IndexEntry]) -> dict[str, Record]:
    """`Entry.record` of each."""
    return {run_id: entry.record for run_id, entry in entries.items()}
