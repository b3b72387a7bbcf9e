"""Shared helpers of the family tests: small nets of each family, and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.registry_choice import options_model

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SMALL: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "mlp": ({"depth": 4, "width": 16}, DIGITS),
    "cnn": ({"depth": 5, "width": 8}, DIGITS),
    "resnet": ({"depth": 8, "width": 8}, DIGITS),
    "resnet_mlp": ({"depth": 6, "width": 16}, DIGITS),
    "torchvision": ({"model": "resnet18"}, CIFAR),
}
"""A small net of each family, and the images it is for."""


def options_of(family: str, **options: Any) -> FamilyOptions:
    """The small net's options, with changes."""
    chosen: FamilyOptions = options_model(FAMILIES[family], "family")(**{**SMALL[family][0], **options})
    return chosen


def images(shape: tuple[int, ...], samples: int = 8, seed: int = 3) -> Tensor:
    """Normal noise, (samples, *shape)."""
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def net(
    family: str,
    shape: tuple[int, ...] | None = None,
    *,
    init: dict[str, Any] | None = None,
    classes: int = 10,
    seed: int = 0,
    **options: Any,
) -> Network:
    """The small net of a family, with its weights drawn."""
    shape = shape or SMALL[family][1]
    scheme = InitOptions.model_validate(init or {})
    chosen = options_of(family, **options)
    return build(chosen, scheme, form=SampleShape(shape, classes), seed=seed, batch=images(shape))


def parameters(network: Network) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in network.parameters())
