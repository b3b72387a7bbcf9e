"""Definition of an init scheme: its rule, variance and requirements; and the registry of schemes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

from torch import Generator, Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.registry import Options, Registry, RegistryEntry


class SchemeRequirement(StrEnum):
    """Requirement of an init scheme in addition to the weight tensor."""

    NONE = "none"
    FIRST_BATCH = "first_batch"
    MODEL_EDIT = "model_edit"
    OPTIMIZER = "optimizer"
    TRAINING = "training"
    STORED_RUN = "stored_run"
    CONSTRUCTION = "construction"
    """The weights that the net has when it is constructed, which the scheme keeps."""

    @property
    def leaves_no_scale(self) -> bool:
        """Whether the weights at the start of training do not come from `fill`, so that it sets no scale."""
        return self in (
            SchemeRequirement.TRAINING,
            SchemeRequirement.STORED_RUN,
            SchemeRequirement.CONSTRUCTION,
        )


class Fill(Protocol):
    """Function that overwrites `weight` in place.

    `weight` is (out, in) or a kernel (out, in, …), of a single group if there are several. `gain` multiplies
    the standard deviation. Random numbers come from `generator`, on the CPU. The scheme's options are passed
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
    """Interface of a residual branch F in x + F(x) for schemes that edit residual nets."""

    @property
    def weights(self) -> Sequence[nn.Module]:
        """The branch's weight modules in the order of the forward pass."""

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm layer at the end of the branch, if there is one."""

    def insert_scale(self, value: float) -> None:
        """Multiply the output of the branch by a learned scalar with the initial value `value`."""

    def insert_shifts(self) -> None:
        """Add a learned scalar, initially 0, before each weight module and each activation."""


@dataclass(frozen=True)
class SchemeContext:
    """Properties of the net in which a scheme is used, taken from the config."""

    activation: BoundActivation
    norm: str
    """Name of the norm."""
    bias: bool
    """Whether weight layers have a bias."""
    options: Options | None = None
    """Options of the scheme, if known."""


WeightDistribution = Literal["normal", "uniform", "truncated", "other"]
"""Zero-mean distribution of a weight; `truncated` is a normal distribution cut at ±2 standard deviations."""

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

    `variance(fan_in=…, fan_out=…, gain=…, **options)` is the variance of one weight, for schemes that draw
    weights independently. `fill` draws with this variance, and the theory uses it for predictions.
    """

    fill: Fill
    first_fill: Fill | None = None
    """Rule for the first layer, whose input comes from no activation; None if it is the same as `fill`."""
    unfillable: Callable[[Sequence[int]], str | None] = _any_shape
    """(out, in, …) → why `fill` cannot fill a weight of that shape, or None if it can."""
    touches: Callable[..., bool] = _every_class
    """touches(class_name, **options): whether layers of this class are drawn; others keep torch's default."""
    variance: Callable[..., float] | None = None
    distribution: WeightDistribution = "normal"
    """Distribution of one weight, for schemes with a `variance`; the property tests check it."""
    kurtosis: float | None = None
    """E[w⁴]/E[w²]² of one weight, required if `distribution` is `other`."""
    is_random: bool = True
    """Whether `fill` draws from the generator, so that the weights depend on the seed."""
    default_gain: Callable[[BoundActivation], float] | None = None
    """The gain if the config gives none; None if the scheme has no gain."""
    layer_gain: Callable[[BoundActivation, int], float] | None = None
    """(activation, index from 1) → gain of a layer, for schemes that compute it from the activation."""
    bias_std: Callable[[BoundActivation, float], float] | None = None
    """Standard deviation of a bias from (activation, fan_in); None for a bias of 0."""
    bias_distribution: Literal["normal", "uniform"] = "normal"
    takes_torch_fans: bool = False
    """Whether the scheme uses torch's definition of fan_in, which differs for transposed convolutions."""
    needs: SchemeRequirement = SchemeRequirement.NONE
    calibrate: Callable[..., None] | None = None
    """For `first_batch`: calibrate(network, weight_modules, batch, **options), called after `fill`."""
    measures_bias: bool = False
    """Whether `calibrate` sets every bias, so that the config cannot set one."""
    edit: Edit | None = None
    """For `model_edit`: edit(branches, head, **options), called after `fill`; the head is None if it has a
    separate scheme. Raises ValueError, with a reason, for branches that are not supported."""
    problem: Refusal = _fits
    """(`init.scheme=name`, context) → why the scheme cannot be used in this net, naming the keys, or None."""


INITS: Registry[Scheme] = Registry(
    "init scheme", "initbench.components.inits", first="independent", group="inits"
)


def unit_gain(_activation: BoundActivation) -> float:
    """Return 1 for every activation: the default of lecun, xavier and orthogonal."""
    return 1.0


def kaiming_gain(activation: BoundActivation) -> float:
    """Return √(2/(1+a²)), as torch does; a is the slope of leaky activations, and 0 for all others."""
    return activation.kaiming_gain
