"""Experiments through the driver, as the commands do it, and what is left of them in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.runner.pending import RunLimits
from initbench.runner.plan import ExperimentOutcome, RunContext
from initbench.runner.recorder import Cohort
from initbench.runner.runner import Runner
from initbench.store.store import Store
from initbench.train.events import Advanced, Diagnosed, Evaluated, Pretrained, RunEvent, RunFailed


def run_experiment(
    config: ExperimentConfig, workplace: RunContext, observer: Any, *, rerun: bool
) -> ExperimentOutcome:
    """Train what is missing of one experiment; the workers end with it."""
    with Runner(workplace, observer, RunLimits(rerun=rerun)) as driver:
        (execution,) = driver.run([config])
    return execution


def run_all(
    configs: Sequence[ExperimentConfig], workplace: RunContext, observer: Any = None, **budget: Any
) -> list[ExperimentOutcome]:
    """Train what is missing of experiments, side by side."""
    with Runner(workplace, observer or Silent(), RunLimits(**budget)) as driver:
        return driver.run(configs)


def numbers(store: Store) -> dict[str, Any]:
    """Return all numbers of each run by run id, including the bytes of its weights."""
    found = {}
    for record in store.records():
        run = store.read(record["run_id"])
        directory = store.directory(run.run_id)
        assert directory is not None
        weights = directory / "weights.safetensors"
        found[run.run_id] = (
            {key: run.record[key] for key in ("status", "final", "diverged", "diagnosis", "steps")},
            run.convergence,
            run.snapshots,
            run.shifts,
            weights.read_bytes() if weights.exists() else None,
        )
    return found


def files_with_numbers(store: Store) -> dict[str, tuple[bytes, ...]]:
    """Return the contents of the files of each run whose bytes depend on its numbers alone."""
    files = ("metrics.jsonl", "layers.jsonl", "weights.safetensors")
    return {
        path.name: tuple((path / file).read_bytes() for file in files) for path in store.root.glob("*-s*")
    }


class Silent:
    """An Observer that may act on the first progress it hears of, and keeps cohorts and ends."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.begun: list[str] = []
        self.together: set[tuple[Any, ...]] = set()
        self.ends: list[tuple[str, int, str]] = []

    def planned(self, config: Any, to_train: int, stored: int, steps: int | None) -> None:
        if to_train:
            self.begun.append(config.name)

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        match event:
            case Advanced(step):
                names = dict.fromkeys(config.name for config, _ in cohort)
                self.together |= {(name, *(seed for c, seed in cohort if c.name == name)) for name in names}
                self.advanced(step)
            case Pretrained():
                self.pretrained(event)
            case Evaluated(run, entry):
                self.evaluated(cohort[run][1], entry)
            case Diagnosed(run, result):
                self.ends.append((cohort[run][0].name, cohort[run][1], result["status"]))
            case RunFailed(run):
                self.ends.append((cohort[run][0].name, cohort[run][1], "failed"))

    def advanced(self, step: int) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()

    def pretrained(self, event: Pretrained) -> None:
        pass

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        pass
