"""Training loop of all runs.

K: runs, B: samples of a batch. The loop emits events (`train.events`) and accesses neither files nor screens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from initbench.components.schedule import learning_rate
from initbench.components.target import TargetKind
from initbench.config.schema import ExperimentConfig, TrainOptions
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData, Split
from initbench.determinism import one_thread
from initbench.errors import UsageError
from initbench.interrupts import EndsAtStep, is_signal_waiting, raise_waiting_signal
from initbench.models.custom_network import CustomNetwork
from initbench.models.init_weights import InitOptions
from initbench.models.network import Mode, Network
from initbench.probing.network_probe import first_non_finite_layer, probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.probing.theory import predict_network
from initbench.registry import MAX_COUNT
from initbench.rng import global_stream, stream_generator
from initbench.train.batchnorm_evaluation import evaluate_norms
from initbench.train.checkpoint import Checkpoint, cpu_copies
from initbench.train.cohort import Cohort
from initbench.train.covariate_shift_updates import CovariateShift
from initbench.train.events import (
    Advanced,
    Checkpointed,
    Divergence,
    Ended,
    Evaluated,
    Probed,
    Released,
    Shifted,
    TrainingEvent,
)
from initbench.train.matmul_precision import true_fp32
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


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Networks of a cohort and the conditions under which they are pre-trained and trained."""

    networks: Sequence[Network]
    seeds: Sequence[int]
    config: ExperimentConfig
    mode: Mode
    data: PreparedData
    device: torch.device
    threads: int = 1
    """Maximum number of threads of a step on the CPU."""
    inits: Sequence[InitOptions] = ()
    """Init options of each network, for the prediction of theory; empty if all have those of the config."""
    resume: Sequence[Checkpoint] = ()
    """Checkpoint of each network, all of the same step; empty for new runs."""
    checkpoint_seconds: float = math.inf
    """Minimum time between checkpoints."""
    runs_to_release: Callable[[], int] = lambda: 0
    """Return the number of runs to release at this step, for a worker that has nothing else to do."""
    captures: bool = True
    """Whether the operations of a step may be recorded and replayed."""
    updates_per_check: int = 1
    """Number of updates after which their losses are checked; a check waits for a GPU."""

    def __post_init__(self) -> None:
        """Raise ValueError if the checkpoints are of different steps."""
        if len({checkpoint.step for checkpoint in self.resume}) > 1:
            raise ValueError("the runs of a cohort go on from one and the same step")

    def pacer(self) -> ThreadPacer:
        """Return the pacer of the steps; on a GPU it does nothing."""
        return ThreadPacer(self.threads if self.device.type == "cpu" else 0)


