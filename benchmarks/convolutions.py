"""Compare the updates of convolutional nets in initbench with eager PyTorch, without data and evaluations.

Two nets train on random images of 32 × 32 × 3. In initbench, two processes with one thread train one of them
each, as its workers do. In eager PyTorch, one process with torch's own threads trains one after the other,
as a script does: contiguous images, `nn.BatchNorm2d`, `torch.optim.SGD`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.measurements import Measurement, measure_repeatedly, ratios
from initbench.components.norms.standard import BatchNorm
from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.models.network import Network
from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import true_fp32

CPU, FORM, BATCH = torch.device("cpu"), SampleShape((3, 32, 32), 10), 128
LR, MOMENTUM = 0.001, 0.9
NETS: dict[str, tuple[dict[str, Any], int, float | None]] = {
    "cnn of 6 × 64": ({"family": "cnn", "depth": 6, "width": 64}, 6, 1.3),
    "cnn of 6 × 64, norm batch": ({"family": "cnn", "depth": 6, "width": 64, "norm": "batch"}, 6, None),
    "resnet-20": ({"family": "resnet", "depth": 20, "width": 16, "norm": "batch"}, 15, 1.2),
}
"""Model, updates in a measurement, and target."""


def measure(repeats: int) -> list[Measurement]:
    """Return the ratio of the times of two nets for each kind of net."""
    return [
        Measurement(
            f"two nets, updates of {name}: eager PyTorch / two workers",
            ratios(*measure_repeatedly(repeats, _timer("eager", name, 1), _timer("initbench", name, 2))),
            target=target,
        )
        for name, (_, _, target) in NETS.items()
    ]


def _timer(side: str, name: str, processes: int) -> Callable[[], float]:
    """Return a function that trains the nets in this number of processes, and returns the seconds of one net.

    The processes start together, so that their updates take place at the same time.
    """
    command = [sys.executable, "-m", "benchmarks.convolutions", side, name]

    def seconds() -> float:
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        outputs = [process.communicate()[0] for process in started]
        return max(float(output) for output in outputs) / processes

    return seconds


def main() -> None:
    """Print the seconds of the updates of one net."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("side", choices=["eager", "initbench"])
    parser.add_argument("net", choices=list(NETS))
    options = parser.parse_args()
    model, updates, _ = NETS[options.net]
    config = ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "convolutions",
            "data": {"name": "cifar10"},
            "model": {"activation": "relu", **model},
            "init": {"scheme": "kaiming_normal"},
            "train": {"batch_size": BATCH, "optimizer": {"name": "sgd", "momentum": MOMENTUM}},
        }
    )
    network = build(config.model, config.init, form=FORM, seed=0, batch=torch.randn(8, *FORM.shape))
    update = _eager_update(network) if options.side == "eager" else _initbench_update(network, config)
    for _ in range(2):  # memory and kernels are ready afterwards
        update()
    start = time.perf_counter()
    for _ in range(updates):
        update()
    print(time.perf_counter() - start)


def _initbench_update(network: Network, config: ExperimentConfig) -> Callable[[], None]:
    torch.set_num_threads(1)
    cohort = Cohort([network], config.train, "single", CPU, captures=True)
    x, y = torch.randn(1, BATCH, *FORM.shape), torch.randint(0, FORM.outputs, (1, BATCH))

    def update() -> None:
        with true_fp32(CPU):
            cohort.gradients(x, y)
            cohort.update(LR)

    return update


def _eager_update(network: nn.Module) -> Callable[[], None]:
    _use_batch_norm_of_torch(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    x, y = torch.randn(BATCH, *FORM.shape), torch.randint(0, FORM.outputs, (BATCH,))
    network.train()

    def update() -> None:
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def _use_batch_norm_of_torch(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNorm):
            setattr(module, name, nn.BatchNorm2d(len(child.running_mean)))
        else:
            _use_batch_norm_of_torch(child)


if __name__ == "__main__":
    main()
