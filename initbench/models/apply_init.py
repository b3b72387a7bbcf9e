"""`apply_init`: apply an init scheme to any nn.Module, and report what was set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from initbench.components.activation import BoundActivation
from initbench.components.fans import Convolution, Transposed, shape_of
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.errors import UsageError
from initbench.models.init_targets import InitTarget, init_rules, init_targets, scheme_problem
from initbench.models.init_weights import InitOptions, LayerRule, init_options
from initbench.models.net_activation import activation_of_net
from initbench.registry import Options
from initbench.rng import stream_generator
from initbench.torch_defaults import plain_defaults, user_defaults


@dataclass(frozen=True)
class InitializedTensor:
    """A tensor that was overwritten."""

    name: str
    fan_in: float
    fan_out: float
    std_asked: float | None
    """Standard deviation that the scheme specifies; None if weights are not independent, or are rescaled."""
    std: float
    """Root mean square of the tensor's values, i.e. their standard deviation about 0."""
    note: str = ""


@dataclass(frozen=True)
class SkippedTensor:
    """A parameter that was not changed."""

    name: str
    why: str


@dataclass(frozen=True)
class InitReport:
    """Report of the tensors that apply_init set and skipped; `print` shows it as a table."""

    scheme: str
    activation: str
    seed: int
    set: tuple[InitializedTensor, ...]
    left: tuple[SkippedTensor, ...]

    def as_data(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        header = ("set", "fan_in", "fan_out", "std asked", "std", "")
        rows = [
            (t.name, f"{t.fan_in:g}", f"{t.fan_out:g}", _number(t.std_asked), _number(t.std), t.note)
            for t in self.set
        ]
        lines = [f"{self.scheme}, activation {self.activation}, seed {self.seed}", *_aligned([header, *rows])]
        if self.left:
            lines += ["", *_aligned([("left alone", "why"), *((t.name, t.why) for t in self.left)])]
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in padded]


_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@torch.no_grad()
def apply_init(
    module: nn.Module,
    scheme: str = "kaiming_normal",
    *,
    activation: str | Mapping[str, Any] = "relu",
    gain: float | str | None = None,
    bias: float | None = None,
    seed: int = 0,
    batch: Tensor | None = None,
    **options: Any,
) -> InitReport:
    """Draw the weights of every linear and convolutional layer in `module`, in place.

    Supports nn.Linear, nn.Conv*, nn.ConvTranspose* and the projections of nn.MultiheadAttention, with or
    without bias, in groups, with parametrizations and weight norm. Embeddings, norm layers and all other
    modules are not changed, and the report lists them. A tensor that several layers share is set once.
    Each tensor has a random stream of its own, which depends on the seed and the tensor's name; the order of
    the layers does not matter.

    Args:
        module: Module to change.
        scheme: Init scheme, as in a config's `init.scheme`.
        activation: Activation between the layers, from which gains are computed.
        gain: Gain, as in `init.gain`.
        bias: Value of every bias, as in `init.bias`.
        seed: Seed of the random streams.
        batch: Batch (B, …), passed through `module` by schemes that measure activations (such as lsuv).
        options: Options of the scheme and of the activation.

    Raises:
        UsageError: If the scheme, an option or the module is not supported; nothing is changed in this case.
    """
    with plain_defaults():
        return _apply_init(module, scheme, activation, gain, bias, seed, batch, options)


def _apply_init(
    module: nn.Module,
    scheme: str,
    activation: str | Mapping[str, Any],
    gain: float | str | None,
    bias: float | None,
    seed: int,
    batch: Tensor | None,
    options: dict[str, Any],
) -> InitReport:
    phi, scheme_options = activation_of_net("apply_init", module, scheme, activation, options)
    init = init_options("apply_init", scheme, scheme_options, gain, bias)
    _refuse_unfit(module)
    if INITS[init.scheme.name].needs is SchemeRequirement.CONSTRUCTION:
        raise UsageError(f"apply_init: {init.scheme.name} changes no weight; do not call apply_init")
    if INITS[init.scheme.name].needs is SchemeRequirement.FIRST_BATCH and batch is None:
        raise UsageError(f"apply_init: {init.scheme.name} measures a batch: give `batch`")
    pairs = target_rules("apply_init", module, init, phi)
    draw_targets(module, pairs, init, seed=seed, batch=batch)
    rows = [row for target, rule in pairs for row in _rows(target, rule, init)]
    targets = [target for target, _ in pairs]
    return InitReport(scheme, phi.label, seed, tuple(rows), tuple(_left(module, targets)))


def target_rules(
    caller: str, module: nn.Module, init: InitOptions, activation: BoundActivation, head: str | None = None
) -> list[tuple[InitTarget, LayerRule]]:
    """Return the weights that the options draw, each with its rule.

    Args:
        caller: What the options belong to, for messages.
        module: The module.
        init: The options.
        activation: Activation between the layers.
        head: Name of the layer that `init.head` applies to.

    Raises:
        UsageError: If a scheme cannot draw the weights, or if a weight cannot be set.
    """
    targets = init_targets(module, init.scheme)
    if init.head is None:
        return _rules_of_part(caller, targets, init, activation)
    body = [target for target in targets if target.layer_name != head]
    last = [target for target in init_targets(module, init.head) if target.layer_name == head]
    init_of_head = init.model_copy(update={"scheme": init.head})
    return [
        *_rules_of_part(caller, body, init, activation),
        *_rules_of_part(caller, last, init_of_head, activation, len(body) + 1),
    ]


