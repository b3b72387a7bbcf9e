"""apply_init: an init scheme for any nn.Module, whatever it was built with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils.weight_norm import WeightNorm

from initbench.components.activation import BoundActivation, bound
from initbench.components.scheme import INITS, Needs, Setting
from initbench.components.weight import assign_weight, parametrization_of, weight_of
from initbench.errors import UsageError
from initbench.models.applied import LeftTensor, Report, SetTensor
from initbench.models.fans import Convolution, Transposed, shape_of
from initbench.models.initialise import InitOptions, LayerRule, init_options, is_touched, rule_of
from initbench.streams import generator

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ROWS = "qkv"


@dataclass(frozen=True)
class _Target:
    """One matrix or kernel to draw: where it is called what, how it is read and written."""

    name: str
    layer: nn.Module
    """The layer, or for a part of an attention a linear layer of that part's shape."""
    bias_name: str
    bias: Tensor | None
    stored: tuple[Tensor, ...]
    """The parameters that hold it."""
    read: Callable[[], Tensor]
    write: Callable[[Tensor], None]
    note: str = ""
    calibrated: bool = True
    """Whether its layer is called as a module, so that schemes that measure see it."""


@torch.no_grad()
def apply_init(
    module: nn.Module,
    scheme: str = "kaiming_normal",
    *,
    activation: str = "relu",
    gain: float | str | None = None,
    bias: float | None = None,
    seed: int = 0,
    batch: Tensor | None = None,
    **options: Any,
) -> Report:
    """Draw the weights of every linear and convolutional layer in `module`, in place.

    `scheme` and its `options` are those of a config's `init.scheme`; `activation` is the one between
    the layers, from which gains are computed; `gain` and `bias` are `init.gain` and `init.bias`.
    `batch` (B, …) is passed through `module` by schemes that measure (lsuv).

    Handled are nn.Linear, nn.Conv*, nn.ConvTranspose* and the projections of nn.MultiheadAttention,
    with or without bias, in groups, under parametrizations and weight norm. Embeddings, norm layers and
    all else are left alone, and the report says so. A tensor that several layers share is set once. Each
    tensor draws from a stream of (seed, its name), so that the order of the layers changes nothing.

    Raises UsageError for a scheme, an option or a module that cannot be served; nothing is changed then.
    """
    init = init_options("apply_init", scheme, options, gain, bias)
    phi = bound(activation)
    _refuse_lazy(module)
    targets = [target for target in _distinct(_targets(module)) if is_touched(target.layer, init.scheme)]
    _check(init, phi, targets, batch)
    rules = [rule_of(t.layer, init.scheme, init.gain, phi, i) for i, t in enumerate(targets, 1)]
    weights = [_drawn(*pair, seed) for pair in zip(targets, rules, strict=True)]
    for target, rule, weight in zip(targets, rules, weights, strict=True):
        target.write(weight)
        _set_bias(target, rule, init.bias, seed)
    _calibrate(module, init, targets, batch)
    rows = [row for pair in zip(targets, rules, strict=True) for row in _rows(*pair, init)]
    return Report(scheme, activation, seed, tuple(rows), tuple(_left(module, targets)))


def _refuse_lazy(module: nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(t, UninitializedParameter | UninitializedBuffer) for t in tensors):
        raise UsageError("apply_init: a lazy module has no shape yet; pass a batch through it first")


def _check(init: InitOptions, phi: BoundActivation, targets: list[_Target], batch: Tensor | None) -> None:
    """Refuse what cannot be done, before anything is changed."""
    entry = INITS[init.scheme.name]
    if entry.needs is Needs.MODEL_EDIT:
        raise UsageError(
            f"apply_init: {entry.name} edits the branches of a residual net, and which these are, a module"
            " does not say; use a residual model.family"
        )
    if entry.needs is Needs.TRAINING:
        raise UsageError(
            f"apply_init: {entry.name} trains the layers of a whole experiment, data and all; use"
            " `initbench run`, and load the weights of the run that it stores"
        )
    if entry.needs is Needs.FIRST_BATCH:
        if batch is None:
            raise UsageError(f"apply_init: {entry.name} measures a batch: give `batch`")
        if any(target.calibrated and "weight" in vars(target.layer) for target in targets):
            raise UsageError(
                f"apply_init: {entry.name} cannot rescale a weight that a hook computes;"
                " use torch.nn.utils.parametrizations"
            )
        if not all(target.calibrated for target in targets):
            raise UsageError(
                f"apply_init: {entry.name} cannot measure the projections of nn.MultiheadAttention,"
                " which calls no module for them"
            )
    biased = all(target.bias is not None for target in targets)
    problem = entry.problem(f"scheme={entry.name}", Setting(activation=phi, norm="", bias=biased))
    if problem is not None:
        raise UsageError(f"apply_init: {problem}")


def _targets(module: nn.Module) -> Iterator[_Target]:
    inside_attention: set[nn.Module] = set()
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(layer, nn.MultiheadAttention):
            yield from _attention(prefix, layer)
            inside_attention.add(layer.out_proj)
        elif isinstance(layer, nn.Linear | Convolution | Transposed):
            yield _layer(prefix, layer, calibrated=layer not in inside_attention)


