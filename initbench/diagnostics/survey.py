"""Survey untrained nets layer by layer, compare them with theory, and diagnose them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.determinism import one_thread
from initbench.diagnostics.net_source import ConfigNets, NetSource
from initbench.errors import UsageError
from initbench.linting.rule import LintTarget
from initbench.probing.checked_advice import TrialResult, Trials, trial_result
from initbench.probing.coverage import Coverage
from initbench.probing.diagnosis import diagnose
from initbench.probing.finding import Finding
from initbench.probing.initial_conditions import NetMeasurement
from initbench.probing.messages import drift_note
from initbench.probing.module_probe import ModuleProbe
from initbench.probing.remedies import DiagnosisContext
from initbench.probing.theory import TheoryPrediction
from initbench.torch_defaults import plain_defaults
from initbench.trace.weight_use import TraceResult

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


@dataclass(frozen=True)
class SurveyedExperiment:
    """The experiment whose nets were surveyed."""

    config: ExperimentConfig
    dataset: str
    requested: str
    """Data set of the config, which differs from `dataset` if that is its fallback."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The survey of nets of one kind before training."""

    name: str
    """Name of the experiment, or of the source of the modules."""
    seeds: tuple[int, ...]
    """One seed per net."""
    batch: str
    """Description of the batch that all nets receive."""
    samples: int
    """Size of the batch."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: list[SurveyedLayer]
    records: list[list[dict[str, Any]]]
    """Records of the layers of each net, as `probe_module` returns them; only the first has histograms."""
    expected: TheoryPrediction
    findings: list[tuple[Finding, int]]
    """Each kind of finding once, with the number of nets that have it."""
    loss: str
    loss_value: float
    """Mean over the nets."""
    loss_at_chance: float | None
    """Loss if all classes are equally likely: ln C for the cross-entropy of C classes."""
    coverage: Coverage
    """Coverage of the first net by the probe."""
    trace: TraceResult
    """Trace of a pass through the first net."""
    note: str | None = None
    """The theory of q over the layers of an experiment, if q drifts but is not a finding."""
    experiment: SurveyedExperiment | None = None
    """None for modules of the user."""


@plain_defaults()
def survey(nets: NetSource) -> Survey:
    """Pass a batch through each of the nets and return the survey. Nothing is trained or stored.

    Raises:
        UsageError: If modules cannot run on the batch, have no weight layer, or differ from one another in
            more than their weights.
    """
    with one_thread():  # theory needs thousands of small sums, which threads would slow down
        target = nets.examine(with_histograms=True)
        _require_weight_layers(target.nets[0])
        _require_equal_layers(target.nets)
        tried = nets.tried(target)
        untried = trial_result([target.nets[index].measurement for index in tried])
        trials = Trials(untried, nets.attempt(target, _judge, tried))
        expected = nets.predict(target)
        _ = expected.fixed  # computed when it is first read
        context = nets.context(target, expected, trials)
        counted_findings = findings([net.measurement for net in target.nets], context)
        experiment = _experiment_of(nets)
        first = target.nets[0]
        return Survey(
            name=nets.name,
            seeds=tuple(nets.seeds),
            batch=nets.batch,
            samples=len(nets.inputs.main),
            input_shape=tuple(nets.inputs.main.shape[1:]),
            output_shape=first.output_shape,
            layers=_layers(target.nets),
            records=[net.records for net in target.nets],
            expected=expected,
            findings=counted_findings,
            loss=first.loss.words,
            loss_value=sum(net.loss.value for net in target.nets) / len(target.nets),
            loss_at_chance=first.loss.chance,
            coverage=first.coverage,
            trace=first.trace,
            note=None if experiment is None else _drift_note(expected, counted_findings, context),
            experiment=experiment,
        )


def _experiment_of(nets: NetSource) -> SurveyedExperiment | None:
    if not isinstance(nets, ConfigNets):
        return None
    return SurveyedExperiment(nets.config, nets.data.name, nets.data.requested)


def _judge(target: LintTarget) -> TrialResult:
    return trial_result([net.measurement for net in target.nets])


def _require_weight_layers(net: ModuleProbe) -> None:
    if not net.trace.uses:
        reasons = net.coverage.gaps or "nothing multiplies by a weight through torch's functions"
        raise UsageError(f"no weight layer was seen in the pass: {reasons}")


def _require_equal_layers(nets: Sequence[ModuleProbe]) -> None:
    kinds = {
        tuple((use.name, use.operation, tuple(use.weight.shape)) for use in net.trace.uses) for net in nets
    }
    if len(kinds) > 1:
        raise UsageError("the modules differ in their layers from seed to seed; probe one seed at a time")


def _layers(nets: Sequence[ModuleProbe]) -> list[SurveyedLayer]:
    return [
        SurveyedLayer(
            use.index,
            use.name if use.use_count == 1 else f"{use.name} (use {use.use_count})",
            use.fan_in,
            use.fan_out,
            [_layer_measurement(net.records, index) for net in nets],
        )
        for index, use in enumerate(nets[0].trace.uses)
    ]


def _layer_measurement(layers: Sequence[dict[str, Any]], index: int) -> Measurement:
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


def findings(nets: Sequence[NetMeasurement], context: DiagnosisContext) -> list[tuple[Finding, int]]:
    """Return the findings of probed nets: each kind once, from the first net that has it, with its count."""
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for index, net in enumerate(nets):
        codes = [finding.code for finding in _diagnosed(net, None)]
        counts.update(codes)
        for code in codes:
            first.setdefault(code, index)
    spoken = {index: {f.code: f for f in _diagnosed(nets[index], context)} for index in set(first.values())}
    return [(spoken[index][code], counts[code]) for code, index in first.items()]


def _diagnosed(net: NetMeasurement, context: DiagnosisContext | None) -> list[Finding]:
    snapshot = {"when": "init", "step": 0, "layers": net.layers}
    return diagnose([snapshot], context, None, conditions=net.condition_findings())


def _drift_note(
    expected: TheoryPrediction, counted_findings: Sequence[tuple[Finding, int]], context: DiagnosisContext
) -> str | None:
    """Return a note on the theory of q over the hidden layers; None if a finding covers it."""
    if any(finding.code in ("vanishing_forward", "exploding_forward") for finding, _ in counted_findings):
        return None
    return drift_note(expected.hidden_q, context)
