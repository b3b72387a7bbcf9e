"""Training loop of all runs.

K: runs, B: samples of a batch. The loop reports to a listener and accesses neither files nor screens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from initbench.components.schedule import learning_rate
from initbench.config.schema import ExperimentConfig, TrainOptions
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData, Split
from initbench.determinism import one_thread
from initbench.errors import UsageError
from initbench.interrupts import EndsAtStep, is_signal_waiting, raise_waiting_signal
from initbench.models.network import Mode, Network
from initbench.probing.network_probe import probe
from initbench.probing.nonfinite import first_non_finite_layer
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry import MAX_COUNT
from initbench.rng import stream_generator
from initbench.train.batchnorm_evaluation import evaluate_norms
from initbench.train.checkpoint import Checkpoint
from initbench.train.cohort import Cohort
from initbench.train.covariate_shift_updates import CovariateShift
from initbench.train.matmul_precision import true_fp32
from initbench.train.outcome import Cost, Divergence, Outcome, TrainingListener
from initbench.train.thread_tuner import ThreadPacer
from initbench.train.timings import Stopwatch

EVALUATIONS = 10
MAX_EVALUATIONS = 100_000
TRAIN_SAMPLE = 2048
"""Number of training samples, the same for all runs, on which the training loss is measured."""


def total_steps(options: TrainOptions, per_epoch: int) -> int:
    """Return the updates of the whole training: `steps`, or `epochs` passes of `per_epoch` updates each.

    Raises UsageError if there are too many updates or evaluations.
    """
    if options.steps is not None:
        steps = options.steps
    else:
        assert options.epochs is not None  # the schema checks it
        steps = max(1, round(options.epochs * per_epoch))
    if steps > MAX_COUNT:
        raise UsageError(
            f"train.epochs={options.epochs:g} makes {steps:,} steps of {per_epoch:,} an epoch; at most"
            f" {MAX_COUNT:,} are possible"
        )
    if options.eval_every is not None and steps // options.eval_every > MAX_EVALUATIONS:
        raise UsageError(
            f"train.eval_every={options.eval_every} makes {steps // options.eval_every:,} evaluations in"
            f" {steps:,} steps; at most {MAX_EVALUATIONS:,} are possible"
        )
    return steps


def evaluation_steps(options: TrainOptions, steps: int) -> list[int]:
    """Return the steps after which runs are evaluated: 0, every `eval_every` or ten times, and the end."""
    if options.eval_every is None:
        moments = [round(steps * i / EVALUATIONS) for i in range(EVALUATIONS + 1)]
    else:
        moments = [*range(0, steps, options.eval_every), steps]
    return sorted(set(moments))


def fixed_sample(split: Split, size: int) -> Split:
    """Return `size` samples of the split, the same for every run; all samples if there are fewer."""
    index = torch.randperm(len(split), generator=stream_generator(0, "fixed_sample"))[:size].to(
        split.x.device
    )
    x, y = split.take(index)
    return Split(x=x, y=y)


class Training:
    """Training of one cohort from its first evaluation to its last."""

    def __init__(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        config: ExperimentConfig,
        mode: Mode,
        *,
        data: PreparedData,
        device: torch.device,
        listener: TrainingListener,
        threads: int,
        resume: Sequence[Checkpoint] = (),
        checkpoint_seconds: float = math.inf,
    ) -> None:
        self._config = config
        self._data = data
        self._device = device
        self._listener = listener
        self._cohort = Cohort(networks, config.train, mode, device)
        self._batches = Batches(len(data.train), config.train.batch_size, seeds, device, order=data.order)
        self._runs = list(range(len(networks)))  # initial positions of the runs still in the cohort
        self._train_sample = fixed_sample(data.train, TRAIN_SAMPLE)
        self._probe_batch = fixed_sample(data.train, config.probe.batch)
        self._shift = CovariateShift(self._cohort, config.probe.covariate_shift, self._probe_batch.x)
        self._pacer = ThreadPacer(threads if device.type == "cpu" else 1)
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpointed = time.monotonic()
        self._latest: list[dict[str, Any]] = []
        self.steps = total_steps(config.train, self._batches.per_epoch)
        self._watch = Stopwatch()
        self._begin = 0
        if resume:
            self._resume(resume)

    def _resume(self, checkpoints: Sequence[Checkpoint]) -> None:
        first = checkpoints[0]
        if {checkpoint.step for checkpoint in checkpoints} != {first.step}:
            raise ValueError("the runs of a cohort go on from one and the same step")
        self._cohort.resume(checkpoints)
        self._shift.resume([checkpoint.inputs for checkpoint in checkpoints])
        self._begin = first.step
        self._watch = Stopwatch(first.timings)
        self._pacer.steps_with.update(first.steps_with_threads)

    def run(self) -> None:
        """Train to the end of the budget, or until every run has diverged.

        A resumed training does not report again what was reported before its checkpoints.
        """
        moments = [m for m in evaluation_steps(self._config.train, self.steps) if m > self._begin]
        with EndsAtStep(), true_fp32(self._device), one_thread():
            if self._begin == 0:
                self._evaluate_and_probe(0)  # one thread, until the pacer finds that more are faster
            for begin, end in pairwise([self._begin, *moments]):
                if not self._runs:
                    return
                with self._watch.measure("train"):
                    self._train(begin, end)
                if self._runs:
                    self._evaluate_and_probe(end)
                    self._checkpoint_if_due(end)
            self._finish()

    def _checkpoint_if_due(self, step: int) -> None:
        """Report a checkpoint if the last one is old enough, or if a signal ends the training here."""
        is_due = time.monotonic() - self._checkpointed >= self._checkpoint_seconds
        if (is_due or is_signal_waiting()) and 0 < step < self.steps:
            self._report_checkpoints(step)
            raise_waiting_signal()

    def _report_checkpoints(self, step: int) -> None:
        for k, run in enumerate(self._runs):
            self._listener.checkpointed(run, self._checkpoint(k, step))
        self._checkpointed = time.monotonic()

    def _checkpoint(self, k: int, step: int) -> Checkpoint:
        parameters, buffers = self._cohort.run_state(k)
        slots, updates = self._cohort.optimizer_state(k)
        return Checkpoint(
            step=step,
            parameters=_on_cpu(parameters),
            buffers=_on_cpu(buffers),
            slots={slot: _on_cpu(tensors) for slot, tensors in slots.items()},
            updates=updates,
            inputs=self._shift.state(k),
            timings=self._watch.timings(),
            steps_with_threads=dict(self._pacer.steps_with),
        )

    def _train(self, begin: int, end: int) -> None:
        options = self._config.train
        for step in range(begin, end):
            snapshot = self._shift.before(step, self._runs)
            with self._pacer.step() if self._device.type == "cpu" else nullcontext():
                x, y = self._data.train.take(self._batches.indices(step))  # (K, B, …), (K, B)
                if self._data.augment is not None:
                    x = self._data.augment(x, self._batches.seeds, step)
                losses = self._cohort.gradients(x, y)
                finite = torch.isfinite(losses).tolist()  # the only wait for a GPU in a step
                if not all(finite):
                    losses = losses[finite]
                    if not self._end_diverged_runs(finite, step, x):
                        return
                lr = learning_rate(
                    options.lr,
                    options.schedule,
                    step=step,
                    steps=self.steps,
                    warmup_steps=options.warmup_steps,
                )
                self._cohort.update(lr)
            if snapshot is not None:
                self._on_one_thread()
                with self._watch.measure("probe"):
                    entries = self._shift.after(step, snapshot, self._runs, x, y)
                for run, entry in zip(self._runs, entries, strict=True):
                    self._listener.shifted(run, entry)
            self._listener.advanced(step + 1, losses)
            if step + 1 < end:  # at the end, the checkpoint includes the evaluation
                self._checkpoint_if_due(step + 1)

    def _end_diverged_runs(self, finite: list[bool], step: int, x: Tensor) -> bool:
        """End the runs whose loss is not finite before their update; return whether any run remains."""
        lost = [k for k, good in enumerate(finite) if not good]
        for k in lost:
            self._end_diverged(k, step, x[k])
        return self._keep_runs([k for k in range(len(self._runs)) if k not in lost])

    def _end_diverged(self, k: int, step: int, x: Tensor) -> None:
        parameters, buffers = self._cohort.run_state(k)
        layer = first_non_finite_layer(self._cohort.skeleton, parameters, buffers, x)
        self._probe(k, "end", step)
        diverged = Divergence(step=step, layer=layer)
        outcome = Outcome(final=None, diverged=diverged, **self._final_state(k))
        self._listener.ended(self._runs[k], outcome)

    def _keep_runs(self, alive: list[int]) -> bool:
        self._runs = [self._runs[k] for k in alive]
        if alive:
            self._batches.keep(alive)
            self._cohort.keep(alive)
            self._shift.keep(alive)
        return bool(alive)

    def _evaluate_and_probe(self, step: int) -> None:
        """Evaluate and probe every run."""
        when = "init" if step == 0 else "end" if step == self.steps else "train"
        with self._watch.measure("evaluate"):
            train_loss, _ = self._cohort.evaluate(self._train_sample.x, self._train_sample.y)
            val_loss, accuracy = self._cohort.evaluate(self._data.val.x, self._data.val.y)
            by_norms = self._evaluate_norms(when)
        self._latest = [
            {
                "step": step,
                "epoch": step / self._batches.per_epoch,
                "train_loss": train_loss[k],
                "val_loss": val_loss[k],
                "val_accuracy": accuracy[k],
                **by_norms[k],
            }
            for k in range(len(self._runs))
        ]
        for run, entry in zip(self._runs, self._latest, strict=True):
            self._listener.evaluated(run, entry)
        with self._watch.measure("probe"):
            for k in range(len(self._runs)):
                self._probe(k, when, step)

    def _evaluate_norms(self, when: str) -> list[dict[str, float]]:
        """Return the results of `evaluate_norms` at init and at the end; empty ones in between."""
        if when == "train":
            return [{} for _ in self._runs]
        self._on_one_thread()
        size = self._config.train.batch_size
        return evaluate_norms(self._cohort, self._train_sample, self._data.val, size)

    def _on_one_thread(self) -> None:
        """Use one thread, because sums over a large tensor depend on how threads divide it."""
        if self._device.type == "cpu":
            torch.set_num_threads(1)

    def _probe(self, k: int, when: str, step: int) -> None:
        if when not in self._config.probe.when:
            return
        parameters, buffers = self._cohort.run_state(k)
        self._on_one_thread()
        layers = probe(
            self._cohort.skeleton,
            parameters,
            buffers,
            x=self._probe_batch.x,
            y=self._probe_batch.y,
            loss=self._cohort.loss,
            bins=self._config.probe.bins,
            detail=ProbeDetail.EVALUATION if when == "train" else ProbeDetail.FULL,
        )
        self._listener.probed(self._runs[k], {"when": when, "step": step, "layers": layers})

    def _finish(self) -> None:
        if not self._runs:
            return
        with self._watch.measure("evaluate"):
            _, test_accuracy = self._cohort.evaluate(self._data.test.x, self._data.test.y)
        for k, run in enumerate(self._runs):
            self._listener.ended(run, self._outcome(k, test_accuracy[k]))

    def _outcome(self, k: int, test_accuracy: float) -> Outcome:
        latest = self._latest[k]
        if not torch.isfinite(torch.tensor([latest["train_loss"], latest["val_loss"]])).all():
            parameters, buffers = self._cohort.run_state(k)
            layer = first_non_finite_layer(self._cohort.skeleton, parameters, buffers, self._probe_batch.x)
            diverged = Divergence(step=self.steps, layer=layer)
            return Outcome(final=None, diverged=diverged, **self._final_state(k))
        final = {name: value for name, value in latest.items() if name not in ("step", "epoch")}
        return Outcome(final={**final, "test_accuracy": test_accuracy}, diverged=None, **self._final_state(k))

    def _final_state(self, k: int) -> dict[str, Any]:
        parameters, buffers = self._cohort.run_state(k)
        timings, threads = self._watch.timings(), dict(self._pacer.steps_with)
        return {
            "cost": Cost(steps=self.steps, timings=timings, steps_with_threads=threads),
            "parameters": _on_cpu(parameters),
            "buffers": _on_cpu(buffers),
        }


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that no later update changes."""
    return {name: t.cpu().clone() for name, t in tensors.items()}
