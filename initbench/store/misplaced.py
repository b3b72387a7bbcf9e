"""Runs that a store ignores because their directory was renamed, copied or nested."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from initbench.store.damaged_records import experiment_and_seed
from initbench.store.run_directory import RUN, read_record
from initbench.store.strict_json import dumps

MAX_DEPTH = 3
"""Levels below the root that are searched for nested runs."""
MAX_DIRECTORIES = 2_000
"""Maximum number of directories to search; a root may contain many other files."""
MAX_SENTENCES = 10
_HEAD_BYTES = 512
"""Bytes of a run.json that are read to find its run id, which is near the beginning."""


@dataclass(frozen=True)
class MisplacedRun:
    """A run in a directory where no command looks for it."""

    root: Path
    directory: Path
    run_id: str

    @property
    def is_nested(self) -> bool:
        """Whether the directory is deeper than one level below the root."""
        return self.directory.parent != self.root

    @property
    def is_duplicate(self) -> bool:
        """Whether the store also holds the run under its run id."""
        return (self.root / self.run_id).is_dir()

    @property
    def experiment(self) -> str:
        """Name of the experiment, taken from the run id."""
        called = experiment_and_seed(self.run_id)
        return self.run_id if called is None else called[0]

    def matches(self, patterns: Sequence[str]) -> bool:
        """Return whether one of `patterns` matches the run; without patterns every run matches."""
        return not patterns or any(map(self._matches, patterns))

    def _matches(self, pattern: str) -> bool:
        is_begun = len(pattern) > len(self.experiment) and self.run_id.startswith(pattern)
        names = (self.run_id, self.experiment, self.directory.name)
        return is_begun or any(pattern == name or fnmatchcase(name, pattern) for name in names)


def find_misplaced(root: Path) -> list[MisplacedRun]:
    """Return the runs below `root` that no command lists, sorted by directory.

    Hidden directories, links and levels deeper than MAX_DEPTH are not searched.
    """
    return sorted(_search(root), key=lambda run: run.directory)


def describe_misplaced(runs: Iterable[MisplacedRun]) -> list[str]:
    """Return messages that say what is wrong with misplaced runs and how to fix it.

    Nested runs of one directory share a message; there are at most MAX_SENTENCES of them, then a count.
    """
    sentences = []
    for (parent, is_nested), group in groupby(runs, key=lambda run: (run.directory.parent, run.is_nested)):
        members = list(group)
        if is_nested and all(run.directory.name == run.run_id for run in members):
            sentences.append(_nested_sentence(parent, members))
        else:
            sentences += map(_renamed_sentence, members)
    more = len(sentences) - MAX_SENTENCES
    return sentences[:MAX_SENTENCES] + ([f"and {more:,} more directories"] if more > 0 else [])


def _nested_sentence(parent: Path, runs: Sequence[MisplacedRun]) -> str:
    root = runs[0].root
    what = f"the run {runs[0].run_id}" if len(runs) == 1 else f"{len(runs):,} runs"
    name, source = parent.relative_to(root), shlex.quote(str(parent))
    command = f"initbench merge {source} --into {shlex.quote(str(root))}"
    return _inert(f"{name} contains {what}, not listed here: run `{command}` or use --runs-dir {source}")


def _renamed_sentence(run: MisplacedRun) -> str:
    name = run.directory.relative_to(run.root)
    if run.is_duplicate:
        return _inert(
            f"{name} is another copy of the run {run.run_id}, not listed here: move it out of {run.root}"
        )
    return _inert(
        f"{name} contains the run {run.run_id}, not listed here: rename it to {run.root / run.run_id}"
    )


def _inert(sentence: str) -> str:
    """Return the sentence with unprintable characters, which a terminal might interpret, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in sentence)


def _search(root: Path) -> Iterator[MisplacedRun]:
    waiting = [(root, 1)]
    searched = 0
    while waiting and searched < MAX_DIRECTORIES:
        parent, depth = waiting.pop()
        searched += 1
        for directory in _visible_directories(parent):
            if depth == 1 and _is_in_place(directory):
                continue
            record = read_record(directory) if _is_regular(directory / RUN) else None
            if record is None:
                waiting += [(directory, depth + 1)] if depth < MAX_DEPTH else []
            elif isinstance(run_id := record.get("run_id"), str) and (root / run_id) != directory:
                yield MisplacedRun(root, directory, run_id)


def _visible_directories(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            names = [e.name for e in entries if e.name[0] != "." and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [parent / name for name in names]


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_in_place(directory: Path) -> bool:
    """Return whether the directory is named after its run; only the beginning of run.json is read."""
    wanted = f'"run_id": {dumps(directory.name)}'.encode()
    try:
        descriptor = os.open(directory / RUN, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and wanted in os.read(descriptor, _HEAD_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
