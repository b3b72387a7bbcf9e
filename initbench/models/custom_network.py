"""A net of initbench around a module of the user, whose weight layers are found by tracing a pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from initbench.components.activation import BoundActivation, bound
from initbench.components.loss import outputs_fit
from initbench.components.target import SampleShape
from initbench.errors import UsageError, reporting_user_code
from initbench.models.apply_init import draw_targets, target_rules
from initbench.models.init_targets import by_traced_name
from initbench.models.init_weights import InitOptions, LayerRule
from initbench.models.network import Network, WeightLayer
from initbench.rng import stream_generator
from initbench.trace.module_pass import trace_pass
from initbench.trace.weight_use import WeightUse, common_label

TRIAL_SAMPLES = 4
"""Samples of the pass that finds the weight layers; batch norm needs more than one."""


class CustomNetwork(Network):
    """A module of the user. (B, …) → logits (B, classes), or outputs of the form that the targets need.

    Parameters, buffers and modules have the names that they have in the module of the user.

    Args:
        module: The module; its mode is set to training.
        form: Form of the samples.
        activation: The activation of the config; None for the most frequent one of the module.

    Raises:
        UsageError: If the module cannot be trained on such samples.
    """

    plain = False

    def __init__(
        self,
        module: nn.Module,
        form: SampleShape,
        activation: BoundActivation | None = None,
    ) -> None:
        super().__init__()
        _check_tensors(module)
        self.net = module
        super().train()
        uses, heads = self._trace(form)
        self.activation = activation or _common_activation(uses)
        self._layers = {use.name: use.index for use in reversed(uses)}
        self._activated = {use.name for use in uses if use.activation is not None}
        self.products = sum(use.factor.numel() * _positions(use) for use in uses)
        """Multiplications by weights in the pass of one sample."""
        self.outputs = sum(use.units * _positions(use) for use in uses)
        """Output values of weight layers for one sample."""
        self._head = (heads or uses[-1:])[0].name
        self.norm_kind = next((use.norm for use in uses if use.norm is not None), "none")
        """Kind of the first norm layer that follows a weight, or `none`."""

    @property
    def module(self) -> nn.Module:
        """The module of the user."""
        return self.net

    @property
    def head(self) -> str:
        """Name of the layer whose output is the logits."""
        return self._head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.net(x)  # type: ignore[no-any-return]

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules of the user under their names."""
        return self.net.named_modules(memo, prefix, remove_duplicate)  # type: ignore[no-any-return]

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module of the user by its name."""
        return self.net.get_submodule(target)

    def logits(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits for these parameters and buffers, which the module may change in place.

        A buffer that the module replaces by another tensor is changed, too.
        """
        state = dict(tensors)
        logits: Tensor = functional_call(self.net, state, (x,))
        for name, tensor in state.items():
            if tensor is not tensors[name]:
                with torch.no_grad():
                    tensors[name].copy_(tensor)
        return logits

    def weight_layers(self) -> list[WeightLayer]:
        """Return the layers in the order of their first use, but the head last.

        The module of a weight that is not the parameter `weight` of a layer is the module that holds it.
        Activations may be functions, so `activation` is the module of the layer if one follows.
        """
        modules = dict(self.net.named_modules())
        layers = []
        for name, index in sorted(self._layers.items(), key=lambda item: (item[0] == self._head, item[1])):
            owner = name
            while owner not in modules:
                owner = owner.rpartition(".")[0]
            module = modules[owner]
            activation = module if name in self._activated else None
            layers.append(WeightLayer(index, name, module, module, activation, name == self._head))
        return layers

    def layer_rules(self, init: InitOptions) -> dict[str, LayerRule]:
        """Return the rule that draws each weight, by the name of its layer.

        Raises:
            UsageError: If a scheme cannot draw the weights.
        """
        pairs = target_rules("init.scheme", self.net, init, self.activation, self._head)
        by_name = by_traced_name(self.net, [target for target, _ in pairs])
        rules = {target.name: rule for target, rule in pairs}
        return {name: rules[target.name] for name, target in by_name.items()}

    def initialise(self, init: InitOptions, *, seed: int, batch: Tensor) -> None:
        """Draw the weights as `apply_init` does; other parameters stay as constructed."""
        with torch.no_grad():
            pairs = target_rules("init.scheme", self.net, init, self.activation, self._head)
            draw_targets(self.net, pairs, init, seed=seed, batch=batch)

    def _trace(self, form: SampleShape) -> tuple[Sequence[WeightUse], Sequence[WeightUse]]:
        """Return the weight uses of a pass of random samples, and those that are heads; check the outputs."""
        size, stream = (TRIAL_SAMPLES, *form.shape), stream_generator(0, "trial")
        if form.vocabulary is None:
            x, kind = torch.randn(size, generator=stream), "float32"
        else:
            x, kind = torch.randint(form.vocabulary, size, generator=stream), "int64"
        subject = f"the module cannot take the samples, {kind} of shape {_as_text(('B', *form.shape))}:"
        with reporting_user_code(subject), torch.no_grad():
            returned, trace = trace_pass(self.net, x)
        _check_outputs(returned, form)
        if not trace.uses:
            raise UsageError("no layer of the module multiplies its input by a weight, so there is no init")
        return trace.uses, trace.heads


