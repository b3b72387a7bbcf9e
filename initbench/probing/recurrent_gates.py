"""Statistics of recurrent layers over all steps, and changes of signal and gradient from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from initbench.components.activation import SATURATED_BELOW, bound
from initbench.probing import layer_record, tensor_statistics
from initbench.probing.log_slopes import (
    VANISHING_RATIO,
    LogSlope,
    explosion_slope,
    finite_prefix,
    float32_floor,
    vanishing_slope,
)
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.trace.recurrent import Step
from initbench.trace.weight_use import RecurrentLayer

MIN_STEPS = 3
"""Number of steps within which a gradient vanishes if it falls below VANISHING_RATIO.

A gradient through many steps always decreases if gates forget: torch's LSTM keeps a quarter of E[δ²] per step
and its RNN a third, and both learn dependencies over seven steps.
"""
OVER_STEPS = " over steps"
"""Suffix of the code of a finding about steps, under which a remedy is tried."""


class RecurrentRecords:
    """Collects the steps of recurrent layers into one record for each of their weights."""

    def __init__(self) -> None:
        self._steps: dict[int, tuple[RecurrentLayer, list[Step]]] = {}
        self._deltas: dict[int | str, dict[int, float]] = {}

    def step(self, layer: RecurrentLayer, step: Step) -> None:
        """Record a step, and its gradients during the backward pass."""
        _, steps = self._steps.setdefault(layer.from_state.index, (layer, []))
        index = layer.from_state.index
        for key, output in (
            (layer.from_input.index, step.from_input),
            (index, step.from_state),
            (f"{index} state", step.state),
            (f"{index} emitted", step.emitted),
        ):
            if output is not None and output.requires_grad:
                output.register_hook(self._keeper(key, len(steps)))  # type: ignore[no-untyped-call]
        gates = {name: gate.detach() for name, gate in step.gates.items()}
        parts = (step.from_input.detach(), step.from_state.detach())
        steps.append(Step(*parts, gates, step.state.detach(), None))

    def _keeper(self, key: int | str, step: int) -> Any:
        deltas = self._deltas.setdefault(key, {})

        def keep(delta: Tensor) -> None:
            deltas[step] = tensor_statistics.mean_square(delta.detach().double())

        return keep

    def records(self) -> dict[int, dict[str, Any]]:
        """Return the records of the forward pass, by index of the use."""
        records: dict[int, dict[str, Any]] = {}
        for layer, steps in self._steps.values():
            records[layer.from_input.index] = _record([step.from_input for step in steps])
            record = _record([step.from_state for step in steps])
            record["act"] = _activation(steps)
            sizes = [tensor_statistics.mean_square(step.state.double()) for step in steps]
            record["steps"] = {"q": sizes, "delta": [], "full": 0.0, "amplification": math.inf}
            records[layer.from_state.index] = record
        return records

    def add_gradients(self, records: dict[int, dict[str, Any]]) -> None:
        """Add E[δ²] to the records after the backward pass, over all steps and for each step."""
        for layer, steps in self._steps.values():
            for use in (layer.from_input, layer.from_state):
                deltas = self._deltas.get(use.index, {})
                if deltas:
                    records[use.index]["grad"]["pre_q"] = math.fsum(deltas.values()) / len(steps)
            records[layer.from_state.index]["steps"] |= self._way_back(layer)

    def _way_back(self, layer: RecurrentLayer) -> dict[str, Any]:
        """Return E[δ²] of every step, from the last that a gradient reaches to the first.

        `full` is E[δ²] of the state at the last step. `amplification` is the largest gradient of a state
        relative to the largest gradient from the layer above, and infinite if the two are one tensor.
        """
        index = layer.from_state.index
        deltas = self._deltas.get(layer.from_input.index, {})
        states = self._deltas.get(f"{index} state", {})
        emitted = self._deltas.get(f"{index} emitted", {})
        reached = [step for step in sorted(states, reverse=True) if states[step]]
        if not reached:
            return {}
        above = max(emitted.values(), default=0.0)
        return {
            "delta": [deltas[step] for step in sorted(deltas, reverse=True) if step <= reached[0]],
            "full": states[reached[0]],
            "amplification": max(states.values()) / above if above > 0.0 else math.inf,
        }


def _over_steps(parts: Sequence[Tensor]) -> Tensor:
    """Return the steps (B, units) as (B, units, steps), for the samples that all steps have."""
    rows = min(map(len, parts))
    return torch.stack([part[:rows] for part in parts], 2).double()


def _record(parts: Sequence[Tensor]) -> dict[str, Any]:
    x = _over_steps(parts)
    moments = tensor_statistics.moments(x)
    return {
        "pre": {**moments, "signal": tensor_statistics.signal_variance(x, moments["q"])},
        "act": None,
        "positions": float(len(parts)),
        "grad": {"pre_q": None},
        "unit_spread": tensor_statistics.spread_over_units(tensor_statistics.channels_last(x), moments["q"]),
    }


def _activation(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the statistics of the output of the layer, with the saturated shares of its gates."""
    states = _over_steps([step.state for step in steps])
    statistics = layer_record.activation_record(None, states, None, ProbeDetail.DIAGNOSIS)
    gates = {}
    for name in steps[0].gates:
        activation = bound(name.split()[0])
        if activation.entry.saturates and activation.entry.bounded:
            entries = torch.cat([step.gates[name].flatten() for step in steps]).double()
            is_flat = activation.derivative(entries).abs() < SATURATED_BELOW * activation.max_derivative
            gates[name.split()[1]] = {
                "saturated_fraction": float(is_flat.double().mean()),
                "mean": float(entries.mean()),
                "std": float(entries.std(correction=0)),
            }
    shares = [gate["saturated_fraction"] for gate in gates.values()]
    statistics["saturated_fraction"] = math.fsum(shares) / len(shares) if shares else None
    statistics["gates"] = gates
    return statistics


