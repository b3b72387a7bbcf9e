"""Compare updates and evaluations of a cohort in float32 and in bf16, on one thread and without a store.

Times are CPU times, which other load on the machine changes less than wall times. It still changes them,
because programs share caches and memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.measurements import Measurement, measure_repeatedly, ratios
from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import true_fp32

CAPTURES = True
CPU = torch.device("cpu")
INPUTS, CLASSES, BATCH, EVALUATED = 784, 10, 128, 2048
NETS = ((16, 128, "none", 1.5), (16, 128, "batch", None), (1, 128, "none", None))
"""Runs, width and norm of an mlp of ten weight layers, and the target of the updates."""
STEPS_OF_16 = 5
"""Updates in a measurement of 16 runs; one run makes 16 times as many."""


def measure(repeats: int) -> list[Measurement]:
    """Return the ratio of the times in float32 and bf16 for each net."""
    measured = []
    for runs, width, norm, target in NETS:
        cohorts = [_cohort(runs, width, norm, precision) for precision in ("fp32", "bf16")]
        name = f"{runs} × (mlp of 10 × {width}, norm {norm})"
        with true_fp32(CPU):
            updates = measure_repeatedly(repeats, *[_updates(cohort) for cohort in cohorts])
            evaluations = measure_repeatedly(repeats, *[_evaluations(cohort) for cohort in cohorts])
        measured += [
            Measurement(f"update of {name}, float32 / bf16, CPU time", ratios(*updates), target=target),
            Measurement(f"evaluation of {name}, float32 / bf16, CPU time", ratios(*evaluations)),
        ]
    return measured


def _cohort(runs: int, width: int, norm: str, precision: str) -> Cohort:
    config = ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "precision",
            "data": {"name": "mnist"},
            "model": {"family": "mlp", "depth": 10, "width": width, "activation": "relu", "norm": norm},
            "train": {
                "precision": precision,
                "batch_size": BATCH,
                "optimizer": {"name": "sgd", "momentum": 0.9},
            },
            "init": {"scheme": "kaiming_normal"},
        }
    )
    networks = [
        build(
            config.model,
            config.init,
            form=SampleShape((INPUTS,), CLASSES),
            seed=seed,
            batch=torch.randn(8, INPUTS),
        )
        for seed in range(runs)
    ]
    return Cohort(networks, config.train, "vmap", CPU, captures=CAPTURES)


def _updates(cohort: Cohort) -> Callable[[], float]:
    x, y = torch.randn(cohort.size, BATCH, INPUTS), torch.randint(0, CLASSES, (cohort.size, BATCH))
    steps = STEPS_OF_16 * 16 // cohort.size

    def update() -> None:
        for _ in range(steps):
            cohort.gradients(x, y)
            cohort.update(1e-3)

    return lambda: _cpu_seconds(update)


def _evaluations(cohort: Cohort) -> Callable[[], float]:
    x, y = torch.randn(EVALUATED, INPUTS), torch.randint(0, CLASSES, (EVALUATED,))
    return lambda: _cpu_seconds(lambda: cohort.evaluate(x, y))


def _cpu_seconds(function: Callable[[], object]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        function()  # memory and kernels are ready afterwards
        start = time.process_time()
        function()
        return time.process_time() - start
    finally:
        torch.set_num_threads(threads)
