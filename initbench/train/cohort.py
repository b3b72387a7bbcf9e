"""Several runs trained as one: their parameters stacked, their forward pass vmapped.

In mode `single` there is one run, and its forward pass is called as it is: convolutions are slower vmapped.

K runs, B samples a batch, N samples of a split, P a parameter's own shape.
The losses of the runs are summed before the backward pass; since no run's loss depends on
another's parameters, each gets its own gradient, and a run that turns NaN stays alone with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from initbench.config.schema import TrainOptions
from initbench.models.network import Mode, Network
from initbench.train.checkpoint import Checkpoint
from initbench.train.param_groups import StackedOptimizer

EVALUATION_CHUNK = 512
"""Samples that all runs are evaluated on at a time; of 1,024, what 16 runs put out leaves the caches."""


class Cohort:
    """K runs of one architecture under one program.

    `networks` must agree in every shape; they differ in weights. In mode `vmap` a cohort of one is the
    same code, so that what a run computes does not depend on which cohort it is in.
    """

    def __init__(
        self, networks: Sequence[Network], options: TrainOptions, mode: Mode, device: torch.device
    ) -> None:
        if mode == "single" and len(networks) != 1:
            raise ValueError("runs that train singly are not stacked")
        self._mode = mode
        parameters, buffers = stack_module_state(list(networks))
        self.parameters: dict[str, Tensor] = {
            name: p.detach().to(device) for name, p in parameters.items()
        }  # (K, P)
        self.buffers: dict[str, Tensor] = {name: b.to(device) for name, b in buffers.items()}
        self.skeleton: Network = copy.deepcopy(networks[0]).to(device)
        self.options = options
        self._updates = StackedOptimizer(self.skeleton, self.parameters, options)
        for name in self._updates.trained:
            self.parameters[name].requires_grad_()

    @property
    def size(self) -> int:
        """K, the number of runs still in the cohort."""
        return next(iter(self.parameters.values())).shape[0]

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of a batch, with the config's label smoothing."""
        return cross_entropy(logits, y, label_smoothing=self.options.label_smoothing)

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Losses (K,) of a batch x (K, B, …), y (K, B), detached; the gradients are left in `.grad`."""
        self.skeleton.train()
        for p in self.parameters.values():
            p.grad = None
        losses: Tensor = self.each(self.loss_of_one, (0, 0))(self.parameters, self.buffers, x, y)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """One optimizer step from the gradients of the last batch, clipped per run if asked for."""
        parameters = [self.parameters[name] for name in self._updates.trained]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        if self.options.clip_norm is not None:
            gradients = clip_per_run(gradients, self.options.clip_norm)
        by_name = dict(zip(self._updates.trained, gradients, strict=True))
        self._updates.step(self.parameters, by_name, lr)

    @torch.no_grad()
    def evaluate(
        self, x: Tensor, y: Tensor, buffers: dict[str, Tensor] | None = None
    ) -> tuple[list[float], list[float]]:
        """Mean loss and accuracy of each run over a split x (N, …), y (N,), in evaluation mode.

        The loss is plain cross-entropy, without label smoothing. `buffers`: others than the runs' own.
        """
        self.skeleton.eval()
        buffers = self.buffers if buffers is None else buffers
        total = torch.zeros(2, self.size, dtype=torch.float64, device=x.device)
        for start in range(0, len(y), EVALUATION_CHUNK):
            # The last chunk is as long as the others, so that it fills whole vectors (see models/families).
            rows = torch.arange(start, start + EVALUATION_CHUNK, device=x.device)
            x_chunk, y_chunk = x.index_select(0, rows % len(y)), y[rows % len(y)]
            loss, correct = self.scores(x_chunk, y_chunk, buffers)
            valid = rows < len(y)  # (chunk,)
            total += torch.stack([loss.where(valid, 0.0).sum(1), correct.where(valid, 0.0).sum(1)])
        loss_mean, accuracy = (total / len(y)).tolist()
        return loss_mean, accuracy

    def scores(self, x: Tensor, y: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Losses and hits (K, B) of each run on x (B, …), y (B,), in the mode that the skeleton is in.

        In training mode norm layers write to `buffers`.
        """
        loss, correct = self.each(self._score_one, (None, None))(self.parameters, buffers, x, y)
        return loss, correct

    def run_state(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Views of one run's parameters and buffers, by name."""
        return (
            {name: p.detach()[index] for name, p in self.parameters.items()},
            {name: b[index] for name, b in self.buffers.items()},
        )

    def optimizer_state(self, index: int) -> tuple[dict[str, dict[str, Tensor]], float]:
        """Views of one run's optimizer slots, by slot and parameter, and the updates counted."""
        return self._updates.state_of_run(index)

    def resume(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Take over the state of every run, in order; all of them have made as many updates."""
        parameters = {name: p.detach() for name, p in self.parameters.items()}
        for k, checkpoint in enumerate(checkpoints):
            for tensors, saved in ((parameters, checkpoint.parameters), (self.buffers, checkpoint.buffers)):
                for name, tensor in tensors.items():
                    tensor[k].copy_(saved[name])
        self._updates.resume(parameters, checkpoints)

    def keep(self, alive: list[int]) -> None:
        """Go on with the runs at these positions alone, between `gradients` and `update` as well."""
        index = torch.tensor(alive, device=next(iter(self.parameters.values())).device)
        self.parameters = {name: _rows(p, index) for name, p in self.parameters.items()}
        self.buffers = {name: b[index] for name, b in self.buffers.items()}
        self._updates.keep_runs(index)

    def each(self, function: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
        """Return `function` for all runs of the cohort; see `map_over_runs`."""
        return map_over_runs(self._mode, function, data_dims)

    def loss_of_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """The loss () of one run on a batch x (B, …), y (B,)."""
        return self.loss(self.forward(parameters, buffers, x), y)

    def _score_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = self.forward(parameters, buffers, x)
        correct = (logits.argmax(-1) == y).double()
        is_finite = logits.isfinite().all(-1)  # argmax of NaN is a class, but no answer
        return cross_entropy(logits, y, reduction="none").double(), torch.where(is_finite, correct, torch.nan)

    def forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Logits of one run in float32, whatever the precision of the layers."""
        bf16 = self.options.precision == "bf16"
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits: Tensor = functional_call(self.skeleton, {**parameters, **buffers}, (x,))
        return logits.float()


def map_over_runs(
    mode: Mode, function: Callable[..., Any], data_dims: tuple[int | None, ...]
) -> Callable[..., Any]:
    """Return `function` of one run's (parameters, buffers, *data) for all runs, with an axis K in front.

    Args:
        mode: With `single` there is one run, and the function is called without vmap.
        function: Takes the tensors of one run.
        data_dims: For each item of the data, 0 if every run has its own, None if all share one.
    """
    if mode == "vmap":
        return vmap(function, in_dims=(0, 0, *data_dims), randomness="different")

    def single(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        tensors = {name: p[0] for name, p in parameters.items()}, {name: b[0] for name, b in buffers.items()}
        batch = (x if dim is None else x[0] for x, dim in zip(data, data_dims, strict=True))
        result = function(*tensors, *batch)
        return result[None] if isinstance(result, Tensor) else tuple(part[None] for part in result)

    return single


def _rows(parameter: Tensor, index: Tensor) -> Tensor:
    """Rows of a stacked parameter, with those of its gradient."""
    rows = parameter.detach()[index].requires_grad_(parameter.requires_grad)
    rows.grad = None if parameter.grad is None else parameter.grad[index]
    return rows


def clip_per_run(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Scale each run's gradients so that their joint norm is at most `limit`. gradients: (K, P) each."""
    # Along a contiguous last axis alone does a sum's order not depend on how many runs are stacked, and
    # in two stages not on the threads either, among which torch shares out one long sum.
    rows = [g.contiguous().square().sum(-1) for g in gradients]
    squares = [row.flatten(1).sum(1) if row.ndim > 1 else row for row in rows]
    norms = torch.stack(squares, dim=1).sum(1).sqrt()  # (K,)
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    return [g * factors.view(-1, *[1] * (g.ndim - 1)) for g in gradients]
