"""Greedy layer-wise pre-training of a cohort: one hidden layer after the other, from the input on.

Layer l learns to reconstruct the outputs of layers 1 … l−1, which are already pre-trained and in evaluation
mode (batch norm uses the running statistics of their pre-training).

Sources: Bengio et al. 2007; denoising, Vincent et al. 2010; contractive, Rifai et al. 2011.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import stack_module_state

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData
from initbench.determinism import one_thread
from initbench.models.init_weights import rule_for_layer
from initbench.models.network import Mode, Network
from initbench.pretrain.autoencoder import DECODER, NETWORK, AutoEncoder, Decoder, noise_for, options_of
from initbench.pretrain.layer_trainer import LayerAutoencoders
from initbench.rng import stream_generator
from initbench.train.checkpoint import Checkpoint
from initbench.train.matmul_precision import true_fp32
from initbench.train.thread_tuner import ThreadPacer
from initbench.train.timings import Timings

SAMPLE = 512
"""Number of samples, the same for all runs, on which the loss of a layer is measured. They are taken in whole
batches; a smaller set is repeated."""


@dataclass(frozen=True, kw_only=True)
class PretrainingProgress:
    """Progress of the pre-training of a cohort."""

    layer: int
    layers: int
    step: int
    """Number of updates of this layer."""
    steps: int
    loss: float
    """Loss of the last batch, mean over the runs."""


class PretrainingListener(Protocol):
    """Receives what happens; `run` is a position in the cohort."""

    def pretraining(self, stride: PretrainingProgress) -> None:
        """An update was made."""

    def pretrained(self, run: int, record: dict[str, Any]) -> None:
        """A run's layers are all trained: {"layers", "seconds", "samples", "steps"}."""

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """The run can go on from here; its `step` is minus the updates of pre-training that are left."""


