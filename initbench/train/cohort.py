"""Several runs trained as one, with stacked parameters and a vmapped forward pass.

In mode `single` there is one run, and its forward pass is called without vmap, which slows down convolutions.

K: runs, B: samples of a batch, N: samples of a split, P: shape of a parameter.
The losses of the runs are summed before the backward pass. Since no loss depends on the parameters of
another run, each run gets its own gradient, and a run that turns NaN does not affect the others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import stack_module_state, vmap

from initbench.components.loss import LOSSES, outputs_fit, smoothed_cross_entropy
from initbench.components.target import SampleShape
from initbench.config.schema import TrainOptions
from initbench.models.custom_network import CustomNetwork
from initbench.models.freezing import layer_tensors
from initbench.models.network import Mode, Network
from initbench.registry import Options
from initbench.train.checkpoint import Checkpoint, cpu_copies
from initbench.train.graph_capture import GraphCapture
from initbench.train.matmul_precision import bf16_stack_of_one_differs
from initbench.train.param_groups import StackedOptimizer
from initbench.train.scores import Score, scores_of

EVALUATION_CHUNK = 512
"""Number of samples in one evaluation pass; with 1,024 the outputs of 16 runs exceed the caches."""
MAX_OUTPUT_VALUES = 1 << 24
"""Outputs of one evaluation pass of nets with outputs for each position, which have fewer samples then."""
_STACKED_KERNELS = 5
"""Number of axes of the stacked weights of a convolution over images."""
R = TypeVar("R")
_ONE_LABEL = SampleShape((), 2)


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
        captures: bool = False,
    ) -> None:
        self._mode, self._device = mode, device
        self._captures = captures
        self._captured: dict[str, GraphCapture[Any]] = {}
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

    def snapshot(self) -> Callable[[], None]:
        """Copy the state of all runs, and return a function that restores it."""
        tensors = *self.parameters.values(), *self.buffers.values()
        copies = [tensor.detach().clone() for tensor in tensors]
        restore_optimizer = self._optimizer.snapshot()

        @torch.no_grad()
        def restore() -> None:
            """Restore the state; no run may have left since."""
            for tensor, value in zip(tensors, copies, strict=True):
                tensor.copy_(value)  # in place, since captured operations read these tensors
            restore_optimizer()

        return restore

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
            if isinstance(result, dict):
                return {name: part[None] for name, part in result.items()}
            return result[None] if isinstance(result, Tensor) else tuple(part[None] for part in result)

        return single

    def _call(self, name: str, function: Callable[..., R], *data: Tensor) -> R:
        """Call a function of this name, which reads the tensors of the runs, or replay its operations."""
        if not self._captures:
            return function(*data)
        return self._captured.setdefault(name, GraphCapture()).call(function, *data)  # type: ignore[no-any-return]

    def _backward(self, losses_of: Callable[..., Tensor], *data: Tensor) -> Tensor:
        """Compute gradients into `.grad` and return the detached losses (K,).

        `losses_of` returns the loss of each run, given all parameters, buffers and the data (K, …). It is the
        same function in all calls.
        """

        def losses_and_gradients(*batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            trained = {name: self.parameters[name] for name in self._optimizer.trained}
            losses = losses_of(self.parameters, self.buffers, *batch)
            gradients = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
            by_name = zip(trained, gradients, strict=True)
            return losses.detach(), {n: _in_layout_of(trained[n], g) for n, g in by_name if g is not None}

        losses, gradients = self._call("gradients", losses_and_gradients, *data)
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        return losses

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
        self,
        networks: Sequence[Network],
        options: TrainOptions,
        mode: Mode,
        device: torch.device,
        form: SampleShape = _ONE_LABEL,
        *,
        captures: bool = False,
    ) -> None:
        if mode == "single" and len(networks) != 1:
            raise ValueError("runs that train singly are not stacked")
        head, factors = set(layer_tensors(networks[0])[-1].tensors), options.lr_factors
        parameters, buffers = stack_module_state(list(networks))
        # Code of the user may call `view`, which fails for outputs of convolutions in this layout.
        if mode == "single" and device.type == "cpu" and not isinstance(networks[0], CustomNetwork):
            parameters = {name: _kernels_channels_last(p) for name, p in parameters.items()}
        super().__init__(
            parameters,
            buffers,
            mode,
            device,
            lr_factors={
                name: factors.head if name in head else factors.body
                for name, p in networks[0].named_parameters()
                if p.requires_grad
            },
            optimizer=options.optimizer,
            weight_decay=options.weight_decay,
            # Code of the user may have other effects than operations on tensors.
            captures=captures
            and not isinstance(networks[0], CustomNetwork)
            and LOSSES[options.loss.name].per_sample is not None,
        )
        self.skeleton: Network = copy.deepcopy(networks[0]).to(device)
        self.options = options
        self._loss = LOSSES[options.loss.name]
        self._scores = scores_of(form, options.top_k)
        self._chunk = evaluation_chunk(form)
        self._needs_copy_if_alone = self._stacked_bf16_on_cpu and bf16_stack_of_one_differs()

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
        if self._needs_copy_if_alone and self.size == 1:
            return _with_copy(stacked, data_dims)
        return stacked

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch of one run, with the label smoothing of the config."""
        if self.options.label_smoothing:
            return smoothed_cross_entropy(outputs, y, self.options.label_smoothing)
        return self._loss.mean(outputs, y, self.options.loss)

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute gradients of a batch x (K, B, …), y (K, B, …) into `.grad`; return detached losses (K,)."""
        return self._backward(self._training_losses, x, y)

    def _training_losses(self, *args: Any) -> Tensor:
        self.skeleton.train()
        return self.losses(*args)

    def losses(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Return the loss of each run (K,) on its batch x (K, B, …), y (K, B, …).

        A loss of the user is computed for one run after another, so that it need not support vmap.
        """
        if self._loss.per_sample is not None:
            return self.each(self.loss_of_one, (0, 0))(parameters, buffers, x, y)  # type: ignore[no-any-return]
        outputs = self.each(self.forward, (0,))(parameters, buffers, x)
        return torch.stack([self.loss(*pair) for pair in zip(outputs, y, strict=True)])

    def update(self, lr: float) -> None:
        """Make one optimizer step with the last gradients, clipped per run if `clip_norm` is set."""
        self._update(lr, self.options.clip_norm)

    @torch.no_grad()
    def evaluate(
        self, x: Tensor, y: Tensor, buffers: dict[str, Tensor] | None = None
    ) -> dict[str, list[float]]:
        """Return the mean loss and the scores of each run over a split x (N, …), y (N, …), by name.

        Nets are in evaluation mode, and the loss is without label smoothing. `buffers` replace those of the
        runs. Scores that do not fit the outputs are omitted.
        """
        self.skeleton.eval()
        totals = self.totals(y)
        for start in range(0, len(y), self._chunk):
            # The last chunk is padded to the length of the others, to whole vectors (see models/families).
            rows = torch.arange(start, start + self._chunk, device=x.device) % len(y)
            samples = min(self._chunk, len(y) - start)
            batch = x.index_select(0, rows), y[rows]
            if buffers is None and samples == self._chunk:
                sums = self._call("statistics", self._statistics_of_chunk, *batch)
            else:
                sums = self.statistics(*batch, self.buffers if buffers is None else buffers, samples)
            totals.add(sums, samples)
        return totals.values()

    def _statistics_of_chunk(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the `statistics` over all samples of a chunk."""
        return self.statistics(x, y, self.buffers, len(y))

    def totals(self, targets: Tensor) -> ScoreTotals:
        """Return empty totals for a split with these targets (N, …)."""
        return ScoreTotals(self._scores, targets)

    def statistics(self, x: Tensor, y: Tensor, buffers: dict[str, Tensor], samples: int) -> dict[str, Tensor]:
        """Return sums of the loss and of the statistics of each score over the first samples: (K,) or (K, S).

        Args:
            x: Inputs (B, …) of all runs.
            y: Targets (B, …).
            buffers: Buffers of the runs; in training mode norm layers write to them.
            samples: Number of samples that count; the others are padding.
        """
        is_counted = torch.arange(len(y), device=y.device) < samples
        # With one batch for all runs, torch would multiply by all weights at once, as one matrix whose number
        # of rows depends on the number of runs; in bf16 the rounding follows it.
        x_dim = 0 if self._stacked_bf16_on_cpu else None
        x = x if x_dim is None else x.expand(self.size, *x.shape)
        if self._loss.per_sample is not None:
            statistics = self.each(self._statistics_of_one, (x_dim, None))(self.parameters, buffers, x, y)
            return {name: _masked_sum(values, is_counted) for name, values in statistics.items()}
        outputs = self.each(self.forward, (x_dim,))(self.parameters, buffers, x)
        losses = torch.stack([self._loss.mean(z[:samples], y[:samples], self.options.loss) for z in outputs])
        scores = [self._score_statistics(z, y) for z in outputs]
        return {
            "loss": losses.double() * samples,
            **{
                name: _masked_sum(torch.stack([run[name] for run in scores]), is_counted)
                for name in scores[0]
            },
        }

    def keep(self, alive: Sequence[int]) -> None:
        """Drop all other runs than those at these positions; also works between `gradients` and `update`."""
        index = torch.tensor(list(alive), device=next(iter(self.parameters.values())).device)
        self.parameters = {name: _rows(p, index) for name, p in self.parameters.items()}
        self.buffers = {name: b[index] for name, b in self.buffers.items()}
        self._optimizer.keep_runs(index)
        self._captured.clear()  # the recorded operations read the tensors that are replaced here

    def loss_of_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Return the loss () of one run on a batch x (B, …), y (B, …)."""
        return self.loss(self.forward(parameters, buffers, x), y)

    def _statistics_of_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> dict[str, Tensor]:
        """Return loss and statistics of each sample of one run, by name: (B,) or (B, S)."""
        outputs = self.forward(parameters, buffers, x)
        assert self._loss.per_sample is not None
        loss = self._loss.per_sample(outputs, y, self.options.loss)
        return {"loss": loss.double(), **self._score_statistics(outputs, y)}

    def _score_statistics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        if not outputs_fit(outputs, y):  # of a loss of the user
            return {}
        return {score.name: score.statistics(outputs, y) for score in self._scores}

    def forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the outputs of one run in float32, in any precision of the products."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            outputs = self.skeleton.logits({**parameters, **buffers}, x)
        return outputs.float()


class ScoreTotals:
    """Sums over the samples of a split, from which the loss and the scores of each run follow.

    Args:
        scores: The scores.
        targets: Targets of the whole split (N, …).
    """

    def __init__(self, scores: Sequence[Score], targets: Tensor) -> None:
        self._scores, self._targets = scores, targets
        self._totals: dict[str, Tensor] = {}
        self._samples = 0

    def add(self, sums: Mapping[str, Tensor], samples: int) -> None:
        """Add the sums of `Cohort.statistics` over `samples` samples."""
        for name, value in sums.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        self._samples += samples

    def values(self) -> dict[str, list[float]]:
        """Return the loss and the scores of each run, by name."""
        means = {name: (total / self._samples).tolist() for name, total in self._totals.items()}
        result = {"loss": means["loss"]}
        for score in self._scores:
            if score.name in means:
                rows = [row if isinstance(row, list) else [row] for row in means[score.name]]
                result[score.name] = [score.value(row, self._targets) for row in rows]
        return result


def evaluation_chunk(form: SampleShape) -> int:
    """Return the number of samples in one evaluation pass."""
    if not form.target.has_positions(form.target_shape):
        return EVALUATION_CHUNK
    values = math.prod(form.target_shape) * (form.outputs if form.target.is_class_index else 1)
    return max(1, min(EVALUATION_CHUNK, MAX_OUTPUT_VALUES // values))


def _masked_sum(values: Tensor, is_counted: Tensor) -> Tensor:
    """Return the sum of values (K, B) or (K, B, S) over the samples that count: (K,) or (K, S)."""
    mask = is_counted if values.dim() == 2 else is_counted[:, None]
    return values.where(mask, 0.0).sum(1)


def _with_copy(stacked: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
    """Return `stacked` for a stack of one run: it computes two equal runs and drops the second result."""

    def doubled(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        """Compute the run twice, and return the first result."""
        both = {name: _twice(b) for name, b in buffers.items()}
        batch = (x if dim is None else _twice(x) for x, dim in zip(data, data_dims, strict=True))
        result = stacked({name: _twice(p) for name, p in parameters.items()}, both, *batch)
        for name, buffer in buffers.items():
            buffer.copy_(both[name][:1])  # norm layers write to their buffers
        if isinstance(result, dict):
            return {name: part[:1] for name, part in result.items()}
        return result[:1] if isinstance(result, Tensor) else tuple(part[:1] for part in result)

    return doubled


def _twice(tensor: Tensor) -> Tensor:
    """Stack a tensor (1, …) with a copy of itself that has no gradient."""
    return torch.cat([tensor, tensor.detach()])


def _kernels_channels_last(parameter: Tensor) -> Tensor:
    """Return kernels (1, O, I, H, W) with their channels last in memory, and other tensors unchanged.

    On the CPU, convolutions are faster with this layout, and their outputs get it too.
    """
    if parameter.ndim != _STACKED_KERNELS:
        return parameter
    return parameter.detach()[0].contiguous(memory_format=torch.channels_last)[None]


def _in_layout_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the strides of its parameter, for which the update kernels are fast."""
    if gradient.stride() == parameter.stride() or (gradient.is_contiguous() and parameter.is_contiguous()):
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


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
