"""Lint the nets of a config, or modules of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.components.parametrized_weight import parametrization_of
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData, Split
from initbench.determinism import one_thread
from initbench.errors import UsageError
from initbench.linting.declared_scheme import declared_rules
from initbench.linting.rule import LintFinding, LintTarget, lint, with_advice
from initbench.models.init_weights import InitOptions, LayerRule, rule_for_layer
from initbench.models.network import Network
from initbench.pretrain.initial_networks import initial_networks
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import TrialResult, Trials
from initbench.probing.coverage import Coverage
from initbench.probing.loss import Loss
from initbench.probing.messages import as_apply_init_call
from initbench.probing.model_inputs import ModelInputs, as_inputs
from initbench.probing.module_probe import ModuleProbe, probe_module
from initbench.probing.module_theory import common_activation
from initbench.probing.remedies import CONFIG_WAYS, MODULE_BRANCH_STARTS, branch_starts, module_ways
from initbench.runner.advice_trials import TRIAL_NETS, ModuleAttempt, config_attempt
from initbench.runner.capacity import check_network
from initbench.runner.run_identity import training_mode
from initbench.torch_defaults import plain_defaults
from initbench.train.loop import fixed_sample
from initbench.train.matmul_precision import true_fp32


@dataclass(frozen=True)
class LintReport:
    """The findings of a lint, with its target and coverage."""

    target: str
    """Name of the experiment, or of the source of the modules."""
    layers: int
    seeds: tuple[int, ...]
    samples: int
    findings: list[LintFinding]
    unseen: dict[str, str]
    """Parameters that no check covers, with the reason."""
    coverage: Coverage


def lint_config(
    config: ExperimentConfig, data: PreparedData, origins: Mapping[int, WeightSource] | None = None
) -> LintReport:
    """Lint the nets of an experiment for all its seeds, before their first update.

    `origins`: weight source of each seed, if weights are loaded.
    """
    check_network(config, data, copies=len(config.seed_list))
    batch = fixed_sample(data.train, config.probe.batch)
    device = data.train.x.device
    source_runs = [origins[seed] for seed in config.seed_list] if origins else []
    networks = initial_networks(
        config, data, config.seed_list, training_mode(config, device), device, source_runs
    )
    subject = _config_subject(config, batch, networks)

    def look(
        other: ExperimentConfig, _data: PreparedData, batch: Split, networks: list[Network]
    ) -> TrialResult:
        return _lint_result(_config_subject(other, batch, networks))

    attempt = config_attempt(config, data, config.seed_list, source_runs, look)
    return _build_report(subject, attempt, config.name, config.seed_list, len(batch))


def _config_subject(config: ExperimentConfig, batch: Split, networks: Sequence[Network]) -> LintTarget:
    return LintTarget(
        nets=_probe_modules(networks, as_inputs(batch.x), batch.y, None),
        module=networks[0],
        activation=networks[0].activation,
        declared={} if _computes_weights(config) else _declared_rules(networks[0], config.init),
        branch_starts=branch_starts(networks[0], config.init),
        ways=CONFIG_WAYS,
    )


@plain_defaults()
def lint_modules(
    modules: Iterable[nn.Module],
    inputs: Tensor | ModelInputs,
    y: Tensor | None = None,
    *,
    loss: Loss | None = None,
    chance: float | None = None,
    target: str,
    seeds: Sequence[int],
    declared: InitOptions | None = None,
) -> LintReport:
    """Lint modules of the user; `declared`: the init that all their weights are meant to have."""
    nets, inputs = list(modules), as_inputs(inputs)

    def subject_of(
        modules: Sequence[nn.Module], inputs: ModelInputs, declared: InitOptions | None
    ) -> LintTarget:
        return _module_subject(modules, _probe_modules(modules, inputs, y, loss, chance), declared)

    subject = subject_of(nets, inputs, declared)

    def look(module: nn.Module, inputs: ModelInputs) -> TrialResult:
        return _lint_result(subject_of([module], inputs, None))

    attempt = ModuleAttempt(nets[:TRIAL_NETS], inputs, subject.nets[0].trace, subject.activation, look)
    return _build_report(subject, attempt, target, seeds, len(inputs.main))


def _module_subject(
    modules: Sequence[nn.Module], nets: Sequence[ModuleProbe], declared: InitOptions | None
) -> LintTarget:
    activation = common_activation(nets[0].trace.uses)
    drawn = [net.trace.uses for net in nets]
    rules = {} if declared is None else declared_rules(modules[0], drawn, declared, activation)
    return LintTarget(
        nets=nets,
        module=modules[0],
        activation=activation,
        declared=rules,
        branch_starts=MODULE_BRANCH_STARTS,
        ways=module_ways(is_tied=nets[0].conditions.tied),
        phrase=lambda words: as_apply_init_call(words, activation),
    )


def _probe_modules(
    modules: Sequence[nn.Module],
    inputs: ModelInputs,
    y: Tensor | None,
    loss: Loss | None,
    chance: float | None = None,
) -> list[ModuleProbe]:
    with true_fp32(inputs.main.device), one_thread():
        nets = [probe_module(module, inputs, y, loss, chance) for module in modules]
    if not nets[0].trace.uses and not nets[0].trace.unseen:
        raise UsageError("no weight layer was seen in the pass: there is nothing to lint")
    return nets


def _build_report(
    subject: LintTarget,
    attempt: Callable[[str], TrialResult],
    target: str,
    seeds: Sequence[int],
    samples: int,
) -> LintReport:
    trace, coverage = subject.nets[0].trace, subject.nets[0].coverage
    findings = lint(subject)
    trials = Trials(_lint_result(subject), attempt)
    advised = [with_advice(finding, trials, subject) for finding in findings]
    return LintReport(target, len(trace.uses), tuple(seeds), samples, advised, trace.unseen, coverage)


def _lint_result(subject: LintTarget) -> TrialResult:
    levels = {finding.code: finding.level for finding in lint(subject)}
    return TrialResult([net.measurement for net in subject.nets], levels)


def _computes_weights(config: ExperimentConfig) -> bool:
    """Return whether a norm changes the weights that the scheme draws before they are used."""
    return NORMS[config.model.norm.name].acts_on == "weights"


def _declared_rules(network: Network, init: InitOptions) -> dict[str, LayerRule]:
    """Return the declared rule of each layer whose weights are used exactly as the scheme draws them."""
    scheme = INITS[init.scheme.name]
    if scheme.edit is not None or scheme.calibrate is not None or scheme.needs.leaves_no_scale:
        return {}
    return {
        layer.name: rule_for_layer(layer, init, network.activation)
        for layer in network.weight_layers()
        if parametrization_of(layer.module) is None
    }
