"""What a run costs in time and memory, from its config alone: the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import SampleShape, form_of
from initbench.data.preprocessing import PreparedData
from initbench.errors import ConfigError
from initbench.memory import require_memory
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.train.cohort import EVALUATION_CHUNK
from initbench.train.loop import TRAIN_SAMPLE, evaluation_steps

PASSES_PER_UPDATE = 3
"""Matrix products of an update for each of the forward pass."""
LAYER_WORK = 2_000_000
"""Multiplications in the time that a layer takes of an update whatever its size, about 100 µs."""
ASSUMED_TRAIN_SAMPLES = 50_000
"""Of a training split, where a budget is given in epochs: the data are not looked at."""
PROBE_COST_PER_SAMPLE = 2.5
"""Samples of an update in the time of one in a probe (22 ms for 512 samples of ten layers of 128 units)."""
FULL_PROBE_FACTOR = 2.7
"""Probes on the way in the time of one at either end, which measures more (130 and 48 ms for 20 layers)."""
PARAMETER_COPIES = 4
"""Of the parameters while they are trained: themselves, gradients, optimizer, checkpoint."""
LIVE_OUTPUTS = 3
"""Outputs of layers, of the whole chunk, that are there at a time in an evaluation."""
_ASSUMED_SAMPLE_SHAPE = SampleShape((3, 32, 32), 10)
"""Of data that only their file tells the form of: small images, which every family takes."""


@dataclass(frozen=True)
class ForwardCost:
    """What one sample takes of a net."""

    products: int
    """Multiplications of a forward pass in weight layers."""
    outputs: int
    """Numbers that weight layers put out."""
    layers: int
    parameters: int


def training_cost(config: ExperimentConfig) -> float:
    """About how many multiplications one run takes: updates · (3 · batch · products + layers · 2·10⁶)."""
    work = forward_cost(config)
    return total_updates(config) * float(
        PASSES_PER_UPDATE * config.train.batch_size * work.products + work.layers * LAYER_WORK
    )


def measurement_cost(config: ExperimentConfig, data: PreparedData, steps: int) -> float:
    """About how many updates take as long as all evaluations and probes of one run of `steps` updates.

    A sample that is evaluated takes one pass of an update's three, and one that is probed all and more.
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
    """Memory that a run takes in training beside its data: parameters, and what its layers put out.

    Twice the outputs of a batch, for they are kept with their activations, or some of an evaluation's chunk.
    """
    work = forward_cost(config)
    live_outputs = 2 * config.train.batch_size * work.outputs
    evaluated = LIVE_OUTPUTS * EVALUATION_CHUNK * work.outputs / work.layers
    return 4.0 * (PARAMETER_COPIES * work.parameters + max(live_outputs, evaluated))


def total_updates(config: ExperimentConfig) -> int:
    """Updates of one run; an estimate where the budget is in epochs."""
    if config.train.steps is not None:
        return config.train.steps
    return max(1, round((config.train.epochs or 1.0) * (ASSUMED_TRAIN_SAMPLES // config.train.batch_size)))


def forward_cost(config: ExperimentConfig) -> ForwardCost:
    """What one sample takes of the experiment's net."""
    return _measure_forward_cost(_NetworkKey(config.model, form_of(config.data) or _ASSUMED_SAMPLE_SHAPE))


class _NetworkKey:
    """A net by its options and the form of its data, which are compared as text."""

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
    products: list[int] = []
    outputs: list[int] = []

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        weights = sum(p.numel() for name, p in module.named_parameters() if "bias" not in name)
        products.append(weights * (output[0].numel() // output.shape[1]))
        outputs.append(output[0].numel())

    for module in layers:
        module.register_forward_hook(count)
    # The pass is a real one, of one sample: it takes less than any update, and on the device "meta" torch
    # would first load its compiler.
    require_memory(4 * numbers, "the net of a config", "choose a smaller model.width or model.depth")
    network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.detach().zero_()
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, *net.form.shape))
    except RuntimeError:  # samples of another form go through it
        return ForwardCost(numbers, 0, len(layers), numbers)
    return ForwardCost(sum(products), sum(outputs), len(layers), numbers)


def _build_meta_network(net: _NetworkKey) -> Network | None:
    family = FAMILIES[net.options.family]
    try:
        family.check(net.options, net.form.shape)
        with torch.device("meta"):
            return family.build(net.options, net.form.shape, net.form.classes)
    except ConfigError:  # only its data tell what net it is
        return None
