"""Create stored runs with layers and histograms from formulas, without training.

The store's own writer writes each run, so its files have the keys, the number of digits and the size of those
of `initbench run`. Files are not synced.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from initbench.store.store import Store

STEPS = 2000
"""Updates of a run that finishes."""
_ENTRIES = 65_536
"""Entries of a tensor whose histogram is stored."""
_REACH = 4.0
"""Half the width of a histogram, in root mean squares."""


@dataclass(frozen=True)
class SyntheticRow:
    """A row of a comparison: the runs of one experiment."""

    name: str
    factor: float = 1.0
    """Factor of q from one layer to the next at init; the gradient changes by it in the other direction."""
    seeds: int = 1
    diverges: bool = False
    """Whether the loss is no longer finite after a few updates."""
    findings: Sequence[dict[str, Any]] = ()


def write_runs(
    root: Path, rows: Sequence[SyntheticRow], *, depth: int, probes: int = 10, bins: int = 32
) -> list[str]:
    """Write the runs of `rows` to the store below `root`.

    Args:
        root: Directory of the store.
        rows: The experiments.
        depth: Weight layers of each net, head included.
        probes: Probes of each run, the first at step 0 and the last after the last update; at least 2.
        bins: Bins of each histogram.

    Returns:
        The ids of the runs.
    """
    store = Store(root)
    run_ids = []
    with patch.object(os, "fsync"):
        for number, row in enumerate(rows):
            for seed in range(row.seeds):
                run_ids.append(f"{_plain(row.name, number)}-s{seed}-{number:010x}")
                _write_run(store, run_ids[-1], row, number, seed, _Net(depth, probes, bins))
    return run_ids


def _plain(name: str, number: int) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:30].strip("_") or f"row{number}"


@dataclass(frozen=True)
class _Net:
    depth: int
    probes: int
    bins: int


def _write_run(store: Store, run_id: str, row: SyntheticRow, number: int, seed: int, net: _Net) -> None:
    chance = random.Random(f"{number} {seed}")
    config = {
        "kind": "experiment",
        "name": row.name,
        "notes": "",
        "seeds": row.seeds,
        "data": {"name": "digits"},
        "model": {"family": "mlp", "depth": net.depth, "width": 128, "activation": "relu", "norm": "none"},
        "init": {"scheme": {"name": "kaiming_normal", "mode": "fan_in"}, "gain": row.factor},
        "train": {"steps": STEPS, "batch_size": 128, "lr": round(0.01 * (number + 1), 2)},
        "probe": {"when": ["init", "train", "end"], "batch": 512, "bins": net.bins},
    }
    record = {
        "experiment": row.name,
        "config": config,
        "arm": f"{number:010x}",
        "seed": seed,
        "dataset": "digits",
        "dataset_requested": "digits",
        "device": "cpu",
        "precision": "fp32",
        "steps": STEPS,
        "identity": {"data": {"name": "digits", "fingerprint": "0"}, "device": "cpu", "torch": "2"},
        "versions": {"initbench": "0.1.0", "torch": "2"},
        "machine": {"processor": "synthetic", "cores": 1, "system": "synthetic"},
    }
    learns = 1.0 / (1.0 + abs(math.log(row.factor)))
    with store.claim(run_id, record, json.dumps(config)) as run:
        curve = list(_curve(learns, row.diverges, chance))
        for entry in curve:
            run.append_convergence(entry)
        for snapshot in _snapshots(row, net, chance):
            run.append_snapshot(snapshot)
        last = curve[-1]
        final = {key: last[key] for key in ("train_loss", "val_loss", "val_accuracy")}
        ending: dict[str, Any] = {
            "final": None if row.diverges else {**final, "test_accuracy": last["val_accuracy"] - 0.01},
            "diverged": {"step": 2, "layer": 3} if row.diverges else None,
            "diagnosis": list(row.findings),
            "timings": {"train": 1.0, "evaluate": 0.5, "probe": 0.25, "total": 1.75},
        }
        run.finish({**ending, "status": "diverged" if row.diverges else "finished"}, weights=b"no weights")


def _curve(learns: float, diverges: bool, chance: random.Random) -> Iterator[dict[str, Any]]:
    for step in (0,) if diverges else range(0, STEPS + 1, STEPS // 10):
        left = math.exp(-learns * step / 400) * chance.uniform(0.95, 1.05)
        yield {
            "step": step,
            "epoch": step / 421,
            "train_loss": 2.3 * left + 0.07,
            "val_loss": 2.3 * left + 0.12,
            "val_accuracy": 0.97 - 0.87 * min(1.0, left),
        }


def _snapshots(row: SyntheticRow, net: _Net, chance: random.Random) -> Iterator[dict[str, Any]]:
    steps = [round(i * STEPS / (net.probes - 1)) for i in range(net.probes)]
    for step in steps[:1] if row.diverges else steps:
        factor = row.factor ** (1.0 - 0.5 * step / STEPS)
        when = "init" if step == 0 else "end" if step == STEPS else "train"
        layers = [_layer(index, factor, net, chance, is_init=step == 0) for index in range(1, net.depth + 1)]
        yield {"when": when, "step": step, "layers": layers}


def _layer(index: int, factor: float, net: _Net, chance: random.Random, *, is_init: bool) -> dict[str, Any]:
    q = 2.0 * factor ** (index - 1) * chance.uniform(0.95, 1.05)
    gradient = 1e-6 * factor ** (net.depth - index) * chance.uniform(0.95, 1.05)
    is_head = index == net.depth
    zeros = chance.uniform(0.45, 0.55)
    layer: dict[str, Any] = {
        "index": index,
        "name": "head" if is_head else f"blocks.{index - 1}.linear",
        "units": 10 if is_head else 128,
        "pre": {
            "mean": chance.gauss(0.0, 0.1) * math.sqrt(q),
            "std": math.sqrt(q),
            "q": q,
            "signal": 0.7 * q,
            "correlation": chance.uniform(0.3, 0.9),
            "quantiles": {
                name: z * math.sqrt(q)
                for name, z in {"p01": -2.33, "p25": -0.67, "p50": 0.0, "p75": 0.67, "p99": 2.33}.items()
            },
            "histogram": _histogram(math.sqrt(q), net.bins, chance),
        },
        "act": None
        if is_head
        else {
            "mean": 0.4 * math.sqrt(q),
            "std": 0.58 * math.sqrt(q),
            "q": q / 2,
            "zero_fraction": zeros,
            "dead_fraction": min(1.0, 0.002 * index),
            "saturated_fraction": None,
            "histogram": _rectified(math.sqrt(q), zeros, net.bins, chance),
            "effective_rank": chance.uniform(10, 60),
        },
        "grad": {
            "pre_q": gradient,
            "zero_fraction": zeros,
            "histogram": _histogram(math.sqrt(gradient), net.bins, chance),
            "weight_norm": 4.0,
        },
        "unit_spread": chance.uniform(0.8, 1.2),
        "jacobian": {"mean_sigma2": chance.uniform(0.8, 1.2), "condition": chance.uniform(10, 60)},
        "weight_std": 0.1 * chance.uniform(0.9, 1.1),
    }
    if is_init:
        expected = 2.0 * factor ** (index - 1)
        layer["theory"] = {"predicted": {"q": expected}, "band": {"q": [0.8 * expected, 1.25 * expected]}}
    return layer


def _histogram(scale: float, bins: int, chance: random.Random) -> dict[str, Any]:
    """Return the histogram of a normal distribution with this standard deviation, with noise."""
    size = 2 * _REACH / bins
    counts = []
    for i in range(bins):
        expected = _ENTRIES * (_share_below(-_REACH + (i + 1) * size) - _share_below(-_REACH + i * size))
        counts.append(max(0, round(chance.gauss(expected, math.sqrt(expected)))))
    return {"span": [-_REACH * scale, _REACH * scale], "counts": counts, "below": 2, "above": 1, "nan": 0}


def _rectified(scale: float, zeros: float, bins: int, chance: random.Random) -> dict[str, Any]:
    """Return the histogram from 0 to 4 of the positive half of a normal distribution, and of zeros."""
    edges = [4.0 * i / bins for i in range(bins + 1)]
    positive = 2 * _ENTRIES * (1.0 - zeros)
    counts = []
    for low, high in itertools.pairwise(edges):
        expected = positive * (_share_below(high / scale) - _share_below(low / scale))
        counts.append(max(0, round(chance.gauss(expected, math.sqrt(expected)))))
    counts[0] += round(_ENTRIES * zeros)
    above = round(positive * (1.0 - _share_below(4.0 / scale)))
    return {"edges": edges, "counts": counts, "below": 0, "above": above, "nan": 0}


def _share_below(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))