def _positions(use: WeightUse) -> int:
    """Return the number of positions per sample at which the pass multiplies by the weight."""
    return max(1, math.prod(use.output_shape) // (TRIAL_SAMPLES * use.units))


def _check_tensors(module: nn.Module) -> None:
    """Raise UsageError for parameters and buffers that cannot be trained."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise UsageError(f"{name} belongs to a lazy layer, which has no shape yet; state its size")
        if tensor.device.type != "cpu":
            raise UsageError(f"{name} is on {tensor.device}; build the module on the CPU, --device moves it")
    for name, parameter in module.named_parameters():
        if parameter.dtype is not torch.float32:
            raise UsageError(f"{name} is {str(parameter.dtype).removeprefix('torch.')}; train in float32")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError("the module has no trainable parameters")


def _check_outputs(returned: Any, form: SampleShape) -> None:
    """Raise UsageError unless the result of a pass is the outputs that the targets need."""
    what = "logits" if form.target.is_class_index else "outputs"
    if not isinstance(returned, Tensor):
        raise UsageError(
            f"forward returns {type(returned).__name__}, and training needs a tensor of {what};"
            " wrap the module in one that returns them"
        )
    expected = form.output_shape
    fits = tuple(returned.shape) == (TRIAL_SAMPLES, *expected)
    if not form.target.is_class_index:
        targets = torch.zeros(TRIAL_SAMPLES, *form.target_shape)
        fits = returned.dim() > 0 and outputs_fit(returned, targets)
    if not fits or not returned.is_floating_point():
        kind = "" if returned.is_floating_point() else f" of {str(returned.dtype).removeprefix('torch.')}"
        actual = ("B" if size == TRIAL_SAMPLES and not i else size for i, size in enumerate(returned.shape))
        needs = f"{what} of {form.outputs} classes" if form.target.is_class_index else what
        raise UsageError(
            f"forward returns a tensor{kind} of shape {_as_text(actual)}, and the {needs}"
            f" have shape {_as_text(('B', *expected))}"
        )


def _as_text(shape: Any) -> str:
    return f"({', '.join(map(str, shape))})"


def _common_activation(uses: Sequence[WeightUse]) -> BoundActivation:
    """Return the most frequent activation of the catalogue; relu, as in `apply_init`, if there is none."""
    label = common_label(uses)
    activation = next(
        (use.activation.bound for use in uses if use.activation and use.activation.label == label), None
    )
    return activation or bound("relu")
