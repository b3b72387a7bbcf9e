"""One cohort on the side that stores: claim its runs, write what is reported, and tell the observer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from initbench.config.load import to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.errors import InitbenchError, StoreError
from initbench.pretrain.greedy import Stride
from initbench.store.checkpoint import Resumption
from initbench.store.store import Store
from initbench.store.writer import RunWriter


class Observer(Protocol):
    """Receives what a person may want to see; several experiments may be under way at a time."""

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Of the experiment's runs, `to_train` are going to be trained and `stored` are there already."""

    def pretraining(self, config: ExperimentConfig, seeds: tuple[int, ...], stride: Stride) -> None:
        """The cohort of these seeds made an update of pre-training."""

    def advanced(
        self, config: ExperimentConfig, seeds: tuple[int, ...], step: int, losses: Sequence[float]
    ) -> None:
        """The cohort of these seeds made update number `step`; `losses` are of the runs still in it."""

    def evaluated(self, config: ExperimentConfig, seed: int, entry: dict[str, Any]) -> None:
        """A run was evaluated."""

    def ended(self, config: ExperimentConfig, seed: int, status: str) -> None:
        """A run came to its end: `finished`, `diverged` or `failed`."""


class Recorder:
    """Writes each run of a cohort to the store as it goes, a result at once."""

    def __init__(
        self, config: ExperimentConfig, writers: Mapping[int, RunWriter], observer: Observer
    ) -> None:
        self._config, self._writers, self._observer = config, dict(writers), observer
        self._seeds = tuple(writers)

    @property
    def left(self) -> tuple[int, ...]:
        """The seeds of the runs that have not come to their end."""
        return tuple(self._writers)

    @property
    def resumptions(self) -> tuple[Resumption, ...]:
        """Where each run goes on, by position; empty when they begin. Raises StoreError where they differ."""
        found = [writer.resumption for writer in self._writers.values()]
        if len({None if resumption is None else resumption.step for resumption in found}) > 1:
            raise StoreError("another process went on with some of these runs meanwhile; start again")
        return tuple(resumption for resumption in found if resumption is not None)

    def receive(self, report: str, arguments: tuple[Any, ...]) -> None:
        """Take a report: one of the methods of `job.Sink`."""
        getattr(self, f"_{report}")(*arguments)

    def fail(self, error: str) -> None:
        """Mark what has not ended as failed; `error` is the traceback, or the reason where there is none."""
        for seed in self.left:
            self._writers.pop(seed).stop("failed", error)
            self._observer.ended(self._config, seed, "failed")

    def interrupt(self) -> None:
        """Mark what has not ended as interrupted: it can be gone on with."""
        for seed in self.left:
            with suppress(StoreError):  # on a full disk the run reads as crashed, and can be gone on with too
                self._writers.pop(seed).stop("interrupted")

    def _pretraining(self, stride: Stride) -> None:
        self._observer.pretraining(self._config, self._seeds, stride)

    def _advanced(self, step: int, losses: Sequence[float]) -> None:
        self._observer.advanced(self._config, self._seeds, step, losses)

    def _evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        self._writers[seed].append_convergence(entry)
        self._observer.evaluated(self._config, seed, entry)

    def _probed(self, seed: int, snapshot: dict[str, Any]) -> None:
        self._writers[seed].append_snapshot(snapshot)

    def _shifted(self, seed: int, entry: dict[str, Any]) -> None:
        self._writers[seed].append_shift(entry)

    def _checkpointed(self, seed: int, state: bytes) -> None:
        self._writers[seed].checkpoint(state)

    def _ended(self, seed: int, result: dict[str, Any], weights: bytes) -> None:
        self._writers[seed].finish(result, weights)
        del self._writers[seed]
        self._observer.ended(self._config, seed, str(result["status"]))


def claimed(
    store: Store,
    config: ExperimentConfig,
    run_ids: Mapping[int, str],
    records: Mapping[int, Mapping[str, Any]],
    observer: Observer,
    *,
    rerun: bool,
) -> Recorder:
    """A recorder of all these runs, by seed; of none of them when another process has one.

    `records`: what each run's run.json says from the start.
    """
    writers: dict[int, RunWriter] = {}
    try:
        for seed, run_id in run_ids.items():
            writers[seed] = store.claim(run_id, records[seed], to_yaml(config.with_seeds(seed)), rerun=rerun)
    except InitbenchError:  # nothing failed: they can be taken up by the next call
        Recorder(config, writers, observer).interrupt()
        raise
    return Recorder(config, writers, observer)
