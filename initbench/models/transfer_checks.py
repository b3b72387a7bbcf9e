"""Checks of a net that loads pretrained weights, made before the weights are located."""

from __future__ import annotations

from initbench.components.inits.pretrained_scheme import TORCHVISION, TransferOptions
from initbench.errors import ConfigError, ConfigIssue
from initbench.models.init_weights import InitOptions
from initbench.models.network import FamilyOptions, Network


def check_transfer(network: Network, model: FamilyOptions, init: InitOptions) -> None:
    """Raise ConfigError, naming the keys, if weights cannot be loaded or frozen as configured."""
    options = init.scheme
    if not isinstance(options, TransferOptions):
        return
    layers = len(network.weight_layers())
    faults = []
    if options.frozen(layers) >= layers:
        problem = (
            f"init.scheme.freeze={options.freeze} leaves nothing to train: the net has {layers} weight"
            " layers, its head among them"
        )
        faults.append(ConfigIssue("", "init.scheme.freeze", problem))
    if options.source.startswith(TORCHVISION):
        problem_of_source = _other_net(options.source, model)
        if problem_of_source is not None:
            faults.append(ConfigIssue("", "init.scheme.from", problem_of_source))
    if faults:
        raise ConfigError(faults)


def _other_net(source: str, model: FamilyOptions) -> str | None:
    from initbench.models.torchvision_adapter import given_net

    weights = source.removeprefix(TORCHVISION).partition(".")[0]
    if model.family != "torchvision":
        return f"{source} is for model.family=torchvision, not for {model.family}"
    name = str(getattr(model, "model", ""))
    source_net = given_net(weights)
    if source_net in (name, f"{name}_bn"):
        return None
    return f"{source} has the weights of {source_net}, and model.model is {name}"
