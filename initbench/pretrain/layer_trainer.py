"""Auto-encoders of one layer for all runs of a cohort, with tensors stacked as in training.

K: runs, B: samples of a batch, P: shape of a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from initbench.components.optimizer import OPTIMIZERS
from initbench.models.network import Mode
from initbench.pretrain.autoencoder import AutoEncoder
from initbench.registry_choice import default_choice
from initbench.train.checkpoint import Checkpoint
from initbench.train.cohort import map_over_runs

_OPTIMIZER = "adam"


class LayerAutoencoders:
    """K auto-encoders under one program.

    `parameters` and `buffers` are the stacked tensors of the whole nets and of the decoders, under their
    names in `skeleton`. They are changed in place.
    """

    def __init__(
        self,
        skeleton: AutoEncoder,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        mode: Mode,
        *,
        lr: float,
    ) -> None:
        self._skeleton = skeleton
        self._mode = mode
        self._lr = lr
        self._trained = skeleton.trained
        self.parameters = {
            name: p.detach().requires_grad_(name in self._trained) for name, p in parameters.items()
        }  # (K, P)
        self.buffers = buffers
        self._optimizer = OPTIMIZERS[_OPTIMIZER]
        self._options = default_choice(OPTIMIZERS, _OPTIMIZER)
        self._state = self._optimizer.start(self._own)

    @property
    def _own(self) -> list[Tensor]:
        return [self.parameters[name] for name in self._trained]

    def step(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Make one update on x (K, B, …), corrupted by noise (K, B, …); return the losses (K,) before it."""
        self._skeleton.train()
        unit = self._own
        for p in unit:
            p.grad = None
        data = (x,) if noise is None else (x, noise)
        run = map_over_runs(self._mode, self._loss_of_one, (0,) * len(data))
        losses: Tensor = run(self.parameters, self.buffers, *data)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._optimizer.update(
                [p.detach() for p in unit],
                [p.grad if p.grad is not None else torch.zeros_like(p) for p in unit],
                self._state,
                self._options,
                lr=self._lr,
                weight_decay=0.0,
            )
        return losses.detach()

    @torch.no_grad()
    def measure(self, x: Tensor) -> list[float]:
        """Return the reconstruction loss of each run on batches x (M, B, …), uncorrupted and without penalty.

        The trained layer normalizes by the batch, as in training, but does not update running statistics.
        """
        self._skeleton.train()
        copies = {name: buffer.clone() for name, buffer in self.buffers.items()}
        run = map_over_runs(self._mode, self._measured, (None,))
        losses = torch.cat([run(self.parameters, copies, batch) for batch in x], dim=1)  # (K, M·B)
        return [float(loss) for loss in losses.mean(1)]

    def run_state(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return views of one run's parameters and buffers."""
        return (
            {name: p.detach()[index] for name, p in self.parameters.items()},
            {name: b[index] for name, b in self.buffers.items()},
        )

    def optimizer_state(self, index: int) -> tuple[dict[str, dict[str, Tensor]], float]:
        """Return views of one run's optimizer slots, by slot and parameter, and its number of updates."""
        slots = {
            slot: {name: t[index] for name, t in zip(self._trained, tensors, strict=True)}
            for slot, tensors in self._state.slots.items()
        }
        return slots, float(self._state.counts[0])

    @torch.no_grad()
    def resume(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Restore the state of every run, in order."""
        for k, checkpoint in enumerate(checkpoints):
            for current, saved in (
                (self.parameters, checkpoint.parameters),
                (self.buffers, checkpoint.buffers),
            ):
                for name, tensor in current.items():
                    tensor.detach()[k].copy_(saved[name])
            for slot, tensors in checkpoint.slots.items():
                mine = self._state.slot(slot, [p.detach() for p in self._own])
                for name, tensor in zip(self._trained, mine, strict=True):
                    tensor[k].copy_(tensors[name])
        for count in self._state.counts:
            count.fill_(checkpoints[0].updates)

    def _loss_of_one(self, parameters: Any, buffers: Any, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return functional_call(self._skeleton, {**parameters, **buffers}, (x, noise))  # type: ignore[no-any-return]

    def _measured(self, parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        tensors = {**parameters, **buffers}
        return functional_call(self._skeleton, tensors, (x,), {"measured": True})  # type: ignore[no-any-return]
