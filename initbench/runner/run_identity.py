"""Compute run ids: hashes of everything that the numbers of a run depend on.

Two runs with the same id compute the same numbers on the same kind of device, so a finished run is never
trained again. A change of config, data, torch or the numerical code of initbench gives a new id.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch

from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import form_of
from initbench.data.locate import ResolvedDataset
from initbench.models.network import FAMILIES, Mode
from initbench.pretrain.autoencoder import options_of
from initbench.pretrain.weight_sources import WeightSource
from initbench.runner.fingerprint_cache import cached_code_fingerprint
from initbench.store import strict_json
from initbench.train.cohort import EVALUATION_CHUNK

_DIGITS = 10
MIN_SAMPLE_SHAPE = SampleShape((2,), 2)
"""Assumed minimal shape if only the data file defines it."""


@dataclass(frozen=True)
class Identity:
    """The parts covered by the digest of a run, without its seed."""

    parts: dict[str, Any]
    weights: str | None = None
    """Hash of the weights that the run of one seed loads; None if it draws its weights."""

    @property
    def arm(self) -> str:
        """The digest shared by runs that differ only in their seed."""
        return _digest(self.parts)

    def run_id(self, name: str, seed: int) -> str:
        """Return `name-s<seed>-<digest>`."""
        run_keys = {"seed": seed} if self.weights is None else {"seed": seed, "weights": self.weights}
        return f"{name}-s{seed}-{_digest({**self.parts, **run_keys})}"


def experiment_identity(
    config: ExperimentConfig,
    resolved: ResolvedDataset,
    device: torch.device,
    origin: WeightSource | None = None,
) -> Identity:
    """Return the identity of an experiment, given its resolved data set and the source of loaded weights."""
    origin_keys = {} if origin is None else {"origin": origin.kind}
    return Identity(
        {
            **origin_keys,
            "config": config.identity_keys(),
            "data": {"name": resolved.located.name, "fingerprint": resolved.located.fingerprint},
            "device": device.type,
            "precision": config.train.precision,
            "mode": training_mode(config, device),
            "torch": str(torch.__version__),
            "code": cached_code_fingerprint(config, resolved.located.name),
        },
        None if origin is None else origin.sha256,
    )


def training_mode(config: ExperimentConfig, device: torch.device) -> Mode:
    """Return the training mode, which depends only on the config and the kind of device.

    In mode "vmap" runs are stacked; in mode "single" each run is trained alone.
    """
    if device.type != "cpu":
        return "vmap" if FAMILIES[config.model.family].stacks_on_gpu else "single"
    autoencoder = options_of(config.init.scheme)
    sizes = [config.train.batch_size, EVALUATION_CHUNK, autoencoder.batch_size if autoencoder else None]
    form = form_of(config.data) or MIN_SAMPLE_SHAPE
    ends = math.prod(form.shape), form.outputs
    mode = FAMILIES[config.model.family].mode
    modes = {mode(config.model, size, *ends) for size in sizes if size is not None}
    return "single" if "single" in modes else "vmap"


def _digest(parts: dict[str, Any]) -> str:
    text = strict_json.dumps(_sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
