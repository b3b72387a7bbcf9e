"""Definition of an activation: φ as a module, φ′, kinks and output range; and the registry of activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from initbench.registry import Options, Registry, RegistryEntry
from initbench.registry_choice import options_model
from initbench.theory import mean_field
from initbench.theory.nonlinearity import Nonlinearity

SATURATED_BELOW = 0.05
"""Share of max|φ′| below which a bounded activation counts as saturated."""


@dataclass(frozen=True)
class ActivationMoments:
    """Moments of an activation under independent pre-activations h ~ N(0, q), as the theory needs them."""

    forward: float
    """E[φ(h)²] of one output."""
    backward: float
    """E[Σ(∂φ/∂h)²] of one input, summed over the outputs that depend on it."""


def _same(features: int, _options: Any) -> int:
    return features


@dataclass(frozen=True, kw_only=True)
class Activation(RegistryEntry):
    """An activation: elementwise, or one that mixes the channels (axis 1) of its input.

    `build(options, features)` returns φ as a module for `features` input channels, (N, C) or (N, C, H, W).
    """

    build: Callable[[Any, int], nn.Module]
    derivative: Callable[[Any, Tensor], Tensor] | None = None
    """φ′(x), at a kink with autograd's value; None if the activation is not elementwise."""
    moments: Callable[[Any, float], ActivationMoments] | None = None
    """(options, q) → moments in closed form, if φ is not elementwise or quadrature is inaccurate."""
    kinks: tuple[float, ...] = ()
    """Arguments at which φ′ or φ″ jumps, for all options; quadrature is split there."""
    bounded: bool = False
    """Whether φ is bounded above and below."""
    saturates: bool = False
    """Whether φ is flat only far from 0, on both sides, so that many entries in flat parts are bad.

    relu6 is bounded but does not saturate in this sense: like relu, it is flat for all negative inputs.
    """
    histogram_range: tuple[float, float] = (-4.0, 4.0)
    """Range of the outputs of a healthy layer; fixed, so that all runs share their histogram bins."""
    rounds_alike: bool = False
    """Whether the rounding of an entry is independent of its position in memory.

    torch computes most exponentials by a different formula for the last entries of a tensor, which do not
    fill a vector of the CPU.
    """
    negative_slope: Callable[[Any], float] = lambda _options: 0.0
    """The slope a in the kaiming gain √(2/(1+a²))."""
    features_in: Callable[[int, Any], int] = _same
    """(width, options) → output channels of the weights of a layer of `width` units."""
    features_out: Callable[[int, Any], int] = _same
    """(width, options) → input channels of the next weight layer."""

    @property
    def elementwise(self) -> bool:
        """Whether every output depends only on the input at the same position."""
        return self.derivative is not None

    def bind(self, options: Options) -> BoundActivation:
        """Return φ and φ′ with the given options."""
        return BoundActivation(self, options)


