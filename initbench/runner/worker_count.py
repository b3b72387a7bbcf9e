"""How many worker processes pay for an experiment, from the time one update takes on this machine."""

from __future__ import annotations

import os
import time

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData
from initbench.determinism import one_thread
from initbench.models.network import Mode
from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import true_fp32
from initbench.train.network_builder import build_networks

START_SECONDS = 5.0
"""A worker's start: a Python process, torch's import and the data set (4 to 5 s on two cores)."""
IN_PROCESS_SPEEDUP = {"vmap": 1.4, "single": 1.0}
"""How much faster this process is with its two threads than a worker with one."""
MAX_TIMED_NETS = 4
"""Stacked runs that are timed at most: each is nearly as fast as in a large cohort; alone, half as fast."""
_TIMING_REPEATS = 4


def optimal_worker_count(seconds: float, runs: int, mode: Mode, *, started: bool = False) -> int:
    """As many workers as are done earliest with `runs` that take `seconds` in all; 1 for this process alone.

    `started`: whether there are workers already. Else their start counts.
    """
    available = min(available_cores(), runs)
    if available < 2:
        return 1
    times = {1: seconds / IN_PROCESS_SPEEDUP[mode]}
    for workers in range(2, available + 1):
        share = -(-runs // workers) / runs  # the busiest worker's
        times[workers] = (0.0 if started else START_SECONDS) + seconds * share
    return min(times, key=lambda workers: times[workers])


def time_one_update(config: ExperimentConfig, data: PreparedData, mode: Mode, together: int) -> float:
    """What one update of one run takes with one thread: the fastest of a few tries.

    `together`: runs in a cohort, where they are stacked.
    """
    with one_thread(), true_fp32(torch.device("cpu")):
        seeds = range(min(together, MAX_TIMED_NETS) if mode == "vmap" else 1)
        cohort = Cohort(build_networks(config, data, seeds), config.train, mode, torch.device("cpu"))
        batches = Batches(len(data.train), config.train.batch_size, seeds, order=data.order)
        x, y = data.train.take(batches.indices(0))
        tries = []
        for _ in range(_TIMING_REPEATS):
            start = time.perf_counter()
            cohort.gradients(x, y)
            cohort.update(0.0)
            tries.append(time.perf_counter() - start)
    return min(tries) / len(seeds)


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
