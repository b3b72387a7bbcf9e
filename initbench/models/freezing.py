"""Which weight layer each tensor of a net goes with, and nets of which some layers are not trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from initbench.models.network import Network


@dataclass
class LayerTensors:
    """A weight layer with all that goes with it: its bias, its norm layer, a learned activation behind it."""

    index: int
    """Of the weight layer, from 1."""
    name: str
    """Of its weight module."""
    weights: list[str] = field(default_factory=list)
    """The parameters that its weight is, or is computed from."""
    others: list[str] = field(default_factory=list)
    """The rest of its parameters, and its buffers."""
    modules: list[str] = field(default_factory=list)
    """The modules that hold these tensors."""

    @property
    def tensors(self) -> list[str]:
        """All parameters and buffers, by name."""
        return [*self.weights, *self.others]


def layer_tensors(network: Network) -> list[LayerTensors]:
    """Every parameter and buffer of the net with its weight layer, in order, head included.

    Nets define their modules in the order of the signal, so that what holds tensors of its own and is no
    weight layer goes with the last one before it.
    """
    layers = network.weight_layers()
    tensors_by_module = {layer.module: LayerTensors(layer.index, layer.name) for layer in layers}
    current = tensors_by_module[layers[0].module]
    for name, module in network.named_modules():
        current = tensors_by_module.get(module, current)
        _add(current, name, module)
    return list(tensors_by_module.values())


def _add(member: LayerTensors, name: str, module: nn.Module) -> None:
    parameters = [f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters(recurse=False)]
    buffers = [f"{name}.{key}".lstrip(".") for key, _ in module.named_buffers(recurse=False)]
    if not parameters and not buffers:
        return
    inside = name == member.name or name.startswith(f"{member.name}.")
    weights = [key for key in parameters if inside and key != f"{member.name}.bias"]
    member.weights += weights
    member.others += [key for key in [*parameters, *buffers] if key not in weights]
    member.modules.append(name)


def freeze(network: Network, layers: int, *, hold_norms: bool) -> None:
    """Have the first `layers` weight layers, and what goes with them, not trained.

    With `hold_norms` their norm layers stay in evaluation mode: batch norm there normalises by its running
    statistics and leaves them as they are.
    """
    for member in layer_tensors(network)[:layers]:
        for name in member.tensors:
            owner, _, key = name.rpartition(".")
            parameter = network.get_submodule(owner)._parameters.get(key)
            if parameter is not None:
                parameter.requires_grad_(False)
        if hold_norms:
            network.held = (*network.held, *member.modules)
    network.train(network.training)
