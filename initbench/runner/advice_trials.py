"""Try changes that may cure a finding. Nets of a config are redrawn, modules of the user restored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.components.fans import Convolution, Transposed
from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.components.loss import LOSSES
from initbench.config.loading import with_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData, Split, renormalise
from initbench.determinism import one_thread
from initbench.errors import UsageError
from initbench.models.apply_init import apply_init
from initbench.models.init_targets import by_traced_name, init_targets
from initbench.models.init_weights import init_options
from initbench.models.network import Network
from initbench.pretrain.initial_networks import is_layerwise_pretrained
from initbench.pretrain.transfer import load_pretrained
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import TrialResult, trial_result
from initbench.probing.initial_conditions import NetMeasurement
from initbench.probing.messages import init_arguments
from initbench.probing.model_inputs import ModelInputs
from initbench.probing.network_probe import network_conditions, probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.rng import stream_generator
from initbench.runner.capacity import check_network
from initbench.trace.preserve_state import preserve_state
from initbench.trace.weight_use import TraceResult, WeightUse
from initbench.train.loop import fixed_sample
from initbench.train.matmul_precision import true_fp32
from initbench.train.network_builder import build_networks

RECURRENT_DRAWS = ("recurrent=1", "recurrent=2", "recurrent=4")
"""Changes that redraw recurrent layers: as in Keras, and with larger input weights."""
TRIAL_NETS = 3
"""Number of nets that a change has to cure."""


Look = Callable[[ExperimentConfig, PreparedData, Split, list[Network]], TrialResult]
"""(changed config, its data, the batch, nets drawn from it) → findings in the nets."""


def config_attempt(
    config: ExperimentConfig,
    data: PreparedData,
    seeds: Sequence[int],
    origins: Sequence[WeightSource] = (),
    look: Look | None = None,
) -> Callable[[str], TrialResult]:
    """Return a function that tries a change (text of key=value pairs) on the nets of an experiment.

    The global random state of torch is left unchanged.

    Args:
        config: The experiment without the change.
        data: Its data; only `data.normalize` can be changed.
        seeds: Seeds of the nets.
        origins: Weight source of each net, if weights are loaded.
        look: Inspects the changed nets; a diagnosis by default.
    """
    look = look or _diagnosed

    def attempt(words: str) -> TrialResult:
        """Return the result of the nets with these overrides."""
        other = with_overrides(config, words.split())
        if is_layerwise_pretrained(other):
            raise UsageError("not tried: it trains the nets first")
        check_network(other, data, copies=2)
        changed_data = data if other.data == config.data else _with_inputs(data, words)
        batch = fixed_sample(changed_data.train, other.probe.batch)
        with torch.random.fork_rng(devices=[]):
            networks = build_networks(other, changed_data, seeds)
            if isinstance(other.init.scheme, TransferOptions):
                load_pretrained(networks, origins, other.init)
            return look(other, changed_data, batch, networks)

    return attempt


def _diagnosed(
    config: ExperimentConfig, _data: PreparedData, batch: Split, networks: list[Network]
) -> TrialResult:
    return trial_result([probe_untrained(network, batch, config) for network in networks])


def probe_untrained(network: Network, batch: Split, config: ExperimentConfig) -> NetMeasurement:
    """Measure one untrained net for a diagnosis, on the device of the batch and with one thread."""
    network = network.to(batch.x.device)
    options = config.train.loss
    losses: list[float] = []

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        value = LOSSES[options.name].mean(logits, y, options)
        losses.append(float(value.detach()))
        return value

    with true_fp32(batch.x.device), one_thread():
        layers = probe(
            network,
            {name: p.detach() for name, p in network.named_parameters()},
            dict(network.named_buffers()),
            x=batch.x,
            y=batch.y,
            loss=loss,
            bins=config.probe.bins,
            detail=ProbeDetail.DIAGNOSIS,
        )
    initial_loss = losses[0] if options.name == "cross_entropy" else None  # others have no chance level
    return NetMeasurement(layers, network_conditions(network, batch.x, initial_loss))


def _with_inputs(data: PreparedData, words: str) -> PreparedData:
    key, _, value = words.partition("=")
    if key != "data.normalize":
        raise UsageError("not tried: other data")
    return renormalise(data, cast("Literal['global', 'per_feature']", value))


@dataclass(frozen=True)
class ModuleAttempt:
    """Tries a change (text of key=value pairs) on modules of the user, and restores them."""

    modules: Sequence[nn.Module]
    inputs: ModelInputs
    trace: TraceResult
    """Trace of a pass through the first module."""
    activation: BoundActivation
    look: Callable[[nn.Module, ModelInputs], TrialResult]
    """(changed module, its batch) → findings in it."""

    def __call__(self, words: str) -> TrialResult:
        """Pass the batch through each changed module; changes that draw weights are tried three times."""
        count = TRIAL_NETS if "init." in words or "recurrent=" in words else len(self.modules)
        measurements: list[NetMeasurement] = []
        levels: dict[str, str] = {}
        for seed in range(count):
            module = self.modules[seed % len(self.modules)]
            with _restored(module), self._changed(module, words, seed) as inputs:
                outcome = self.look(module, inputs)
            measurements += outcome.nets
            levels |= outcome.levels
        return TrialResult(measurements, levels)

    @contextmanager
    def _changed(self, module: nn.Module, words: str, seed: int) -> Iterator[ModelInputs]:
        changes = dict(word.split("=", 1) for word in words.split() if "=" in word)
        init = {k.removeprefix("init."): v for k, v in changes.items() if k.startswith("init.")}
        others = {key: value for key, value in changes.items() if not key.startswith("init.")}
        if not others.keys() <= {"model.norm", "residual", "head", "input", "recurrent"}:
            raise UsageError("not tried")
        with ExitStack() as stack:
            if init:
                apply_init(module, **init_arguments(init, self.activation), seed=seed)
            if "residual" in others:
                factor = 0.0 if others["residual"] == "zero" else 1.0 / math.sqrt(len(self.branch_ends))
                _scale_weights(module, self.branch_ends, factor)
            if "head" in others:
                self._change_head(module, others["head"], seed)
            if "recurrent" in others:
                _draw_recurrent(module, self.trace.uses, float(others["recurrent"]), seed)
            if others.get("model.norm", "batch") != "batch":
                raise UsageError("not tried")
            if "model.norm" in others:
                self._insert_norms(module, stack)
            yield self._scaled_inputs(others["input"]) if "input" in others else self.inputs

    def _scaled_inputs(self, how: str) -> ModelInputs:
        if len(self.inputs.tensors) > 1:
            raise UsageError("not tried: several inputs")
        return self.inputs.mapped(lambda x: scaled_input(x, how))

    @property
    def branch_ends(self) -> list[str]:
        """The last layer of every residual branch."""
        return list(dict.fromkeys(addition.use.name for addition in self.trace.additions))

    def _change_head(self, module: nn.Module, change: str, seed: int) -> None:
        head = (self.trace.heads or self.trace.uses[-1:])[0]
        if change == "std0.02":
            redraw_parameters(module, head.parts, 0.02, seed)
        else:
            _scale_weights(module, [head.name], 0.0 if change == "zeros" else 0.1)

    def _insert_norms(self, module: nn.Module, stack: ExitStack) -> None:
        """Apply batch norm to the output of every hidden layer, before its activation."""
        names = {use.name for use in self.trace.uses if use.activation is not None and use.norm is None}
        layers = dict(module.named_modules())
        for name in names:
            layer = layers.get(name)
            if not isinstance(layer, nn.Linear | Convolution | Transposed):
                raise UsageError("not tried")
            stack.callback(layer.register_forward_hook(_normalised).remove)


def _normalised(layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    if not isinstance(layer, nn.Linear):
        return nn.functional.batch_norm(output, None, None, training=True)
    rows = output.reshape(-1, output.shape[-1])
    return nn.functional.batch_norm(rows, None, None, training=True).reshape(output.shape)


@torch.no_grad()
def _scale_weights(module: nn.Module, names: Sequence[str], factor: float) -> None:
    """Multiply weight and bias of the layers with these names in the trace."""
    init = init_options("probe", "normal", {}, None, None)
    targets = by_traced_name(module, init_targets(module, init.scheme))
    if not set(names) <= targets.keys():
        raise UsageError("not tried")
    for name in names:
        target = targets[name]
        target.write(factor * target.read())
        if target.bias is not None:
            target.bias.mul_(factor)


@torch.no_grad()
def redraw_parameters(module: nn.Module, names: Sequence[str], std: float, seed: int) -> None:
    """Draw parameters from N(0, std²)."""
    for name, parameter in module.named_parameters():
        if name in names:
            drawn = torch.randn(parameter.shape, generator=stream_generator(seed, "trial", name))
            parameter.copy_(std * drawn)


@torch.no_grad()
def _draw_recurrent(module: nn.Module, uses: Sequence[WeightUse], gain: float, seed: int) -> None:
    """Draw the weights of recurrent layers gate by gate, and set their biases."""
    torch.manual_seed(seed)
    parameters = dict(module.named_parameters())
    for use in uses:
        if not use.is_recurrent:
            continue
        weight = parameters.get(use.parts[0])
        if weight is None or weight.shape != use.factor.shape:
            raise UsageError("not tried")
        gates = {"lstm": 4, "gru": 3}.get(use.operation.removesuffix("_cell"), 1)
        for block in weight.chunk(gates):
            if use.from_state is None:
                nn.init.orthogonal_(block)
            else:
                nn.init.xavier_uniform_(block, gain)
        owner, _, kind = use.parts[0].rpartition("weight_")
        bias = parameters.get(f"{owner}bias_{kind}")
        if bias is not None:
            bias.zero_()
            if gates == 4 and use.from_state is not None:
                bias.chunk(gates)[1].fill_(1.0)


def scaled_input(x: Tensor, how: str) -> Tensor:
    """Return the batch (B, …) with mean 0 and variance 1, overall or for each column of (B, features)."""
    if not x.is_floating_point() or (how == "per_feature" and x.ndim != 2):
        raise UsageError("not tried")
    values = x.double()
    variance, mean = torch.var_mean(
        values, dim=0 if how == "per_feature" else None, correction=0, keepdim=True
    )
    scale = torch.where(variance > 0.0, variance.sqrt(), torch.inf)
    return ((values - mean) / scale).to(x.dtype)


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Restore the state of the module at the end, including the values of parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        with preserve_state(module):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
