"""Internal covariate shift of the runs of a cohort, measured at updates of its training.

K: runs, B: samples of a batch. A measured update additionally costs one pass over the probe batch without
gradients and, for each weight layer except the first, a forward pass of its batch and a backward pass down to
that layer: about 2/3·D updates for depth D. The cohort is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from initbench.models.network import has_maps
from initbench.probing.covariate_shift import (
    Moments,
    gradient_shift,
    input_drift,
    input_moments,
    parameter_layers,
    weights_of,
)
from initbench.probing.network_probe import MAP_SAMPLES
from initbench.train.checkpoint import cpu_copies
from initbench.train.cohort import Cohort

_Gradients = dict[int, list[Tensor]]
"""Weight layer → gradients (K, P) of its parameters; empty for a layer that does not learn."""


@dataclass(frozen=True)
class UpdateSnapshot:
    """State of a cohort before an update: copies of all tensors, (K, P)."""

    runs: list[int]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


class CovariateShift:
    """Measures update 1, N + 1, 2N + 1, … of a cohort, N = `every`; none if `every` is None."""

    def __init__(self, cohort: Cohort, every: int | None, x: Tensor) -> None:
        self._cohort, self._every = cohort, every
        layers = cohort.skeleton.weight_layers()
        self._layers = layers
        self._x = x[:MAP_SAMPLES] if has_maps(layers) else x
        self._first: Moments = {}
        self._last: Moments = {}
        if every is not None:
            self._owners = parameter_layers(cohort.skeleton)
            self._weights = weights_of(cohort.skeleton, cohort.parameters)

    @property
    def measures(self) -> bool:
        """Whether updates are measured."""
        return self._every is not None

    def before(self, step: int, runs: Sequence[int]) -> UpdateSnapshot | None:
        """Return the state of the cohort of these runs before its update; None if no measurement is due."""
        if self._every is None or step % self._every:
            return None
        parameters = {name: p.detach().clone() for name, p in self._cohort.parameters.items()}
        return UpdateSnapshot(
            list(runs), parameters, {name: b.clone() for name, b in self._cohort.buffers.items()}
        )

    def after(
        self, step: int, snapshot: UpdateSnapshot, runs: Sequence[int], x: Tensor, y: Tensor
    ) -> list[dict[str, Any]]:
        """Return the measurement of update `step` (from 0) for each of `runs`, which are still in the cohort.

        x (K, B, …), y (K, B): batch of the update, whose gradients are still in the cohort.
        """
        if len(runs) < len(snapshot.runs):
            rows = torch.tensor([snapshot.runs.index(run) for run in runs], device=x.device)
            x, y, snapshot = x[rows], y[rows], _rows(snapshot, rows)
        self._cohort.skeleton.train()
        moments = self._moments(snapshot)
        gradients, turned = self._own_gradients(), self._gradients_after_lower_updates(snapshot, x, y)
        entries = [
            {"step": step + 1, "layers": self._entries(k, moments, gradients, turned)}
            for k in range(len(runs))
        ]
        self._first = self._first or moments
        self._last = moments
        return entries

    def keep(self, alive: Sequence[int]) -> None:
        """Drop all other runs than those at these positions."""
        self._first, self._last = (
            {name: t[list(alive)] for name, t in moments.items()} for moments in (self._first, self._last)
        )

    def state(self, k: int) -> dict[str, Tensor]:
        """Return the state from which one run resumes: moments of its first and its last measured inputs."""
        both = {"first": self._first, "last": self._last}
        return cpu_copies(
            {f"{which}/{name}": t[k] for which, moments in both.items() for name, t in moments.items()}
        )

    def resume(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Restore the `state` of every run, in order."""
        device = self._x.device
        stacked = {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}
        self._first, self._last = (
            {name.removeprefix(which): t for name, t in stacked.items() if name.startswith(which)}
            for which in ("first/", "last/")
        )

    def _moments(self, snapshot: UpdateSnapshot) -> Moments:
        layer_moments = []
        for k in range(
            len(snapshot.runs)
        ):  # one run at a time: the probe batch may have any number of samples
            parameters = {name: p[k] for name, p in snapshot.parameters.items()}
            buffers = {name: b[k].clone() for name, b in snapshot.buffers.items()}
            layer_moments.append(input_moments(self._cohort.skeleton, parameters, buffers, self._x))
        return {name: torch.stack([moments[name] for moments in layer_moments]) for name in layer_moments[0]}

    def _own_gradients(self) -> _Gradients:
        """Return G, the gradients that the update used."""
        by_layer = {}
        for index, names in self._weights.items():
            gradients = [self._cohort.parameters[name].grad for name in names]
            by_layer[index] = [g for g in gradients if g is not None]
        return by_layer

    def _gradients_after_lower_updates(self, snapshot: UpdateSnapshot, x: Tensor, y: Tensor) -> _Gradients:
        """Return G′ of every layer that has layers below it."""
        after = {name: p.detach() for name, p in self._cohort.parameters.items()}
        by_layer = {}
        for index, names in self._weights.items():
            parameters = {name: snapshot.parameters[name].requires_grad_() for name in self._learning(names)}
            if index > 1 and parameters:
                mixed = {
                    name: after[name] if self._owners[name] < index else p
                    for name, p in snapshot.parameters.items()
                }
                copies = {name: b.clone() for name, b in snapshot.buffers.items()}
                losses = self._cohort.losses(mixed, copies, x, y)
                by_layer[index] = list(torch.autograd.grad(losses.sum(), list(parameters.values())))
            for p in parameters.values():
                p.requires_grad_(False)
        return by_layer

    def _learning(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._cohort.parameters[name].grad is not None]

    def _entries(
        self, k: int, now: Moments, own_gradients: _Gradients, turned: _Gradients
    ) -> list[dict[str, Any]]:
        mine, last, first = ({name: t[k] for name, t in m.items()} for m in (now, self._last, self._first))
        entries = []
        for layer in self._layers:
            i = layer.index
            mean_drift, std_drift = input_drift(last, mine, i) if last else (None, None)
            mean_from_init, std_from_init = input_drift(first, mine, i) if first else (None, None)
            entry: dict[str, Any] = {
                "index": i,
                "name": layer.name,
                "hidden": layer.activation is not None,
                "input_mean_drift": mean_drift,
                "input_std_drift": std_drift,
                "input_mean_from_init": mean_from_init,
                "input_std_from_init": std_from_init,
            }
            keys = ("gradient_norm", "gradient_shift", "gradient_shift_cosine")
            gradients = [g[k] for g in own_gradients[i]]
            # No layer below the first one changes: G′ is G.
            others = [g[k] for g in turned[i]] if i in turned else gradients
            change = gradient_shift(gradients, others) if gradients else (None, None, None)
            entries.append(entry | dict(zip(keys, change, strict=True)))
        return entries


def _rows(snapshot: UpdateSnapshot, rows: Tensor) -> UpdateSnapshot:
    return UpdateSnapshot(
        [snapshot.runs[int(row)] for row in rows],
        {name: p[rows] for name, p in snapshot.parameters.items()},
        {name: b[rows] for name, b in snapshot.buffers.items()},
    )
