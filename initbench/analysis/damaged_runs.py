"""Damaged runs in a comparison: their remaining fields, and the rows that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.store.damaged_records import experiment_and_seed
from initbench.store.record_schema import find_defect
from initbench.store.run_directory import RUN
from initbench.store.store import StoredRun

DAMAGED = "damaged"
_DISPENSABLE = (
    *("seed", "final", "diverged", "diagnosis", "dataset_requested", "device", "created", "finished"),
    *("timings", "cohort", "machine", "parameters", "threads", "samples", "pretraining", "transfer"),
    *("versions", "git", "plugins"),
)
"""Keys of run.json that do not determine the row of a run."""


def summarise_or_mark_damaged(run: StoredRun) -> RunSummary:
    """Return the summary of a run; a run whose content is invalid is marked as damaged.

    `run` is a result of `Store.read_or_mark_damaged`.
    """
    if run.record["status"] != DAMAGED:
        try:
            return summarise_run(run)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            problem = f"{RUN} is damaged: its content is invalid ({type(error).__name__}: {error})"
            run = StoredRun(run.run_id, {**run.record, "status": DAMAGED, "error": problem}, [], [])
    try:
        return summarise_run(StoredRun(run.run_id, _without_defects(run.run_id, run.record), [], []))
    except (TypeError, ValueError, AttributeError, LookupError):
        return _unplaced_summary(run.run_id, str(run.record["error"]))


def _without_defects(run_id: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with its defects replaced; raise ValueError if one affects the row of the run."""
    _, seed = experiment_and_seed(run_id) or ("", -1)
    harmless = {**dict.fromkeys(_DISPENSABLE), "seed": seed, "dataset_requested": "", "device": ""}
    repaired = {**record, "final": None, "status": DAMAGED}
    while problem := find_defect(repaired):
        key = re.split(r"[.\[ ]", problem)[0]
        if key not in harmless:
            raise ValueError(problem)
        repaired[key] = harmless.pop(key)
    return repaired


def _unplaced_summary(run_id: str, error: str) -> RunSummary:
    experiment, seed = experiment_and_seed(run_id) or (run_id, -1)
    unknown = {"experiment": experiment, "seed": seed, "status": DAMAGED, "config": {}, "error": error}
    return replace(summarise_run(StoredRun(run_id, unknown, [], [])), config={})


def attach_damaged_runs(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs, with damaged runs without a config attached to the runs of their experiment.

    That requires that all other runs of the experiment share one arm. A run that cannot be attached is
    returned as it is.
    """
    if all(run.is_placed for run in runs):
        return list(runs)
    arms_by_experiment: defaultdict[str, dict[str, RunSummary]] = defaultdict(dict)
    for run in runs:
        if run.is_placed:
            arms_by_experiment[run.experiment].setdefault(run.arm, run)
    return [
        run
        if run.is_placed
        else _attach_to_experiment(run, list(arms_by_experiment[run.experiment].values()))
        for run in runs
    ]


def _attach_to_experiment(run: RunSummary, arms: Sequence[RunSummary]) -> RunSummary:
    if len(arms) != 1:
        return run
    sibling = arms[0]
    return replace(
        run,
        arm=sibling.arm,
        dataset=sibling.dataset,
        dataset_requested=sibling.dataset_requested,
        fingerprint=sibling.fingerprint,
        config=sibling.config,
        identity=sibling.identity,
        steps=sibling.steps,
        batch_size=sibling.batch_size,
    )


def damage_messages(runs: Sequence[RunSummary], root: Path) -> list[str]:
    """Return a sentence for each damaged run that names the file and the problem."""
    messages = []
    for run in runs:
        if run.status == DAMAGED:
            problem = (run.error or "").replace(f"{root / run.run_id}/", "")
            messages.append(f"{run.run_id}: {problem}")
    return messages
