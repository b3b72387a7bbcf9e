"""Optimizer of the stacked parameters of a cohort, in groups that share a learning rate.

K: runs, P: shape of a parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from initbench.components.optimizer import OPTIMIZERS, OptimizerState
from initbench.registry import Options
from initbench.train.checkpoint import Checkpoint

Tensors = Mapping[str, Tensor]


@dataclass
class _Group:
    names: tuple[str, ...]
    factor: float
    """Factor of the learning rate."""
    state: OptimizerState

    def of(self, tensors: Tensors) -> list[Tensor]:
        return [tensors[name] for name in self.names]


class StackedOptimizer:
    """Optimizer with a state for every trained parameter; frozen parameters have none.

    parameters: (K, P) each, by name. lr_factors: trained parameter → factor of the learning rate.
    """

    def __init__(
        self, parameters: Tensors, lr_factors: Mapping[str, float], options: Options, weight_decay: float
    ) -> None:
        self._options, self._weight_decay = options, weight_decay
        self._optimizer = OPTIMIZERS[options.name]
        self.trained = tuple(name for name in parameters if name in lr_factors)
        """Names of the updated parameters, in order."""
        by_factor: dict[float, list[str]] = {}
        for name in self.trained:
            by_factor.setdefault(lr_factors[name], []).append(name)
        self._groups = [
            _Group(tuple(names), factor, self._optimizer.start([parameters[name] for name in names]))
            for factor, names in by_factor.items()
        ]

    def step(self, parameters: Tensors, gradients: Tensors, lr: float) -> None:
        """Update all trained parameters in place, each group with its own multiple of `lr`."""
        for group in self._groups:
            self._optimizer.update(
                [p.detach() for p in group.of(parameters)],
                group.of(gradients),
                group.state,
                self._options,
                lr=lr * group.factor,
                weight_decay=self._weight_decay,
            )

    def state_of_run(self, index: int) -> tuple[dict[str, dict[str, Tensor]], float]:
        """Return views of one run's slots, by slot and parameter, and its number of updates."""
        slots: dict[str, dict[str, Tensor]] = {}
        for group in self._groups:
            for slot, tensors in group.state.slots.items():
                views = {name: t[index] for name, t in zip(group.names, tensors, strict=True)}
                slots.setdefault(slot, {}).update(views)
        return slots, float(self._groups[0].state.counts[0])

    def resume(self, parameters: Tensors, checkpoints: Sequence[Checkpoint]) -> None:
        """Restore the state of every run, in order."""
        for group in self._groups:
            for k, checkpoint in enumerate(checkpoints):
                for slot, saved in checkpoint.slots.items():
                    tensors = group.state.slot(slot, group.of(parameters))
                    for name, mine in zip(group.names, tensors, strict=True):
                        mine[k].copy_(saved[name])
            for count in group.state.counts:
                count.fill_(checkpoints[0].updates)

    def snapshot(self) -> Callable[[], None]:
        """Copy the state of all runs, and return a function that restores it."""
        states = copy.deepcopy([group.state for group in self._groups])

        def restore() -> None:
            """Restore the state."""
            for group, state in zip(self._groups, states, strict=True):
                group.state = state

        return restore

    def keep_runs(self, index: Tensor) -> None:
        """Drop all other runs than those at these positions."""
        for group in self._groups:
            slots = group.state.slots
            group.state.slots = {slot: [t[index] for t in tensors] for slot, tensors in slots.items()}
