"""Train one cohort: from configs and seeds to results as plain data and bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import save

from initbench.config.schema import ExperimentConfig
from initbench.data.locate import ResolvedDataset
from initbench.data.preprocessing import PreparedData
from initbench.models.model_factory import load_factory
from initbench.models.network import Mode, Network
from initbench.pretrain.initial_networks import is_layerwise_pretrained
from initbench.pretrain.layerwise import Pretraining
from initbench.pretrain.transfer import load_pretrained
from initbench.pretrain.weight_sources import WeightSource
from initbench.probing.checked_advice import Trials, trial_result
from initbench.probing.diagnosis import diagnose
from initbench.probing.initial_conditions import Conditions, NetMeasurement, condition_findings
from initbench.probing.learning_progress import Progress, guess_of
from initbench.probing.network_probe import network_conditions
from initbench.probing.remedies import DiagnosisContext, network_context
from initbench.runner.advice_trials import config_attempt
from initbench.runner.shared_data import DataLocation
from initbench.store.checkpoint_files import Resumption
from initbench.train.checkpoint import restore
from initbench.train.events import Diagnosed, Ended, Probed, RunEvent, TrainingEvent
from initbench.train.loop import Training, TrainingSetup, fixed_sample
from initbench.train.network_builder import build_networks

UPDATES_PER_CHECK_ON_GPU = 16
"""Number of updates before the losses are read from a GPU, which the process does not wait for until then."""


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """The inputs that determine the numbers of a cohort, in picklable form.

    Configs are plain data, because their classes are created at run time and cannot be pickled. They may
    differ only in name and initialization.
    """

    number: int
    """Identifies the task in its events."""
    runs: tuple[tuple[dict[str, Any], int], ...]
    """Config and seed of each run; runs of one experiment share the config."""
    resolved: ResolvedDataset
    device: str
    mode: Mode
    threads: int
    checkpoint_seconds: float
    resume: tuple[Resumption, ...] = ()
    """Checkpoint of each run to resume from; empty for new runs."""
    shared_data: DataLocation | None = None
    """Where the process of the runner has the prepared data set; None if each worker prepares it."""
    origins: tuple[WeightSource, ...] = ()
    """Weight source of each run; empty if weights are drawn."""
    model: str | None = None
    """`module:function` that builds the nets, if they are nets of the user."""

    captures: bool = True
    """Whether the operations of a step may be recorded and replayed; not if plug-ins take part."""

    @cached_property
    def configs(self) -> tuple[ExperimentConfig, ...]:
        """Validated config of each run."""
        configs: dict[int, ExperimentConfig] = {}
        for config, _ in self.runs:
            if id(config) not in configs:
                configs[id(config)] = ExperimentConfig.model_validate(config)
        return tuple(configs[id(config)] for config, _ in self.runs)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields; the validated configs cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "configs"}

    @property
    def program(self) -> ExperimentConfig:
        """The config whose training options apply to all runs."""
        return self.configs[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each run."""
        return tuple(seed for _, seed in self.runs)


def train(
    task: WorkerTask,
    data: PreparedData,
    emit: Callable[[RunEvent], None],
    runs_to_release: Callable[[], int] = lambda: 0,
) -> None:
    """Draw the nets of the task, train them together, and emit all events.

    `runs_to_release` returns the number of runs that the training releases at its current step.
    """
    load_factory(task.model)
    networks = [
        network
        for config, seed in zip(task.configs, task.seeds, strict=True)
        for network in build_networks(config, data, [seed])
    ]
    load_pretrained(networks, task.origins, task.program.init)
    setup = TrainingSetup(
        networks=networks,
        seeds=task.seeds,
        config=task.program,
        mode=task.mode,
        data=data,
        device=torch.device(task.device),
        threads=task.threads,
        inits=[config.init for config in task.configs],
        resume=[restore(resumption.state) for resumption in task.resume],
        checkpoint_seconds=task.checkpoint_seconds,
        runs_to_release=runs_to_release,
        captures=task.captures,
        updates_per_check=1 if task.device == "cpu" else UPDATES_PER_CHECK_ON_GPU,
    )
    diagnosis = _Diagnosis(task, emit, networks[0], data)
    records: list[dict[str, Any]] = []
    if is_layerwise_pretrained(task.program) and (not setup.resume or setup.resume[0].step < 0):
        records = Pretraining(setup, emit).run()
        setup = replace(setup, resume=())
    Training(setup, diagnosis.receive, records).run()


