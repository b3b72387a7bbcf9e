"""Runs that a comparison lacks: unfinished runs, and seeds and experiments that are not stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from initbench.analysis.damaged_runs import DAMAGED
from initbench.analysis.run_summary import RunSummary

MAX_LISTED = 5
"""Maximum number of runs or seeds that are listed in a sentence."""
MAX_SEEDS = 100_000
"""Maximum number of seeds of an experiment that are searched for."""


def unfinished_runs(runs: Sequence[RunSummary]) -> list[str]:
    """Return a sentence for each experiment with runs that did not finish; damaged runs are ignored."""
    by_experiment: defaultdict[str, list[RunSummary]] = defaultdict(list)
    for run in runs:
        by_experiment[run.experiment].append(run)
    sentences = []
    for experiment, group in by_experiment.items():
        lacking = [run for run in group if not run.is_complete and run.status != DAMAGED]
        waiting = [f"{run.run_id} {run.status}" for run in lacking]
        if waiting:
            count = f"{len(waiting)} of {len(group)} runs of {experiment} did not finish"
            sentences.append(
                f"{count}: {_join_names(waiting)}; train them, or remove them with `initbench rm`"
            )
    return sentences


def missing_seeds(runs: Sequence[RunSummary], stored: Sequence[RunSummary]) -> list[str]:
    """Return a sentence for each experiment with planned seeds that are not stored.

    Args:
        runs: The runs that are compared; the config of each lists the planned seeds of its experiment.
        stored: All runs of the store.
    """
    planned: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for run in runs:
        planned[run.experiment, run.arm].update(_planned_seeds(run))
    present: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for run in (*stored, *runs):
        present[run.experiment, run.arm].add(run.seed)
    sentences = []
    for variant, seeds in planned.items():
        if missing := sorted(seeds - present[variant]):
            listed = _join_names([str(seed) for seed in missing])
            count = f"{len(missing)} of {len(seeds)} seeds of {variant[0]} are not stored"
            sentences.append(f"{count}: {listed}; train them with the same `initbench` command")
    return sentences


def missing_experiments(
    experiments: Mapping[str, Collection[str]], stored: Collection[str], sweep: str = ""
) -> list[str]:
    """Return a sentence that lists the experiments without any stored run; empty if there are none.

    Args:
        experiments: The run ids of each experiment; empty if they are not known yet.
        stored: The ids of the stored runs.
        sweep: The sweep that lists the experiments, if one does.
    """
    present = set(stored)
    missing = [name for name, run_ids in experiments.items() if present.isdisjoint(run_ids)]
    if not missing:
        return []
    verb = "has" if len(missing) == 1 else "have"
    where = f" of the sweep {sweep}" if sweep else ""
    count = f"{len(missing)} of {len(experiments)} experiments{where} {verb} no stored run"
    return [f"{count}: {_join_names(missing)}; train them with the same `initbench` command"]


def _planned_seeds(run: RunSummary) -> set[int]:
    """Return the seeds that the stored config lists; empty if the seed of the run is not among them."""
    seeds = run.config.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(min(seeds, MAX_SEEDS)))
    if not isinstance(seeds, list) or run.seed not in seeds:
        return set()
    return {seed for seed in seeds if isinstance(seed, int)}


def _join_names(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
