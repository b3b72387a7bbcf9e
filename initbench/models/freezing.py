"""Assignment of a net's tensors to weight layers, and freezing of the first layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from initbench.models.network import Network


@dataclass
class LayerTensors:
    """All tensors of a weight layer: weight, bias, and those of the norm layer and activation that follow."""

    index: int
    """Index of the weight layer, from 1."""
    name: str
    """Name of the weight module."""
    weights: list[str] = field(default_factory=list)
    """Names of the weight, or of the parameters that it is computed from."""
    others: list[str] = field(default_factory=list)
    """Names of the other parameters and of the buffers."""
    modules: list[str] = field(default_factory=list)
    """Names of the modules that hold these tensors."""

    @property
    def tensors(self) -> list[str]:
        """Names of all parameters and buffers."""
        return [*self.weights, *self.others]


def layer_tensors(network: Network) -> list[LayerTensors]:
    """Return every parameter and buffer of the net by weight layer, in order, head included.

    Nets define their modules in the order of the forward pass. A module that has tensors but is not a weight
    layer therefore belongs to the last weight layer before it.
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
    """Exclude the first `layers` weight layers from training, including their biases and norm layers.

    With `hold_norms`, their norm layers stay in evaluation mode: batch norm uses its running statistics and
    does not update them.
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
