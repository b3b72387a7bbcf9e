"""Evaluation of nets with batch norm by batch and population statistics instead of running ones.

K: runs, N: samples of a split, B: training batch size. The cohort is not changed: norm layers write to
copies of the buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.data.preprocessing import Split
from initbench.models.network import has_maps
from initbench.probing.running_statistics import batch_statistics_mode, recompute_running_stats, running_norms
from initbench.rng import stream_generator
from initbench.train.cohort import Cohort

MAX_BATCHES = 512
"""Maximum number of batches evaluated by their own statistics; with two samples each there are thousands."""
MAP_POPULATION = 256
"""Number of samples for population statistics in nets with feature maps, which have many positions."""


def evaluate_norms(cohort: Cohort, sample: Split, val: Split, batch_size: int) -> list[dict[str, float]]:
    """Return val_loss and, for class indices or labels, val_accuracy of each run by other statistics.

    Keys with the suffix `_batch`: `val` by batches of training size in a fixed order, at most MAX_BATCHES,
    each normalized by its own statistics as in training. The last batch is padded with the first samples.

    Keys with the suffix `_population`: normalized by the exact mean and variance over `sample`, recomputed in
    one pass layer by layer (Ioffe & Szegedy 2015, algorithm 2, over a sample instead of averaged batches).

    Nets without batch norm get empty dictionaries.
    """
    if not running_norms(cohort.skeleton):
        return [{} for _ in range(cohort.size)]
    by_kind = {
        "batch": _by_batch(cohort, val, batch_size),
        "population": cohort.evaluate(val.x, val.y, _population(cohort, sample)),
    }
    statistics: list[dict[str, float]] = [{} for _ in range(cohort.size)]
    for kind, values in by_kind.items():
        for name in ("loss", "accuracy"):
            for run, value in zip(statistics, values.get(name, ()), strict=False):
                run[f"val_{name}_{kind}"] = value
    return statistics


@torch.no_grad()
def _by_batch(cohort: Cohort, split: Split, batch_size: int) -> dict[str, list[float]]:
    samples = len(split)
    order = torch.randperm(samples, generator=stream_generator(0, "evaluation_batches")).to(split.x.device)
    batches = min(-(-samples // batch_size), MAX_BATCHES)
    totals = cohort.totals(split.y)
    with batch_statistics_mode(cohort.skeleton):
        for start in range(0, batches * batch_size, batch_size):
            rows = torch.arange(start, start + batch_size, device=split.x.device)
            x, y = split.take(order[rows % samples])
            counted = min(batch_size, samples - start)  # padding is not counted
            totals.add(cohort.statistics(x, y, _copies(cohort), counted), counted)
    return totals.values()


def _population(cohort: Cohort, sample: Split) -> dict[str, Tensor]:
    """Return buffers whose running statistics are those of the sample."""
    most = MAP_POPULATION if has_maps(cohort.skeleton.weight_layers()) else len(sample)
    moments = []
    with recompute_running_stats(cohort.skeleton):
        # One run at a time: for some sample counts the rounding depends on the number of stacked runs.
        for k in range(cohort.size):
            parameters, buffers = cohort.run_state(k)
            moments.append({name: buffer.clone() for name, buffer in buffers.items()})
            cohort.forward(parameters, moments[k], sample.x[:most])
    return {name: torch.stack([buffers[name] for buffers in moments]) for name in cohort.buffers}


def _copies(cohort: Cohort) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in cohort.buffers.items()}
