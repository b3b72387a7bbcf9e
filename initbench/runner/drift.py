"""Survey untrained nets, made from a config or by the user."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import Split
from initbench.determinism import one_thread
from initbench.models.fans import shape_of
from initbench.models.network import Network
from initbench.probing.diagnosis import diagnose
from initbench.probing.finding import Finding
from initbench.probing.messages import drift_note
from initbench.probing.network_probe import probe
from initbench.probing.remedies import DiagnosisContext
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.probing.theory import TheoryPrediction
from initbench.probing.training_conditions import (
    SCALE_FREE_NORMS,
    Conditions,
    NetMeasurement,
    batch_conditions,
    broken_tensors,
)
from initbench.trace.torch_ops import norm_module
from initbench.train.matmul_precision import true_fp32

_SCALE_FREE = SCALE_FREE_NORMS | {"FilterResponseNorm"}

Measurement = dict[str, float | None]
"""The statistics of one net in one layer, by name."""


@dataclass(frozen=True)
class SurveyedLayer:
    """One weight layer with the measurements of every net."""

    index: int
    name: str
    fan_in: float
    fan_out: float
    measured: list[Measurement]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The survey of nets of one kind before training."""

    seeds: tuple[int, ...]
    """One seed per net."""
    samples: int
    """Size of the batch that all nets receive."""
    layers: list[SurveyedLayer]
    expected: TheoryPrediction
    findings: list[tuple[Finding, int]]
    """Each kind of finding once, with the number of nets that have it."""
    note: str | None = None
    """The theory of q over the layers, if q drifts but is not a finding."""


def probe_untrained(network: Network, batch: Split, config: ExperimentConfig) -> NetMeasurement:
    """Measure one untrained net for a diagnosis, on the device of the batch and with one thread."""
    network = network.to(batch.x.device)
    losses: list[float] = []

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        value = cross_entropy(logits, y)
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
    return NetMeasurement(layers, network_conditions(network, batch.x, losses[0]))


def network_conditions(network: Network, x: Tensor, loss: float | None) -> Conditions:
    """Return the conditions of a built-in net and its batch x (B, …); `loss`: cross-entropy at init."""
    conditions = batch_conditions(x)
    head = network.weight_layers()[-1]
    return replace(
        conditions,
        broken=(*broken_tensors(network.named_parameters(), network.named_buffers()), *conditions.broken),
        first_input=None if _divides_scale_out(network) else conditions.batch,
        loss=loss,
        chance=math.log(shape_of(head.module)[0]),
        head=head.name,
    )


def _divides_scale_out(network: Network) -> bool:
    """Return whether a norm removes the input scale in the first layer or directly after it."""
    name = type(network.weight_layers()[0].output).__name__
    return norm_module(name) in _SCALE_FREE or name.startswith("Cosine")


def layer_measurement(layers: Sequence[dict[str, Any]], index: int) -> Measurement:
    """Return the statistics of one layer from the probe of a net."""
    layer = layers[index]
    act = layer["act"] or {}
    measurement: Measurement = {
        "q": layer["pre"]["q"],
        "act_mean": act.get("mean"),
        "act_std": act.get("std"),
        "zero_fraction": act.get("zero_fraction"),
        "saturated_fraction": act.get("saturated_fraction"),
        "grad_ratio": None,
    }
    if index + 1 < len(layers):
        at_layer, above_layer = layer["grad"]["pre_q"], layers[index + 1]["grad"]["pre_q"]
        measurement["grad_ratio"] = at_layer / above_layer if at_layer is not None and above_layer else None
    return {
        name: value if value is None or math.isfinite(value) else None for name, value in measurement.items()
    }


def findings(nets: Sequence[NetMeasurement], situation: DiagnosisContext) -> list[tuple[Finding, int]]:
    """Return the findings of probed nets: each kind once, from the first net that has it, with its count."""
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for index, net in enumerate(nets):
        codes = [finding.code for finding in _diagnosed(net, None)]
        counts.update(codes)
        for code in codes:
            first.setdefault(code, index)
    spoken = {index: {f.code: f for f in _diagnosed(nets[index], situation)} for index in set(first.values())}
    return [(spoken[index][code], counts[code]) for code, index in first.items()]


def _diagnosed(net: NetMeasurement, situation: DiagnosisContext | None) -> list[Finding]:
    snapshot = {"when": "init", "step": 0, "layers": net.layers}
    return diagnose([snapshot], situation, None, conditions=net.condition_findings())


def signal_note(
    expected: TheoryPrediction,
    findings_with_counts: Sequence[tuple[Finding, int]],
    situation: DiagnosisContext,
) -> str | None:
    """Return a note on the theory of q over the hidden layers; None if a finding covers it."""
    if any(finding.code in ("vanishing_forward", "exploding_forward") for finding, _ in findings_with_counts):
        return None
    return drift_note(wide_q(expected), situation)


def wide_q(expected: TheoryPrediction) -> list[float]:
    """Return the predicted q of the hidden layers of wide nets, without layers that lack a prediction."""
    return [layer.wide_q for layer in expected.layers[:-1] if layer.wide_q is not None]


def mean_first_q(nets: Sequence[NetMeasurement]) -> float:
    """Return the mean over the nets of E[h²] in the first layer."""
    return math.fsum(net.layers[0]["pre"]["q"] for net in nets) / len(nets)
