"""Train many runs as a careful script does: data in memory, one thread, one net after another, fp32.

Trains `--runs` nets of `--depth` layers in this process. Like initbench, it evaluates each net eleven times
on the validation split and on 2,048 training samples, and once on the test split. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.bare_loop import LR, MOMENTUM, WIDTH, batches, network, prepared

if TYPE_CHECKING:
    from initbench.data.preprocessing import PreparedData

EVALUATIONS, TRAIN_SAMPLE, CHUNK = 10, 2048, 512


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000, help="updates of each (default 1000)")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--matmul", choices=("highest", "high", "medium"), default="highest")
    return parser.parse_args()


@torch.no_grad()
def evaluate(net: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a net on a split."""
    loss = correct = 0.0
    for part, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        outputs = net(part)
        loss += float(cross_entropy(outputs, labels, reduction="sum"))
        correct += float((outputs.argmax(1) == labels).sum())
    return loss / len(y), correct / len(y)


def train(data: PreparedData, options: argparse.Namespace, seed: int) -> float:
    """Initialise, train and evaluate one net, and return its accuracy on the test split."""
    x, y = data.train.x, data.train.y
    torch.manual_seed(seed)
    net = network(x[0].numel(), options.depth, options.width)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    moments = {round(options.steps * i / EVALUATIONS) for i in range(EVALUATIONS + 1)}
    for step, index in enumerate([*batches(len(y), options.steps), None]):
        if step in moments:
            evaluate(net, x[:TRAIN_SAMPLE], y[:TRAIN_SAMPLE])
            evaluate(net, data.val.x, data.val.y)
        if index is not None:
            optimizer.zero_grad()
            loss = cross_entropy(net(x[index]), y[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return evaluate(net, data.test.x, data.test.y)[1]


def main() -> None:
    """Train all nets and print the time."""
    options = arguments()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(options.matmul)
    data = prepared("mnist")
    start = time.perf_counter()
    accuracies = [train(data, options, seed) for seed in range(options.runs)]
    print(
        json.dumps({"runs": options.runs, "seconds": time.perf_counter() - start, "accuracies": accuracies})
    )


if __name__ == "__main__":
    main()
