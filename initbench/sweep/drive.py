"""How a sweep's experiments are trained: by an executor, within what the command allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from initbench.config.schema import ExperimentConfig
from initbench.execute.experiment import Workplace, run_experiment
from initbench.execute.recorder import Observer
from initbench.sweep.conduct import Drive


@dataclass(frozen=True)
class Budget:
    """What a command allows."""

    executor: str | None = None
    fail_fast: bool = False
    max_seconds: float | None = None
    limit: int | None = None
    retry: tuple[str, ...] = ()
    rerun: bool = False


def driver(workplace: Workplace, observer: Observer, budget: Budget) -> Drive:
    """Trains experiments until the budget, which all calls share, is spent."""
    end = None if budget.max_seconds is None else time.monotonic() + budget.max_seconds
    left = budget.limit

    def drive(configs: Sequence[ExperimentConfig]) -> None:
        nonlocal left
        for config in configs:
            if left == 0 or (end is not None and time.monotonic() >= end):
                return
            seeds = config.seed_list if left is None else config.seed_list[:left]
            done = run_experiment(config.with_seeds(*seeds), workplace, observer, rerun=budget.rerun)
            left = None if left is None else left - len(seeds)
            if done.errors and budget.fail_fast:
                return

    return drive
