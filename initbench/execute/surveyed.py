"""What nets show before training, whatever they were made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.functional import cross_entropy

from initbench.config.schema import ExperimentConfig
from initbench.data.prepare import Split
from initbench.models.network import Network
from initbench.probing.advice import drift_note
from initbench.probing.capture import probe
from initbench.probing.diagnose import Finding, diagnose
from initbench.probing.expect import Expected
from initbench.probing.moments import Detail
from initbench.probing.remedy import Situation
from initbench.threads import one_thread
from initbench.train.numerics import true_fp32

Measurement = dict[str, float | None]
"""By statistic, what one net shows in one layer."""


@dataclass(frozen=True)
class SurveyedLayer:
    """One weight layer: what it is, and what every net shows in it."""

    index: int
    name: str
    fan_in: float
    fan_out: float
    measured: list[Measurement]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Nets of one kind before training."""

    seeds: tuple[int, ...]
    """One for each net."""
    samples: int
    """Of the batch that all of them are shown."""
    layers: list[SurveyedLayer]
    expected: Expected
    findings: list[tuple[Finding, int]]
    """Each kind of finding once, with the number of nets that show it."""
    note: str | None = None
    """What theory says of q over the layers, where it drifts without being a finding."""


def shown_by(network: Network, batch: Split, config: ExperimentConfig) -> list[dict[str, Any]]:
    """What a diagnosis reads of one untrained net, on the device of the batch. One thread for all of it."""
    network = network.to(batch.x.device)
    with true_fp32(batch.x.device), one_thread():
        return probe(
            network,
            {name: p.detach() for name, p in network.named_parameters()},
            dict(network.named_buffers()),
            x=batch.x,
            y=batch.y,
            loss=cross_entropy,
            bins=config.probe.bins,
            detail=Detail.DIAGNOSIS,
        )


def measured(layers: Sequence[dict[str, Any]], place: int) -> Measurement:
    """The statistics of one layer of a net, as probed."""
    own = layers[place]
    act = own["act"] or {}
    found: Measurement = {
        "q": own["pre"]["q"],
        "act_mean": act.get("mean"),
        "act_std": act.get("std"),
        "zero_fraction": act.get("zero_fraction"),
        "saturated_fraction": act.get("saturated_fraction"),
        "grad_ratio": None,
    }
    if place + 1 < len(layers):
        here, above = own["grad"]["pre_q"], layers[place + 1]["grad"]["pre_q"]
        found["grad_ratio"] = here / above if here is not None and above else None
    return {name: value if value is None or math.isfinite(value) else None for name, value in found.items()}


def findings(shown: Sequence[list[dict[str, Any]]], situation: Situation) -> list[tuple[Finding, int]]:
    """What is wrong with nets as probed: each kind once, as the first net shows it, with its count."""
    by_code: dict[str, list[Finding]] = {}
    for layers in shown:
        for finding in diagnose([{"when": "init", "step": 0, "layers": layers}], situation, None):
            by_code.setdefault(finding.code, []).append(finding)
    return [(found[0], len(found)) for found in by_code.values()]


def note(expected: Expected, found: Sequence[tuple[Finding, int]], situation: Situation) -> str | None:
    """What theory says of q over the hidden layers, unless a finding says it."""
    if any(finding.code in ("vanishing_forward", "exploding_forward") for finding, _ in found):
        return None
    return drift_note([one.wide_q for one in expected.layers[:-1] if one.wide_q is not None], situation)


def first_q(shown: Sequence[list[dict[str, Any]]]) -> float:
    """Mean over the nets of the first layer's E[h²]."""
    return math.fsum(layers[0]["pre"]["q"] for layers in shown) / len(shown)
