"""What an init scheme states about itself: its rule, its variance, what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

from torch import Generator, Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.registry import Options, Registry, RegistryEntry


class SchemeRequirement(StrEnum):
    """What an init needs beside the weight tensor itself."""

    NONE = "none"
    FIRST_BATCH = "first_batch"
    MODEL_EDIT = "model_edit"
    OPTIMIZER = "optimizer"
    TRAINING = "training"
    STORED_RUN = "stored_run"

    @property
    def leaves_no_scale(self) -> bool:
        """Whether what the weights are drawn with says nothing of what a net starts with."""
        return self in (SchemeRequirement.TRAINING, SchemeRequirement.STORED_RUN)


class Fill(Protocol):
    """Overwrite `weight` in place.

    weight: (out, in) or a kernel (out, in, …), of one group where there are several; `gain` multiplies
    the standard deviation; random numbers come from `generator`, on the CPU. The scheme's options follow
    as keywords.
    """

    def __call__(
        self,
        weight: Tensor,
        *,
        fan_in: float,
        fan_out: float,
        gain: float,
        generator: Generator,
        **options: Any,
    ) -> None:
        """Fill `weight`."""


class ResidualBranch(Protocol):
    """One residual branch F in x + F(x), as schemes for residual nets see it."""

    @property
    def weights(self) -> Sequence[nn.Module]:
        """The branch's weight modules in the order of the signal."""

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm layer that closes the branch, if one does."""

    def insert_scale(self, value: float) -> None:
        """Multiply what the branch adds by a learned scalar that starts at `value`."""

    def insert_shifts(self) -> None:
        """Add a learned scalar, 0 at first, before each weight module and each activation."""


@dataclass(frozen=True)
class SchemeContext:
    """What a config says of the net that a scheme is to fill."""

    activation: BoundActivation
    norm: str
    """Name of the norm."""
    bias: bool
    """Whether weight layers have one."""
    options: Options | None = None
    """The scheme's own, where they are known."""


WeightDistribution = Literal["normal", "uniform", "truncated", "other"]
"""Zero-mean distribution of a weight; `truncated` is a normal one, cut at ±2 of its standard deviations."""

Edit = Callable[..., None]
Refusal = Callable[[str, SchemeContext], str | None]


def _fits(_name: str, _setting: SchemeContext) -> str | None:
    return None


def _any_shape(_shape: Sequence[int]) -> str | None:
    return None


def _every_class(_class_name: str, **_options: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Scheme(RegistryEntry):
    """An init scheme.

    `variance(fan_in=…, fan_out=…, gain=…, **options)` is the variance of one weight, where the scheme
    draws them independently; it is what `fill` draws with and what theory predicts from.
    """

    fill: Fill
    first_fill: Fill | None = None
    """How the first layer is filled, whose input no activation has passed; None for like the others."""
    unfillable: Callable[[Sequence[int]], str | None] = _any_shape
    """(out, in, …) → why `fill` cannot fill a weight of that shape; None where it can."""
    touches: Callable[..., bool] = _every_class
    """touches(class_name, **options): whether such a layer is drawn; others stay as torch makes them."""
    variance: Callable[..., float] | None = None
    distribution: WeightDistribution = "normal"
    """Distribution of one weight, for schemes with a `variance`; the property tests check it."""
    kurtosis: float | None = None
    """E[w⁴]/E[w²]² of one weight, required if `distribution` is `other`."""
    is_random: bool = True
    """Whether `fill` draws from the generator, so that another seed gives another weight."""
    default_gain: Callable[[BoundActivation], float] | None = None
    """The gain when the config names none; None when no gain can be given."""
    layer_gain: Callable[[BoundActivation, int], float] | None = None
    """The gain of the layer of that number, from 1, where the scheme works it out of the activation."""
    bias_std: Callable[[BoundActivation, float], float] | None = None
    """Standard deviation of a bias from (activation, fan_in); None for a bias of 0."""
    bias_distribution: Literal["normal", "uniform"] = "normal"
    takes_torch_fans: bool = False
    """Whether it divides by what torch counts as fan_in, which a transposed convolution has otherwise."""
    needs: SchemeRequirement = SchemeRequirement.NONE
    calibrate: Callable[..., None] | None = None
    """For `first_batch`: calibrate(network, weight_modules, batch, **options), after `fill`."""
    measures_bias: bool = False
    """Whether `calibrate` sets every bias, so that none can be asked for."""
    edit: Edit | None = None
    """For `model_edit`: edit(branches, head, **options), after `fill`; the head is None where it has a
    scheme of its own. Raises ValueError, with a reason, for branches that it cannot serve."""
    problem: Refusal = _fits
    """(`init.scheme=name`, setting) → why the scheme cannot serve such a net, naming the keys; else None."""


INITS: Registry[Scheme] = Registry("init scheme", "initbench.components.inits", first="independent")


def unit_gain(_activation: BoundActivation) -> float:
    """1, whatever the activation: the default of lecun, xavier and orthogonal."""
    return 1.0


def kaiming_gain(activation: BoundActivation) -> float:
    """√(2/(1+a²)), a being the leaky slope and 0 for everything else, as torch does."""
    return activation.kaiming_gain
