"""Classify torch's functions for a tracer: products with weights, activations, norms, and others.

Functions are identified by torch's name for them, without the suffix of in-place variants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.components.activation import BoundActivation, bound, shift_text

Arguments = dict[str | int, Any]
"""Arguments of a call: positional ones by position, the others by name."""


@dataclass(frozen=True)
class NamedActivation:
    """An activation that a pass applied."""

    label: str
    bound: BoundActivation | None = None
    """Registered activation; None for one that is not in the registry."""

    def scaled(
        self, *, input_scale: float = 1.0, output_scale: float = 1.0, output_shift: float = 0.0
    ) -> NamedActivation:
        """Return c·φ(a·x) + s, for constants a before the activation, and c and s after it."""
        if (input_scale, output_scale, output_shift) == (1.0, 1.0, 0.0):
            return self
        if self.bound is not None:
            bound_activation = self.bound.scaled(
                input_scale=input_scale, output_scale=output_scale, output_shift=output_shift
            )
            return NamedActivation(bound_activation.label, bound_activation)
        inner = self.label if input_scale == 1.0 else f"{self.label}({input_scale:.4g}x)"
        inner = inner if output_scale == 1.0 else f"{output_scale:.4g}·{inner}"
        return NamedActivation(inner + shift_text(output_shift))


WEIGHTED: dict[str, int] = {
    "linear": -1,
    **{f"conv{n}d": 1 for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": 1 for n in (1, 2, 3)},
}
"""Functions of (input, weight, bias), and the axis of their output that the units lie on."""

NORMS = {
    "batch_norm": "batch",
    "layer_norm": "layer",
    "group_norm": "group",
    "instance_norm": "instance",
    "rms_norm": "rms",
    "local_response_norm": "local_response",
}

TRANSPOSITIONS = frozenset({"t", "T", "mT", "transpose", "swapaxes", "swapdims"})
"""Functions that exchange the axes of a matrix."""
RESHAPES = frozenset(
    {"flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze", "unflatten", "clone", "permute"}
    | {"movedim", "__getitem__", "to", "float", "double", "type", "requires_grad_", "expand", "identity"}
    | TRANSPOSITIONS
)
"""Functions that keep every entry as it is."""

PASSES = frozenset(
    {f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)}
    | {f"{kind}dropout{n}" for kind in ("", "feature_", "alpha_") for n in ("", "1d", "2d", "3d")}
    | {"mean", "pad", "interpolate", "chunk", "split", "roll", "max_pool2d_with_indices", "stochastic_depth"}
)
"""Functions that change entries, after which the tensor still counts as the activation or output."""

FACTORIES = frozenset(
    {f"{kind}_{how}" for kind in ("new", "") for how in ("zeros", "ones", "full", "empty", "tensor") if kind}
    | {f"{kind}_like" for kind in ("zeros", "ones", "full", "empty", "rand", "randn", "randint")}
    | {"zero", "fill", "normal", "uniform", "new_empty_strided"}
)
"""Functions that use the shape of a tensor and not its values."""

PRODUCTS = frozenset(
    {"matmul", "__matmul__", "__rmatmul__", "linalg_matmul", "mm", "bmm", "mv", "dot", "inner", "tensordot"}
    | {"addmm", "addbmm", "baddbmm", "einsum"}
)
"""Functions that are linear in each of their factors."""
MIXTURES = PRODUCTS | {"scaled_dot_product_attention", "softmax", "cdist", "linear"}
"""Functions that sum over entries with coefficients that may depend on the input."""

LINEAR = frozenset(
    {"cat", "stack", "concat", "concatenate", "hstack", "vstack", "sum", "cumsum", "flip"}
    | {
        "repeat",
        "repeat_interleave",
        "tile",
        "narrow",
        "select",
        "unbind",
        "index_select",
        "gather",
        "detach",
    }
    | {"masked_select", "take", "tensor_split", "vsplit", "hsplit", "diagonal", "unfold", "fold", "col2im"}
    | {"im2col", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "__setitem__", "broadcast_to", "half"}
    | {
        "bfloat16",
        "detach",
        "cpu",
        "cuda",
        "view_as",
        "reshape_as",
        "expand_as",
        "type_as",
        "positive",
        "data",
        "real",
    }
)
"""Other linear functions, which never form an activation."""

REVERSED = frozenset({"rsub", "__rsub__"})
"""Functions that subtract their tensor from the other argument."""
SUMS = REVERSED | {"add", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__isub__"}
NEGATIONS = frozenset({"neg", "__neg__", "negative"})
SCALINGS = frozenset({"mul", "__mul__", "__rmul__", "__imul__", "div", "__truediv__", "__itruediv__"})


def plain_name(function: Callable[..., Any]) -> str:
    """Return torch's name of a function or property, without the suffix of in-place variants."""
    name = str(getattr(function, "__name__", ""))
    if name == "__get__":
        name = str(getattr(getattr(function, "__self__", None), "__name__", ""))
    dunder = name.startswith("__") and name.endswith("__")
    return name if dunder or not name.endswith("_") or name == "requires_grad_" else name[:-1]


