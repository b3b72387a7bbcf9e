"""Train as a typical script does: torchvision's MNIST, ToTensor and Normalize in a DataLoader.

The net and the budget are those of configs/relu_kaiming.yaml. Each sample passes through a PIL image, as
torchvision's data sets do it. The published archives are unpacked into a temporary folder first, untimed.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks.bare_loop import BATCH_SIZE, DEPTH, LR, MOMENTUM, network, source

MEAN, STD = 0.1307, 0.3081


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=2000, help="updates (default 2000)")
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the DataLoader")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--depth", type=int, default=DEPTH, help=f"weight layers (default {DEPTH})")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def unpack(folder: Path) -> None:
    """Unpack MNIST's files to where torchvision looks for them in `folder`."""
    from initbench.data.download.archive import find_or_download
    from initbench.data.sets.torchvision_sets import published_archive

    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in find_or_download(published_archive("mnist", "MNIST"), source()).values():
        with gzip.open(path) as packed, (raw / path.stem).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)


def main() -> None:
    """Train the net and print its speed."""
    options = arguments()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        unpack(Path(folder))
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
        data = MNIST(folder, train=True, transform=transform)
    loader = DataLoader(
        data, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, num_workers=options.workers
    )
    net = network(28 * 28, options.depth)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    done = 0
    start = time.perf_counter()
    while done < options.steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            done += 1
            if done == options.steps:
                break
    seconds = time.perf_counter() - start
    samples = options.steps * BATCH_SIZE
    result = {
        "samples": samples,
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "loss": float(loss),
        "threads": torch.get_num_threads(),
        "workers": options.workers,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
