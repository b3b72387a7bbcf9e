"""Probe an experiment's nets before training, under many seeds, and hold them against theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.functional import cross_entropy

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.prepare import Bundle, Split
from initbench.models.build import check
from initbench.models.fans import fans
from initbench.models.network import Network
from initbench.probe.capture import probe
from initbench.probe.diagnose import Finding, diagnose
from initbench.probe.expect import Expected, expect
from initbench.probe.remedy import situation_of
from initbench.train.loop import fixed_sample
from initbench.train.numerics import true_fp32
from initbench.train.start import draw
from initbench.train.threads import one_thread

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


@dataclass(frozen=True)
class Survey:
    """The nets of one experiment before training."""

    config: ExperimentConfig
    dataset: str
    requested: str
    samples: int
    """Of the probe batch."""
    layers: list[SurveyedLayer]
    expected: Expected
    findings: list[tuple[Finding, int]]
    """Each kind of finding once, with the number of seeds that show it."""


def survey(config: ExperimentConfig, data: Bundle) -> Survey:
    """Draw and probe a net for every seed, one after another. Nothing is trained or stored."""
    check_batch_size(len(data.train), config.train.batch_size)
    check(config.model, config.init, input_shape=data.input_shape, classes=data.classes)
    batch = fixed_sample(data.train, config.probe.batch)
    shown: list[list[dict[str, Any]]] = []
    network: Network | None = None
    for seed in config.seed_list:
        (network,) = draw(config, data, [seed])
        shown.append(_probe(network.to(batch.x.device), batch, config))
    assert network is not None
    network = network.cpu()
    return Survey(
        config=config,
        dataset=data.name,
        requested=data.requested,
        samples=len(batch),
        layers=_layers(network, shown),
        expected=expect(network, config.init, config.model.norm.name, batch.x),
        findings=_findings(network, config, shown),
    )


def _probe(network: Network, batch: Split, config: ExperimentConfig) -> list[dict[str, Any]]:
    with true_fp32(batch.x.device), one_thread():
        return probe(
            network,
            {name: p.detach() for name, p in network.named_parameters()},
            dict(network.named_buffers()),
            x=batch.x,
            y=batch.y,
            loss=cross_entropy,
            bins=config.probe.bins,
            detailed=False,
        )


def _layers(network: Network, shown: Sequence[Sequence[dict[str, Any]]]) -> list[SurveyedLayer]:
    weighted = network.weight_layers()
    return [
        SurveyedLayer(layer.index, layer.name, *fans(layer.module), [_measured(net, i) for net in shown])
        for i, layer in enumerate(weighted)
    ]


def _measured(layers: Sequence[dict[str, Any]], place: int) -> Measurement:
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


def _findings(
    network: Network, config: ExperimentConfig, shown: Sequence[list[dict[str, Any]]]
) -> list[tuple[Finding, int]]:
    by_code: dict[str, list[Finding]] = {}
    first_q = math.fsum(layers[0]["pre"]["q"] for layers in shown) / len(shown)
    situation = situation_of(network, config.model, config.init, first_q)
    for layers in shown:
        for finding in diagnose([{"when": "init", "step": 0, "layers": layers}], situation, None):
            by_code.setdefault(finding.code, []).append(finding)
    return [(found[0], len(found)) for found in by_code.values()]