@dataclass(frozen=True)
class BoundActivation:
    """An activation with its options, factors and shift, c·φ(a·x) + s, as functions of a tensor."""

    entry: Activation
    options: Options
    input_scale: float = 1.0
    """Factor a of the input of φ."""
    output_scale: float = 1.0
    """Factor c of the output of φ."""
    output_shift: float = 0.0
    """Constant s that is added to the scaled output."""

    def scaled(
        self, *, input_scale: float = 1.0, output_scale: float = 1.0, output_shift: float = 0.0
    ) -> BoundActivation:
        """Return output_scale·φ(input_scale·x) + output_shift.

        A factor that equals an option is merged into that option.
        """
        options, inner = self.options, self.input_scale * input_scale
        if "omega" in type(options).model_fields and inner > 0.0:
            options, inner = options.model_copy(update={"omega": options.omega * inner}), 1.0  # type: ignore[attr-defined]
        return replace(
            self,
            options=options,
            input_scale=inner,
            output_scale=self.output_scale * output_scale,
            output_shift=self.output_shift * output_scale + output_shift,
        )

    @property
    def natural_q(self) -> float:
        """The q at which gains are computed: 1, or 1/a² if the input is scaled by a factor a > 1."""
        factor = self.input_scale * float(getattr(self.options, "omega", 1.0))
        return min(1.0, factor**-2)

    @property
    def natural_sigma_w2(self) -> float:
        """The σ_w² that keeps q at `natural_q`."""
        return self.natural_q / self.length_map(self.natural_q, sigma_w2=1.0)

    @property
    def changed_options(self) -> dict[str, Any]:
        """Options and factors that differ from their defaults, by name."""
        fields = type(self.options).model_fields
        values = {name: getattr(self.options, name) for name in fields if name != "name"}
        changed = {name: value for name, value in values.items() if value != fields[name].default}
        neutral = {"input_scale": 1.0, "output_scale": 1.0, "output_shift": 0.0}
        around = {name: getattr(self, name) for name in neutral}
        return changed | {name: value for name, value in around.items() if value != neutral[name]}

    @property
    def label(self) -> str:
        """Name in tables and messages, such as `leaky_relu(0.2)`, `tanh(0.1x)` or `2·sigmoid - 1`."""
        options = [v for k, v in self.changed_options.items() if not k.startswith(("input_", "output_"))]
        inside = [f"{value:g}" if isinstance(value, float) else str(value) for value in options]
        if self.input_scale != 1.0:
            inside.insert(0, f"{self.input_scale:.4g}x")
        name = self.entry.name + (f"({', '.join(inside)})" if inside else "")
        name = name if self.output_scale == 1.0 else f"{self.output_scale:.4g}·{name}"
        return name + shift_text(self.output_shift)

    @cached_property
    def phi(self) -> Callable[[Tensor], Tensor]:
        """The function before training, computed in the precision of its argument."""
        with torch.device("cpu"):  # the default device may be "meta" while a net is built
            module = self.entry.build(self.options, 1).double().requires_grad_(requires_grad=False)
        if not self._has_factors:
            return module
        return lambda x: self.output_scale * module(self.input_scale * x) + self.output_shift

    def derivative(self, x: Tensor) -> Tensor:
        """Return φ′(x), elementwise; raise TypeError if the activation is not elementwise."""
        if self.entry.derivative is None:
            raise TypeError(f"{self.entry.name} is not elementwise")
        if not self._has_factors:
            return self.entry.derivative(self.options, x)
        slope = self.entry.derivative(self.options, self.input_scale * x)
        return self.output_scale * self.input_scale * slope

    @property
    def _has_factors(self) -> bool:
        return (self.input_scale, self.output_scale, self.output_shift) != (1.0, 1.0, 0.0)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Arguments at which φ′ or φ″ jumps."""
        if self.input_scale == 1.0:
            return self.entry.kinks
        return tuple(sorted(kink / self.input_scale for kink in self.entry.kinks))

    def moments(self, q: float) -> ActivationMoments | None:
        """Return the moments for h ~ N(0, q) in closed form; None if quadrature has to be used."""
        if self.entry.moments is None or self.output_shift != 0.0:
            return None
        a2, c2 = self.input_scale**2, self.output_scale**2
        inner = self.entry.moments(self.options, a2 * q)
        return ActivationMoments(c2 * inner.forward, c2 * a2 * inner.backward)

    @cached_property
    def nonlinearity(self) -> Nonlinearity | None:
        """φ and φ′ in the form that the theory uses; None if the activation is not elementwise."""
        if not self.entry.elementwise:
            return None
        flat_below = SATURATED_BELOW * self.max_derivative if self.entry.saturates else None
        return Nonlinearity(self.phi, self.derivative, self.kinks, flat_below)

    def length_map(self, q: float, *, sigma_w2: float, sigma_b2: float = 0.0) -> float:
        """Return the next layer's q: σ_w² E[φ(h)²] + σ_b² (Poole et al. 2016)."""
        moments = self.moments(q)
        if moments is not None:
            return sigma_w2 * moments.forward + sigma_b2
        return mean_field.length_map(self.phi, q, sigma_w2=sigma_w2, sigma_b2=sigma_b2, kinks=self.kinks)

    def chi(self, q: float, *, sigma_w2: float) -> float:
        """Return χ₁ = σ_w² E[φ′(h)²], for fan_in = fan_out (Schoenholz et al. 2017)."""
        moments = self.moments(q)
        if moments is not None:
            return sigma_w2 * moments.backward
        return mean_field.chi(self.derivative, q, sigma_w2=sigma_w2, kinks=self.kinks)

    @cached_property
    def preserving_gain(self) -> float:
        """The gain 1/√E[φ(z)²] for z ~ N(0, 1)."""
        moments = self.moments(1.0)
        if moments is not None:
            return float(moments.forward**-0.5)
        return mean_field.preserving_gain(self.phi, self.kinks)

    @cached_property
    def kaiming_gain(self) -> float:
        """The gain √(2/(1+a²)), a being the negative slope (He et al. 2015); factors are ignored."""
        slope = self.entry.negative_slope(self.options)
        return float((2.0 / (1.0 + slope * slope)) ** 0.5)

    @cached_property
    def widening(self) -> float:
        """Output channels over input channels: fan_in/fan_out of a weight between layers of equal width."""
        width = 64
        return self.entry.features_out(width, self.options) / self.entry.features_in(width, self.options)

    @cached_property
    def max_derivative(self) -> float:
        """Maximum of |φ′| for a·x in [−20, 20], for activations that saturate."""
        grid = torch.linspace(-20.0, 20.0, 40_001, dtype=torch.float64, device="cpu") / self.input_scale
        return float(self.derivative(grid).abs().max())


def shift_text(shift: float) -> str:
    """Return an added constant as the end of an activation's label, such as ` - 0.5`."""
    return "" if shift == 0.0 else f" {'-' if shift < 0.0 else '+'} {abs(shift):.4g}"


@lru_cache(maxsize=64)
def bind(options: Options) -> BoundActivation:
    """Return the activation for a config value (`options.name` and its options)."""
    return ACTIVATIONS[options.name].bind(options)


def bound(name: str, **options: Any) -> BoundActivation:
    """Return the activation called `name`, with `options` or its defaults."""
    return bind(options_model(ACTIVATIONS[name], "name")(**options))


_ABSENT = (
    "quick_gelu",
    "glu",
    "swiglu",
    "geglu",
    "reglu",
    "softmax",
    "log_softmax",
    "log_sigmoid",
    "rrelu",
    "hard_shrink",
    "soft_shrink",
    "tanh_shrink",
    "threshold",
    "snake",
    "erf",
)
"""Well-known names that are not supported; no similar name is suggested for them."""
ACTIVATIONS: Registry[Activation] = Registry(
    "activation", "initbench.components.activations", absent=_ABSENT, group="activations"
)
