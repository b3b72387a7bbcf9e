"""A cache of one small document per finished run, so that thousands of runs are not parsed again and again.

The run directories stay authoritative. An entry is used only while the run's directory and files have the
inodes, sizes and times that they had when the entry was made. An entry, or a whole file, that is damaged,
foreign or of another version is ignored. A process that cannot write the file works without it. This module
does not interpret the documents.

    line 1        {"schema": "initbench.index/1", "version": …}
    each entry    length and CRC-32 of the rest of the entry (4 bytes each, little-endian);
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
"""Seconds that a run must be unchanged before it is indexed: the coarsest resolution of file timestamps."""

_FILES = (MANIFEST, *LISTED)
_FRAME = struct.Struct("<II")


@dataclass(frozen=True)
class RunFingerprint:
    """A fingerprint of a run's files, which changes when the run changes."""

    digest: str
    """Hash of inode, size and times of the run's directory and of each of its files, or of their absence."""
    newest: int
    """Latest of these times, in nanoseconds."""

    @property
    def is_settled(self) -> bool:
        """Whether any later change will alter the fingerprint.

        Just after a change it might not: a file may change twice within one tick of the file system's clock.
        """
        return time.time_ns() - self.newest > SETTLED_SECONDS * 1e9


@dataclass(frozen=True)
class IndexEntry:
    """The cached document of one run, with the keys needed to find it."""

    run_id: str
    stamp: str
    """`RunFingerprint.digest` of the run when the document was made."""
    created: str
    experiment: str
    document: bytes

    @property
    def record(self) -> Record:
        """Keys of run.json needed to match patterns and to sort runs."""
        return {"run_id": self.run_id, "created": self.created, "experiment": self.experiment}


class Index:
    """The file `.<name>.index` in `root`; it is not opened or created before a method is called.

    `version` identifies the code that writes and reads the documents: an index of another version is
    ignored. No method raises OSError or StoreError.
    """

    def __init__(self, root: Path, name: str, version: str) -> None:
        self.path = root / f".{name}.index"
        self._lock = root / f".{name}.index.lock"
        self._header = json.dumps({"schema": SCHEMA, "version": version}).encode() + b"\n"

    def entries(self) -> dict[str, IndexEntry]:
        """Return every readable entry by run id, whether fresh or stale."""
        return {
            entry.run_id: entry for body in _unpack_frames(self._content()) if (entry := _parse_entry(body))
        }

    def fresh(self, entries: Mapping[str, IndexEntry]) -> dict[str, IndexEntry]:
        """Return the entries whose runs have not changed since they were indexed."""
        root = self.path.parent
        return {
            run_id: entry
            for run_id, entry in entries.items()
            if (stamp := fingerprint_of(root, run_id)) is not None and stamp.digest == entry.stamp
        }

    def update(self, added: Iterable[IndexEntry], dropped: Collection[str]) -> None:
        """Add the entries `added` and remove the runs `dropped`; entries of other processes are kept.

        Does nothing while another process writes the index, or if the file cannot be written.
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
        """Return the contents after the header, or b"" if the file is missing or has another header."""
        try:
            # O_NONBLOCK: the path may be a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return file.read() if plain and file.read(len(self._header)) == self._header else b""
        except (OSError, MemoryError):
            return b""

    def _tidy(self) -> None:
        """Remove temporary files of killed writers; the caller holds the lock, so no other process writes."""
        for path in self.path.parent.glob(f".{self.path.name}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def fingerprint_of(root: Path, run_id: str) -> RunFingerprint | None:
    """Return the fingerprint of a run in its live directory, or None if that does not exist."""
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
    """Yield the bodies of the frames; damaged frames are skipped, and everything after a truncated one."""
    start = 0
    while start + _FRAME.size <= len(content):
        size, checksum = _FRAME.unpack_from(content, start)
        start += _FRAME.size
        body = content[start : start + size]
        start += size
        if len(body) == size and zlib.crc32(body) == checksum:
            yield body


def _parse_entry(body: bytes) -> IndexEntry | None:
    """Return the entry in a frame, or None if its header is not that of an entry."""
    head, _, document = body.partition(b"\n")
    try:
        run_id, stamp, created, experiment = json.loads(head)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = all(isinstance(word, str) for word in (run_id, stamp, created, experiment)) and is_run_id(run_id)
    return IndexEntry(run_id, stamp, created, experiment, document) if fits else None


def records_of(entries: Mapping[str, IndexEntry]) -> dict[str, Record]:
    """Return the `record` of each entry by run id."""
    return {run_id: entry.record for run_id, entry in entries.items()}
