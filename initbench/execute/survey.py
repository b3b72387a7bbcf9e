"""Probe an experiment's nets before training, under many seeds, and hold them against theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.prepare import Bundle
from initbench.execute.capacity import check_network
from initbench.execute.identity import training_mode
from initbench.execute.surveyed import (
    Shown,
    Survey,
    SurveyedLayer,
    conditions_found,
    findings,
    first_q,
    measured,
    note,
    shown_by,
)
from initbench.models.fans import fans
from initbench.models.network import Network
from initbench.pretrain.start import begin
from initbench.pretrain.transfer_source import Origin
from initbench.probing.expect import expect
from initbench.probing.remedy import situation_of
from initbench.threads import one_thread
from initbench.train.loop import fixed_sample


@dataclass(frozen=True, kw_only=True)
class ConfigSurvey(Survey):
    """The nets of one experiment before training."""

    config: ExperimentConfig
    dataset: str
    requested: str


def survey(
    config: ExperimentConfig, data: Bundle, origins: Mapping[int, Origin] | None = None
) -> ConfigSurvey:
    """Draw and probe a net for every seed, one after another. Nothing is trained or stored.

    `origins`: by seed, where the nets take their weights from, if from elsewhere.
    """
    with one_thread():  # theory too is thousands of small sums, which wait for threads longer than they take
        return _survey(config, data, origins or {})


def _survey(config: ExperimentConfig, data: Bundle, origins: Mapping[int, Origin]) -> ConfigSurvey:
    check_batch_size(len(data.train), config.train.batch_size)
    check_network(config, data, copies=2)  # weights and gradients
    batch = fixed_sample(data.train, config.probe.batch)
    mode = training_mode(config, data.train.x.device)
    seen: list[Shown] = []
    network: Network | None = None
    for seed in config.seed_list:
        taken = [origins[seed]] if origins else []
        (network,) = begin(config, data, [seed], mode, data.train.x.device, taken)
        seen.append(shown_by(network, batch, config))
    shown = [net.layers for net in seen]
    assert network is not None
    network = network.cpu()
    situation = situation_of(network, config.model, config.init, first_q(shown))
    expected = expect(network, config.init, config.model.norm.name, batch.x)
    found = findings(shown, situation, [conditions_found(net) for net in seen])
    return ConfigSurvey(
        seeds=config.seed_list,
        config=config,
        dataset=data.name,
        requested=data.requested,
        samples=len(batch),
        layers=_layers(network, shown),
        expected=expected,
        findings=found,
        note=note(expected, found, situation),
    )


def _layers(network: Network, shown: Sequence[Sequence[dict[str, Any]]]) -> list[SurveyedLayer]:
    weighted = network.weight_layers()
    return [
        SurveyedLayer(layer.index, layer.name, *fans(layer.module), [measured(net, i) for net in shown])
        for i, layer in enumerate(weighted)
    ]