def call_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Return the arguments of a call by position and by name."""
    arguments: Arguments = dict(enumerate(args))
    for name, value in kwargs.items():
        arguments[name] = value
    return arguments


def constant_factor(name: str, arguments: Arguments) -> float | None:
    """Return the constant that a call multiplies its tensor by, or None if there is none."""
    if name in NEGATIONS:
        return -1.0
    if name not in SCALINGS or arguments.get("rounding_mode") is not None:
        return None
    first, second = arguments.get(0, arguments.get("input")), arguments.get(1, arguments.get("other"))
    divides = "div" in name
    numbers = [_number(x) for x in ((second,) if divides else (first, second))]
    factor = next((number for number in numbers if number is not None), None)
    if factor is None or factor == 0.0 or not math.isfinite(factor):
        return None
    return 1.0 / factor if divides else factor


def constant_shift(name: str, arguments: Arguments) -> float | None:
    """Return the constant that a call adds to its tensor, or None if there is none."""
    if name not in SUMS:
        return None
    number = _number(arguments.get(1, arguments.get("other")))
    alpha = _number(arguments.get("alpha", 1.0))
    if number is None or alpha is None or not math.isfinite(number * alpha):
        return None
    if name in REVERSED:
        return number if alpha == 1.0 else None
    return -number * alpha if "sub" in name else number * alpha


def _number(x: Any) -> float | None:
    if isinstance(x, Tensor):
        return float(x) if x.ndim == 0 and not x.requires_grad and x.dtype.is_floating_point else None
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None


def norm_module(class_name: str) -> str | None:
    """Return the kind of norm that the name of a module class indicates, or None if it is not a norm."""
    lowered = class_name.lower()
    if "norm" not in lowered:
        return None
    return next(
        (kind for kind in ("batch", "layer", "group", "instance", "rms") if kind in lowered), class_name
    )


def activation_of_call(name: str, arguments: Arguments) -> NamedActivation | None:
    """Return the activation that a call of the function `name` applies, or None."""
    if name in _PLAIN:
        return _registered(_PLAIN[name])
    if name in _WITH_OPTIONS:
        return _WITH_OPTIONS[name](arguments)
    return NamedActivation(name) if name in _UNREGISTERED else None


def gated_activation(by: NamedActivation) -> NamedActivation:
    """Return x·c·g(a·x) for a gate that is an activation of x: (c/a)·φ(a·x) with φ(x) = x·g(x)."""
    gate = by.label if by.bound is None else by.bound.entry.name
    if by.bound is not None and by.bound.output_shift != 0.0:
        return NamedActivation(f"x·({by.label})(x)")
    if gate not in _GATED:
        return NamedActivation(f"x·{by.label}(x)")
    if by.bound is None:
        return _registered(_GATED[gate])
    a, c = by.bound.input_scale, by.bound.output_scale
    return _registered(_GATED[gate]).scaled(input_scale=a, output_scale=c / a)


def chain_activations(inner: NamedActivation, outer: NamedActivation) -> NamedActivation:
    """Return the activation outer(inner(x))."""
    return NamedActivation(f"{outer.label}∘{inner.label}")


_PLAIN = {
    **{
        name: name for name in ("relu", "relu6", "selu", "silu", "mish", "softsign", "tanh", "sigmoid", "sin")
    },
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
}
_UNREGISTERED = frozenset(
    {"glu", "threshold", "hardshrink", "softshrink", "tanhshrink", "log_sigmoid", "rrelu", "exp", "cos"}
)
_GATED = {"sigmoid": "silu", "tanh∘softplus": "mish", "hard_sigmoid": "hard_swish"}


def _registered(name: str, **options: float) -> NamedActivation:
    label = name + "".join(f"({value:g})" for value in options.values())
    return NamedActivation(label, bound(name, **options))


def _option(arguments: Arguments, position: int, name: str, default: Any) -> Any:
    return arguments.get(name, arguments.get(position, default))


def _leaky_relu(arguments: Arguments) -> NamedActivation:
    slope = float(_option(arguments, 1, "negative_slope", 0.01))
    return (
        _registered("leaky_relu", negative_slope=slope)
        if 0.0 <= slope < 1.0
        else NamedActivation(f"leaky_relu({slope:g})")
    )


def _prelu(arguments: Arguments) -> NamedActivation:
    slopes = _option(arguments, 1, "weight", None)
    slope = float(slopes.detach().double().mean()) if isinstance(slopes, Tensor) else -1.0
    return _registered("prelu", init=slope) if 0.0 <= slope < 1.0 else NamedActivation("prelu")


def _positive(name: str, option: str) -> Callable[[Arguments], NamedActivation]:
    def read(arguments: Arguments) -> NamedActivation:
        value = float(_option(arguments, 1, option, 1.0))
        if value == 1.0:
            return _registered(name)
        return _registered(name, **{option: value}) if value > 0.0 else NamedActivation(f"{name}({value:g})")

    return read


def _gelu(arguments: Arguments) -> NamedActivation:
    return _registered("gelu_tanh" if arguments.get("approximate", "none") == "tanh" else "gelu")


def _hardtanh(arguments: Arguments) -> NamedActivation:
    low, high = float(_option(arguments, 1, "min_val", -1.0)), float(_option(arguments, 2, "max_val", 1.0))
    return _between(low, high)


def _clamp(arguments: Arguments) -> NamedActivation | None:
    low, high = _option(arguments, 1, "min", None), _option(arguments, 2, "max", None)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return _between(
        -float("inf") if low is None else float(low), float("inf") if high is None else float(high)
    )


def _between(low: float, high: float) -> NamedActivation:
    names = {(-1.0, 1.0): "hard_tanh", (0.0, 6.0): "relu6", (0.0, float("inf")): "relu"}
    return (
        _registered(names[low, high])
        if (low, high) in names
        else NamedActivation(f"clamp({low:g}, {high:g})")
    )


_WITH_OPTIONS: dict[str, Callable[[Arguments], NamedActivation | None]] = {
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "elu": _positive("elu", "alpha"),
    "celu": _positive("celu", "alpha"),
    "softplus": _positive("softplus", "beta"),
    "gelu": _gelu,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clip": _clamp,
}
