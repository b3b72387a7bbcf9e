"""Greedy layer-wise pre-training of a cohort: one hidden layer after the other, from the input on.

Layer l learns to reconstruct the outputs of layers 1 … l−1, which are already pre-trained and in evaluation
mode (batch norm uses the running statistics of their pre-training).

Sources: Bengio et al. 2007; denoising, Vincent et al. 2010; contractive, Rifai et al. 2011.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from initbench.components.optimizer import OPTIMIZERS
from initbench.data.batches import Batches
from initbench.determinism import one_thread
from initbench.models.init_weights import rule_for_layer
from initbench.models.network import Mode, Network
from initbench.pretrain.autoencoder import DECODER, NETWORK, AutoEncoder, Decoder, noise_for, options_of
from initbench.registry_choice import default_choice
from initbench.rng import stream_generator
from initbench.train.cohort import StackedRuns
from initbench.train.events import Checkpointed, Pretrained, PretrainingEvent
from initbench.train.loop import TrainingSetup
from initbench.train.matmul_precision import true_fp32

SAMPLE = 512
"""Number of samples, the same for all runs, on which the loss of a layer is measured. They are taken in whole
batches; a smaller set is repeated."""


class LayerAutoencoders(StackedRuns):
    """Auto-encoders of one layer for all runs, under one program.

    `parameters` and `buffers` are the stacked tensors of the whole nets and of the decoders, under their
    names in `skeleton`.
    """

    def __init__(
        self,
        skeleton: AutoEncoder,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        mode: Mode,
        device: torch.device,
        lr: float,
        *,
        captures: bool,
    ) -> None:
        optimizer = default_choice(OPTIMIZERS, "adam")
        lr_factors = dict.fromkeys(skeleton.trained, 1.0)
        super().__init__(
            parameters,
            buffers,
            mode,
            device,
            lr_factors=lr_factors,
            optimizer=optimizer,
            captures=captures,
        )
        self._skeleton, self._lr = skeleton, lr

    def step(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Make one update on x (K, B, …), corrupted by noise (K, B, …); return the losses (K,) before it."""
        self._skeleton.train()
        data = (x,) if noise is None else (x, noise)
        losses = self._backward(self.each(self._loss_of_one, (0,) * len(data)), *data)
        self._update(self._lr)
        return losses

    @torch.no_grad()
    def measure(self, x: Tensor) -> list[float]:
        """Return the reconstruction loss of each run on batches x (M, B, …), uncorrupted and without penalty.

        The trained layer normalizes by the batch, as in training, but does not update running statistics.
        """
        self._skeleton.train()
        copies = {name: buffer.clone() for name, buffer in self.buffers.items()}
        run = self.each(self._measured, (None,))
        losses = torch.cat([run(self.parameters, copies, batch) for batch in x], dim=1)  # (K, M·B)
        return [float(loss) for loss in losses.mean(1)]

    def _loss_of_one(self, parameters: Any, buffers: Any, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return functional_call(self._skeleton, {**parameters, **buffers}, (x, noise))  # type: ignore[no-any-return]

    def _measured(self, parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        tensors = {**parameters, **buffers}
        return functional_call(self._skeleton, tensors, (x,), {"measured": True})  # type: ignore[no-any-return]


class Pretraining:
    """Pre-training of one cohort of drawn nets; `run` writes the weights back to the networks."""

    def __init__(self, setup: TrainingSetup, emit: Callable[[PretrainingEvent], None]) -> None:
        config, data = setup.config, setup.data
        options = options_of(config.init.scheme)
        assert options is not None
        self._setup, self._emit = setup, emit
        self._options, self._init = options, config.init
        self._networks, self._seeds, self._device = setup.networks, list(setup.seeds), setup.device
        self._x = data.pretraining_x
        self._batch_size = options.batch_size or config.train.batch_size
        self._sample = self._batch(_fixed_rows(len(self._x), self._batch_size).to(self._x.device))
        self._pacer = setup.pacer()
        self._checkpointed = self._clock = time.monotonic()
        self._layers = len(self._networks[0].stages())
        self._records: list[dict[str, Any]] = [{"layers": [], "seconds": 0.0} for _ in self._networks]
        parameters, buffers = stack_module_state(list(self._networks))
        self._parameters = {name: p.detach().to(self._device) for name, p in parameters.items()}  # (K, P)
        self._buffers = {name: b.to(self._device) for name, b in buffers.items()}

    def run(self) -> list[dict[str, Any]]:
        """Pre-train every hidden layer, and write the weights to the nets, on the CPU.

        Returns:
            The record of each run: {"layers", "seconds", "samples", "steps"}.
        """
        index, step = 0, 0
        if self._setup.resume:
            resumed_steps = self._layers * self._options.steps + self._setup.resume[0].step
            index, step = divmod(resumed_steps, self._options.steps)
            self._records = [copy.deepcopy(saved.pretraining or {}) for saved in self._setup.resume]
        with true_fp32(self._device), one_thread():
            for layer in range(index, self._layers):
                self._train_layer(layer, step if layer == index else 0)
        self._write_back()
        return [_with_totals({**record, "seconds": self._seconds(record)}) for record in self._records]

    def _train_layer(self, index: int, begin: int) -> None:
        level, size = self._layer_autoencoders(index)
        if begin:
            level.resume(self._setup.resume)
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
            with self._pacer.step():
                losses = level.step(self._batch(batches.indices(step)), noise)
            self._emit(
                Pretrained(index + 1, self._layers, step + 1, self._options.steps, float(losses.mean()))
            )
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
        runs = LayerAutoencoders(
            skeleton,
            parameters,
            buffers,
            self._setup.mode,
            self._device,
            self._options.lr,
            captures=self._setup.captures,
        )
        return runs, size

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

    def _checkpoint_if_due(self, level: LayerAutoencoders, index: int, step: int) -> None:
        if time.monotonic() - self._checkpointed < self._setup.checkpoint_seconds:
            return
        remaining = (self._layers - index) * self._options.steps - step
        for k, record in enumerate(self._records):
            pretraining = {**record, "seconds": self._seconds(record)}
            checkpoint = replace(level.checkpoint(k, -remaining), pretraining=pretraining)
            self._emit(Checkpointed(k, checkpoint.dump()))
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


def _with_totals(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, **{key: sum(layer[key] for layer in record["layers"]) for key in ("samples", "steps")}}


def _fixed_rows(samples: int, batch_size: int) -> Tensor:
    """Return row numbers of at least SAMPLE samples in M whole batches, the same for every run: (M, B)."""
    order = torch.randperm(samples, generator=stream_generator(0, "pretrain", "sample"))
    batches = -(-SAMPLE // batch_size)
    return order[torch.arange(batches * batch_size) % samples].view(batches, batch_size)
