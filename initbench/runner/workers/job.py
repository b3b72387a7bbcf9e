"""Train one cohort: from configs and seeds to results as plain data and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.models.network import Mode, Network
from initbench.pretrain.initial_networks import is_layerwise_pretrained
from initbench.pretrain.layerwise import Pretraining, PretrainingProgress
from initbench.pretrain.transfer import load_pretrained
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import Trials, trial_result
from initbench.probing.diagnosis import diagnose
from initbench.probing.finding import Finding
from initbench.probing.learning_progress import Progress, guess_of
from initbench.probing.network_probe import network_conditions
from initbench.probing.remedies import DiagnosisContext, network_context
from initbench.probing.training_conditions import Conditions, NetMeasurement, condition_findings
from initbench.runner.advice_trials import config_attempt
from initbench.store.checkpoint_files import Resumption
from initbench.train.checkpoint import Checkpoint, restore
from initbench.train.loop import Training, fixed_sample
from initbench.train.network_builder import build_networks
from initbench.train.outcome import Cost, Outcome


@dataclass(frozen=True, kw_only=True)
class Job:
    """The inputs that determine the numbers of a cohort, and its number of threads."""

    configs: tuple[ExperimentConfig, ...]
    """One config per run; they may differ only in name and initialization."""
    seeds: tuple[int, ...]
    device: torch.device
    mode: Mode
    threads: int
    resume: tuple[Resumption, ...] = ()
    """Checkpoint of each run to resume from; empty for new runs."""
    checkpoint_seconds: float = math.inf
    origins: tuple[WeightSource, ...] = ()
    """Weight source of each run; empty if weights are drawn."""

    @property
    def program(self) -> ExperimentConfig:
        """The config whose training options apply to all runs."""
        return self.configs[0]


_START_LOSS = "start_loss"
"""Checkpoint key for the training loss before the first update."""


class EventSink(Protocol):
    """Receives the reports of a job. `run`: index of the run in the job."""

    def pretraining(self, stride: PretrainingProgress) -> None:
        """Report a pre-training update."""

    def advanced(self, step: int, losses: Tensor) -> None:
        """Report update number `step`; `losses` (K,): losses of the runs still in training."""

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """Report an evaluation of a run."""

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """Report a probe of a run."""

    def shifted(self, run: int, entry: dict[str, Any]) -> None:
        """Report the measured covariate shift of an update."""

    def checkpointed(self, run: int, state: bytes) -> None:
        """Report a checkpoint of a run; `state`: contents of a safetensors file."""

    def ended(self, run: int, result: dict[str, Any], weights: bytes) -> None:
        """Report the result of a finished run; `weights`: contents of a safetensors file."""


def train(job: Job, data: PreparedData, sink: EventSink) -> None:
    """Draw the nets of the job, train them together, and report all events to the sink."""
    networks = [
        network
        for config, seed in zip(job.configs, job.seeds, strict=True)
        for network in build_networks(config, data, [seed])
    ]
    load_pretrained(networks, job.origins, job.program.init)
    reporter = _EventReporter(job, sink, networks, data)
    resume = [restore(resumption.state) for resumption in job.resume]
    reporter.restore_extras(resume)
    in_pretraining = not resume or resume[0].step < 0
    if in_pretraining and is_layerwise_pretrained(job.program):
        Pretraining(
            networks,
            job.seeds,
            job.program,
            job.mode,
            data=data,
            device=job.device,
            listener=reporter,
            threads=job.threads,
            resume=resume,
            checkpoint_seconds=job.checkpoint_seconds,
        ).run()
        resume = []
    Training(
        networks,
        job.seeds,
        job.program,
        job.mode,
        data=data,
        device=job.device,
        listener=reporter,
        threads=job.threads,
        resume=resume,
        checkpoint_seconds=job.checkpoint_seconds,
    ).run()


class _EventReporter:
    """A training listener that reports events to the sink and assembles the results."""

    def __init__(self, job: Job, sink: EventSink, networks: Sequence[Network], data: PreparedData) -> None:
        self._job = job
        self._sink = sink
        self._data = data
        self._network = networks[0]  # theory needs only the fans of the layers, which all runs share
        self._guess = guess_of(data.train.y)
        x = fixed_sample(data.train, job.program.probe.batch).x
        self._conditions = network_conditions(networks[0], x, None)
        self._extras: list[dict[str, Any]] = [{} for _ in job.seeds]
        self._snapshots = [list(resumption.snapshots) for resumption in job.resume] or [[] for _ in job.seeds]

    def restore_extras(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Restore the extra result data from the checkpoints of resumed runs, if there are any."""
        for run, checkpoint in enumerate(checkpoints):
            if checkpoint.step > 0:
                self._extras[run] = checkpoint.extras

    def pretraining(self, stride: PretrainingProgress) -> None:
        """Pass on the progress of pre-training."""
        self._sink.pretraining(stride)

    def pretrained(self, run: int, record: dict[str, Any]) -> None:
        """Keep the pre-training record for the result."""
        self._extras[run] = {"pretraining": record}

    def advanced(self, step: int, losses: Tensor) -> None:
        """Pass on the progress."""
        self._sink.advanced(step, losses)

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """Pass on an evaluation; keep the loss of the first for the diagnosis."""
        self._sink.evaluated(run, entry)
        if entry["step"] == 0:
            self._extras[run][_START_LOSS] = entry["train_loss"]

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """Pass on a probe and keep it for the diagnosis."""
        self._sink.probed(run, snapshot)
        self._snapshots[run].append(snapshot)

    def shifted(self, run: int, entry: dict[str, Any]) -> None:
        """Pass on a measured covariate shift."""
        self._sink.shifted(run, entry)

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """Pass on a checkpoint with the extra result data."""
        whole = replace(checkpoint, extras={**checkpoint.extras, **self._extras[run]})
        self._sink.checkpointed(run, whole.dump())

    def ended(self, run: int, outcome: Outcome) -> None:
        """Diagnose the run and pass on its result."""
        extras = dict(self._extras[run])
        start_loss = extras.pop(_START_LOSS, None)
        conditions = replace(self._conditions, loss=start_loss)
        layers = {layer.name: layer.index for layer in self._network.weight_layers()}
        findings = diagnose(
            self._snapshots[run],
            self._situation(run, conditions),
            None if outcome.diverged is None else (outcome.diverged.step, outcome.diverged.layer),
            conditions=list(condition_findings(conditions, layers)),
            progress=self._progress(outcome, start_loss),
        )
        result = {
            **_result(outcome, findings),
            **_cost(outcome.cost, extras),
            **extras,
            "cohort": len(self._job.seeds),
        }
        self._sink.ended(run, result, save({**outcome.parameters, **outcome.buffers}))
        self._snapshots[run] = []

    def _situation(self, run: int, conditions: Conditions) -> DiagnosisContext:
        """Return the context of the diagnosis; advice is tried on the net before its first update."""
        job, config, snapshots = self._job, self._job.configs[run], self._snapshots[run]
        first_q = snapshots[0]["layers"][0]["pre"]["q"] if snapshots else 1.0
        situation = network_context(self._network, config.model, config.init, first_q)
        layers: list[dict[str, Any]] = next(
            (snapshot["layers"] for snapshot in snapshots if snapshot["when"] == "init"), []
        )
        attempt = config_attempt(config, self._data, [job.seeds[run]], job.origins[run : run + 1])
        return replace(situation, check=Trials(trial_result([NetMeasurement(layers, conditions)]), attempt))

    def _progress(self, outcome: Outcome, start_loss: float | None) -> Progress | None:
        """Return the learning progress of a run; None if it diverged or its first loss is unknown."""
        if outcome.final is None or start_loss is None:
            return None
        final = outcome.final
        return Progress(
            updates=outcome.cost.steps,
            start_loss=start_loss,
            end_loss=final["train_loss"],
            accuracy=final["val_accuracy"],
            guess=self._guess,
        )


def _cost(cost: Cost, extras: Mapping[str, Any]) -> dict[str, Any]:
    timings = dict(vars(cost.timings))
    if "pretraining" in extras:
        timings["pretrain"] = extras["pretraining"]["seconds"]
    return {
        "steps": cost.steps,
        "timings": {**timings, "total": sum(timings.values())},
        "steps_with_threads": cost.steps_with_threads,
    }


def _result(outcome: Outcome, diagnosis: Sequence[Finding]) -> dict[str, Any]:
    """Return the outcome of a run as plain data."""
    return {
        "status": "finished" if outcome.diverged is None else "diverged",
        "final": outcome.final,
        "diverged": None if outcome.diverged is None else vars(outcome.diverged),
        "diagnosis": [finding.as_data() for finding in diagnosis],
        "parameters": sum(p.numel() for p in outcome.parameters.values()),
    }
