"""Probe of any nn.Module, whose layers are found by tracing a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from initbench.errors import UsageError, reporting_user_code
from initbench.probing import layer_record, tensor_statistics
from initbench.probing.coverage import Coverage, coverage_of
from initbench.probing.initial_conditions import (
    SCALE_FREE_NORMS,
    Conditions,
    NetMeasurement,
    batch_conditions,
    broken_tensors,
    largest_entry,
)
from initbench.probing.input_checks import BatchStatistics, batch_statistics
from initbench.probing.layer_record import MeasuredLayer
from initbench.probing.loss import Loss, ProbeLoss, are_probabilities, loss_of
from initbench.probing.model_inputs import ModelInputs, as_inputs, unwrap_module
from initbench.probing.model_outputs import real_outputs
from initbench.probing.recurrent_gates import RecurrentRecords
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.torch_defaults import user_defaults
from initbench.trace.module_pass import copy_parameter, tensor_attributes, track_modules, with_state
from initbench.trace.overflow import Overflow, OverflowFinder
from initbench.trace.preserve_state import preserve_state
from initbench.trace.recomputation import without_recomputation
from initbench.trace.recurrent import Step
from initbench.trace.tracer import Tracer
from initbench.trace.weight_use import UNUSED, RecurrentLayer, ResidualAddition, TraceResult, WeightUse

_SEED = 0
"""Seed of random numbers in a pass, such as dropout, so that probes are reproducible."""


_MAX_IN_BRANCH = 8
"""Maximum number of weight uses in a residual branch; parallel attention and mlp have six."""
_DETAIL = ProbeDetail.DIAGNOSIS
_DIRECTIONS, ALIKE_UNITS = 4, 1e-5
"""Number of random directions along which rows are compared, and the tolerance, float32's rounding."""


@dataclass(frozen=True)
class ModuleProbe:
    """Measurements of a module in one forward and backward pass."""

    records: list[dict[str, Any]]
    """Records of all weight uses, in order, in the format of `network_probe.probe`."""
    trace: TraceResult
    duplicated: list[int]
    """For each use, the number of units with the same weights and gradient as an earlier unit."""
    coverage: Coverage
    loss: ProbeLoss
    output_shape: tuple[int, ...]
    output_is_probabilities: bool
    zero_share: float
    """Share of entries of the output that are exactly 0."""
    conditions: Conditions
    """Conditions of the input and the loss, which the layers do not show."""

    @property
    def measurement(self) -> NetMeasurement:
        """Measurement that a diagnosis reads."""
        return NetMeasurement(self.records, self.conditions)


class _RecordCollector:
    """Observer of a tracer that reduces each tensor to statistics immediately."""

    def __init__(self, samples: int, bins: int | None, detail: ProbeDetail) -> None:
        self._samples, self._bins, self._detail = samples, bins, detail
        self.by_index: dict[int, dict[str, Any]] = {}
        self.before_norm: dict[int, dict[str, Any]] = {}
        """Records of layers from before the norm after them was traced, by index of the use."""
        self.sums: dict[int, dict[str, Any]] = {}
        """Records of residual sums, by the index of the last use of the branch."""
        self.first_input: BatchStatistics | None = None
        self._recurrent = RecurrentRecords()

    def layer_input(self, use: WeightUse, x: Tensor) -> None:
        if use.index == 1:
            self.first_input = batch_statistics(x)

    def residual_sum(self, addition: ResidualAddition, output: Tensor) -> None:
        self.sums[addition.use.index] = layer_record.start_record(
            output, output, _DETAIL, positions=self._positions(addition.use, output)
        )

    def without_norm(self, use: WeightUse) -> None:
        normed = self.by_index[use.index]
        self.by_index[use.index] = {**self.before_norm.get(use.index, normed), "act": normed["act"]}

    def step(self, layer: RecurrentLayer, step: Step) -> None:
        self._recurrent.step(layer, step)

    def end_forward(self) -> None:
        """Add the records of recurrent layers after the forward pass."""
        self.by_index |= self._recurrent.records()

    def end_backward(self) -> None:
        """Add the gradients of recurrent layers after the backward pass."""
        self._recurrent.add_gradients(self.by_index)

    def pre_activation(self, use: WeightUse, output: Tensor) -> None:
        if use.norm is not None and use.index in self.by_index:
            self.before_norm[use.index] = self.by_index[use.index]
        positions = self._positions(use, output)
        self.by_index[use.index] = layer_record.start_record(
            output, self._by_sample(use, output), self._detail, positions=positions, bins=self._bins
        )

    def _by_sample(self, use: WeightUse, x: Tensor) -> Tensor:
        """Return x as (B, units, …), also if its samples lie behind a leading axis of one entry."""
        ordered = use.units_on_axis_1(x)
        later = [axis for axis in range(2, ordered.ndim) if ordered.shape[axis] == self._samples]
        if len(ordered) == 1 < self._samples and later:
            return ordered.movedim(later[0], 0)[:, 0]
        return ordered

    def _positions(self, use: WeightUse, output: Tensor) -> float:
        """Return the number of positions per sample and unit; windows of a map count together."""
        return output.numel() / (self._samples * use.units)

    def activation(self, use: WeightUse, activation_input: Tensor | None, activation_output: Tensor) -> None:
        """Record the statistics of the activation that follows a weight."""
        self.by_index[use.index]["act"] = layer_record.activation_record(
            None if activation_input is None else self._by_sample(use, activation_input.detach()),
            self._by_sample(use, activation_output.detach()),
            None if use.activation is None else use.activation.bound,
            self._detail,
            self._bins,
        )


