"""Store one cohort: claim its runs, write reported results, and notify the observer."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from initbench.config.loading import to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.errors import InitbenchError, StoreError
from initbench.pretrain.layerwise import PretrainingProgress
from initbench.store.checkpoint_files import Resumption
from initbench.store.store import Store
from initbench.store.writer import RunWriter

Cohort = tuple[tuple[ExperimentConfig, tuple[int, ...]], ...]
"""Runs that are trained together: experiments, and the seeds of each."""


class ProgressDisplay(Protocol):
    """Receives progress to show to the user; several experiments may be in training at a time."""

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Report that `to_train` runs of the experiment will be trained and `stored` runs are kept."""

    def pretraining(self, cohort: Cohort, stride: PretrainingProgress) -> None:
        """Report a pre-training update of a cohort."""

    def advanced(self, cohort: Cohort, step: int, losses: Sequence[Sequence[float]]) -> None:
        """Report update `step` of a cohort; `losses`: by experiment, of the runs still in training."""

    def evaluated(self, config: ExperimentConfig, seed: int, entry: dict[str, Any]) -> None:
        """Report an evaluation of a run."""

    def ended(self, config: ExperimentConfig, seed: int, status: str) -> None:
        """Report the end of a run: `finished`, `diverged` or `failed`."""


@dataclass(frozen=True)
class RunClaim:
    """A run to record."""

    config: ExperimentConfig
    seed: int
    run_id: str
    record: Mapping[str, Any]
    """Initial contents of run.json."""


class Recorder:
    """Writes the results of a cohort to the store immediately. Runs are identified by index."""

    def __init__(
        self, claims: Sequence[RunClaim], writers: Sequence[RunWriter], observer: ProgressDisplay
    ) -> None:
        self._runs = [(claim.config, claim.seed) for claim in claims]
        self._writers, self._observer = dict(enumerate(writers)), observer

    @property
    def open_runs(self) -> tuple[int, ...]:
        """The indices of unfinished runs."""
        return tuple(self._writers)

    @property
    def resumptions(self) -> tuple[Resumption, ...]:
        """The checkpoints to resume from; empty for new runs. Raises StoreError if their steps differ."""
        resumptions = [writer.resumption for writer in self._writers.values()]
        if len({None if resumption is None else resumption.step for resumption in resumptions}) > 1:
            raise StoreError("another process went on with some of these runs meanwhile; start again")
        return tuple(resumption for resumption in resumptions if resumption is not None)

    def handle(self, report: str, arguments: tuple[Any, ...]) -> None:
        """Process a report, named after a method of `job.EventSink`."""
        getattr(self, f"_{report}")(*arguments)

    def fail(self, error: str) -> None:
        """Mark unfinished runs as failed; `error`: the traceback, or the reason if there is none."""
        for run in self.open_runs:
            self._writers.pop(run).stop("failed", error)
            self._observer.ended(*self._runs[run], "failed")

    def interrupt(self) -> None:
        """Mark unfinished runs as interrupted; they can be resumed."""
        for run in self.open_runs:
            with suppress(StoreError):  # on a full disk the run shows as crashed and can still be resumed
                self._writers.pop(run).stop("interrupted")

    @cached_property
    def _cohort(self) -> Cohort:
        parts: dict[int, tuple[ExperimentConfig, list[int]]] = {}  # by the identity of a config
        for config, seed in self._runs:
            parts.setdefault(id(config), (config, []))[1].append(seed)
        return tuple((config, tuple(seeds)) for config, seeds in parts.values())

    def _pretraining(self, stride: PretrainingProgress) -> None:
        self._observer.pretraining(self._cohort, stride)

    def _advanced(self, step: int, losses: Sequence[float]) -> None:
        by_config: dict[int, list[float]] = {id(config): [] for config, _ in self._runs}
        for run, loss in zip(self._writers, losses, strict=True):
            by_config[id(self._runs[run][0])].append(loss)
        self._observer.advanced(self._cohort, step, list(by_config.values()))

    def _evaluated(self, run: int, entry: dict[str, Any]) -> None:
        self._writers[run].append_convergence(entry)
        self._observer.evaluated(*self._runs[run], entry)

    def _probed(self, run: int, snapshot: dict[str, Any]) -> None:
        self._writers[run].append_snapshot(snapshot)

    def _shifted(self, run: int, entry: dict[str, Any]) -> None:
        self._writers[run].append_shift(entry)

    def _checkpointed(self, run: int, state: bytes) -> None:
        self._writers[run].checkpoint(state)

    def _ended(self, run: int, result: dict[str, Any], weights: bytes) -> None:
        self._writers[run].finish(result, weights)
        del self._writers[run]
        self._observer.ended(*self._runs[run], str(result["status"]))


def claim_runs(
    store: Store, claims: Sequence[RunClaim], observer: ProgressDisplay, *, rerun: bool
) -> Recorder:
    """Return a recorder of all these runs; claim none of them if another process holds one."""
    writers: list[RunWriter] = []
    try:
        for claim in claims:
            config = to_yaml(claim.config.with_seeds(claim.seed))
            writers.append(writer := store.claim(claim.run_id, claim.record, config, rerun=rerun))
            if writer.notice is not None:
                print(f"initbench: {writer.notice}", file=sys.stderr)
    except InitbenchError:  # nothing failed: the next call can resume these runs
        Recorder(claims, writers, observer).interrupt()
        raise
    return Recorder(claims, writers, observer)