def _layer(prefix: str, layer: nn.Module, *, calibrated: bool) -> _Target:
    def target(
        stored: tuple[Tensor, ...], read: Callable[[], Tensor], write: Callable[[Tensor], None], note: str
    ) -> _Target:
        bias = cast("Tensor | None", layer.bias)
        return _Target(f"{prefix}weight", layer, f"{prefix}bias", bias, stored, read, write, note, calibrated)

    computed, hook = parametrization_of(layer), _old_weight_norm(layer)
    if hook is not None:
        v, g = layer.get_parameter("weight_v"), layer.get_parameter("weight_g")

        def write(weight: Tensor) -> None:
            v.copy_(weight)
            g.copy_(torch.norm_except_dim(v, 2, hook.dim))
            layer.weight = hook.compute_weight(layer)

        return target((v, g), lambda: cast("Tensor", layer.weight), write, "through weight norm")
    if "weight_orig" in layer._parameters:
        original = layer.get_parameter("weight_orig")
        return target((original,), *_access(original), "through weight_orig, of spectral norm or pruning")
    stored = tuple(computed.parameters()) if computed is not None else (layer.get_parameter("weight"),)
    note = "through its parametrization" if computed is not None else ""
    return target(stored, lambda: weight_of(layer), lambda weight: assign_weight(layer, weight), note)


def _old_weight_norm(layer: nn.Module) -> WeightNorm | None:
    hooks = layer._forward_pre_hooks.values()
    return next((h for h in hooks if isinstance(h, WeightNorm) and h.name == "weight"), None)


def _attention(prefix: str, layer: nn.MultiheadAttention) -> Iterator[_Target]:
    """Query, key and value: three maps, which torch keeps in one matrix where their sizes agree."""
    packed = layer.in_proj_weight
    for i, letter in enumerate(_ROWS):
        rows = slice(i * layer.embed_dim, (i + 1) * layer.embed_dim)
        stored = packed if packed is not None else layer.get_parameter(f"{letter}_proj_weight")
        block = packed[rows] if packed is not None else stored
        bias = layer.in_proj_bias
        yield _Target(
            f"{prefix}in_proj_weight[{letter}]" if packed is not None else f"{prefix}{letter}_proj_weight",
            nn.Linear(block.shape[1], block.shape[0], bias=False, device="meta"),
            f"{prefix}in_proj_bias[{letter}]",
            bias[rows] if bias is not None else None,
            (stored,) if bias is None else (stored, bias),
            *_access(block),
            calibrated=False,
        )


def _access(tensor: Tensor) -> tuple[Callable[[], Tensor], Callable[[Tensor], None]]:
    """How a plain tensor is read and written."""

    def write(weight: Tensor) -> None:
        tensor.copy_(weight)

    return lambda: tensor, write


def _distinct(targets: Iterator[_Target]) -> list[_Target]:
    """Without those whose parameters an earlier target has: they are tied."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for target in targets:
        key = (id(target.stored[0]), int(target.read().storage_offset()))  # parts of one matrix differ there
        if key not in seen:
            kept.append(target)
        seen.add(key)
    return kept


def _drawn(target: _Target, rule: LayerRule, seed: int) -> Tensor:
    problem = rule.problem(target.layer)
    if problem is not None:
        raise UsageError(f"apply_init: {rule.scheme.name} {problem} ({target.name})")
    weight = torch.empty(shape_of(target.layer))
    rule.fill(target.layer, weight, generator(seed, "init", target.name))
    return weight


def _set_bias(target: _Target, rule: LayerRule, value: float | None, seed: int) -> None:
    if target.bias is None:
        return
    bias = torch.empty(target.bias.shape)
    if value is None:
        rule.fill_bias(bias, generator(seed, "init", target.bias_name))
    else:
        bias.fill_(value)
    target.bias.copy_(bias)


def _calibrate(module: nn.Module, init: InitOptions, targets: list[_Target], batch: Tensor | None) -> None:
    calibrate = INITS[init.scheme.name].calibrate
    if calibrate is not None:
        with torch.random.fork_rng(devices=[]):  # dropout draws
            layers = [target.layer for target in targets]
            calibrate(module, layers, batch, **init.scheme.model_dump(exclude={"name"}))


def _rows(target: _Target, rule: LayerRule, init: InitOptions) -> Iterator[SetTensor]:
    sigma_w2, measured = rule.sigma_w2, rule.scheme.calibrate is not None
    asked = None if sigma_w2 is None or measured else math.sqrt(sigma_w2 / rule.fan_in)
    size = (rule.fan_in, rule.fan_out)
    yield SetTensor(target.name, *size, asked, _rms(target.read()), target.note)
    if target.bias is not None:
        own = None if measured else rule.bias_std
        asked = own if init.bias is None else None
        note = "" if init.bias is None else f"every one {init.bias:g}"
        yield SetTensor(target.bias_name, *size, asked, _rms(target.bias), note)


def _rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def _left(module: nn.Module, targets: list[_Target]) -> Iterator[LeftTensor]:
    """The parameters that no target wrote, and the further names of those that one did."""
    written: dict[int, str] = {}
    for target in targets:
        for tensor in (*target.stored, *([] if target.bias is None else [target.bias])):
            written.setdefault(id(tensor), target.name)
    first: set[int] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner = module.get_submodule(name.rpartition(".")[0])
        if id(parameter) not in written:
            yield LeftTensor(name, _why(owner))
        elif id(parameter) in first or isinstance(owner, nn.Embedding | nn.EmbeddingBag):
            yield LeftTensor(name, f"tied to {written[id(parameter)]}, which was set")
        else:
            first.add(id(parameter))


def _why(owner: nn.Module) -> str:
    if isinstance(owner, _NORMS):
        return "a norm layer keeps its scale and shift"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "an embedding looks rows up and sums nothing: it has no fan_in"
    if isinstance(owner, nn.Linear | Convolution | Transposed):
        return f"the scheme touches no class called {type(owner).__name__}"
    return f"{type(owner).__name__} is no linear or convolutional layer"
