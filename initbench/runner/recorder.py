"""Store one cohort: claim its runs, write the results in its events, and show its progress."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from initbench.config.loading import to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.errors import InitbenchError, StoreError
from initbench.store.checkpoint_files import Resumption
from initbench.store.store import Store
from initbench.store.writer import RunWriter
from initbench.train.events import (
    Advanced,
    Checkpointed,
    Diagnosed,
    Evaluated,
    Pretrained,
    Probed,
    Released,
    RunEvent,
    RunFailed,
    Shifted,
)

Cohort = tuple[tuple[ExperimentConfig, int], ...]
"""Config and seed of runs that are trained together. Runs of one experiment share the config object."""


class ProgressDisplay(Protocol):
    """Receives progress to show to the user; several experiments may be in training at a time."""

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Report that `to_train` runs of the experiment will be trained and `stored` runs are kept."""

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        """Show an event of a cohort, which is the same object in all of its events."""


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
        self, claims: Sequence[RunClaim], writers: Sequence[RunWriter], display: ProgressDisplay
    ) -> None:
        self._cohort = tuple((claim.config, claim.seed) for claim in claims)
        self._writers, self._display = dict(enumerate(writers)), display

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

    def handle(self, event: RunEvent) -> None:
        """Store an event, then show it."""
        match event:
            case Evaluated(run, entry):
                self._writers[run].append_convergence(entry)
            case Probed(run, snapshot):
                self._writers[run].append_snapshot(snapshot)
            case Shifted(run, entry):
                self._writers[run].append_shift(entry)
            case Checkpointed(run, state):
                self._writers[run].checkpoint(state)
            case Diagnosed(run, result, weights):
                self._writers[run].finish(result, weights)
                del self._writers[run]
            case Released(runs):
                for run in runs:
                    self._writers.pop(run).stop("interrupted")
            case RunFailed(run, error):
                self._writers.pop(run).stop("failed", error)
            case Pretrained() | Advanced():
                pass
            case _:
                assert_never(event)
        self._display.receive(self._cohort, event)

    def fail(self, error: str) -> None:
        """Mark unfinished runs as failed; `error`: the traceback, or the reason if there is none."""
        for run in self.open_runs:
            self.handle(RunFailed(run, error))

    def interrupt(self) -> None:
        """Mark unfinished runs as interrupted; they can be resumed."""
        for run in self.open_runs:
            with suppress(StoreError):  # on a full disk the run shows as crashed and can still be resumed
                self._writers.pop(run).stop("interrupted")


def claim_runs(
    store: Store, claims: Sequence[RunClaim], display: ProgressDisplay, *, rerun: bool
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
        Recorder(claims, writers, display).interrupt()
        raise
    return Recorder(claims, writers, display)
