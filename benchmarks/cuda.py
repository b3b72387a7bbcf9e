"""Compare updates on a GPU with eager PyTorch and with the rates of the GPU itself.

Nets are mlps on random inputs in GPU memory; no data set and no evaluation takes part. Without a CUDA device
there is nothing to measure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from benchmarks.bare_loop import network as eager_network
from benchmarks.measurements import Measurement, measure_repeatedly, ratios
from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.runner.workers.task import UPDATES_PER_CHECK_ON_GPU
from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import true_fp32

INPUTS, CLASSES, BATCH, DEPTH = 784, 10, 128, 10
COHORT, WIDE, WIDE_RUNS = 256, 1024, 8
LR, MOMENTUM = 0.001, 0.9


def measure(repeats: int) -> list[Measurement]:
    """Return the measurements; none without a CUDA device."""
    if not torch.cuda.is_available():
        print("cuda: there is no CUDA device", file=sys.stderr)
        return []
    device = torch.device("cuda")
    with true_fp32(device):
        eager, single, cohort = measure_repeatedly(
            repeats,
            lambda: _seconds(_eager_update(device)),
            lambda: _seconds(_cohort_update(_cohort(1, 128, device))),
            lambda: _seconds(_cohort_update(_cohort(COHORT, 128, device))),
        )
        wide, bound = measure_repeatedly(
            repeats,
            lambda: _seconds(_cohort_update(_cohort(WIDE_RUNS, WIDE, device))),
            lambda: _lower_bound(WIDE_RUNS, WIDE, device),
        )
    name = f"mlp of {DEPTH} × 128"
    return [
        Measurement(
            f"CUDA, {COHORT} runs of {name}: eager one by one / one cohort",
            ratios([COHORT * seconds for seconds in eager], cohort),
            target=100.0,
        ),
        Measurement(f"CUDA, one run of {name}: eager / initbench", ratios(eager, single), target=5.0),
        Measurement(
            f"CUDA, {WIDE_RUNS} runs of {WIDE} units: time of the products or of the memory / update",
            tuple(100.0 * ratio for ratio in ratios(bound, wide)),
            unit="%",
            target=50.0,
        ),
    ]


def _cohort(runs: int, width: int, device: torch.device) -> Cohort:
    config = ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "cuda",
            "data": {"name": "mnist"},
            "model": {"family": "mlp", "depth": DEPTH, "width": width, "activation": "relu"},
            "init": {"scheme": "kaiming_normal"},
            "train": {"batch_size": BATCH, "optimizer": {"name": "sgd", "momentum": MOMENTUM}},
        }
    )
    form, batch = SampleShape((INPUTS,), CLASSES), torch.randn(8, INPUTS)
    networks = [build(config.model, config.init, form=form, seed=seed, batch=batch) for seed in range(runs)]
    return Cohort(networks, config.train, "vmap", device, captures=True)


def _cohort_update(cohort: Cohort) -> Callable[[], None]:
    device = next(iter(cohort.parameters.values())).device
    x = torch.randn(cohort.size, BATCH, INPUTS, device=device)
    y = torch.randint(0, CLASSES, (cohort.size, BATCH), device=device)

    def update() -> None:
        cohort.gradients(x, y)
        cohort.update(LR)

    return update


def _eager_update(device: torch.device) -> Callable[[], None]:
    net = eager_network(INPUTS, DEPTH).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    x = torch.randn(BATCH, INPUTS, device=device)
    y = torch.randint(0, CLASSES, (BATCH,), device=device)

    def update() -> None:
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def _seconds(update: Callable[[], object]) -> float:
    """Return the seconds of an update; the process waits for the GPU as often as a training does."""
    for _ in range(3):  # memory and kernels are ready afterwards
        update()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        for _ in range(UPDATES_PER_CHECK_ON_GPU):
            update()
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / (10 * UPDATES_PER_CHECK_ON_GPU)


def _lower_bound(runs: int, width: int, device: torch.device) -> float:
    """Return the time of an update's products or of its memory traffic, whichever is longer.

    The rates are those of a stacked product of one hidden layer and of a copy of all weights. Each weight
    takes part in three products. SGD with momentum reads and writes weights and momentum and reads gradients,
    each pass of the net reads the weights, and the backward pass writes the gradients.
    """
    hidden = torch.randn(runs, width, width, device=device)
    batch = torch.randn(runs, BATCH, width, device=device)
    weights = runs * (INPUTS * width + (DEPTH - 2) * width**2 + width * CLASSES)
    product = _seconds(lambda: torch.bmm(batch, hidden))
    products = product * 3 * weights / hidden.numel()
    source = torch.randn(weights, device=device)
    target = torch.empty_like(source)
    copied_floats = 2 * weights
    copy = _seconds(lambda: target.copy_(source)) / copied_floats
    return max(products, copy * (5 + 2 + 1) * weights)


if __name__ == "__main__":
    for measurement in measure(3):
        print(f"{measurement.name}: {measurement.words}  {measurement.target_words}")