class _Diagnosis:
    """Passes on the events of the training loop, and turns the end of a run into its result."""

    def __init__(
        self, task: WorkerTask, emit: Callable[[RunEvent], None], network: Network, data: PreparedData
    ) -> None:
        self._task, self._emit, self._data = task, emit, data
        self._network = network  # theory needs only the fans of the layers, which all runs share
        self._guess = guess_of(data.train.y, task.program.train.loss.name)
        x = fixed_sample(data.train, task.program.probe.batch).x
        self._conditions = network_conditions(network, x, None)
        self._snapshots = [list(resumption.snapshots) for resumption in task.resume] or [
            [] for _ in task.seeds
        ]

    def receive(self, event: TrainingEvent) -> None:
        """Pass on an event; keep probes for the diagnosis."""
        match event:
            case Ended():
                weights = save({**event.parameters, **event.buffers})
                self._emit(Diagnosed(event.run, self._result(event), weights))
                self._snapshots[event.run] = []
            case _:
                self._emit(event)
                if isinstance(event, Probed):
                    self._snapshots[event.run].append(event.snapshot)

    def _result(self, ended: Ended) -> dict[str, Any]:
        """Return the entries of run.json that are known at the end of a run."""
        timings, extras = asdict(ended.timings), {}
        if ended.pretraining is not None:
            timings["pretrain"] = ended.pretraining["seconds"]
            extras = {"pretraining": ended.pretraining}
        return {
            "status": "finished" if ended.diverged is None else "diverged",
            "final": ended.final,
            "diverged": None if ended.diverged is None else asdict(ended.diverged),
            "diagnosis": self._findings(ended),
            "parameters": sum(p.numel() for p in ended.parameters.values()),
            "steps": ended.steps,
            "timings": {**timings, "total": sum(timings.values())},
            "steps_with_threads": ended.steps_with_threads,
            **extras,
            "cohort": len(self._task.seeds),
        }

    def _findings(self, ended: Ended) -> list[dict[str, Any]]:
        has_chance = self._task.program.train.loss.name == "cross_entropy"
        conditions = replace(self._conditions, loss=ended.start_loss if has_chance else None)
        layers = {layer.name: layer.index for layer in self._network.weight_layers()}
        findings = diagnose(
            self._snapshots[ended.run],
            self._situation(ended.run, conditions),
            None if ended.diverged is None else (ended.diverged.step, ended.diverged.layer),
            conditions=list(condition_findings(conditions, layers)),
            progress=self._progress(ended),
        )
        return [finding.as_data() for finding in findings]

    def _situation(self, run: int, conditions: Conditions) -> DiagnosisContext:
        """Return the context of the diagnosis; advice is tried on the net before its first update."""
        task, config, snapshots = self._task, self._task.configs[run], self._snapshots[run]
        first_q = snapshots[0]["layers"][0]["pre"]["q"] if snapshots else 1.0
        situation = network_context(self._network, config.model, config.init, first_q)
        layers: list[dict[str, Any]] = next(
            (snapshot["layers"] for snapshot in snapshots if snapshot["when"] == "init"), []
        )
        attempt = config_attempt(config, self._data, [task.seeds[run]], task.origins[run : run + 1])
        return replace(situation, check=Trials(trial_result([NetMeasurement(layers, conditions)]), attempt))

    def _progress(self, ended: Ended) -> Progress | None:
        """Return the learning progress of a run.

        None if the run diverged, or if its first loss or the loss of a guess is unknown.
        """
        if ended.final is None or ended.start_loss is None or self._guess is None:
            return None
        return Progress(
            updates=ended.steps,
            start_loss=ended.start_loss,
            end_loss=ended.final["train_loss"],
            score=ended.final.get("val_accuracy", ended.final.get("val_r2", math.nan)),
            guess=self._guess,
        )
