"""Runs that leave a cohort: nothing changes for them, nor for those that stay."""

from __future__ import annotations

from typing import Any

import pytest
from cohorts import CPU, Ear, bundle, nets, same

from initbench.config.schema import ExperimentConfig
from initbench.train.checkpoint import restore
from initbench.train.events import Advanced, Checkpointed, Released, TrainingEvent
from initbench.train.loop import Training, TrainingSetup

SEEDS = (3, 8, 5)


class Requests(Ear):
    """Asks for runs after a step, and keeps the checkpoints of those that are released."""

    def __init__(self, step: int, runs: int) -> None:
        super().__init__()
        self._step, self._runs = step, runs
        self.step = 0
        self.states: dict[int, bytes] = {}
        self.released: list[tuple[int, ...]] = []

    def runs_to_release(self) -> int:
        return self._runs if self.step == self._step else 0

    def receive(self, event: TrainingEvent) -> None:
        super().receive(event)
        match event:
            case Advanced(step):
                self.step = step
            case Checkpointed(run, state):
                self.states[run] = state
            case Released(runs):
                self.released.append(runs)


def trained(config: ExperimentConfig, seeds: tuple[int, ...], ear: Requests, resume: Any = ()) -> Requests:
    setup = TrainingSetup(
        networks=nets(config, seeds),
        seeds=seeds,
        config=config,
        mode="vmap",
        data=bundle(),
        device=CPU,
        resume=[restore(state) for state in resume],
        runs_to_release=ear.runs_to_release,
    )
    Training(setup, ear.receive).run()
    return ear


@pytest.mark.parametrize("step", [1, 5, 6], ids=["first", "between", "at an evaluation"])
@pytest.mark.parametrize(("asked", "leave"), [(1, (2,)), (2, (1, 2)), (5, (1, 2))])
def test_released_runs_go_on_elsewhere_with_the_same_numbers(
    make_config: Any, step: int, asked: int, leave: tuple[int, ...]
) -> None:
    config = make_config(
        model={"norm": "batch"},
        train={"steps": 12, "eval_every": 3, "batch_size": 32, "optimizer": "adam"},
        probe={"covariate_shift": 4},
    )
    whole = trained(config, SEEDS, Requests(-1, 0))
    assert whole.released == []
    begun = trained(config, SEEDS, Requests(step, asked))
    assert begun.released == [leave], "at least one run stays"
    assert set(begun.outcomes) == set(range(3)) - set(leave)
    assert set(begun.states) == set(leave), "runs that stay need no checkpoint"
    states = [begun.states[run] for run in leave]
    ended = trained(config, tuple(SEEDS[run] for run in leave), Requests(-1, 0), states)
    for run in range(3):
        parts = [(begun, run)] if run not in leave else [(begun, run), (ended, leave.index(run))]
        for field in ("entries", "snapshots", "shifts"):
            lines = [line for ear, index in parts for line in getattr(ear, field).get(index, [])]
            assert lines == getattr(whole, field)[run]
        ear, index = parts[-1]
        assert ear.outcomes[index].final == whole.outcomes[run].final
        assert same(ear.outcomes[index].parameters, whole.outcomes[run].parameters)
        assert same(ear.outcomes[index].buffers, whole.outcomes[run].buffers)


def test_nothing_is_released_before_the_first_update_nor_after_the_last(make_config: Any) -> None:
    config = make_config(train={"steps": 4, "batch_size": 32})
    for step in (0, 4):
        assert trained(config, SEEDS, Requests(step, 1)).released == []
