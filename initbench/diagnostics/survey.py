"""Probe the nets of an experiment before training, for many seeds, and compare them with theory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from initbench.config.loading import with_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.preprocessing import PreparedData
from initbench.determinism import one_thread
from initbench.models.fans import fans
from initbench.models.network import Network
from initbench.pretrain.initial_networks import initial_networks
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import Trials, nets_with_most_findings, trial_result
from initbench.probing.finding import AdviceCheck
from initbench.probing.messages import DRIFT_CODE, is_drifting, mean_slope
from initbench.probing.remedies import network_context
from initbench.probing.theory import TheoryPrediction, predict_network
from initbench.probing.training_conditions import NetMeasurement
from initbench.runner.advice_trials import TRIAL_NETS, config_attempt
from initbench.runner.capacity import check_network
from initbench.runner.drift import (
    Survey,
    SurveyedLayer,
    findings,
    layer_measurement,
    mean_first_q,
    probe_untrained,
    signal_note,
    wide_q,
)
from initbench.runner.run_identity import training_mode
from initbench.train.loop import fixed_sample
from initbench.train.network_builder import build_networks


@dataclass(frozen=True, kw_only=True)
class ConfigSurvey(Survey):
    """The survey of the nets of one experiment before training."""

    config: ExperimentConfig
    dataset: str
    requested: str


def survey(
    config: ExperimentConfig, data: PreparedData, origins: Mapping[int, WeightSource] | None = None
) -> ConfigSurvey:
    """Draw and probe a net for every seed, one after another. Nothing is trained or stored.

    `origins`: weight source of each seed, if weights are loaded.
    """
    with one_thread():  # theory needs thousands of small sums, which threads would slow down
        return _survey(config, data, origins or {})


def _survey(
    config: ExperimentConfig, data: PreparedData, origins: Mapping[int, WeightSource]
) -> ConfigSurvey:
    check_batch_size(len(data.train), config.train.batch_size)
    check_network(config, data, copies=2)  # weights and gradients
    batch = fixed_sample(data.train, config.probe.batch)
    mode = training_mode(config, data.train.x.device)
    measurements: list[NetMeasurement] = []
    network: Network | None = None
    for seed in config.seed_list:
        source_runs = [origins[seed]] if origins else []
        (network,) = initial_networks(config, data, [seed], mode, data.train.x.device, source_runs)
        measurements.append(probe_untrained(network, batch, config))
    assert network is not None
    network = network.cpu()
    situation = network_context(network, config.model, config.init, mean_first_q(measurements))
    tried = nets_with_most_findings(measurements, TRIAL_NETS)
    attempt = config_attempt(
        config,
        data,
        [config.seed_list[index] for index in tried],
        [origins[config.seed_list[index]] for index in tried] if origins else [],
    )
    trials = Trials(trial_result([measurements[index] for index in tried]), attempt)
    expected = predict_network(network, config.init, config.model.norm.name, batch.x)

    def check(code: str, words: str) -> AdviceCheck | None:
        if code != DRIFT_CODE:
            return trials(code, words)
        if trials.harmless(words) is None:
            return None
        other = with_overrides(config, [*words.split(), "init.head=null"])  # theory excludes zero heads
        (drawn,) = build_networks(other, data, config.seed_list[:1])
        return _level_q(expected, predict_network(drawn, other.init, other.model.norm.name, batch.x))

    situation = replace(situation, check=check)
    findings_by_code = findings(measurements, situation)
    return ConfigSurvey(
        seeds=config.seed_list,
        config=config,
        dataset=data.name,
        requested=data.requested,
        samples=len(batch),
        layers=_layers(network, [net.layers for net in measurements]),
        expected=expected,
        findings=findings_by_code,
        note=signal_note(expected, findings_by_code, situation),
    )


def _level_q(current: TheoryPrediction, changed_theory: TheoryPrediction) -> AdviceCheck | None:
    """Return a check that the predicted q stays level over the layers; None if it drifts or is unknown."""
    first, second = (mean_slope(wide_q(expected)) for expected in (current, changed_theory))
    if not wide_q(changed_theory) or is_drifting(wide_q(changed_theory)):
        return None
    return AdviceCheck("q per layer in theory", math.exp(first), math.exp(second), "factor")


def _layers(network: Network, layers_by_net: Sequence[Sequence[dict[str, Any]]]) -> list[SurveyedLayer]:
    weighted = network.weight_layers()
    return [
        SurveyedLayer(
            layer.index, layer.name, *fans(layer.module), [layer_measurement(net, i) for net in layers_by_net]
        )
        for i, layer in enumerate(weighted)
    ]
