"""Evaluation of nets with batch norm by other statistics than the running ones.

K runs, N samples of a split, B the size of a training batch. Nothing of a cohort is changed: all that
norm layers write goes to copies of the buffers.
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
"""Batches that are evaluated by their own statistics at most: of two samples a split makes thousands."""
MAP_POPULATION = 256
"""Samples that the population's statistics are taken over in nets with maps, where each has many places."""


def evaluate_norms(cohort: Cohort, sample: Split, val: Split, batch_size: int) -> list[dict[str, float]]:
    """For each run, val_loss and val_accuracy by batch and by population statistics; {} without batch norm.

    `_batch`: in batches of the training's size, drawn from `val` in a fixed order (MOST_BATCHES at most),
    each standardised by itself as in training; the last one is filled up from the beginning. `_population`:
    by the exact mean and variance over `sample`, recomputed in one pass layer by layer (Ioffe & Szegedy 2015,
    algorithm 2, over a sample instead of averaged batches).
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
            valid = rows < samples  # (B,): what fills the last batch up is not counted again
            x, y = split.take(order[rows % samples])
            scores = cohort.scores(x, y, _copies(cohort))
            total += torch.stack([score.where(valid, 0.0).sum(1) for score in scores])
    losses, accuracies = (total / min(samples, batches * batch_size)).tolist()
    return losses, accuracies


def _population(cohort: Cohort, sample: Split) -> dict[str, Tensor]:
    """Buffers whose running statistics are those of the sample."""
    most = MAP_POPULATION if has_maps(cohort.skeleton.weight_layers()) else len(sample)
    moments = []
    with recompute_running_stats(cohort.skeleton):
        # One by one: of any number of samples, stacked runs are not rounded alike.
        for k in range(cohort.size):
            parameters, buffers = cohort.run_state(k)
            moments.append({name: buffer.clone() for name, buffer in buffers.items()})
            cohort.forward(parameters, moments[k], sample.x[:most])
    return {name: torch.stack([buffers[name] for buffers in moments]) for name in cohort.buffers}


def _copies(cohort: Cohort) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in cohort.buffers.items()}