def _rules_of_part(
    caller: str, targets: Sequence[InitTarget], init: InitOptions, activation: BoundActivation, start: int = 1
) -> list[tuple[InitTarget, LayerRule]]:
    problem = _scheme_misfit(targets, init, activation)
    if problem is not None:
        raise UsageError(f"{caller}: {problem}")
    pairs = list(zip(targets, init_rules(targets, init, activation, start), strict=True))
    for target, rule in pairs:
        problem = rule.problem(target.layer)
        if problem is not None:
            raise UsageError(f"{caller}: {rule.scheme.name} {problem} ({target.name})")
    return pairs


def draw_targets(
    module: nn.Module,
    pairs: Sequence[tuple[InitTarget, LayerRule]],
    init: InitOptions,
    *,
    seed: int,
    batch: Tensor | None,
) -> None:
    """Draw the weights and biases by the rules of `target_rules`, in place.

    Schemes that measure activations use the batch (B, …). Other schemes ignore it.
    """
    weights = [_drawn(target, rule, seed) for target, rule in pairs]
    for (target, rule), weight in zip(pairs, weights, strict=True):
        if weight is not None:
            target.write(weight)
        _set_bias(target, rule, init.bias, seed)
    for options in {rule.scheme.name: rule.options for _, rule in pairs}.values():
        targets = [target for target, rule in pairs if rule.scheme.name == options.name]
        _calibrate(module, options, targets, batch)


def _refuse_unfit(module: nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    if any(t.is_meta for t in tensors):
        raise UsageError(
            "apply_init: the module is on the device meta, which holds no numbers;"
            ' give it memory first: module.to_empty(device="cpu")'
        )
    if any(isinstance(t, UninitializedParameter | UninitializedBuffer) for t in tensors):
        raise UsageError("apply_init: a lazy module has no shape yet; pass a batch through it first")


def _scheme_misfit(
    targets: Sequence[InitTarget], init: InitOptions, activation: BoundActivation
) -> str | None:
    """Return why a scheme cannot draw these weights of a module, or None if it can."""
    entry = INITS[init.scheme.name]
    if entry.needs is SchemeRequirement.MODEL_EDIT:
        return (
            f"{entry.name} edits the branches of a residual net, and which these are, a module"
            " does not say; use a residual model.family"
        )
    if entry.needs is SchemeRequirement.TRAINING:
        return (
            f"{entry.name} trains the layers of a whole experiment, data and all; use"
            " `initbench run` with a model.family whose layers form a line, and load the weights of the run"
        )
    if entry.needs is SchemeRequirement.FIRST_BATCH:
        problem = next(filter(None, map(_why_not_measured, targets)), None)
        if problem is not None:
            return f"{entry.name} {problem}"
    return scheme_problem(targets, init, activation)


def _why_not_measured(target: InitTarget) -> str | None:
    """Return why a scheme cannot measure and rescale a weight, or None if it can."""
    if target.is_scale_taken:
        return (
            f"sets the scale of every weight, and what computes {target.name} takes it away;"
            " remove that parametrization, or use a scheme that measures nothing"
        )
    if target.calibrated and "weight" in vars(target.layer):
        return "cannot rescale a weight that a hook computes; use torch.nn.utils.parametrizations"
    if not target.calibrated:
        return "cannot measure the projections of nn.MultiheadAttention, which calls no module for them"
    return None


def _drawn(target: InitTarget, rule: LayerRule, seed: int) -> Tensor | None:
    """Return the weight that the rule draws; None if the rule keeps the weight."""
    if rule.keeps_weights:
        return None
    weight = torch.empty(shape_of(target.layer), dtype=torch.float32)
    rule.fill(target.layer, weight, stream_generator(seed, "init", target.name))
    return weight


def _set_bias(target: InitTarget, rule: LayerRule, value: float | None, seed: int) -> None:
    if target.bias is None or (value is None and rule.keeps_weights):
        return
    bias = torch.empty(target.bias.shape, dtype=torch.float32)
    if value is None:
        rule.fill_bias(bias, stream_generator(seed, "init", target.bias_name))
    else:
        bias.fill_(value)
    target.bias.copy_(bias)


def _calibrate(
    module: nn.Module, options: Options, targets: Sequence[InitTarget], batch: Tensor | None
) -> None:
    calibrate = INITS[options.name].calibrate
    if calibrate is not None:
        with torch.random.fork_rng(devices=[]), user_defaults():  # dropout draws
            layers = [target.layer for target in targets]
            calibrate(module, layers, batch, **options.model_dump(exclude={"name"}))


def _rows(target: InitTarget, rule: LayerRule, init: InitOptions) -> Iterator[InitializedTensor]:
    sigma_w2, measured = rule.sigma_w2, rule.scheme.calibrate is not None
    asked = None
    if sigma_w2 is not None and not measured and not target.is_scale_taken:
        asked = math.sqrt(sigma_w2 / rule.fan_in)
    size = (rule.fan_in, rule.fan_out)
    yield InitializedTensor(target.name, *size, asked, _rms(target.read()), target.note)
    if target.bias is not None:
        asked = None if measured or init.bias is not None else rule.bias_std
        note = "" if init.bias is None else f"every one {init.bias:g}"
        yield InitializedTensor(target.bias_name, *size, asked, _rms(target.bias), note)


def _rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def _left(module: nn.Module, targets: list[InitTarget]) -> Iterator[SkippedTensor]:
    """Yield the parameters that no target wrote, and further names of tied parameters that one wrote."""
    written: dict[int, str] = {}
    for target in targets:
        for tensor in (*target.stored, *([] if target.bias is None else [target.bias])):
            written.setdefault(id(tensor), target.name)
    first: set[int] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner = module.get_submodule(name.rpartition(".")[0])
        if id(parameter) not in written:
            yield SkippedTensor(name, _why(owner))
        elif id(parameter) in first or isinstance(owner, nn.Embedding | nn.EmbeddingBag):
            yield SkippedTensor(name, f"tied to {written[id(parameter)]}, which was set")
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
