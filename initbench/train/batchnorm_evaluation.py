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
    """Return val_loss and val_accuracy of each run by batch and by population statistics.

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
    for kind, (losses, accuracies) in by_kind.items():
        for run, loss, accuracy in zip(statistics, losses, accuracies, strict=True):
            run |= {f"val_loss_{kind}": loss, f"val_accuracy_{kind}": accuracy}
    return statistics


@torch.no_grad()
def _by_batch(cohort: Cohort, split: Split, batch_size: int) -> tuple[list[float], list[float]]:
    samples = len(split)
    order = torch.randperm(samples, generator=stream_generator(0, "evaluation_batches")).to(split.x.device)
    batches = min(-(-samples // batch_size), MAX_BATCHES)
    total = torch.zeros(2, cohort.size, dtype=torch.float64, device=split.x.device)
    with batch_statistics_mode(cohort.skeleton):
        for start in range(0, batches * batch_size, batch_size):
            rows = torch.arange(start, start + batch_size, device=split.x.device)
            valid = rows < samples  # (B,): padding is not counted
            x, y = split.take(order[rows % samples])
            scores = cohort.scores(x, y, _copies(cohort))
            total += torch.stack([score.where(valid, 0.0).sum(1) for score in scores])
    losses, accuracies = (total / min(samples, batches * batch_size)).tolist()
    return losses, accuracies


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
