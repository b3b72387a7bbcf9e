"""Selection of the runs to compare, in a store and in the reference."""

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
from initbench.analysis.run_summary import RunSummary, flatten_keys
from initbench.errors import UsageError
from initbench.store import sweep_index
from initbench.store.run_directory import Record
from initbench.store.run_patterns import matching_run_ids
from initbench.store.store import Store

_CODE = "with."
"""Prefix of the keys in which a run may differ from its reference: the code, torch, the device."""
_OF_THE_ID = ("experiment", "seed", "status")
"""Keys that are known of every run, even if its config is lost."""


@dataclass(frozen=True)
class Selection:
    """The runs of a store that match the patterns and the `--where` conditions."""

    store: Store
    patterns: Sequence[str] = ()
    where: Sequence[str] = ()

    @cached_property
    def runs(self) -> list[RunSummary]:
        """Selected runs, including damaged ones; empty if the store is empty.

        Raises:
            UsageError: A pattern matches nothing, no run has a key, or no run meets the conditions.
        """
        runs = self._apply_filters(self._matched_runs, self._filters)
        if self._matched_runs and not runs:
            conditions = " and ".join(f"--where {text}" for text in self.where)
            raise UsageError(
                f"none of {len(self._matched_runs):,} runs in {self.store.root} matches {conditions}"
            )
        return runs

    def reference_runs(self, root: Path) -> list[RunSummary]:
        """Return the selected runs of an earlier store; a pattern that matches nothing there is not an error.

        A run with the experiment and the seed of a run selected here is selected as well, since run ids
        depend on the code.

        Raises:
            UsageError: The earlier store is empty.
        """
        all_runs = load_run_summaries(Store(root), [])
        if not all_runs:
            raise UsageError(f"--against: no runs in {root}")
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
        """Return whether a row of a reference document is selected, judged by the keys that it has."""
        name = keys_of_row.get("experiment")
        experiments = {run.experiment for run in self.runs}
        is_named = (
            name is None or name in experiments or any(fnmatchcase(str(name), p) for p in self.patterns)
        )
        keys = flatten_keys(keys_of_row)
        met = all(where.matches_keys(keys) for where in self._config_filters if where.key in keys)
        return met and (is_named or not self.patterns)

    @cached_property
    def missing(self) -> list[str]:
        """Sentences about sweeps among the patterns that list experiments without a stored run."""
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
        """Return whether the runs of a sweep's point may meet the conditions, judged by the point's keys."""
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
        """Return the runs that meet the conditions; a run without a config is filtered by its id only."""
        of_the_id = [key_filter for key_filter in filters if key_filter.key in _OF_THE_ID]
        return [
            run
            for run in runs
            if all(key_filter.matches_run(run) for key_filter in (filters if run.is_placed else of_the_id))
        ]


@dataclass(frozen=True)
class PreloadedSelection(Selection):
    """A selection of runs that are already loaded; patterns and conditions are not applied to them."""

    summaries: Sequence[RunSummary] = ()
    missing_experiment_messages: Sequence[str] = ()
    """Sentences about experiments without a stored run."""

    @cached_property
    def runs(self) -> list[RunSummary]:
        """Loaded runs."""
        return list(self.summaries)

    @cached_property
    def missing(self) -> list[str]:
        """Sentences about experiments without a stored run."""
        return list(self.missing_experiment_messages)


def _matching_run_ids(pattern: str, experiments: Mapping[str, str], root: Path) -> list[str]:
    try:
        return matching_run_ids(pattern, experiments, root)
    except UsageError:
        return []
