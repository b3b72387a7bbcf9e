"""Choose the number of worker processes, from the time of one update on this machine."""

from __future__ import annotations

import time

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData
from initbench.determinism import one_thread
from initbench.machine import available_cores
from initbench.models.network import Mode
from initbench.runner.code_fingerprint import plugin_entries
from initbench.runner.workers.fork_server import can_fork
from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import true_fp32
from initbench.train.network_builder import build_networks

START_SECONDS = 1.0 if can_fork() else 5.0
"""Time to start a worker: fork and data set, or else Python process, torch import and data set."""
IN_PROCESS_SPEEDUP = {"vmap": 1.4, "single": 1.0}
"""Speed of this process with two threads, relative to a worker with one thread."""
RELEASE_SECONDS = 0.5
"""Time that runs lose when another worker takes them over: checkpoint, start of a training."""
MAX_TIMED_NETS = 4
"""Maximum number of stacked runs to time: each is nearly as fast as in a large cohort.
A run that is timed alone is half as fast."""
_TIMING_REPEATS = 4


def optimal_worker_count(seconds: float, runs: int, mode: Mode, *, started: bool = False) -> int:
    """Return the number of workers that finish `runs` of `seconds` in total earliest; 1: this process alone.

    `started`: whether workers are already running; otherwise their start time counts.
    """
    available = min(available_cores(), runs)
    if available < 2:
        return 1
    times = {1: seconds / IN_PROCESS_SPEEDUP[mode]}
    for workers in range(2, available + 1):
        share = -(-runs // workers) / runs  # of the busiest worker
        ends = [seconds * share]
        if mode == "vmap":  # an idle worker takes over stacked runs of a busy one
            ends.append(seconds / workers + RELEASE_SECONDS)
        times[workers] = (0.0 if started else START_SECONDS) + min(ends)
    return min(times, key=lambda workers: times[workers])


def time_one_update(config: ExperimentConfig, data: PreparedData, mode: Mode, together: int) -> float:
    """Return the seconds of one update of one run with one thread; the fastest of four tries.

    `together`: runs in a cohort, if runs are stacked.
    """
    with one_thread(), true_fp32(torch.device("cpu")):
        seeds = range(min(together, MAX_TIMED_NETS) if mode == "vmap" else 1)
        networks = build_networks(config, data, seeds)
        captures = not plugin_entries(config, data.name)
        cohort = Cohort(networks, config.train, mode, torch.device("cpu"), data.form, captures=captures)
        batches = Batches(len(data.train), config.train.batch_size, seeds, order=data.order)
        x, y = data.train.take(batches.indices(0))
        tries = []
        for _ in range(_TIMING_REPEATS):
            start = time.perf_counter()
            cohort.gradients(x, y)
            cohort.update(0.0)
            tries.append(time.perf_counter() - start)
    return min(tries) / len(seeds)