def gates_in_words(layer: dict[str, Any]) -> str:
    """Return the saturated share of each gate as text; empty for a layer without gates."""
    gates = layer["act"].get("gates")
    if not gates:
        return ""
    if len(gates) == 1:
        return "of the inputs of the state's activation are on its flat part"
    shares = ", ".join(f"{name} {100 * gate['saturated_fraction']:.0f} %" for name, gate in gates.items())
    return f"of the gates' inputs are on their flat part ({shares})"


def worst_gate_in_words(layer: dict[str, Any]) -> str:
    """Return the input statistics of the most saturated gate and the likely cause, as text."""
    gates = layer["act"]["gates"]
    name = max(gates, key=lambda gate: gates[gate]["saturated_fraction"])
    mean, std = gates[name]["mean"], gates[name]["std"]
    where = "the activation of the state" if len(gates) == 1 else f"the {name} gate"
    cause = "its bias is too large" if abs(mean) > std else "its weights or their inputs are too large"
    return f"The input of {where} has mean {mean:.3g} and standard deviation {std:.3g}: {cause}"


def slopes_over_steps(
    layers: Sequence[dict[str, Any]],
) -> Iterator[tuple[str, dict[str, Any], LogSlope, str]]:
    """Yield code, layer, slope and text where signal or gradient vanish or explode over the steps."""
    for layer in layers:
        steps = layer.get("steps")
        if steps is None:
            continue
        name = layer["name"]
        q, delta = finite_prefix(steps["q"]), finite_prefix(steps["delta"])
        grown = explosion_slope(q)
        if grown is not None and q[0] > 0.0:
            yield "exploding_forward", layer, grown, f"E[h²] of {name} grows ×{_factor(grown)} a step"
        grown = explosion_slope(delta)
        if grown is not None and delta[0] > 0.0 and steps["amplification"] > 1.0 / VANISHING_RATIO:
            text = f"E[δ²] of {name} grows ×{_factor(grown)} a step back"
            yield "exploding_backward", layer, grown, text
        lost = vanishing_slope(delta, [float32_floor(0.0)] * len(delta), full=steps["full"])
        if lost is not None and lost.value <= math.log(VANISHING_RATIO) / MIN_STEPS:
            text = f"E[δ²] of {name} falls ×{_factor(lost)} a step back"
            yield "vanishing_backward", layer, lost, text


def _factor(slope: LogSlope) -> str:
    return f"{math.exp(slope.value):.2g}" if slope.value < 700 else "∞"
