"""Which runs a comparison is about, in the store and in the earlier state that it is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from initbench.analysis.completeness import missing_experiments
from initbench.analysis.config_keys import KeyFilter, parse_filters
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.run_summary import RunSummary, flatten
from initbench.errors import UsageError
from initbench.store import sweep_index
from initbench.store.run_directory import Record
from initbench.store.run_patterns import matching_run_ids
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
        runs = self._apply_filters(self._matched_runs, self._filters)
        if self._matched_runs and not runs:
            conditions = " and ".join(f"--where {text}" for text in self.where)
            raise UsageError(
                f"none of {len(self._matched_runs):,} runs in {self.store.root} meets {conditions}"
            )
        return runs

    def reference_runs(self, root: Path) -> list[RunSummary]:
        """The same choice among the runs of an earlier state; what matches nothing there is no mistake.

        A run of an experiment and a seed that are chosen here belongs to it as well, for ids differ with the
        code. Raises UsageError where there are no runs at all.
        """
        all_runs = load_run_summaries(Store(root), [])
        if not all_runs:
            raise UsageError(f"--against: there are no runs in {root}")
        experiments = {run.run_id: run.experiment for run in all_runs}
        matched_ids = {
            run_id for pattern in self.patterns for run_id in _matching_run_ids(pattern, experiments, root)
        }
        selected = {(run.experiment, run.seed) for run in self.runs}
        runs = [
            run
            for run in all_runs
            if not self.patterns or run.run_id in matched_ids or (run.experiment, run.seed) in selected
        ]
        return self._apply_filters(runs, self._config_filters)

    def selects_document_row(self, keys_of_row: Mapping[str, Any]) -> bool:
        """Whether a row of an earlier comparison is chosen, as far as what is `known` of it tells."""
        name = keys_of_row.get("experiment")
        experiments = {run.experiment for run in self.runs}
        is_named = (
            name is None or name in experiments or any(fnmatchcase(str(name), p) for p in self.patterns)
        )
        keys = flatten(keys_of_row)
        met = all(where.matches_keys(keys) for where in self._config_filters if where.key in keys)
        return met and (is_named or not self.patterns)

    @cached_property
    def missing(self) -> list[str]:
        """A sentence for each sweep among the patterns that lists experiments without any stored run."""
        present = {run.run_id for run in self._matched_runs}
        experiments = {run.experiment for run in self._matched_runs}
        sweeps = set(sweep_index.sweep_names(self.store.root)) if self.patterns else set()
        sentences = []
        for name in dict.fromkeys(self.patterns):
            if name in sweeps and name not in experiments:
                points = sweep_index.read_points(self.store.root, name).values()
                listed = {
                    point["experiment"]: point["runs"] for point in points if self._may_match_filters(point)
                }
                sentences += missing_experiments(listed, present, name)
        return sentences

    def _may_match_filters(self, point: Record) -> bool:
        """Whether the conditions may hold for the runs of a sweep's point, by the keys that set it apart."""
        keys = point["keys"]
        return all(where.matches_keys(keys) for where in self._filters if where.key in keys)

    @cached_property
    def _matched_runs(self) -> list[RunSummary]:
        return load_run_summaries(self.store, self.patterns)

    @cached_property
    def _filters(self) -> list[KeyFilter]:
        return parse_filters(self.where, self._matched_runs)

    @property
    def _config_filters(self) -> list[KeyFilter]:
        return [where for where in self._filters if not where.key.startswith(_CODE)]

    def _apply_filters(self, runs: Sequence[RunSummary], filters: Sequence[KeyFilter]) -> list[RunSummary]:
        """Of a run that no longer says what it computed only that is asked which it still knows."""
        of_the_id = [key_filter for key_filter in filters if key_filter.key in _OF_THE_ID]
        return [
            run
            for run in runs
            if all(key_filter.matches_run(run) for key_filter in (filters if run.is_placed else of_the_id))
        ]


@dataclass(frozen=True)
class PreloadedSelection(Selection):
    """Runs that have been read already."""

    summaries: Sequence[RunSummary] = ()
    missing_experiment_messages: Sequence[str] = ()
    """Sentences about experiments of which no run is stored."""

    @cached_property
    def runs(self) -> list[RunSummary]:
        """The runs, whatever the patterns are."""
        return list(self.summaries)

    @cached_property
    def missing(self) -> list[str]:
        """The sentences about experiments without any run."""
        return list(self.missing_experiment_messages)


def _matching_run_ids(pattern: str, experiments: Mapping[str, str], root: Path) -> list[str]:
    try:
        return matching_run_ids(pattern, experiments, root)
    except UsageError:
        return []
