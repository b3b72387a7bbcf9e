"""Estimate the time and memory of a run from its config alone; results are equal on all machines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import form_of
from initbench.data.preprocessing import PreparedData
from initbench.errors import ConfigError
from initbench.machine import require_memory
from initbench.models.build import build_outline
from initbench.models.custom_network import CustomNetwork
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.pretrain.autoencoder import options_of
from initbench.train.cohort import EVALUATION_CHUNK
from initbench.train.loop import TRAIN_SAMPLE, evaluation_steps

PASSES_PER_UPDATE = 3
"""Matrix products of an update per matrix product of the forward pass."""
LAYER_WORK = 2_000_000
"""Fixed cost of a layer per update, in multiplications; about 100 µs."""
MOST_PRODUCTS_PER_SECOND = 1e11
"""Multiplications in float32 that no current core exceeds in products of 128 × 128."""
ASSUMED_TRAIN_SAMPLES = 50_000
"""Assumed size of the training split if the budget is in epochs, because the data are not read."""
PROBE_COST_PER_SAMPLE = 2.5
"""Cost of one probed sample, in training samples (22 ms for 512 samples, ten layers of 128 units)."""
FULL_PROBE_FACTOR = 2.7
"""Cost of a probe at init or at the end, in probes during training (130 and 48 ms for 20 layers)."""
PARAMETER_COPIES = 4
"""Copies of the parameters during training: values, gradients, optimizer state, checkpoint."""
LIVE_OUTPUTS = 3
"""Number of layer outputs of a whole chunk in memory at a time during an evaluation."""
_ASSUMED_SAMPLE_SHAPE = SampleShape((3, 32, 32), 10)
"""Assumed shape if only the data file defines it: small images, which every family accepts."""


@dataclass(frozen=True)
class ForwardCost:
    """The cost of one sample in a forward pass of a net."""

    products: int
    """Multiplications in weight layers."""
    outputs: int
    """Output values of weight layers."""
    layers: int
    parameters: int


def training_cost(config: ExperimentConfig) -> float:
    """Estimate the multiplications of one run: updates · (3 · batch · products + layers · 2·10⁶)."""
    work = forward_cost(config)
    return total_updates(config) * float(
        PASSES_PER_UPDATE * config.train.batch_size * work.products + work.layers * LAYER_WORK
    )


def measurement_cost(config: ExperimentConfig, data: PreparedData, steps: int) -> float:
    """Estimate the cost of all evaluations and probes of a run of `steps` updates, in updates.

    An evaluated sample costs one of the three passes of an update. A probed sample costs more than all three.
    """
    moments = len(evaluation_steps(config.train, steps))
    evaluated = moments * (min(TRAIN_SAMPLE, len(data.train)) + len(data.val)) + len(data.test)
    probed = sum(
        {"init": FULL_PROBE_FACTOR, "train": moments - 2, "end": FULL_PROBE_FACTOR}[when]
        for when in config.probe.when
    )
    samples = evaluated / PASSES_PER_UPDATE + PROBE_COST_PER_SAMPLE * probed * config.probe.batch
    return samples / config.train.batch_size


def estimated_memory_bytes(config: ExperimentConfig) -> float:
    """Estimate the memory of a run in training, without its data: parameters and layer outputs.

    Layer outputs count twice for a training batch, since activations are kept too. If some outputs of an
    evaluation chunk need more memory, these count instead.
    """
    work = forward_cost(config)
    live_outputs = 2 * config.train.batch_size * work.outputs
    evaluated = LIVE_OUTPUTS * EVALUATION_CHUNK * work.outputs / work.layers
    return 4.0 * (PARAMETER_COPIES * work.parameters + max(live_outputs, evaluated))


def total_updates(config: ExperimentConfig) -> int:
    """Return the number of updates of one run; an estimate if the budget is in epochs."""
    if config.train.steps is not None:
        return config.train.steps
    return max(1, round((config.train.epochs or 1.0) * (ASSUMED_TRAIN_SAMPLES // config.train.batch_size)))


def forward_cost(config: ExperimentConfig) -> ForwardCost:
    """Return the cost of one sample in the net of the experiment."""
    return _measure_forward_cost(_NetworkKey(config.model, form_of(config.data) or _ASSUMED_SAMPLE_SHAPE))


def equivalent_updates(config: ExperimentConfig) -> int:
    """Estimate the number of training updates that take as long as the pre-training; 0 without it.

    An update of L + 1 equal layers costs 3(L + 1) passes through a layer, one forward and two backward. An
    update of the auto-encoder of layer l costs l − 1 passes below it and 3 · 2 for encoder and decoder.
    """
    options = options_of(config.init.scheme)
    if options is None:
        return 0
    hidden = getattr(config.model, "depth", 2) - 1
    passes = hidden * (hidden - 1) / 2 + 6 * hidden
    batch = options.batch_size or config.train.batch_size
    return round(options.steps * passes / (3 * (hidden + 1)) * batch / config.train.batch_size)


class _NetworkKey:
    """A hashable key of a net: its options as JSON and the shape of its data."""

    def __init__(self, options: FamilyOptions, form: SampleShape) -> None:
        self.options, self.form = options, form
        self._key = (options.model_dump_json(), form)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NetworkKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=4096)
def _measure_forward_cost(net: _NetworkKey) -> ForwardCost:
    network = _build_meta_network(net)
    if network is None:
        return ForwardCost(0, 0, 1, 0)
    layers = [layer.module for layer in network.weight_layers()]
    numbers = sum(p.numel() for p in network.parameters())
    if isinstance(network, CustomNetwork):
        return ForwardCost(network.products, network.outputs, len(layers), numbers)
    products: list[int] = []
    outputs: list[int] = []

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        weights = sum(p.numel() for name, p in module.named_parameters() if "bias" not in name)
        products.append(weights * (output[0].numel() // output.shape[1]))
        outputs.append(output[0].numel())

    for module in layers:
        module.register_forward_hook(count)
    # This is a real pass of one sample: it takes less time than an update, and on the device "meta" torch
    # would first load its compiler, as it would to move the tensors of the net from there.
    require_memory(4 * numbers, "the net of a config", "choose a smaller model.width or model.depth")
    tensors = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    try:
        with torch.inference_mode():
            network.eval().logits(tensors, torch.zeros(1, *net.form.shape))
    except RuntimeError:  # the net expects samples of another shape
        return ForwardCost(numbers, 0, len(layers), numbers)
    return ForwardCost(sum(products), sum(outputs), len(layers), numbers)


def _build_meta_network(net: _NetworkKey) -> Network | None:
    try:
        FAMILIES[net.options.family].check(net.options, net.form.shape)
        return build_outline(net.options, net.form)
    except ConfigError:  # the net depends on the actual data
        return None
