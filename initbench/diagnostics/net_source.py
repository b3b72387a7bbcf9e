"""Untrained nets to examine: those of a config, or modules of the user."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.components.parametrized_weight import parametrization_of
from initbench.config.loading import with_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.preprocessing import PreparedData, Split
from initbench.determinism import one_thread
from initbench.linting.declared_scheme import declared_rules
from initbench.linting.rule import LintTarget
from initbench.models.custom_network import CustomNetwork
from initbench.models.init_weights import InitOptions, LayerRule, rule_for_layer
from initbench.models.network import Network, has_maps
from initbench.pretrain.initial_networks import initial_networks
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import TrialResult, Trials, nets_with_most_findings
from initbench.probing.finding import AdviceCheck
from initbench.probing.loss import Loss
from initbench.probing.messages import DRIFT_CODE, as_apply_init_call, is_drifting, mean_slope
from initbench.probing.model_inputs import ModelInputs, as_inputs
from initbench.probing.module_probe import ModuleProbe, probe_module
from initbench.probing.network_probe import MAP_SAMPLES
from initbench.probing.remedies import (
    CONFIG_WAYS,
    MODULE_BRANCH_STARTS,
    RECURRENT,
    DiagnosisContext,
    branch_starts,
    common_activation,
    module_context,
    module_ways,
    network_context,
)
from initbench.probing.theory import TheoryPrediction, no_prediction, predict_module, predict_network
from initbench.runner.advice_trials import RECURRENT_DRAWS, TRIAL_NETS, ModuleAttempt, config_attempt
from initbench.runner.capacity import check_network
from initbench.runner.run_identity import training_mode
from initbench.train.loop import fixed_sample
from initbench.train.matmul_precision import true_fp32
from initbench.train.network_builder import build_networks

HISTOGRAM_BINS = 32
"""Bins of the histograms of a module; those of a config have `probe.bins`."""
Judge = Callable[[LintTarget], TrialResult]
"""A function that returns the findings in nets."""


class ConfigNets:
    """Nets of an experiment before their first update, one for each seed.

    Args:
        config: The experiment.
        data: Its data.
        origins: The weight source of each seed, if weights are loaded.
        keep_weights: Whether to keep the weights of all nets instead of those of the first.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        data: PreparedData,
        origins: Mapping[int, WeightSource] | None = None,
        *,
        keep_weights: bool = False,
    ) -> None:
        check_batch_size(len(data.train), config.train.batch_size)
        check_network(config, data, copies=len(config.seed_list) if keep_weights else 2)
        self.config, self.data = config, data
        self.name, self.seeds, self.batch = config.name, config.seed_list, data.name
        self._origins, self._keep_weights = origins or {}, keep_weights
        self._sample = fixed_sample(data.train, config.probe.batch)
        self.inputs = as_inputs(self._sample.x)

    def examine(self, *, with_histograms: bool = False) -> LintTarget:
        """Draw and probe the nets one after another; only the first has histograms, if they are requested."""
        device = self.data.train.x.device
        mode = training_mode(self.config, device)
        nets: list[ModuleProbe] = []
        first: Network | None = None
        for seed in self.seeds:
            origins = [self._origins[seed]] if self._origins else []
            (network,) = initial_networks(self.config, self.data, [seed], mode, device, origins)
            bins = self.config.probe.bins if with_histograms and first is None else None
            (probed,) = _probe_networks([network], self._sample, bins)
            first = first or network
            nets.append(probed if self._keep_weights or not nets else replace(probed, trace=nets[0].trace))
        assert first is not None
        return _config_target(self.config, nets, first)

    def tried(self, target: LintTarget) -> Sequence[int]:
        """Return the nets with the most findings."""
        return nets_with_most_findings([net.measurement for net in target.nets], TRIAL_NETS)

    def attempt(self, target: LintTarget, judge: Judge, tried: Sequence[int]) -> Callable[[str], TrialResult]:
        """Redraw the nets of the same seeds from the changed config, and judge them."""
        del target
        seeds = [self.seeds[index] for index in tried]

        def look(
            other: ExperimentConfig, _data: PreparedData, batch: Split, networks: list[Network]
        ) -> TrialResult:
            return judge(_config_target(other, _probe_networks(networks, batch), networks[0]))

        origins = [self._origins[seed] for seed in seeds] if self._origins else []
        return config_attempt(self.config, self.data, seeds, origins, look)

    def predict(self, target: LintTarget) -> TheoryPrediction:
        """Return the predictions for the declared scheme."""
        return self._predict(self.config, target.module)

    def _predict(self, config: ExperimentConfig, network: nn.Module) -> TheoryPrediction:
        assert isinstance(network, Network)
        norm = config.model.declared_norm
        return predict_network(network.cpu(), config.init, norm.name if norm else "none", self._sample.x)

    def context(self, target: LintTarget, expected: TheoryPrediction, trials: Trials) -> DiagnosisContext:
        """Return the declared settings; a drift of the predicted q is cured if theory says so."""
        config, network = self.config, target.module
        assert isinstance(network, Network)

        def check(code: str, words: str) -> AdviceCheck | None:
            if code != DRIFT_CODE:
                return trials(code, words)
            if trials.harmless(words) is None:
                return None
            other = with_overrides(config, [*words.split(), "init.head=null"])  # theory excludes zero heads
            (drawn,) = build_networks(other, self.data, self.seeds[:1])
            return _level_q(expected, self._predict(other, drawn))

        first_q = math.fsum(net.records[0]["pre"]["q"] for net in target.nets) / len(target.nets)
        return replace(network_context(network, config.model, config.init, first_q), check=check)


