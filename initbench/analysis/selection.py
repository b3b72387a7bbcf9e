"""Which runs a comparison is about, in the store and in the earlier state that it is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from initbench.analysis.completeness import missing_experiments
from initbench.analysis.config_keys import KeyFilter, conditions
from initbench.analysis.load_runs import read_facts
from initbench.analysis.run_summary import RunSummary, flatten
from initbench.errors import UsageError
from initbench.store import sweep_index
from initbench.store.run_directory import Record
from initbench.store.run_patterns import match
from initbench.store.store import Store

_CODE = "with."
"""What two states may differ in, for that is the question: the code, torch, the device."""
_OF_THE_ID = ("experiment", "seed", "status")
"""Known of every run, also of one that no longer says what it computed."""


@dataclass(frozen=True)
class Selection:
    """The runs of a store that patterns name and that meet conditions."""

    store: Store
    patterns: Sequence[str] = ()
    where: Sequence[str] = ()

    @cached_property
    def runs(self) -> list[RunSummary]:
        """The runs, damaged ones included; none where there are none at all.

        Raises UsageError for a pattern that matches nothing, a key that no run has, and where no run meets
        the conditions.
        """
        found = self._met(self._named, self._conditions)
        if self._named and not found:
            asked = " and ".join(f"--where {text}" for text in self.where)
            raise UsageError(f"none of {len(self._named):,} runs in {self.store.root} meets {asked}")
        return found

    def earlier_runs(self, root: Path) -> list[RunSummary]:
        """The same choice among the runs of an earlier state; what matches nothing there is no mistake.

        A run of an experiment and a seed that are chosen here belongs to it as well, for ids differ with the
        code. Raises UsageError where there are no runs at all.
        """
        every = read_facts(Store(root), [])
        if not every:
            raise UsageError(f"--against: there are no runs in {root}")
        experiments = {run.run_id: run.experiment for run in every}
        named = {run_id for pattern in self.patterns for run_id in _matching(pattern, experiments, root)}
        here = {(run.experiment, run.seed) for run in self.runs}
        chosen = [
            run
            for run in every
            if not self.patterns or run.run_id in named or (run.experiment, run.seed) in here
        ]
        return self._met(chosen, self._for_both)

    def has_earlier(self, known: Mapping[str, Any]) -> bool:
        """Whether a row of an earlier comparison is chosen, as far as what is `known` of it tells."""
        name = known.get("experiment")
        here = {run.experiment for run in self.runs}
        is_named = name is None or name in here or any(fnmatchcase(str(name), p) for p in self.patterns)
        keys = flatten(known)
        met = all(where.accepts(keys) for where in self._for_both if where.key in keys)
        return met and (is_named or not self.patterns)

    @cached_property
    def missing(self) -> list[str]:
        """A sentence for each sweep among the patterns that lists experiments without any stored run."""
        present = {run.run_id for run in self._named}
        experiments = {run.experiment for run in self._named}
        known = set(sweep_index.names(self.store.root)) if self.patterns else set()
        sentences = []
        for name in dict.fromkeys(self.patterns):
            if name in known and name not in experiments:
                points = sweep_index.read(self.store.root, name).values()
                listed = {point["experiment"]: point["runs"] for point in points if self._is_asked(point)}
                sentences += missing_experiments(listed, present, name)
        return sentences

    def _is_asked(self, point: Record) -> bool:
        """Whether the conditions may hold for the runs of a sweep's point, by the keys that set it apart."""
        keys = point["keys"]
        return all(where.accepts(keys) for where in self._conditions if where.key in keys)

    @cached_property
    def _named(self) -> list[RunSummary]:
        return read_facts(self.store, self.patterns)

    @cached_property
    def _conditions(self) -> list[KeyFilter]:
        return conditions(self.where, self._named)

    @property
    def _for_both(self) -> list[KeyFilter]:
        return [where for where in self._conditions if not where.key.startswith(_CODE)]

    def _met(self, runs: Sequence[RunSummary], asked: Sequence[KeyFilter]) -> list[RunSummary]:
        """Of a run that no longer says what it computed only that is asked which it still knows."""
        of_the_id = [where for where in asked if where.key in _OF_THE_ID]
        return [run for run in runs if all(w.holds(run) for w in (asked if run.is_placed else of_the_id))]


@dataclass(frozen=True)
class ReadSelection(Selection):
    """Runs that have been read already."""

    facts: Sequence[RunSummary] = ()
    without_runs: Sequence[str] = ()
    """Sentences about experiments of which no run is stored."""

    @cached_property
    def runs(self) -> list[RunSummary]:
        """The runs, whatever the patterns are."""
        return list(self.facts)

    @cached_property
    def missing(self) -> list[str]:
        """The sentences about experiments without any run."""
        return list(self.without_runs)


def _matching(pattern: str, experiments: Mapping[str, str], root: Path) -> list[str]:
    try:
        return match(pattern, experiments, root)
    except UsageError:
        return []
