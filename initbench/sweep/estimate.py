"""How long the missing runs of a sweep are likely to take, and how much memory, before they run."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.data.prepare import Bundle, prepare
from initbench.data.resolve import resolve
from initbench.execute.experiment import MOST_STACKED, Workplace
from initbench.execute.identity import training_mode
from initbench.execute.pace import cores, seconds_per_update
from initbench.store.layout import Record
from initbench.sweep.conduct import Conducted
from initbench.sweep.cost import cost, updates, work_of

CALIBRATED = 3
"""Kinds of net that are timed at most; the others are reckoned from their cost."""
BESIDE_TRAINING = 1.3
"""Evaluations and probes are so much of a run's time, where only an update has been timed."""
PROCESS_BYTES = 400e6
"""Of a process that has loaded torch, before any net is made (350 to 400 MB on Linux)."""
COPIES = 4
"""Of the parameters while they are trained: themselves, gradients, optimizer, checkpoint."""
_BUDGET = ("steps", "epochs", "lr", "lr_factors", "schedule", "warmup_steps", "weight_decay", "eval_every")


@dataclass(frozen=True)
class Outlook:
    """What lies ahead of a sweep."""

    total: int
    stored: int
    """Runs that are at their end."""
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
        return self.total - self.stored


@dataclass(frozen=True)
class _Todo:
    """An experiment, and how many of its runs are missing."""

    config: ExperimentConfig
    missing: int


def outlook(found: Conducted, workplace: Workplace) -> Outlook:
    """What the missing runs take, from stored runs of the same kind of net, else from a few updates.

    Raises DataError where the data are not there.
    """
    todo = [one for one in _todo(found) if one.missing]
    known = _earlier(workplace.store.records(), {_kind(one.config.resolved()) for one in todo})
    seconds, rest = 0.0, []
    for one in todo:
        kind = _kind(one.config.resolved())
        if kind in known:
            beside, each = known[kind]
            seconds += one.missing * (beside + each * updates(one.config))
        else:
            rest.append(one)
    bundles = _Bundles(workplace)
    if rest:
        pace = _calibrated([one.config for one in rest], workplace, bundles)
        seconds += sum(one.missing * cost(one.config) * pace for one in rest)
    missing = sum(one.missing for one in todo)
    workers = max(1, min(_workers(workplace), missing))
    return Outlook(
        total=found.total,
        stored=found.total - missing,
        cohorts=sum(math.ceil(one.missing / _cohort(one, workplace)) for one in todo),
        workers=workers,
        seconds=seconds / workers,
        by_earlier=missing - sum(one.missing for one in rest),
        bytes=_bytes(todo, workplace, bundles),
    )


def _todo(found: Conducted) -> Iterator[_Todo]:
    for point in found.points:
        if point.tuning_ids:
            yield _Todo(point.point.candidates[0], found.missing(point.tuning_ids))
        runs = len(point.point.config.seed_list)
        yield _Todo(point.point.config, runs if point.config is None else found.missing(point.run_ids))


def _workers(workplace: Workplace) -> int:
    return workplace.workers or (cores() if workplace.device.type == "cpu" else 1)


def _cohort(one: _Todo, workplace: Workplace) -> int:
    """Runs that are trained together."""
    if training_mode(one.config, workplace.device) != "vmap":
        return 1
    return min(MOST_STACKED[workplace.device.type], math.ceil(one.missing / _workers(workplace)))


class _Bundles:
    """Data sets in memory, each prepared once."""

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace
        self._known: dict[str, Bundle] = {}

    def of(self, config: ExperimentConfig) -> Bundle:
        """The data of an experiment."""
        key = config.data.model_dump_json()
        if key not in self._known:
            resolved = resolve(config.data, self._workplace.source)
            self._known[key] = prepare(resolved, config.data, self._workplace.device)
        return self._known[key]


def _kind(config: Mapping[str, Any]) -> str:
    """What runs share that take about as long: all but the init, the budget and the learning rate."""
    train = {key: value for key, value in (config.get("train") or {}).items() if key not in _BUDGET}
    parts = [config.get("model"), (config.get("data") or {}).get("name"), train, config.get("probe")]
    return json.dumps(parts, sort_keys=True)


def _earlier(records: Iterable[Record], kinds: set[str]) -> dict[str, tuple[float, float]]:
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


def _calibrated(configs: Sequence[ExperimentConfig], workplace: Workplace, bundles: _Bundles) -> float:
    """Seconds for a unit of cost, from a few updates of the costliest kinds of net."""
    kinds = {_kind(config.resolved()): config for config in sorted(configs, key=cost)}
    paces = []
    for config in list(kinds.values())[-CALIBRATED:]:
        mode = training_mode(config, workplace.device)
        seconds = updates(config) * seconds_per_update(config, bundles.of(config), mode)
        paces.append(seconds / cost(config))
    return BESIDE_TRAINING * median(paces)


def _bytes(todo: Sequence[_Todo], workplace: Workplace, bundles: _Bundles) -> float:
    """Of the worker whose data and cohort are largest."""
    worst = 0.0
    for one in todo:
        config = one.config
        together = _cohort(one, workplace)
        work = work_of(config)
        numbers = COPIES * work.parameters + 2 * config.train.batch_size * work.outputs
        worst = max(worst, _size(bundles.of(config)) + 4.0 * together * numbers)
    return PROCESS_BYTES + worst


def _size(data: Bundle) -> float:
    tensors = [tensor for split in (data.train, data.val, data.test) for tensor in (split.x, split.y)]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
