"""One cohort on the side that stores: claim its runs, write what is reported, and tell the observer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import Tensor

from initbench.config.load import to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.errors import InitbenchError
from initbench.pretrain.greedy import Stride
from initbench.store.store import Store
from initbench.store.writer import RunWriter


class Observer(Protocol):
    """Receives what a person may want to see while an experiment runs."""

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Of the experiment's runs, `to_train` are going to be trained and `stored` are there already."""

    def pretraining(self, seeds: tuple[int, ...], stride: Stride) -> None:
        """The cohort of these seeds made an update of pre-training."""

    def advanced(self, seeds: tuple[int, ...], step: int, losses: Tensor) -> None:
        """The cohort of these seeds made update number `step`."""

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        """A run was evaluated."""

    def ended(self, seed: int, status: str) -> None:
        """A run came to its end."""


class Recorder:
    """A Sink that writes each run to the store as it goes, a result at once."""

    def __init__(self, writers: Mapping[int, RunWriter], observer: Observer) -> None:
        self._writers = writers
        self._observer = observer

    def pretraining(self, stride: Stride) -> None:
        """Hand on the progress of pre-training."""
        self._observer.pretraining(tuple(self._writers), stride)

    def advanced(self, step: int, losses: Tensor) -> None:
        """Hand on the progress."""
        self._observer.advanced(tuple(self._writers), step, losses)

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        """Store an evaluation."""
        self._writers[seed].append_convergence(entry)
        self._observer.evaluated(seed, entry)

    def probed(self, seed: int, snapshot: dict[str, Any]) -> None:
        """Store a probe."""
        self._writers[seed].append_snapshot(snapshot)

    def shifted(self, seed: int, entry: dict[str, Any]) -> None:
        """Store a measured update."""
        self._writers[seed].append_shift(entry)

    def checkpointed(self, seed: int, state: bytes) -> None:
        """Store a checkpoint."""
        self._writers[seed].checkpoint(state)

    def ended(self, seed: int, result: dict[str, Any], weights: bytes) -> None:
        """Store the result."""
        self._writers[seed].finish(result, weights)
        self._observer.ended(seed, str(result["status"]))


@contextmanager
def claimed(
    store: Store,
    config: ExperimentConfig,
    run_ids: Mapping[int, str],
    records: Mapping[int, Mapping[str, Any]],
    *,
    rerun: bool,
) -> Iterator[dict[int, RunWriter]]:
    """Writers of all these runs, by seed; none of them when another process has one of them.

    `records`: what each run's run.json says from the start. Inside, an exception ends the runs that are
    not finished as `RunWriter` says.
    """
    with ExitStack() as stack:
        writers: dict[int, RunWriter] = {}
        for seed, run_id in run_ids.items():
            try:
                record = {**records[seed], "seed": seed}
                writer = store.claim(run_id, record, to_yaml(config.with_seeds(seed)), rerun=rerun)
            except InitbenchError:
                for begun in writers.values():  # nothing failed: they can be taken up by the next call
                    begun.stop("interrupted")
                raise
            writers[seed] = stack.enter_context(writer)
        yield writers
