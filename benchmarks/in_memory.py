"""Train many runs as a careful script does: data in memory, one thread, one net after another, fp32.

Trains `--runs` nets of `--depth` layers in this process, and evaluates each once on the validation split.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bare_loop import LR, MOMENTUM, batches, network, training_split


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000, help="updates of each (default 1000)")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--matmul", choices=("highest", "high", "medium"), default="highest")
    return parser.parse_args()


def train(x: Tensor, y: Tensor, depth: int, steps: int, seed: int) -> nn.Module:
    """Initialise and train one net."""
    torch.manual_seed(seed)
    net = network(x[0].numel(), depth)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    for index in batches(len(y), steps):
        optimizer.zero_grad()
        loss = cross_entropy(net(x[index]), y[index])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net


def main() -> None:
    """Train all nets and print the time."""
    options = arguments()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(options.matmul)
    x, y = training_split("mnist")
    start = time.perf_counter()
    accuracies = []
    for seed in range(options.runs):
        net = train(x, y, options.depth, options.steps, seed)
        with torch.no_grad():
            accuracies.append(float((net(x[-6000:]).argmax(1) == y[-6000:]).float().mean()))
    print(
        json.dumps({"runs": options.runs, "seconds": time.perf_counter() - start, "accuracies": accuracies})
    )


if __name__ == "__main__":
    main()
