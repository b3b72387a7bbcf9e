"""Layer-sequential unit-variance init: measure each layer's output on a batch, and rescale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from initbench.components.init_scheme import INITS, Scheme, SchemeRequirement
from initbench.components.inits.orthogonal import orthogonal
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.registry import Options


class LsuvOptions(Options):
    """Options of lsuv."""

    tol: float = Field(default=0.01, gt=0.0, lt=1.0)
    """Tolerance: a layer is finished if its output's standard deviation differs from 1 by less."""
    max_steps: int = Field(default=10, gt=0, le=1000)
    """Maximum number of rescalings of one layer."""


def calibrate(
    network: nn.Module, weight_modules: Sequence[nn.Module], batch: Tensor, *, tol: float, max_steps: int
) -> None:
    """Rescale each weight until the standard deviation of its layer's output on `batch` is 1.

    Takes one forward pass: a hook rescales each layer when the pass reaches it, and returns the new output.
    A layer whose output is constant or not finite is not changed; neither are buffers.
    """

    def rescale(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for _ in range(max_steps):
            std = float(output.double().std(correction=0))
            if std == 0.0 or not math.isfinite(std) or abs(std - 1.0) < tol:
                break
            assign_weight(module, weight_of(module) / std)
            output = module.forward(*inputs)
        return output

    with torch.no_grad(), ExitStack() as hooks:
        for module in weight_modules:
            hooks.callback(module.register_forward_hook(rescale).remove)
        copies = {name: buffer.clone() for name, buffer in network.named_buffers()}
        functional_call(network, copies, (batch,))


INITS.add(
    Scheme(
        name="lsuv",
        aliases=("layer_sequential_unit_variance",),
        summary="Orthogonal; then each layer is rescaled until its output on the first batch has variance 1.",
        formula="W ← W/std(out), until |std(out) − 1| < tol",
        source="Mishkin & Matas 2016",
        options=LsuvOptions,
        needs=SchemeRequirement.FIRST_BATCH,
        fill=orthogonal,
        calibrate=calibrate,
    )
)