def probe_module(
    module: nn.Module,
    batch: Tensor | ModelInputs,
    y: Tensor | None = None,
    loss: Loss | None = None,
    chance: float | None = None,
    bins: int | None = None,
    detail: ProbeDetail | None = None,
) -> ModuleProbe:
    """Run one forward and backward pass of a module and measure every layer.

    The module runs in training mode on copies of its parameters and buffers. Its values, mode, hooks and
    attributes and the random states are restored.

    Args:
        module: The module.
        batch: A tensor (B, …) or the arguments of forward.
        y: Labels or targets, or None.
        loss: A function `loss(output)`, or `loss(output, y)` if y is given, that returns a mean over the
            batch; see `loss_of` for the argument that it gets and for the default.
        chance: The loss of a net that knows nothing, if it cannot be determined automatically.
        bins: The number of bins of the histograms of activations, pre-activations and gradients; None for no
            histograms.
        detail: The statistics to compute; None for those of a diagnosis.

    Raises:
        UsageError: If the module cannot process the batch.
    """
    with torch.inference_mode(False):  # inference mode computes no gradients
        module = unwrap_module(module)
        task = _ProbeTask(_to_module_dtype(module, as_inputs(batch)), y, loss, chance)
        return _probe(module, task, bins, detail)


def _to_module_dtype(module: nn.Module, inputs: ModelInputs) -> ModelInputs:
    """Return floating-point inputs in the dtype of the module if all its parameters have the same dtype."""
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if len(dtypes) != 1:
        return inputs
    (dtype,) = dtypes
    return inputs.mapped(lambda x: x.to(dtype) if x.is_floating_point() else x)


@dataclass(frozen=True)
class _ProbeTask:
    """Inputs of a probe and the loss of its output."""

    inputs: ModelInputs
    y: Tensor | None
    loss: Loss | None
    chance: float | None

    @property
    def x(self) -> Tensor:
        """Tensor that defines the batch size."""
        return self.inputs.main

    def loss_of(self, output: Tensor, returned: Any) -> ProbeLoss:
        """Return the loss of the main output, or the user's loss of the returned value."""
        try:
            return loss_of(output, self.y, self.loss, x=self.x, chance=self.chance, returned=returned)
        except UsageError as error:
            raise UsageError(f"{self.inputs.prefix}{error}") from error