class Pretraining:
    """Pre-training of one cohort of drawn nets; `run` writes the weights back to `networks`."""

    def __init__(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        config: ExperimentConfig,
        mode: Mode,
        *,
        data: PreparedData,
        device: torch.device,
        listener: PretrainingListener,
        threads: int,
        resume: Sequence[Checkpoint] = (),
        checkpoint_seconds: float = math.inf,
    ) -> None:
        options = options_of(config.init.scheme)
        assert options is not None
        self._options, self._init = options, config.init
        self._networks, self._seeds, self._mode = networks, list(seeds), mode
        self._device, self._listener = device, listener
        self._x = data.pretraining_x
        self._batch_size = options.batch_size or config.train.batch_size
        self._sample = self._batch(_fixed_rows(len(self._x), self._batch_size).to(self._x.device))
        self._pacer = ThreadPacer(threads if device.type == "cpu" else 1)
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpointed = self._clock = time.monotonic()
        self._layers = len(networks[0].stages())
        self._resume = list(resume)
        self._records: list[dict[str, Any]] = [{"layers": [], "seconds": 0.0} for _ in networks]
        parameters, buffers = stack_module_state(list(networks))
        self._parameters = {name: p.detach().to(device) for name, p in parameters.items()}  # (K, P)
        self._buffers = {name: b.to(device) for name, b in buffers.items()}

    def run(self) -> None:
        """Pre-train every hidden layer, and write the weights to the nets, on the CPU."""
        index, step = 0, 0
        if self._resume:
            if len({checkpoint.step for checkpoint in self._resume}) > 1:
                raise ValueError("the runs of a cohort go on from one and the same step")
            resumed_steps = self._layers * self._options.steps + self._resume[0].step
            index, step = divmod(resumed_steps, self._options.steps)
            self._records = [copy.deepcopy(saved.extras["pretraining"]) for saved in self._resume]
        with true_fp32(self._device), one_thread():
            for layer in range(index, self._layers):
                self._train_layer(layer, step if layer == index else 0)
        self._write_back()
        for run, record in enumerate(self._records):
            self._listener.pretrained(run, _in_all({**record, "seconds": self._seconds(record)}))

    def _train_layer(self, index: int, begin: int) -> None:
        level, size = self._layer_autoencoders(index)
        if begin:
            level.resume(self._resume)
        else:
            for record, loss in zip(self._records, level.measure(self._sample), strict=True):
                record["loss_start"] = loss
        batches = Batches(
            len(self._x),
            self._batch_size,
            self._seeds,
            self._device,
            stream=("pretrain", "order", index + 1),
        )
        for step in range(begin, self._options.steps):
            noise = self._noise(index, step, size)
            with self._pacer.step() if self._device.type == "cpu" else nullcontext():
                losses = level.step(self._batch(batches.indices(step)), noise)
            self._report(index, step + 1, losses)
            if step + 1 < self._options.steps:
                self._checkpoint_if_due(level, index, step + 1)
        torch.set_num_threads(1)  # sums over a large tensor depend on how threads divide it
        for record, loss in zip(self._records, level.measure(self._sample), strict=True):
            self._record_layer(index, record, loss)
        self._adopt_layer(level)

    def _layer_autoencoders(self, index: int) -> tuple[LayerAutoencoders, tuple[int, ...]]:
        """Return the auto-encoders of a layer, and the size of a batch of its inputs."""
        layer = self._networks[0].weight_layers()[index]
        skeleton_network = copy.deepcopy(self._networks[0]).to(self._device)
        units = self._code_size(skeleton_network, index)
        decoders = []
        for seed in self._seeds:
            decoder = Decoder(layer.module, units, tied=self._options.tied)
            rule = rule_for_layer(layer, self._init, self._networks[0].activation)
            decoder.draw(rule, stream_generator(seed, "pretrain", "decoder", layer.name))
            decoders.append(decoder)
        decoder_parameters, _ = stack_module_state(list(decoders))
        skeleton = AutoEncoder(
            skeleton_network, index, copy.deepcopy(decoders[0]).to(self._device), self._options
        )
        parameters = {NETWORK + name: p for name, p in self._parameters.items()}
        parameters |= {DECODER + name: p.detach().to(self._device) for name, p in decoder_parameters.items()}
        buffers = {NETWORK + name: b for name, b in self._buffers.items()}
        size = (self._batch_size, *skeleton.train().inputs(self._x[:1]).shape[1:])
        return LayerAutoencoders(skeleton, parameters, buffers, self._mode, lr=self._options.lr), size

    @torch.no_grad()
    def _code_size(self, network: Network, index: int) -> int:
        """Return the number of units after the activation, which some activations change."""
        network.eval()
        x = self._x[:1]
        for stage in network.stages()[: index + 1]:
            x = stage.layer(stage.preceding(x))
        return x.shape[1]

    def _batch(self, rows: Tensor) -> Tensor:
        """Return the samples at rows (K, B) or (M, B), as (K, B, …) or (M, B, …)."""
        return self._x.index_select(0, rows.reshape(-1)).view(*rows.shape, *self._x.shape[1:])

    def _noise(self, index: int, step: int, size: tuple[int, ...]) -> Tensor | None:
        drawn = [
            noise_for(self._options, size, stream_generator(seed, "pretrain", "corruption", index + 1, step))
            for seed in self._seeds
        ]
        drawn_noise = [noise for noise in drawn if noise is not None]
        return torch.stack(drawn_noise).to(self._device) if drawn_noise else None

    def _report(self, index: int, step: int, losses: Tensor) -> None:
        stride = PretrainingProgress(
            layer=index + 1,
            layers=self._layers,
            step=step,
            steps=self._options.steps,
            loss=float(losses.mean()),
        )
        self._listener.pretraining(stride)

    def _checkpoint_if_due(self, level: LayerAutoencoders, index: int, step: int) -> None:
        if time.monotonic() - self._checkpointed < self._checkpoint_seconds:
            return
        remaining = (self._layers - index) * self._options.steps - step
        for k, record in enumerate(self._records):
            parameters, buffers = level.run_state(k)
            slots, updates = level.optimizer_state(k)
            checkpoint = Checkpoint(
                step=-remaining,
                parameters=_on_cpu(parameters),
                buffers=_on_cpu(buffers),
                slots={slot: _on_cpu(tensors) for slot, tensors in slots.items()},
                updates=updates,
                timings=Timings(),
                steps_with_threads={},
                extras={"pretraining": {**record, "seconds": self._seconds(record)}},
            )
            self._listener.checkpointed(k, checkpoint)
        self._checkpointed = time.monotonic()

    def _seconds(self, record: Mapping[str, Any]) -> float:
        """Return the seconds of the whole cohort, including those before the checkpoint it resumed from."""
        return float(record["seconds"]) + time.monotonic() - self._clock

    def _record_layer(self, index: int, record: dict[str, Any], loss_end: float) -> None:
        steps = self._options.steps
        record["layers"].append(
            {
                "layer": index + 1,
                "name": self._networks[0].weight_layers()[index].name,
                "loss_start": record.pop("loss_start"),
                "loss_end": loss_end,
                "steps": steps,
                "samples": steps * self._batch_size,
            }
        )

    def _adopt_layer(self, level: LayerAutoencoders) -> None:
        """Keep the trained layers, and drop the decoders."""
        for tensors, trained in ((self._parameters, level.parameters), (self._buffers, level.buffers)):
            for name in tensors:
                tensors[name] = trained[NETWORK + name].detach()

    @torch.no_grad()
    def _write_back(self) -> None:
        for k, network in enumerate(self._networks):
            for name, p in network.named_parameters():
                p.copy_(self._parameters[name][k])
            for name, b in network.named_buffers():
                b.copy_(self._buffers[name][k])


def _in_all(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, **{key: sum(layer[key] for layer in record["layers"]) for key in ("samples", "steps")}}


def _fixed_rows(samples: int, batch_size: int) -> Tensor:
    """Return row numbers of at least SAMPLE samples in M whole batches, the same for every run: (M, B)."""
    order = torch.randperm(samples, generator=stream_generator(0, "pretrain", "sample"))
    batches = -(-SAMPLE // batch_size)
    return order[torch.arange(batches * batch_size) % samples].view(batches, batch_size)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that no later update changes."""
    return {name: t.cpu().clone() for name, t in tensors.items()}
