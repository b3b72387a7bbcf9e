"""Networks of a cohort before the first update."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import first_batch
from initbench.data.preprocessing import PreparedData
from initbench.determinism import one_thread
from initbench.models.build import build
from initbench.models.network import Network
from initbench.train.matmul_precision import true_fp32


def build_networks(config: ExperimentConfig, data: PreparedData, seeds: Sequence[int]) -> list[Network]:
    """Build one net for each seed, on the CPU; data-dependent schemes see its first training batch."""
    with one_thread(), true_fp32(torch.device("cpu")):  # rounding of a decomposition depends on threads
        return [_network(config, data, seed) for seed in seeds]


def _network(config: ExperimentConfig, data: PreparedData, seed: int) -> Network:
    return build(
        config.model,
        config.init,
        form=data.form,
        seed=seed,
        batch=first_batch(data.train.x, config.train.batch_size, seed, data.order).cpu(),
    )
