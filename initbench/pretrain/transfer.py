"""Transfer of weights from another net to a net that will be trained, by name and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.errors import ConfigError, ConfigIssue
from initbench.models.build import build_outline
from initbench.models.freezing import LayerTensors, freeze, layer_tensors
from initbench.models.init_weights import InitOptions
from initbench.models.network import Network
from initbench.pretrain.weight_sources import WeightSource

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN = 4


@dataclass(frozen=True)
class TransferReport:
    """Use of every tensor of the source, and origin of every tensor of the net."""

    copied: tuple[str, ...]
    skipped: dict[str, str]
    """Tensors of the source that are not copied: name → reason."""
    drawn: dict[str, str]
    """Tensors of the net that are drawn by the scheme: name → reason."""
    frozen: tuple[str, ...]
    """Names of the weight layers that are not trained."""

    def as_data(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "taken": list(self.copied),
            "skipped": self.skipped,
            "drawn": self.drawn,
            "frozen": list(self.frozen),
        }


def plan_transfer(network: Network, shapes: Shapes, init: InitOptions) -> TransferReport:
    """Return which tensors of a source with these shapes go into `network`, which may be on device meta.

    A tensor is copied if name and shape agree, but never without the weight of its layer: if the weight is
    drawn, so are the bias and the norm layer. With `init.head` the head is drawn.

    Raises:
        ConfigError: If no weight is copied, or if a layer to be frozen is drawn.
    """
    options = init.scheme
    assert isinstance(options, TransferOptions)
    net, layers = _shapes(network), layer_tensors(network)
    drawn: dict[str, str] = {}
    for member in layers:
        drawn |= _drawn(member, net, shapes, fresh=member is layers[-1] and init.head is not None)
    copied = tuple(name for name in net if name not in drawn)
    if not set(copied) & {name for member in layers for name in member.weights}:
        raise _fault("from", _nothing_fits(options.source, shapes, net))
    frozen = layers[: options.frozen(len(layers))]
    for member in frozen:
        why = next((drawn[name] for name in member.weights if name in drawn), None)
        if why is not None:
            problem = f"freezes {member.name}, which is not taken from {options.source}: {why}"
            raise _fault("freeze", f"init.scheme.freeze={options.freeze} {problem}")
    skipped = {name: _skipped(name, shape, net) for name, shape in shapes.items() if name not in copied}
    return TransferReport(copied, skipped, drawn, tuple(member.name for member in frozen))


def describe_transfers(
    config: ExperimentConfig, data: PreparedData, origins: Mapping[int, WeightSource]
) -> dict[int, dict[str, Any]]:
    """Return the transfer of each seed as plain data; raise ConfigError as `plan_transfer` does."""
    network = build_outline(config.model, data.form)
    transfers: dict[str, dict[str, Any]] = {}
    for origin in origins.values():
        if origin.sha256 not in transfers:
            shapes = {name: tuple(t.shape) for name, t in load(origin.tensors).items()}
            transfers[origin.sha256] = plan_transfer(network, shapes, config.init).as_data()
    return {
        seed: {"source": origin.name, "sha256": origin.sha256, **transfers[origin.sha256]}
        for seed, origin in origins.items()
    }


def load_pretrained(networks: Sequence[Network], origins: Sequence[WeightSource], init: InitOptions) -> None:
    """Copy the tensors of its origin to each drawn net, and freeze layers; do nothing without origins."""
    for network, origin in zip(networks, origins, strict=bool(origins)):
        _copy_tensors(network, load(origin.tensors), init)


@torch.no_grad()
def _copy_tensors(network: Network, tensors: Mapping[str, Tensor], init: InitOptions) -> None:
    options = init.scheme
    assert isinstance(options, TransferOptions)
    report = plan_transfer(network, {name: tuple(t.shape) for name, t in tensors.items()}, init)
    net_tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name in report.copied:
        net_tensors[name].copy_(tensors[name])
    freeze(network, len(report.frozen), hold_norms=options.frozen_norm == "running")


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {name: tuple(t.shape) for name, t in tensors}


def _drawn(member: LayerTensors, net: Shapes, shapes: Shapes, *, fresh: bool) -> dict[str, str]:
    """Return the member's tensors that are not copied, with the reason."""
    if fresh:
        return dict.fromkeys(member.tensors, "init.head draws it")
    misfits = {name: why for name in member.tensors if (why := _misfit(name, net, shapes)) is not None}
    if not any(name in misfits for name in member.weights):
        return misfits
    return {name: misfits.get(name, f"goes with {member.weights[0]}") for name in member.tensors}


def _misfit(name: str, net: Shapes, shapes: Shapes) -> str | None:
    if name not in shapes:
        return "not in the source"
    return None if shapes[name] == net[name] else f"{_size(net[name])} here, {_size(shapes[name])} there"


def _skipped(name: str, shape: tuple[int, ...], net: Shapes) -> str:
    if name not in net:
        return "not in this net"
    return (
        "its layer is drawn, not copied"
        if shape == net[name]
        else f"{_size(shape)} there, {_size(net[name])} here"
    )


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def _nothing_fits(source: str, shapes: Shapes, net: Shapes) -> str:
    return (
        f"no weight of {source} fits this net by name and shape: it has {_listed(shapes)}, and the net"
        f" {_listed(net)}"
    )


def _listed(shapes: Shapes) -> str:
    texts = [f"{name} ({_size(shape)})" for name, shape in list(shapes.items())[:_SHOWN]]
    return ", ".join([*texts, *(["…"] if len(shapes) > _SHOWN else [])]) or "nothing"


def _fault(key: str, problem: str) -> ConfigError:
    return ConfigError([ConfigIssue("", f"init.scheme.{key}", problem)])
