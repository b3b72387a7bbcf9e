"""Several runs trained as one, with stacked parameters and a vmapped forward pass.

In mode `single` there is one run, and its forward pass is called without vmap, which slows down convolutions.

K: runs, B: samples of a batch, N: samples of a split, P: shape of a parameter.
The losses of the runs are summed before the backward pass. Since no loss depends on the parameters of
another run, each run gets its own gradient, and a run that turns NaN does not affect the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import stack_module_state, vmap
from torch.nn.functional import cross_entropy

from initbench.config.schema import TrainOptions
from initbench.models.freezing import layer_tensors
from initbench.models.network import Mode, Network
from initbench.registry import Options
from initbench.train.checkpoint import Checkpoint, cpu_copies
from initbench.train.matmul_precision import bf16_stack_of_one_differs
from initbench.train.param_groups import StackedOptimizer

EVALUATION_CHUNK = 512
"""Number of samples in one evaluation pass; with 1,024 the outputs of 16 runs exceed the caches."""


class StackedRuns:
    """Stacked parameters and buffers of K runs, with their optimizer. Tensors are changed in place."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        mode: Mode,
        device: torch.device,
        *,
        lr_factors: Mapping[str, float],
        optimizer: Options,
        weight_decay: float = 0.0,
    ) -> None:
        self._mode, self._device = mode, device
        self.parameters: dict[str, Tensor] = {
            name: p.detach().to(device).requires_grad_(name in lr_factors) for name, p in parameters.items()
        }  # (K, P)
        self.buffers: dict[str, Tensor] = {name: b.to(device) for name, b in buffers.items()}
        self._optimizer = StackedOptimizer(self.parameters, lr_factors, optimizer, weight_decay)

    def run_state(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return views of one run's parameters and buffers, by name."""
        return (
            {name: p.detach()[index] for name, p in self.parameters.items()},
            {name: b[index] for name, b in self.buffers.items()},
        )

    def checkpoint(self, index: int, step: int) -> Checkpoint:
        """Return the state of one run after update `step`: its tensors and those of its optimizer."""
        parameters, buffers = self.run_state(index)
        slots, updates = self._optimizer.state_of_run(index)
        return Checkpoint(
            step=step,
            parameters=cpu_copies(parameters),
            buffers=cpu_copies(buffers),
            slots={slot: cpu_copies(tensors) for slot, tensors in slots.items()},
            updates=updates,
        )

    def resume(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Restore the state of every run, in order; all checkpoints have the same number of updates."""
        parameters = {name: p.detach() for name, p in self.parameters.items()}
        for k, checkpoint in enumerate(checkpoints):
            for tensors, saved in ((parameters, checkpoint.parameters), (self.buffers, checkpoint.buffers)):
                for name, tensor in tensors.items():
                    tensor[k].copy_(saved[name])
        self._optimizer.resume(parameters, checkpoints)

    def each(self, function: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
        """Return `function` of one run's (parameters, buffers, *data) for all runs, with an axis K in front.

        With mode `single` there is one run, and the function is called without vmap.

        Args:
            function: Takes the tensors of one run.
            data_dims: For each item of the data, 0 if every run has its own, None if all share one.
        """
        if self._mode == "vmap":
            return vmap(function, in_dims=(0, 0, *data_dims), randomness="different")

        def single(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
            tensors = {name: p[0] for name, p in parameters.items()}, {n: b[0] for n, b in buffers.items()}
            batch = (x if dim is None else x[0] for x, dim in zip(data, data_dims, strict=True))
            result = function(*tensors, *batch)
            return result[None] if isinstance(result, Tensor) else tuple(part[None] for part in result)

        return single

    def _backward(self, loss_of_one: Callable[..., Any], *data: Tensor) -> Tensor:
        """Compute gradients into `.grad` from data (K, …) of each run; return detached losses (K,)."""
        for p in self.parameters.values():
            p.grad = None
        losses: Tensor = self.each(loss_of_one, (0,) * len(data))(self.parameters, self.buffers, *data)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    @torch.no_grad()
    def _update(self, lr: float, clip_norm: float | None = None) -> None:
        parameters = [self.parameters[name] for name in self._optimizer.trained]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        if clip_norm is not None:
            gradients = clip_per_run(gradients, clip_norm)
        by_name = dict(zip(self._optimizer.trained, gradients, strict=True))
        self._optimizer.step(self.parameters, by_name, lr)


class Cohort(StackedRuns):
    """K runs of one architecture under one program.

    `networks` must agree in every shape; they differ in weights. In mode `vmap` a cohort of one run executes
    the same code, so that the numbers of a run do not depend on its cohort.
    """

    def __init__(
        self, networks: Sequence[Network], options: TrainOptions, mode: Mode, device: torch.device
    ) -> None:
        if mode == "single" and len(networks) != 1:
            raise ValueError("runs that train singly are not stacked")
        head, factors = set(layer_tensors(networks[0])[-1].tensors), options.lr_factors
        super().__init__(
            *stack_module_state(list(networks)),
            mode,
            device,
            lr_factors={
                name: factors.head if name in head else factors.body
                for name, p in networks[0].named_parameters()
                if p.requires_grad
            },
            optimizer=options.optimizer,
            weight_decay=options.weight_decay,
        )
        self.skeleton: Network = copy.deepcopy(networks[0]).to(device)
        self.options = options

    @property
    def size(self) -> int:
        """Number of runs still in the cohort, K."""
        return next(iter(self.parameters.values())).shape[0]

    @property
    def _bf16(self) -> bool:
        return self.options.precision == "bf16"

    @property
    def _stacked_bf16_on_cpu(self) -> bool:
        return self._bf16 and self._mode == "vmap" and self._device.type == "cpu"

    def each(self, function: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
        """Return `function` of one run for all runs, as `StackedRuns.each` does.

        On a CPU whose bf16 products of one run differ from those of a stack, one run is stacked with a copy.
        """
        stacked = super().each(function, data_dims)
        if self._stacked_bf16_on_cpu and self.size == 1 and bf16_stack_of_one_differs():
            return _with_copy(stacked, data_dims)
        return stacked

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch, with the label smoothing of the config."""
        return cross_entropy(logits, y, label_smoothing=self.options.label_smoothing)

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute gradients of a batch x (K, B, …), y (K, B) into `.grad`; return detached losses (K,)."""
        self.skeleton.train()
        return self._backward(self.loss_of_one, x, y)

    def update(self, lr: float) -> None:
        """Make one optimizer step with the last gradients, clipped per run if `clip_norm` is set."""
        self._update(lr, self.options.clip_norm)

    @torch.no_grad()
    def evaluate(
        self, x: Tensor, y: Tensor, buffers: dict[str, Tensor] | None = None
    ) -> tuple[list[float], list[float]]:
        """Return mean loss and accuracy of each run over a split x (N, …), y (N,), in evaluation mode.

        The loss is plain cross-entropy, without label smoothing. `buffers` replace those of the runs.
        """
        self.skeleton.eval()
        buffers = self.buffers if buffers is None else buffers
        total = torch.zeros(2, self.size, dtype=torch.float64, device=x.device)
        for start in range(0, len(y), EVALUATION_CHUNK):
            # The last chunk is padded to the length of the others, to whole vectors (see models/families).
            rows = torch.arange(start, start + EVALUATION_CHUNK, device=x.device)
            x_chunk, y_chunk = x.index_select(0, rows % len(y)), y[rows % len(y)]
            loss, correct = self.scores(x_chunk, y_chunk, buffers)
            valid = rows < len(y)  # (chunk,)
            total += torch.stack([loss.where(valid, 0.0).sum(1), correct.where(valid, 0.0).sum(1)])
        loss_mean, accuracy = (total / len(y)).tolist()
        return loss_mean, accuracy

    def scores(self, x: Tensor, y: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return losses and hits (K, B) of each run on x (B, …), y (B,), in the current mode of the skeleton.

        In training mode norm layers write to `buffers`.
        """
        # With one batch for all runs, torch would multiply by all weights at once, as one matrix whose number
        # of rows depends on the number of runs; in bf16 the rounding follows it.
        x_dim = 0 if self._stacked_bf16_on_cpu else None
        x = x if x_dim is None else x.expand(self.size, *x.shape)
        loss, correct = self.each(self._score_one, (x_dim, None))(self.parameters, buffers, x, y)
        return loss, correct

    def keep(self, alive: Sequence[int]) -> None:
        """Drop all other runs than those at these positions; also works between `gradients` and `update`."""
        index = torch.tensor(list(alive), device=next(iter(self.parameters.values())).device)
        self.parameters = {name: _rows(p, index) for name, p in self.parameters.items()}
        self.buffers = {name: b[index] for name, b in self.buffers.items()}
        self._optimizer.keep_runs(index)

    def loss_of_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Return the loss () of one run on a batch x (B, …), y (B,)."""
        return self.loss(self.forward(parameters, buffers, x), y)

    def _score_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = self.forward(parameters, buffers, x)
        correct = (logits.argmax(-1) == y).double()
        is_finite = logits.isfinite().all(-1)  # argmax of NaN is a class, which must not count
        return cross_entropy(logits, y, reduction="none").double(), torch.where(is_finite, correct, torch.nan)

    def forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits of one run in float32, in any precision of the products."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            logits = self.skeleton.logits({**parameters, **buffers}, x)
        return logits.float()


def _with_copy(stacked: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
    """Return `stacked` for a stack of one run: it computes two equal runs and drops the second result."""

    def doubled(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        both = {name: _twice(b) for name, b in buffers.items()}
        batch = (x if dim is None else _twice(x) for x, dim in zip(data, data_dims, strict=True))
        result = stacked({name: _twice(p) for name, p in parameters.items()}, both, *batch)
        for name, buffer in buffers.items():
            buffer.copy_(both[name][:1])  # norm layers write to their buffers
        return result[:1] if isinstance(result, Tensor) else tuple(part[:1] for part in result)

    return doubled


def _twice(tensor: Tensor) -> Tensor:
    """Stack a tensor (1, …) with a copy of itself that has no gradient."""
    return torch.cat([tensor, tensor.detach()])


def _rows(parameter: Tensor, index: Tensor) -> Tensor:
    """Return rows of a stacked parameter, with the same rows of its gradient."""
    rows = parameter.detach()[index].requires_grad_(parameter.requires_grad)
    rows.grad = None if parameter.grad is None else parameter.grad[index]
    return rows


def clip_per_run(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Scale each run's gradients so that their joint norm is at most `limit`. gradients: (K, P) each."""
    # The order of a sum is independent of the number of stacked runs only along a contiguous last axis.
    # Two stages make it independent of the threads too, among which torch divides one long sum.
    rows = [g.contiguous().square().sum(-1) for g in gradients]
    squares = [row.flatten(1).sum(1) if row.ndim > 1 else row for row in rows]
    norms = torch.stack(squares, dim=1).sum(1).sqrt()  # (K,)
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    return [g * factors.view(-1, *[1] * (g.ndim - 1)) for g in gradients]
