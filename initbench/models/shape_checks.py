"""Checks whether a net can be built for samples of a given shape, by arithmetic only, without tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from initbench.components.norm import NORMS
from initbench.errors import ConfigError, ConfigIssue
from initbench.models.hidden_layer import normed_units
from initbench.models.network import FamilyOptions

Maps = tuple[int, int, int]
"""(C, H, W)."""


@dataclass(frozen=True)
class ConvSpec:
    """One convolution of a stack, padded such that only stride and pooling change the size of the maps."""

    width: int
    """Units of the layer."""
    stride: int = 1
    pooled: bool = False
    """Whether a pooling before the convolution halves the maps, rounding down."""

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H, W) of the convolution's input, for maps of `size` before the pooling."""
        return (size[0] // 2, size[1] // 2) if self.pooled else size

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H, W) of the convolution's output, for maps of `size` before the pooling."""
        height, width = self.seen(size)
        return -(-height // self.stride), -(-width // self.stride)


def raise_config_error(key: str, problem: str) -> NoReturn:
    """Raise ConfigError with one sentence about `key`."""
    raise ConfigError([ConfigIssue("", key, problem)])


def image_shape(options: FamilyOptions, input_shape: tuple[int, ...]) -> Maps:
    """Return the shape of a sample as (C, H, W), or raise ConfigError if samples are not images."""
    if len(input_shape) != 3:
        raise_config_error(
            "model.family",
            f"{options.family} needs images, and a sample of this data (data.name, data.whiten) is a list of"
            f" {math.prod(input_shape):,} features: choose a set of images without data.whiten=pca,"
            " or model.family=mlp",
        )
    channels, height, width = input_shape
    return channels, height, width


def check_norm(options: FamilyOptions, shape: tuple[int, ...], where: str) -> None:
    """Raise ConfigError if the norm layer is not defined on samples of `shape`, (C,) or (C, H, W)."""
    problem = NORMS[options.norm.name].problem(shape, options.norm)
    if problem is None:
        return
    option, sentence = problem
    size = " × ".join(map(str, shape))
    size_text = f"it sees {size} {where}, which model.* and data.resize decide"
    raise_config_error(f"model.norm.{option}".rstrip("."), f"{sentence} ({size_text})")


def check_stack(
    options: FamilyOptions,
    plans: Sequence[ConvSpec],
    input_shape: tuple[int, ...],
    *,
    kernel: int,
    key: str,
    remedy: str,
) -> None:
    """Raise ConfigError if the maps of a stack of convolutions become too small.

    A map must be large enough that each weight of the kernel is applied to at least one pixel.

    Args:
        options: Options of the model family.
        plans: Convolutions in order.
        input_shape: Shape of a sample.
        kernel: Size of the kernels.
        key: Config key that the error names.
        remedy: Suggestion at the end of the error message.
    """
    _, *size = image_shape(options, input_shape)
    previous_size, images = (size[0], size[1]), f"images of {size[0]} × {size[1]}"
    for layer, plan in enumerate(plans, 1):
        height, width = plan.seen(previous_size)
        if min(height, width) <= kernel // 2:
            maps = f"maps of {height} × {width}, too small for a kernel of {kernel} × {kernel}"
            raise_config_error(key, f"layer {layer} of {options.family} sees {maps}, on {images}: {remedy}")
        previous_size = plan.size(previous_size)
        shape = (normed_units(options, plan.width), *previous_size)
        check_norm(options, shape, f"in layer {layer} on {images}")
