"""Choose the runs that are trained together, so that all workers finish as early as possible."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.config.schema import ExperimentConfig
from initbench.pretrain.autoencoder import options_of
from initbench.runner.cost_model import estimated_memory_bytes, training_cost
from initbench.runner.run_identity import training_mode

R = TypeVar("R")

MAX_STACKED = {"cpu": 16, "cuda": 256}
"""Maximum number of runs in a cohort. On a CPU, larger cohorts exceed the caches (docs/how-it-works.md).
On a GPU, each run keeps a lock file open."""
SHARE_OF_MEMORY = 0.8
"""Share of GPU memory that a cohort may take by estimate."""
SERIAL_FRACTION = 0.4
"""Share of the time of a single run that stacked runs need only once.
Example: 8 stacked runs of an mlp take 8/1.5 times as long as one."""


@dataclass(frozen=True)
class WorkItem:
    """Missing runs of one program."""

    config: ExperimentConfig
    program: str
    missing: int
    most: int
    """Maximum number of runs in a batch."""


def work_item(config: ExperimentConfig, missing: int, device: torch.device) -> WorkItem:
    """Return the work item for this number of missing runs of one experiment."""
    return WorkItem(config, program_key(config), missing, max_cohort_size(config, device))


def program_key(config: ExperimentConfig) -> str:
    """Return a key that is equal for experiments whose runs can be trained as one cohort.

    Such experiments differ only in name, seeds and initialization. An experiment that pre-trains its nets, or
    loads weights or frozen layers, gets a key of its own.
    """
    computed = config.identity_keys()
    if isinstance(config.init.scheme, TransferOptions) or options_of(config.init.scheme) is not None:
        computed["name"] = config.name
    else:
        del computed["init"]
    return json.dumps(computed, sort_keys=True)


def merge_by_program(lots: Iterable[WorkItem]) -> list[WorkItem]:
    """Merge the work items of each program into one."""
    items: dict[str, WorkItem] = {}
    for lot in lots:
        same = items.setdefault(lot.program, replace(lot, missing=0))
        items[lot.program] = replace(same, missing=same.missing + lot.missing, most=min(same.most, lot.most))
    return list(items.values())


def max_cohort_size(config: ExperimentConfig, device: torch.device) -> int:
    """Return the maximum number of runs of an experiment that may be trained as one cohort."""
    if training_mode(config, device) != "vmap":
        return 1
    most = MAX_STACKED[device.type]
    if device.type != "cuda":
        return most
    memory = SHARE_OF_MEMORY * torch.cuda.get_device_properties(device).total_memory
    return max(1, min(most, int(memory / estimated_memory_bytes(config))))


def choose_cohort_sizes(lots: Sequence[WorkItem], workers: int) -> list[int]:
    """Return the batch size for each work item that lets the workers finish earliest.

    The function tries to cut every item into n = 1, 2, … pieces, up to `workers` − 1 more than the minimum,
    and estimates the total time from costs: a stacked batch of k runs takes (0.4 + 0.6 k) times as long as
    one run. Among equal times, the largest batches win.
    """

    def cut(pieces: int) -> tuple[int, ...]:
        return tuple(max(1, min(lot.most, math.ceil(lot.missing / pieces))) for lot in lots)

    costs = [training_cost(lot.config) for lot in lots]

    def seconds(sizes: tuple[int, ...]) -> float:
        groups = (
            costs[i] * stacked_cost(runs)
            for i, (lot, size) in enumerate(zip(lots, sizes, strict=True))
            for runs in _piece_sizes(lot.missing, size)
        )
        return makespan(groups, workers)

    least = max((math.ceil(lot.missing / lot.most) for lot in lots if lot.most > 1), default=1)
    # Thousands of numbers of pieces give the same few sizes, as no batch has more than `most` runs.
    candidates = dict.fromkeys([cut(pieces) for pieces in range(1, least + workers)])
    best = min(candidates, key=seconds)
    return list(best)


def makespan(times: Iterable[float], workers: int) -> float:
    """Return when the last worker finishes if each free worker takes the longest remaining task."""
    ends = [0.0] * workers
    for time in sorted(times, reverse=True):
        heapq.heapreplace(ends, ends[0] + time)
    return max(ends)


def group_by_step(runs: Iterable[R], step_of: Callable[[R], int], size: int) -> list[tuple[R, ...]]:
    """Return the runs in groups of at most `size`; all runs of a group are at the same step."""
    by_step: dict[int, list[R]] = {}
    for run in runs:
        by_step.setdefault(step_of(run), []).append(run)
    groups = [by_step[step] for step in sorted(by_step)]
    return [tuple(group[i : i + size]) for group in groups for i in range(0, len(group), size)]


def _piece_sizes(runs: int, size: int) -> list[int]:
    whole, rest = divmod(runs, size)
    return [size] * whole + [rest] * bool(rest)


def stacked_cost(runs: int) -> float:
    """Return the time of a stacked batch of runs, in times of one run."""
    return SERIAL_FRACTION + (1.0 - SERIAL_FRACTION) * runs
