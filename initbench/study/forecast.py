"""Estimates of the time and memory that the missing runs of a study will need."""

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
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import PreparedData
from initbench.machine import available_cores
from initbench.runner.batching import WorkItem, choose_cohort_sizes, merge_by_program, work_item
from initbench.runner.cost_model import estimated_memory_bytes, measurement_cost, total_updates, training_cost
from initbench.runner.dataset_cache import DatasetCache, tensor_bytes
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.runner.run_identity import training_mode
from initbench.runner.worker_count import START_SECONDS, time_one_update
from initbench.store.run_directory import Record
from initbench.study.run_study import StudyResult

MAX_TIMED_NETS = 3
"""Maximum number of network kinds to time; the time of the others is estimated from their cost."""
PROCESS_BYTES = 400e6
"""Memory of a process that has loaded torch, before any net is built (350 to 400 MB on Linux)."""
_BUDGET = ("steps", "epochs", "lr", "lr_factors", "schedule", "warmup_steps", "weight_decay", "eval_every")


@dataclass(frozen=True)
class Forecast:
    """Number of runs of a study, and the time and memory that the missing ones need."""

    total: int
    stored: int
    """Runs that are kept as they are stored."""
    later: int
    """Missing runs beyond the limit, which a later call trains."""
    cohorts: int
    """Number of cohorts into which the missing runs are divided."""
    workers: int
    seconds: float
    """Wall-clock time until all are done."""
    by_earlier: int
    """Missing runs whose time is taken from stored runs of the same kind of net; others are estimated."""
    bytes: float
    """Largest memory of a worker."""

    @property
    def missing(self) -> int:
        """Runs that are to be trained."""
        return self.total - self.stored - self.later


def forecast_study(result: StudyResult[Any], context: RunContext, limits: RunLimits) -> Forecast:
    """Estimate the time and memory of the runs to train.

    Times come from stored runs of the same kind of net if there are any, otherwise from a few timed updates.

    Raises:
        DataError: If the data are missing.
    """
    missing_items = [item for item in _work_items(result, context, limits) if item.missing]
    to_train = sum(item.missing for item in missing_items)
    items = merge_by_program(
        missing_items if limits.limit is None else _first_runs(missing_items, limits.limit)
    )
    kinds = {_network_kind(item.config.resolved()) for item in items}
    recorded = _recorded_times(context.store.iterate_records(), kinds) if items else {}
    seconds, untimed = 0.0, []
    for item in items:
        kind = _network_kind(item.config.resolved())
        if kind in recorded:
            per_run, per_update = recorded[kind]
            seconds += item.missing * (per_run + per_update * total_updates(item.config))
        else:
            untimed.append(item)
    data = _DataCache(context)
    if untimed:
        seconds_per_cost = _timed_cost(untimed, context, data)
        seconds += sum(item.missing * training_cost(item.config) * seconds_per_cost for item in untimed)
    missing = sum(item.missing for item in items)
    workers = max(1, min(_worker_count(context), missing))
    cohort_sizes = choose_cohort_sizes(items, workers)
    return Forecast(
        total=result.total,
        stored=result.total - to_train,
        later=to_train - missing,
        cohorts=sum(math.ceil(item.missing / size) for item, size in zip(items, cohort_sizes, strict=True)),
        workers=workers,
        seconds=seconds / workers + (START_SECONDS if workers > 1 else 0.0),
        by_earlier=missing - sum(item.missing for item in untimed),
        bytes=_memory_per_worker(items, cohort_sizes, data),
    )


def _work_items(result: StudyResult[Any], context: RunContext, limits: RunLimits) -> Iterator[WorkItem]:
    """Yield the experiments to train, in the order of training."""
    for variant in result.variants:
        ids = iter(variant.tuning_ids)  # run ids of the candidates, one candidate after the other
        for candidate in variant.variant.candidates if variant.tuning_ids else ():
            missing = result.to_train(islice(ids, len(candidate.seed_list)), limits)
            yield work_item(candidate, missing, context.device)
    for variant in result.variants:
        config = variant.variant.config
        seeds = len(config.seed_list)
        missing = seeds if variant.config is None else result.to_train(variant.run_ids, limits)
        yield work_item(config, missing, context.device)


def _first_runs(items: Sequence[WorkItem], limit: int) -> Iterator[WorkItem]:
    """Yield items that cover the first `limit` missing runs."""
    for item in items:
        if limit:
            count = min(limit, item.missing)
            limit -= count
            yield replace(item, missing=count)


def _worker_count(context: RunContext) -> int:
    on_cpu = context.device.type == "cpu"
    return context.workers or (available_cores() if on_cpu else torch.cuda.device_count())


class _DataCache:
    """Cache of the experiments' data."""

    def __init__(self, context: RunContext) -> None:
        self._workplace, self._datasets = context, DatasetCache()

    def of(self, config: ExperimentConfig) -> PreparedData:
        """Return the data of an experiment."""
        context = self._workplace
        return self._datasets.of(resolve_dataset(config.data, context.source), config.data, context.device)


def _network_kind(config: Mapping[str, Any]) -> str:
    """Return a key shared by runs of similar speed: all settings but init, budget and learning rate."""
    train = {key: value for key, value in (config.get("train") or {}).items() if key not in _BUDGET}
    parts = [config.get("model"), (config.get("data") or {}).get("name"), train, config.get("probe")]
    return json.dumps(parts, sort_keys=True)


def _recorded_times(records: Iterable[Record], kinds: set[str]) -> dict[str, tuple[float, float]]:
    """Return by kind of net the median seconds of a run outside training, and of one update."""
    times: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        timings, steps = record.get("timings") or {}, record.get("steps")
        if (
            record["status"] == "finished"
            and steps
            and timings
            and (kind := _network_kind(record["config"])) in kinds
        ):
            share = 1.0 / max(1, int(record.get("cohort") or 1))
            outside_training = float(timings["total"]) - float(timings["train"])
            times[kind].append((outside_training * share, float(timings["train"]) * share / steps))
    return {kind: (median(a for a, _ in runs), median(b for _, b in runs)) for kind, runs in times.items()}


def _timed_cost(items: Sequence[WorkItem], context: RunContext, datasets: _DataCache) -> float:
    """Return the seconds per unit of cost, timed on a few updates of the costliest kinds of net."""
    kinds = {
        _network_kind(item.config.resolved()): item
        for item in sorted(items, key=lambda item: training_cost(item.config))
    }
    costs = []
    for item in list(kinds.values())[-MAX_TIMED_NETS:]:
        config, data = item.config, datasets.of(item.config)
        steps = total_updates(config)
        updates = steps + measurement_cost(config, data, steps)
        mode = training_mode(config, context.device)
        costs.append(updates * time_one_update(config, data, mode, item.missing) / training_cost(config))
    return median(costs)


def _memory_per_worker(items: Sequence[WorkItem], cohort_sizes: Sequence[int], datasets: _DataCache) -> float:
    """Return the bytes of the worker with the largest data and cohort."""
    worker_bytes = [
        tensor_bytes(datasets.of(item.config)) + runs * estimated_memory_bytes(item.config)
        for item, runs in zip(items, cohort_sizes, strict=True)
    ]
    return PROCESS_BYTES + max(worker_bytes, default=0.0)