@dataclass
class ModuleNets:
    """Modules of the user, one for each seed, which stay unchanged."""

    modules: Iterable[nn.Module]
    inputs: ModelInputs
    name: str
    """Name of the source of the modules."""
    seeds: Sequence[int]
    batch: str = "a batch"
    """Description of the batch."""
    y: Tensor | None = None
    loss: Loss | None = None
    chance: float | None = None
    declared: InitOptions | None = None
    """Init that all weights are meant to have."""
    _kept: list[nn.Module] = field(default_factory=list)
    """First modules, which changes are tried on; others are not kept in memory."""

    def examine(self, *, with_histograms: bool = False) -> LintTarget:
        """Probe the modules one after another; only the first has histograms, if they are requested."""
        nets: list[ModuleProbe] = []
        for module in self.modules:
            bins = HISTOGRAM_BINS if with_histograms and not nets else None
            nets.append(self._probe(module, self.inputs, bins))
            if len(self._kept) < TRIAL_NETS:
                self._kept.append(module)
        return _module_target(self._kept[0], nets, self.declared)

    def _probe(self, module: nn.Module, inputs: ModelInputs, bins: int | None = None) -> ModuleProbe:
        with true_fp32(inputs.main.device), one_thread():
            return probe_module(module, inputs, self.y, self.loss, self.chance, bins)

    def tried(self, target: LintTarget) -> Sequence[int]:
        """Return the first nets."""
        return range(min(TRIAL_NETS, len(target.nets)))

    def attempt(self, target: LintTarget, judge: Judge, tried: Sequence[int]) -> Callable[[str], TrialResult]:
        """Change the modules, judge them, and restore them."""
        del tried

        def look(module: nn.Module, inputs: ModelInputs) -> TrialResult:
            return judge(_module_target(module, [self._probe(module, inputs)], None))

        return ModuleAttempt(self._kept, self.inputs, target.nets[0].trace, target.activation, look)

    def predict(self, target: LintTarget) -> TheoryPrediction:
        """Return the predictions for weights with the measured variance."""
        nets = [net.trace.uses for net in target.nets]
        if len(self.inputs.tensors) == 1:
            return predict_module(nets, self.inputs.main)
        return no_prediction(len(nets[0]), "the module takes several inputs")

    def context(self, target: LintTarget, expected: TheoryPrediction, trials: Trials) -> DiagnosisContext:
        """Return the settings that are inferred from the weights."""
        recurrent = RECURRENT_DRAWS if any(use.is_recurrent for use in target.uses) else ()
        return replace(
            module_context([net.trace.uses for net in target.nets], target.activation, expected),
            phrase=target.phrase,
            check=trials,
            branches=target.branch_starts if target.nets[0].trace.additions else (),
            ways={**target.ways, RECURRENT: recurrent},
        )


NetSource = ConfigNets | ModuleNets
"""Nets that were drawn in the same way, and a batch for them."""


def _probe_networks(networks: Sequence[Network], batch: Split, bins: int | None = None) -> list[ModuleProbe]:
    x, y = batch.x, batch.y
    if has_maps(networks[0].weight_layers()):
        x, y = x[:MAP_SAMPLES], y[:MAP_SAMPLES]
    with true_fp32(x.device), one_thread():
        return [probe_module(network.to(x.device).module, as_inputs(x), y, bins=bins) for network in networks]


def _config_target(config: ExperimentConfig, nets: Sequence[ModuleProbe], first: Network) -> LintTarget:
    return LintTarget(
        nets=nets,
        module=first,
        activation=first.activation,
        declared=_declared_rules(first, config),
        branch_starts=branch_starts(first, config.init),
        ways=CONFIG_WAYS,
    )


def _declared_rules(network: Network, config: ExperimentConfig) -> dict[str, LayerRule]:
    """Return the declared rule of each layer whose weights are used exactly as the scheme draws them."""
    scheme = INITS[config.init.scheme.name]
    if isinstance(network, CustomNetwork):
        unknown = scheme.edit or scheme.calibrate or scheme.needs.leaves_no_scale
        return {} if unknown else network.layer_rules(config.init)
    changes_weights = NORMS[config.model.norm.name].acts_on == "weights"
    if changes_weights or scheme.edit or scheme.calibrate or scheme.needs.leaves_no_scale:
        return {}
    return {
        layer.name: rule_for_layer(layer, config.init, network.activation)
        for layer in network.weight_layers()
        if parametrization_of(layer.module) is None
    }


def _module_target(
    module: nn.Module, nets: Sequence[ModuleProbe], declared: InitOptions | None
) -> LintTarget:
    activation = common_activation(nets[0].trace.uses)
    drawn = [net.trace.uses for net in nets]
    return LintTarget(
        nets=nets,
        module=module,
        activation=activation,
        declared={} if declared is None else declared_rules(module, drawn, declared, activation),
        branch_starts=MODULE_BRANCH_STARTS,
        ways=module_ways(is_tied=nets[0].conditions.tied),
        phrase=lambda words: as_apply_init_call(words, activation),
    )


def _level_q(current: TheoryPrediction, changed_theory: TheoryPrediction) -> AdviceCheck | None:
    """Return a check that the predicted q stays level over the layers; None if it drifts or is unknown."""
    first, second = mean_slope(current.hidden_q), mean_slope(changed_theory.hidden_q)
    if not changed_theory.hidden_q or is_drifting(changed_theory.hidden_q):
        return None
    return AdviceCheck("q per layer in theory", math.exp(first), math.exp(second), "factor")