def _probe(module: nn.Module, task: _ProbeTask, bins: int | None, detail: ProbeDetail | None) -> ModuleProbe:
    _check_module(module, task.inputs)
    parameters = {name: copy_parameter(p) for name, p in module.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    of_pass = detail or (_DETAIL if bins is None else ProbeDetail.EVALUATION)
    records = _RecordCollector(len(task.x), bins, of_pass)
    tracer = Tracer({id(p): name for name, p in parameters.items()}, records)
    inputs = task.inputs.mapped(lambda x: x.detach().clone())

    def run() -> tuple[Tensor, TraceResult, ProbeLoss, list[Tensor | None]]:
        with track_modules(module, tracer), tracer, without_recomputation():
            returned = _forward(module, inputs)
            outputs = real_outputs(returned)
        trace = tracer.finish(parameters, outputs.values())
        records.end_forward()
        return next(iter(outputs.values())), trace, *_backward(returned, outputs, task, trace, parameters)

    with preserve_state(module), torch.enable_grad():
        torch.manual_seed(_SEED)
        module.train()
        constants = [*buffers.values(), *tensor_attributes(module)]
        tracer.start(inputs.tensors.values(), len(inputs.main), constants)
        output, trace, probe_loss, gradients = with_state(module, {**parameters, **buffers}, run)
    records.end_backward()
    learned = {name for name, p in module.named_parameters() if p.requires_grad}
    for use in trace.uses:
        record = records.by_index[use.index]
        has_activation = record["act"] is not None and not use.is_recurrent
        record["is_hidden"], record["is_recurrent"] = has_activation or use.is_on_the_way, use.is_recurrent
        record["was_constant"] = use.was_constant
        spread = None if learned.isdisjoint(use.parts) else _spread_over_rows(use)
        if spread is not None and spread <= tensor_statistics.ALIKE:
            record["row_spread"] = spread
        record["below"], record["is_head"] = _index_below(use), not use.feeds
    _mark_branches(trace, records)
    measured = [
        MeasuredLayer(
            records.by_index[use.index],
            {"index": use.index, "name": use.name, "units": use.units},
            use.rows,
            None if gradient is None else use.gradient_rows(gradient),
        )
        for use, gradient in zip(trace.uses, gradients, strict=True)
    ]
    layers = layer_record.finish_records(measured, detail or _DETAIL)
    copies = [_count_copies(use, gradient) for use, gradient in zip(trace.uses, gradients, strict=True)]
    conditions = _conditions(module, task.inputs, trace, probe_loss, records.first_input)
    if not conditions.broken and not _is_finite(layers, probe_loss):
        conditions = _with_overflow(conditions, _find_overflow(module, task), trace)
    detached = output.detach()
    return ModuleProbe(
        records=layers,
        trace=trace,
        duplicated=copies,
        coverage=coverage_of(trace, layers),
        loss=replace(probe_loss, tensor=probe_loss.tensor.detach()),
        output_shape=tuple(detached.shape),
        output_is_probabilities=are_probabilities(detached),
        zero_share=float((detached == 0.0).double().mean()),
        conditions=conditions,
    )


def _mark_branches(trace: TraceResult, records: _RecordCollector) -> None:
    """Add residual sums to the records, and mark the layers inside of short residual branches.

    The layers of a long branch are judged like those of a net.
    """
    short = [a for a in trace.additions if a.first > 0 and a.use.index - a.first < _MAX_IN_BRANCH]
    if len(short) < 2:
        return
    for use in trace.uses:
        records.by_index[use.index]["in_branch"] = any(addition.holds(use) for addition in short)
    norms = {addition.use.index: addition.use.norm for addition in trace.additions}
    for index, measured in records.sums.items():
        records.by_index[index]["sum"] = {
            "pre": measured["pre"],
            "grad": measured["grad"],
            "positions": measured.get("positions", 1.0),
            "is_normed": norms[index] in SCALE_FREE_NORMS,
        }


def _conditions(
    module: nn.Module,
    inputs: ModelInputs,
    trace: TraceResult,
    loss: ProbeLoss,
    first_input: BatchStatistics | None,
) -> Conditions:
    conditions = batch_conditions(inputs.main, inputs.tensors)
    broken = broken_tensors(module.named_parameters(), module.named_buffers())
    uses, heads = trace.uses, trace.heads or trace.uses[-1:]
    is_free = not uses or uses[0].norm in SCALE_FREE_NORMS or not inputs.main.is_floating_point()
    return replace(
        conditions,
        broken=(*broken, *conditions.broken),
        first_input=None if is_free else first_input,
        loss=loss.value,
        chance=loss.chance,
        head=heads[0].name if heads else conditions.head,
        tied=bool(heads) and heads[0].looked_up,
    )


def _is_finite(layers: Sequence[dict[str, Any]], loss: ProbeLoss) -> bool:
    return math.isfinite(loss.value) and all(math.isfinite(layer["pre"]["q"]) for layer in layers)


def _with_overflow(conditions: Conditions, overflow: Overflow | None, trace: TraceResult) -> Conditions:
    layer = None if overflow is None else overflow.layer
    weight = next((use.weight for use in trace.uses if use.name == layer), None)
    return replace(conditions, overflow=overflow, largest_weight=largest_entry(weight))


def _find_overflow(module: nn.Module, task: _ProbeTask) -> Overflow | None:
    """Return the operation that makes the output of `module` or its loss non-finite, or None."""
    parameters = {name: copy_parameter(p) for name, p in module.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    finder = OverflowFinder({id(p): name for name, p in parameters.items()})
    with preserve_state(module), torch.no_grad():
        torch.manual_seed(_SEED)
        module.train()

        def run() -> tuple[Tensor, ProbeLoss]:
            with finder:
                returned = _forward(module, task.inputs)
                output = next(iter(real_outputs(returned).values()))
                finder.begin_loss()
                return output, task.loss_of(output, returned)

        output, value = with_state(module, {**parameters, **buffers}, run)
    return finder.cause_of(output) or finder.cause_of(value.tensor) or finder.first


def _index_below(use: WeightUse) -> int | None:
    """Return the index of the layer below; if it is unknown, that of the previous use in the pass."""
    if use.source is not None:
        return use.source.index
    return None if use.from_input or use.index == 1 else use.index - 1


def _check_module(module: nn.Module, inputs: ModelInputs) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(t, UninitializedParameter | UninitializedBuffer) for t in tensors):
        raise UsageError("a lazy module has no shapes yet; run a batch through it first")
    if not any(True for _ in module.parameters()):
        raise UsageError("the module has no parameters, so there is nothing to measure")
    if any(t.is_meta for t in tensors):
        raise UsageError(
            "the module is on the device meta, which holds no numbers; allocate and initialise it first:"
            ' module.to_empty(device="cpu"), then initbench.apply_init(module)'
        )
    of_module, of_batch = ({t.device.type for t in part} for part in (tensors, inputs.tensors.values()))
    if of_module != of_batch or len(of_batch) > 1:
        module_devices, batch_devices = (", ".join(sorted(devices)) for devices in (of_module, of_batch))
        raise UsageError(
            f"the module is on {module_devices} and the batch on {batch_devices}; move both to one device"
        )


def _forward(module: nn.Module, inputs: ModelInputs) -> Any:
    with reporting_user_code(f"the module cannot take {inputs.subject}:"), user_defaults():
        return inputs.call(module)


def _backward(
    returned: Any,
    outputs: Mapping[str, Tensor],
    task: _ProbeTask,
    trace: TraceResult,
    parameters: Mapping[str, Tensor],
) -> tuple[ProbeLoss, list[Tensor | None]]:
    """Return the loss and the weight gradients; without a user's loss, those of all outputs' losses."""
    output, *others = outputs.values()
    with reporting_user_code("the loss or its backward pass fails:"):
        value = task.loss_of(output, returned)
        total = value.tensor
        if task.loss is None:
            for other in others:
                if other.requires_grad:
                    total = total + loss_of(other, None, None, x=task.x).tensor
        return value, _gradients(total, trace, parameters)


def _gradients(loss: Tensor, trace: TraceResult, parameters: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Return the gradient of the loss by the weight of each use, or None for a use without a gradient.

    Gradients are computed for all parameters, so that the backward pass is that of training. A parameter
    with a gradient is used, whether its use was traced or not. Custom functions may also write gradients
    to `grad`.
    """
    wanted = {
        id(t): t for t in (*(use.factor for use in trace.uses), *parameters.values()) if t.requires_grad
    }
    if not wanted or not loss.requires_grad:
        return [None] * len(trace.uses)
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    by_tensor = {
        key: _add_gradients(gradient, tensor.grad if tensor.is_leaf else None)
        for (key, tensor), gradient in zip(wanted.items(), gradients, strict=True)
    }
    trace.reached = {name for name, p in parameters.items() if by_tensor.get(id(p)) is not None}
    for name, why in trace.unseen.items():
        if why == UNUSED and name in trace.reached:
            trace.unseen[name] = "it gets a gradient through an operation that cannot be traced"
    return [by_tensor.get(id(use.factor)) for use in trace.uses]


def _add_gradients(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, either of which may be missing."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _count_copies(use: WeightUse, gradient: Tensor | None) -> int:
    """Count the units with the same weights, bias and gradient as another, by random projections."""
    parts = [use.rows.detach()]
    if gradient is not None:
        parts.append(use.gradient_rows(gradient))
    if use.bias is not None and use.bias.shape == (use.units,):
        parts.append(use.bias.detach()[:, None])
    projections = torch.cat([_project(part) for part in parts], 1)  # (units, projections)
    projections = projections[projections[:, 0].argsort()]
    same = (projections[1:] - projections[:-1]).abs().amax(1) <= ALIKE_UNITS
    return int(same.sum())


def _spread_over_rows(use: WeightUse) -> float | None:
    """Return the largest distance of a unit's weights from the first unit's, relative to the latter.

    The result is None if equal weights may be intended: at 0, or if each unit has a single input or its own
    inputs. If the first two units differ, only these are compared.
    """
    rows = use.rows.detach()
    if use.groups > 1 or rows.shape[0] < 2 or rows.shape[1] < 2:
        return None
    largest = float(rows[0].abs().max())
    spread = float((rows[1] - rows[0]).abs().max())
    if largest > 0.0 and spread <= tensor_statistics.ALIKE * largest:
        spread = float((rows - rows[0]).abs().max())
    return spread / largest if largest > 0.0 else None


def _project(rows: Tensor) -> Tensor:
    """Return the projections of rows (units, n) on random directions, relative to the largest entry."""
    rows = rows.float()
    scale = float(rows.abs().max())
    stream = torch.Generator("cpu").manual_seed(0)
    directions = torch.randn(rows.shape[1], _DIRECTIONS, generator=stream, dtype=torch.float32, device="cpu")
    projections = rows @ directions.to(rows.device) / math.sqrt(rows.shape[1])
    return projections / scale if scale > 0.0 else projections
