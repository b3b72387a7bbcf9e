"""How long the missing runs of a sweep are likely to take, and how much memory, before they run."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.locate import resolve
from initbench.data.preprocessing import PreparedData
from initbench.runner.batching import WorkItem, choose_cohort_sizes, merge_by_program, work_item
from initbench.runner.cost_model import estimated_memory_bytes, measurement_cost, total_updates, training_cost
from initbench.runner.dataset_cache import Datasets, size_of
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.runner.run_identity import training_mode
from initbench.runner.worker_count import START_SECONDS, available_cores, time_one_update
from initbench.store.run_directory import Record
from initbench.study.run_sweep import SweepResult

MAX_TIMED_NETS = 3
"""Kinds of net that are timed at most; the others are reckoned from their cost."""
PROCESS_BYTES = 400e6
"""Of a process that has loaded torch, before any net is made (350 to 400 MB on Linux)."""
_BUDGET = ("steps", "epochs", "lr", "lr_factors", "schedule", "warmup_steps", "weight_decay", "eval_every")


@dataclass(frozen=True)
class Forecast:
    """What lies ahead of a sweep."""

    total: int
    stored: int
    """Runs that are left as they are."""
    later: int
    """Runs that the limit leaves for another time."""
    cohorts: int
    """Of the missing ones."""
    workers: int
    seconds: float
    """By the clock, until all are done."""
    by_earlier: int
    """Missing runs whose time is that of earlier runs of the same kind of net; others were reckoned."""
    bytes: float
    """Memory of each worker, at the most."""

    @property
    def missing(self) -> int:
        """Runs that are to be trained."""
        return self.total - self.stored - self.later


def forecast(found: SweepResult, workplace: RunContext, budget: RunLimits) -> Forecast:
    """What the runs to be trained take, from stored runs of the same kind of net, else from a few updates.

    Raises DataError where the data are not there.
    """
    whole = [one for one in _todo(found, workplace, budget) if one.missing]
    to_train = sum(one.missing for one in whole)
    todo = merge_by_program(whole if budget.limit is None else _limited(whole, budget.limit))
    known = _recorded_times(workplace.store.records(), {_kind(one.config.resolved()) for one in todo})
    seconds, rest = 0.0, []
    for one in todo:
        kind = _kind(one.config.resolved())
        if kind in known:
            beside, each = known[kind]
            seconds += one.missing * (beside + each * total_updates(one.config))
        else:
            rest.append(one)
    bundles = _Bundles(workplace)
    if rest:
        pace = _timed_cost(rest, workplace, bundles)
        seconds += sum(one.missing * training_cost(one.config) * pace for one in rest)
    missing = sum(one.missing for one in todo)
    workers = max(1, min(_workers(workplace), missing))
    together = choose_cohort_sizes(todo, workers)
    return Forecast(
        total=found.total,
        stored=found.total - to_train,
        later=to_train - missing,
        cohorts=sum(math.ceil(one.missing / size) for one, size in zip(todo, together, strict=True)),
        workers=workers,
        seconds=seconds / workers + (START_SECONDS if workers > 1 else 0.0),
        by_earlier=missing - sum(one.missing for one in rest),
        bytes=_bytes(todo, together, bundles),
    )


def _todo(found: SweepResult, workplace: RunContext, budget: RunLimits) -> Iterator[WorkItem]:
    """What there is to train, in the order in which it is taken up."""
    for point in found.points:
        ids = iter(point.tuning_ids)  # of each candidate in turn
        for candidate in point.point.candidates if point.tuning_ids else ():
            missing = found.to_train(islice(ids, len(candidate.seed_list)), budget)
            yield work_item(candidate, missing, workplace.device)
    for point in found.points:
        config = point.point.config
        seeds = len(config.seed_list)
        missing = seeds if point.config is None else found.to_train(point.run_ids, budget)
        yield work_item(config, missing, workplace.device)


def _limited(lots: Sequence[WorkItem], limit: int) -> Iterator[WorkItem]:
    """The first of these runs, so many of them."""
    for lot in lots:
        if limit:
            taken = min(limit, lot.missing)
            limit -= taken
            yield replace(lot, missing=taken)


def _workers(workplace: RunContext) -> int:
    on_cpu = workplace.device.type == "cpu"
    return workplace.workers or (available_cores() if on_cpu else torch.cuda.device_count())


class _Bundles:
    """The data of experiments."""

    def __init__(self, workplace: RunContext) -> None:
        self._workplace, self._datasets = workplace, Datasets()

    def of(self, config: ExperimentConfig) -> PreparedData:
        """The data of an experiment."""
        place = self._workplace
        return self._datasets.of(resolve(config.data, place.source), config.data, place.device)


def _kind(config: Mapping[str, Any]) -> str:
    """What runs share that take about as long: all but the init, the budget and the learning rate."""
    train = {key: value for key, value in (config.get("train") or {}).items() if key not in _BUDGET}
    parts = [config.get("model"), (config.get("data") or {}).get("name"), train, config.get("probe")]
    return json.dumps(parts, sort_keys=True)


def _recorded_times(records: Iterable[Record], kinds: set[str]) -> dict[str, tuple[float, float]]:
    """By kind of net, the seconds of a run beside its updates, and those of an update."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        timings, steps = record.get("timings") or {}, record.get("steps")
        if (
            record["status"] == "finished"
            and steps
            and timings
            and (kind := _kind(record["config"])) in kinds
        ):
            share = 1.0 / max(1, int(record.get("cohort") or 1))
            beside = float(timings["total"]) - float(timings["train"])
            found[kind].append((beside * share, float(timings["train"]) * share / steps))
    return {kind: (median(a for a, _ in all_), median(b for _, b in all_)) for kind, all_ in found.items()}


def _timed_cost(lots: Sequence[WorkItem], workplace: RunContext, bundles: _Bundles) -> float:
    """Seconds for a unit of cost, from a few updates of the costliest kinds of net."""
    kinds = {
        _kind(lot.config.resolved()): lot for lot in sorted(lots, key=lambda lot: training_cost(lot.config))
    }
    paces = []
    for lot in list(kinds.values())[-MAX_TIMED_NETS:]:
        config, data = lot.config, bundles.of(lot.config)
        steps = total_updates(config)
        made = steps + measurement_cost(config, data, steps)
        mode = training_mode(config, workplace.device)
        paces.append(made * time_one_update(config, data, mode, lot.missing) / training_cost(config))
    return median(paces)


def _bytes(todo: Sequence[WorkItem], together: Sequence[int], bundles: _Bundles) -> float:
    """Of the worker whose data and cohort are largest."""
    each = [
        size_of(bundles.of(one.config)) + runs * estimated_memory_bytes(one.config)
        for one, runs in zip(todo, together, strict=True)
    ]
    return PROCESS_BYTES + max(each, default=0.0)
