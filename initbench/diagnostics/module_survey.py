"""Probe modules of the user before training, one per seed, and compare them with theory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from initbench.determinism import one_thread
from initbench.errors import UsageError
from initbench.machine import require_memory
from initbench.probing.checked_advice import TrialResult, Trials, trial_result
from initbench.probing.coverage import Coverage
from initbench.probing.loss import Loss
from initbench.probing.model_inputs import ModelInputs, as_inputs
from initbench.probing.module_probe import ModuleProbe, probe_module
from initbench.probing.module_theory import module_context, predict_module
from initbench.probing.remedies import MODULE_BRANCH_STARTS, RECURRENT, module_ways
from initbench.probing.theory import TheoryPrediction
from initbench.runner.advice_trials import RECURRENT_DRAWS, TRIAL_NETS, ModuleAttempt
from initbench.runner.drift import Survey, SurveyedLayer, findings, layer_measurement
from initbench.theory.types import LayerPrediction
from initbench.torch_defaults import plain_defaults
from initbench.trace.weight_use import TraceResult, WeightUse
from initbench.train.matmul_precision import true_fp32


@dataclass(frozen=True, kw_only=True)
class ModuleSurvey(Survey):
    """The survey of modules of one kind before training."""

    model: str
    """Name of the source of the modules."""
    batch: str
    """Description of the batch."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    loss: str
    loss_value: float
    """Mean over the modules."""
    loss_at_chance: float | None
    """Loss if all classes are equally likely: ln C for the cross-entropy of C classes."""
    coverage: Coverage
    """Coverage of the first module by the probe."""
    trace: TraceResult
    """Trace of a pass through the first module."""


@plain_defaults()
def survey_modules(
    modules: Iterable[nn.Module],
    inputs: Tensor | ModelInputs,
    y: Tensor | None = None,
    *,
    loss: Loss | None = None,
    chance: float | None = None,
    model: str,
    batch: str,
    seeds: Sequence[int],
) -> ModuleSurvey:
    """Pass a batch through each of the modules and return the survey; the modules stay unchanged.

    Raises:
        UsageError: If modules cannot run on the batch, have no weight layer, or differ from one another in
            more than their weights.
    """
    inputs = as_inputs(inputs)
    x = inputs.main
    probes: list[ModuleProbe] = []
    for_trials: list[nn.Module] = []  # other modules are not kept in memory
    with true_fp32(x.device), one_thread():
        for module in modules:
            probes.append(probe_module(module, inputs, y, loss, chance))
            if len(for_trials) < TRIAL_NETS:
                for_trials.append(module)
    nets = [net.trace.uses for net in probes]
    _require_weight_layers(probes[0])
    _require_equal_layers(nets)
    measurements = [net.measurement for net in probes]
    expected = predict_module(nets, x) if len(inputs.tensors) == 1 else _no_prediction(nets[0])
    situation = module_context(nets, expected)

    def look(module: nn.Module, inputs: ModelInputs) -> TrialResult:
        with true_fp32(x.device), one_thread():
            return trial_result([probe_module(module, inputs, y, loss, chance).measurement])

    attempt = ModuleAttempt(for_trials, inputs, probes[0].trace, situation.activation, look)
    recurrent = RECURRENT_DRAWS if any(use.is_recurrent for use in nets[0]) else ()
    situation = replace(
        situation,
        check=Trials(trial_result(measurements[: len(for_trials)]), attempt),
        branches=MODULE_BRANCH_STARTS if probes[0].trace.additions else (),
        ways={**module_ways(is_tied=probes[0].conditions.tied), RECURRENT: recurrent},
    )
    return ModuleSurvey(
        seeds=tuple(seeds),
        samples=len(x),
        layers=_layers(probes),
        expected=expected,
        findings=findings(measurements, situation),
        model=model,
        batch=batch,
        input_shape=tuple(x.shape[1:]),
        output_shape=probes[0].output_shape,
        loss=probes[0].loss.words,
        loss_value=sum(net.loss.value for net in probes) / len(probes),
        loss_at_chance=probes[0].loss.chance,
        coverage=probes[0].coverage,
        trace=probes[0].trace,
    )


def _no_prediction(uses: Sequence[WeightUse]) -> TheoryPrediction:
    return TheoryPrediction([LayerPrediction() for _ in uses], None, "the module takes several inputs")


def _require_weight_layers(net: ModuleProbe) -> None:
    if not net.trace.uses:
        reasons = net.coverage.gaps or "nothing multiplies by a weight through torch's functions"
        raise UsageError(f"no weight layer was seen in the pass: {reasons}")


def _require_equal_layers(nets: Sequence[Sequence[WeightUse]]) -> None:
    kinds = {tuple((use.name, use.operation, tuple(use.weight.shape)) for use in uses) for uses in nets}
    if len(kinds) > 1:
        raise UsageError("the modules differ in their layers from seed to seed; probe one seed at a time")


def _layers(probes: Sequence[ModuleProbe]) -> list[SurveyedLayer]:
    return [
        SurveyedLayer(
            use.index,
            use.name if use.use_count == 1 else f"{use.name} (use {use.use_count})",
            use.fan_in,
            use.fan_out,
            [layer_measurement(net.records, index) for net in probes],
        )
        for index, use in enumerate(probes[0].trace.uses)
    ]


def gaussian_batch(shape: Sequence[int], samples: int, seed: int = 0) -> Tensor:
    """Return N(0, 1) noise (samples, *shape), the same for every call with the same seed."""
    size = " × ".join(f"{axis:,}" for axis in (samples, *shape))
    require_memory(
        4.0 * math.prod((samples, *shape)), f"a batch of {size} values", "lower --input or probe.batch"
    )
    stream = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(samples, *shape, generator=stream, dtype=torch.float32, device="cpu")


def token_batch(vocabulary: int, shape: Sequence[int], samples: int, seed: int = 0) -> Tensor:
    """Return uniform token ids (samples, *shape), the same for every call with the same seed."""
    values = math.prod((samples, *shape))
    require_memory(8.0 * values, f"a batch of {values:,} token ids", "lower --input or probe.batch")
    stream = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(vocabulary, (samples, *shape), generator=stream, device="cpu")