class Training:
    """Training of one cohort from its first evaluation to its last."""

    def __init__(
        self,
        setup: TrainingSetup,
        emit: Callable[[TrainingEvent], None],
        pretraining: Sequence[dict[str, Any] | None] = (),
    ) -> None:
        self._setup, self._emit = setup, emit
        config, data = setup.config, setup.data
        self._config, self._data, self._device = config, data, setup.device
        self._cohort = Cohort(
            setup.networks, config.train, setup.mode, setup.device, data.form, captures=setup.captures
        )
        self._batches = Batches(
            len(data.train), config.train.batch_size, setup.seeds, setup.device, order=data.order
        )
        self._runs = list(range(len(setup.networks)))  # initial positions of the runs still in the cohort
        self._pretraining = (
            pretraining or [saved.pretraining for saved in setup.resume] or [None for _ in self._runs]
        )
        self._start_losses = [saved.start_loss for saved in setup.resume]
        self._train_sample = fixed_sample(data.train, TRAIN_SAMPLE)
        self._probe_batch = fixed_sample(data.train, config.probe.batch)
        self._shift = CovariateShift(self._cohort, config.probe.covariate_shift, self._probe_batch.x)
        self._pacer = setup.pacer()
        self._checkpointed = time.monotonic()
        self._latest: list[dict[str, Any]] = []
        self.steps = total_steps(config.train, self._batches.per_epoch)
        self._watch = Stopwatch()
        self._begin = 0
        if setup.resume:
            self._resume(setup.resume)

    def _resume(self, checkpoints: Sequence[Checkpoint]) -> None:
        first = checkpoints[0]
        self._cohort.resume(checkpoints)
        self._shift.resume([checkpoint.inputs for checkpoint in checkpoints])
        self._begin = first.step
        self._watch = Stopwatch(first.timings)
        self._pacer.steps_with.update(first.steps_with_threads)

    def run(self) -> None:
        """Train to the end of the budget, or until every run has diverged.

        A resumed training does not emit again the events from before its checkpoints.
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
                    self._checkpoint_or_release(end)
            self._finish()

    def _checkpoint_or_release(self, step: int) -> None:
        """Emit the checkpoints that are due after a step, and release runs on request."""
        if not 0 < step < self.steps:
            return
        is_due = time.monotonic() - self._checkpointed >= self._setup.checkpoint_seconds
        if is_due or is_signal_waiting():
            self._emit_checkpoints(range(len(self._runs)), step)
            self._checkpointed = time.monotonic()
            raise_waiting_signal()
        number = min(self._setup.runs_to_release(), len(self._runs) - 1)
        if number > 0:
            stay = len(self._runs) - number
            self._emit_checkpoints(range(stay, len(self._runs)), step)
            self._emit(Released(tuple(self._runs[stay:])))
            self._keep(range(stay))

    def _emit_checkpoints(self, positions: Sequence[int], step: int) -> None:
        for k in positions:
            self._emit(Checkpointed(self._runs[k], self._checkpoint(k, step).dump()))

    def _checkpoint(self, k: int, step: int) -> Checkpoint:
        return replace(
            self._cohort.checkpoint(k, step),
            inputs=self._shift.state(k),
            timings=self._watch.timings(),
            steps_with_threads=dict(self._pacer.steps_with),
            pretraining=self._pretraining[self._runs[k]],
            start_loss=self._start_losses[self._runs[k]],
        )

    def _train(self, begin: int, end: int) -> None:
        block_size = 1 if self._shift.measures else self._setup.updates_per_check
        for start in range(begin, end, block_size):
            block = range(start, min(start + block_size, end))
            if len(block) == 1 or not self._make_unchecked_updates(block):
                for step in block:
                    if self._runs:
                        self._make_update(step)
            if not self._runs:
                return
            if block.stop < end:  # at the end, the checkpoint includes the evaluation
                self._checkpoint_or_release(block.stop)

    def _make_unchecked_updates(self, steps: range) -> bool:
        """Make these updates and look at their losses only afterwards, so that no update waits for a GPU.

        Return whether all losses are finite. Otherwise the state is as it was, and the updates are still to
        be made.
        """
        restore = self._cohort.snapshot()
        losses = []
        for step in steps:
            with self._pacer.step(), self._random_layers("forward", step):
                losses.append(self._cohort.gradients(*self._batch(step)).clone())
                self._cohort.update(self._learning_rate(step))
        values = torch.stack(losses).tolist()
        if not all(math.isfinite(loss) for row in values for loss in row):
            restore()
            return False
        for step, row in zip(steps, values, strict=True):
            self._emit(Advanced(step + 1, dict(zip(self._runs, row, strict=True))))
        return True

    def _make_update(self, step: int) -> None:
        """Make an update, after which the runs are gone whose loss is not finite."""
        snapshot = self._shift.before(step, self._runs)
        with self._pacer.step(), self._random_layers("forward", step):
            x, y = self._batch(step)
            losses = self._cohort.gradients(x, y).tolist()  # waits for a GPU
            if not all(map(math.isfinite, losses)):
                losses = self._end_diverged_runs(losses, step, x)
                if not losses:
                    return
            self._cohort.update(self._learning_rate(step))
        if snapshot is not None:
            self._on_one_thread()
            with self._watch.measure("probe"):
                entries = self._shift.after(step, snapshot, self._runs, x, y)
            for run, entry in zip(self._runs, entries, strict=True):
                self._emit(Shifted(run, entry))
        self._emit(Advanced(step + 1, dict(zip(self._runs, losses, strict=True))))

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch (K, B, …), (K, B) of an update."""
        x, y = self._data.train.take(self._batches.indices(step))
        return (x if self._data.augment is None else self._data.augment(x, self._batches.seeds, step)), y

    def _learning_rate(self, step: int) -> float:
        options = self._config.train
        return learning_rate(
            options.lr, options.schedule, step=step, steps=self.steps, warmup_steps=options.warmup_steps
        )

    def _random_layers(self, purpose: str, step: int) -> AbstractContextManager[None]:
        """Let random layers of a net of the user draw from a stream of this step; other nets have none."""
        if not isinstance(self._cohort.skeleton, CustomNetwork):
            return nullcontext()
        return global_stream(self._batches.seeds[0], purpose, step, device=self._device)

    def _end_diverged_runs(self, losses: list[float], step: int, x: Tensor) -> list[float]:
        """End the runs whose loss is not finite before their update; return the losses of the others."""
        for k, loss in enumerate(losses):
            if not math.isfinite(loss):
                diverged = self._divergence(k, step, x[k])
                self._probe(k, "end", step)
                self._end(k, diverged=diverged)
        alive = [k for k, loss in enumerate(losses) if math.isfinite(loss)]
        self._keep(alive)
        return [losses[k] for k in alive]

    def _keep(self, positions: Sequence[int]) -> None:
        """Drop all other runs than those at these positions; also works before an update."""
        self._runs = [self._runs[k] for k in positions]
        if self._runs:
            self._batches.keep(positions)
            self._cohort.keep(positions)
            self._shift.keep(positions)

    def _divergence(self, k: int, step: int, x: Tensor) -> Divergence:
        parameters, buffers = self._cohort.run_state(k)
        return Divergence(step, first_non_finite_layer(self._cohort.skeleton, parameters, buffers, x))

    def _evaluate_and_probe(self, step: int) -> None:
        """Evaluate and probe every run."""
        when = "init" if step == 0 else "end" if step == self.steps else "train"
        with self._watch.measure("evaluate"), self._random_layers("evaluation", step):
            train_loss = self._cohort.evaluate(self._train_sample.x, self._train_sample.y)["loss"]
            val = self._cohort.evaluate(self._data.val.x, self._data.val.y)
            by_norms = self._evaluate_norms(when)
        self._latest = [
            {
                "step": step,
                "epoch": step / self._batches.per_epoch,
                "train_loss": train_loss[k],
                **{f"val_{name}": values[k] for name, values in val.items()},
                **by_norms[k],
            }
            for k in range(len(self._runs))
        ]
        for run, entry in zip(self._runs, self._latest, strict=True):
            self._emit(Evaluated(run, entry))
        if step == 0:
            self._start_losses = list(train_loss)
        with self._watch.measure("probe"):
            for k in range(len(self._runs)):
                self._probe(k, when, step)

    @cached_property
    def _predictions(self) -> list[list[dict[str, Any]]]:
        """The theory of every layer of each run's net before the first update, as plain data.

        The prediction does not depend on the seed, so it is computed once for each init of the cohort.
        """
        networks = self._setup.networks
        inits = list(self._setup.inits) or [self._config.init] * len(networks)
        norm, x = self._config.model.declared_norm, self._probe_batch.x
        self._on_one_thread()
        firsts = [inits.index(init) for init in inits]
        predicted = {
            first: predict_network(networks[first], inits[first], norm.name if norm else "none", x)
            for first in set(firsts)
        }
        return [[layer.as_data() for layer in predicted[first].layers] for first in firsts]

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
        if when == "init":
            for layer, theory in zip(layers, self._predictions[self._runs[k]], strict=True):
                if theory:
                    layer["theory"] = theory
        self._emit(Probed(self._runs[k], {"when": when, "step": step, "layers": layers}))

    def _finish(self) -> None:
        if not self._runs:
            return
        with self._watch.measure("evaluate"), self._random_layers("test", self.steps):
            test = self._cohort.evaluate(self._data.test.x, self._data.test.y)
        if self._data.target is TargetKind.CLASSES:
            del test["loss"]  # runs on class labels have never recorded it
        for k, latest in enumerate(self._latest):
            if math.isfinite(latest["train_loss"]) and math.isfinite(latest["val_loss"]):
                final = {name: value for name, value in latest.items() if name not in ("step", "epoch")}
                self._end(k, final={**final, **{f"test_{name}": values[k] for name, values in test.items()}})
            else:
                self._end(k, diverged=self._divergence(k, self.steps, self._probe_batch.x))

    def _end(
        self, k: int, *, final: dict[str, float] | None = None, diverged: Divergence | None = None
    ) -> None:
        run = self._runs[k]
        parameters, buffers = self._cohort.run_state(k)
        self._emit(
            Ended(
                run=run,
                final=final,
                diverged=diverged,
                steps=self.steps,
                start_loss=self._start_losses[run],
                pretraining=self._pretraining[run],
                timings=self._watch.timings(),
                steps_with_threads=dict(self._pacer.steps_with),
                parameters=cpu_copies(parameters),
                buffers=cpu_copies(buffers),
            )
        )
