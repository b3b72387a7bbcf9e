"""How a sweep's experiments are trained: one after the other, within what the command allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.config.schema import ExperimentConfig
from initbench.errors import Terminated
from initbench.execute.experiment import Workplace, plan, run_experiment
from initbench.execute.recorder import Observer
from initbench.pretrain.greedy import Stride
from initbench.store.layout import COMPLETE
from initbench.sweep.conduct import Drive


@dataclass(frozen=True)
class Budget:
    """What a command allows."""

    fail_fast: bool = False
    max_seconds: float | None = None
    limit: int | None = None
    """Runs to train at most."""
    retry: tuple[str, ...] = ()
    """Statuses of runs that are trained anew."""
    rerun: bool = False
    """Whether all are."""


def driver(workplace: Workplace, observer: Observer, budget: Budget) -> Drive:
    """Trains experiments until the budget, which all calls share, is spent.

    Runs that failed are left alone unless they are to be retried; what was interrupted goes on.
    """
    return _Driver(workplace, observer, budget).drive


class _Driver:
    def __init__(self, workplace: Workplace, observer: Observer, budget: Budget) -> None:
        self._workplace, self._observer, self._budget = workplace, observer, budget
        self._left = budget.limit
        self._end = None if budget.max_seconds is None else time.monotonic() + budget.max_seconds
        self._stopped = False

    def drive(self, configs: Sequence[ExperimentConfig]) -> None:
        for config in configs:
            go_on, anew = self._todo(config)
            for seeds, rerun in ((go_on, False), (anew, True)):
                allowed = seeds if self._left is None else seeds[: self._left]
                if allowed and not self._stopped:
                    self._run(config.with_seeds(*allowed), rerun=rerun)

    def _todo(self, config: ExperimentConfig) -> tuple[list[int], list[int]]:
        """Seeds that go on, or begin, and those that are trained anew."""
        go_on, anew = [], []
        for seed, run_id in plan(config, self._workplace, rerun=False).run_ids.items():
            status = self._workplace.store.status(run_id)
            if status is not None and (self._budget.rerun or status in self._budget.retry):
                anew.append(seed)
            elif status not in (*COMPLETE, "failed"):
                go_on.append(seed)
        return go_on, anew

    def _run(self, config: ExperimentConfig, *, rerun: bool) -> None:
        try:
            done = run_experiment(config, self._workplace, _Until(self._end, self._observer), rerun=rerun)
        except _TimeUp:
            self._stopped = True
            return
        if self._left is not None:
            self._left -= len(config.seed_list)
        self._stopped = self._left == 0 or (self._budget.fail_fast and bool(done.errors))


class _TimeUp(Terminated):
    """Ends a training as a signal does: its runs are interrupted, and go on from their checkpoints."""


class _Until:
    """An Observer that hands everything on until the time is up."""

    def __init__(self, end: float | None, observer: Observer) -> None:
        self._end, self._to = end, observer

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        self._to.planned(config, to_train, stored, steps)
        self._check()

    def pretraining(self, seeds: tuple[int, ...], stride: Stride) -> None:
        self._to.pretraining(seeds, stride)
        self._check()

    def advanced(self, seeds: tuple[int, ...], step: int, losses: Tensor) -> None:
        self._to.advanced(seeds, step, losses)
        self._check()

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        self._to.evaluated(seed, entry)

    def ended(self, seed: int, status: str) -> None:
        self._to.ended(seed, status)

    def _check(self) -> None:
        if self._end is not None and time.monotonic() >= self._end:
            raise _TimeUp
