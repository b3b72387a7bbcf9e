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
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.errors import UsageError
from initbench.models.fans import Convolution, Transposed, shape_of
from initbench.models.init_targets import InitTarget, init_rules, init_targets, scheme_problem
from initbench.models.init_weights import InitOptions, LayerRule, init_options
from initbench.models.net_activation import activation_of_net
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
    targets = init_targets(module, init.scheme)
    _check(init, phi, targets, batch)
    pairs = list(zip(targets, init_rules(targets, init, phi), strict=True))
    weights = [_drawn(target, rule, seed) for target, rule in pairs]
    for (target, rule), weight in zip(pairs, weights, strict=True):
        target.write(weight)
        _set_bias(target, rule, init.bias, seed)
    _calibrate(module, init, targets, batch)
    rows = [row for target, rule in pairs for row in _rows(target, rule, init)]
    return InitReport(scheme, phi.label, seed, tuple(rows), tuple(_left(module, targets)))


def _refuse_unfit(module: nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    if any(t.is_meta for t in tensors):
        raise UsageError(
            "apply_init: the module is on the device meta, which holds no numbers;"
            ' give it memory first: module.to_empty(device="cpu")'
        )
    if any(isinstance(t, UninitializedParameter | UninitializedBuffer) for t in tensors):
        raise UsageError("apply_init: a lazy module has no shape yet; pass a batch through it first")


def _check(init: InitOptions, phi: BoundActivation, targets: list[InitTarget], batch: Tensor | None) -> None:
    """Raise UsageError if the scheme cannot be applied, before anything is changed."""
    entry = INITS[init.scheme.name]
    if entry.needs is SchemeRequirement.MODEL_EDIT:
        raise UsageError(
            f"apply_init: {entry.name} edits the branches of a residual net, and which these are, a module"
            " does not say; use a residual model.family"
        )
    if entry.needs is SchemeRequirement.TRAINING:
        raise UsageError(
            f"apply_init: {entry.name} trains the layers of a whole experiment, data and all; use"
            " `initbench run`, and load the weights of the run that it stores"
        )
    if entry.needs is SchemeRequirement.FIRST_BATCH:
        if batch is None:
            raise UsageError(f"apply_init: {entry.name} measures a batch: give `batch`")
        rescaled = next((target for target in targets if target.is_scale_taken), None)
        if rescaled is not None:
            raise UsageError(
                f"apply_init: {entry.name} sets the scale of every weight, and what computes {rescaled.name}"
                " takes it away; remove that parametrization, or use a scheme that measures nothing"
            )
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
    problem = scheme_problem(targets, init, phi)
    if problem is not None:
        raise UsageError(f"apply_init: {problem}")


def _drawn(target: InitTarget, rule: LayerRule, seed: int) -> Tensor:
    problem = rule.problem(target.layer)
    if problem is not None:
        raise UsageError(f"apply_init: {rule.scheme.name} {problem} ({target.name})")
    weight = torch.empty(shape_of(target.layer), dtype=torch.float32)
    rule.fill(target.layer, weight, stream_generator(seed, "init", target.name))
    return weight


def _set_bias(target: InitTarget, rule: LayerRule, value: float | None, seed: int) -> None:
    if target.bias is None:
        return
    bias = torch.empty(target.bias.shape, dtype=torch.float32)
    if value is None:
        rule.fill_bias(bias, stream_generator(seed, "init", target.bias_name))
    else:
        bias.fill_(value)
    target.bias.copy_(bias)


def _calibrate(module: nn.Module, init: InitOptions, targets: list[InitTarget], batch: Tensor | None) -> None:
    calibrate = INITS[init.scheme.name].calibrate
    if calibrate is not None:
        with torch.random.fork_rng(devices=[]), user_defaults():  # dropout draws
            layers = [target.layer for target in targets]
            calibrate(module, layers, batch, **init.scheme.model_dump(exclude={"name"}))


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
