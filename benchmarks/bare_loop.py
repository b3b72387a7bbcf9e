"""Train the net of configs/relu_kaiming.yaml with the least code, as the reference for initbench's speed.

The whole training split is one tensor, batches are rows of a permutation, the net is nn.Sequential and the
optimizer torch.optim.SGD. No evaluation, no statistics, no store. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from initbench.data.dataset import DataSource
    from initbench.data.preprocessing import PreparedData

DEPTH, WIDTH, CLASSES = 20, 128, 10
LR, MOMENTUM, BATCH_SIZE = 0.01, 0.9, 128


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=2000, help="updates (default 2000)")
    parser.add_argument("--dataset", default="mnist", help="a data set of initbench (default mnist)")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--matmul", choices=("highest", "high", "medium"), help="default: torch's own")
    parser.add_argument("--nets", type=int, default=1, help="nets to train one after another (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def network(inputs: int, depth: int = DEPTH, width: int = WIDTH) -> nn.Sequential:
    """Return blocks of Linear and ReLU and a head, with Kaiming weights and zero biases."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth - 1):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def source() -> DataSource:
    """Return the data source of the command line, restricted to local files."""
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root

    named = os.environ.get("INITBENCH_DATA")
    return DataSource(root=data_root(Path(named) if named else None), offline=True)


def prepared(name: str) -> PreparedData:
    """Return a data set as initbench prepares it."""
    from initbench.data.dataset import DATASETS
    from initbench.data.locate import resolve_dataset
    from initbench.data.preprocessing import preprocess
    from initbench.registry_choice import default_choice

    options = default_choice(DATASETS, name)
    return preprocess(resolve_dataset(options, source()), options, "cpu")


def batches(samples: int, steps: int) -> list[Tensor]:
    """Yield `steps` batches of indices; drop the incomplete last batch of each epoch."""
    found: list[Tensor] = []
    while len(found) < steps:
        order = torch.randperm(samples)
        found += list(order[: samples // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE))
    return found[:steps]


def main() -> None:
    """Train the nets and print their speed."""
    options = arguments()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.matmul is not None:
        torch.set_float32_matmul_precision(options.matmul)
    train = prepared(options.dataset).train
    x, y = train.x, train.y
    start = time.perf_counter()
    for seed in range(options.seed, options.seed + options.nets):
        torch.manual_seed(seed)
        net = network(x[0].numel())
        optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
        for index in batches(len(y), options.steps):
            optimizer.zero_grad()
            loss = cross_entropy(net(x[index]), y[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    seconds = time.perf_counter() - start
    samples = options.nets * options.steps * BATCH_SIZE
    result = {
        "samples": samples,
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "loss": float(loss),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
