"""Reading runs in a loop while other processes create, finish, rerun, interrupt and remove them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.run_summary import RunSummary
from initbench.errors import StoreError, UsageError
from initbench.store.store import Store

RECORD: dict[str, Any] = {
    "experiment": "relu",
    "arm": "0123456789",
    "dataset": "digits",
    "dataset_requested": "digits",
    "device": "cpu",
    "config": {
        "model": {"family": "mlp", "activation": "relu", "norm": "none"},
        "init": {"scheme": "kaiming_normal"},
        "train": {"steps": 20, "batch_size": 32},
    },
}
LINES, SEEDS, WRITERS = 5, 6, 3
PATIENCE = 120.0
"""Timeout of a test in seconds; a few seconds are enough even on a slow machine."""


def layers(value: float) -> list[dict[str, Any]]:
    act = {"std": value, "zero_fraction": 0.0, "dead_fraction": 0.0, "saturated_fraction": 0.0}
    act["histogram"] = {"edges": [0.0] * 33, "counts": [1] * 32, "below": 0, "above": 0, "nan": 0}
    return [{"index": i, "pre": {"q": value}, "act": act, "grad": {"pre_q": value}} for i in range(1, 20)]


def attempt(store: Store, run_id: str, seed: int, value: float, chance: random.Random) -> None:
    """Write an attempt of a run whose numbers are all `value`; it may be interrupted or fail."""
    with store.claim(run_id, {**RECORD, "seed": seed}, "", rerun=chance.random() < 0.7) as run:
        stopped_at = chance.choice([None, None, None, 0, 2])
        for step in range(LINES):
            if step == stopped_at:
                run.stop("interrupted")
                return
            run.append_convergence(
                {"step": step, "train_loss": value, "val_loss": value, "val_accuracy": value}
            )
            when = "init" if step == 0 else "end" if step == LINES - 1 else "train"
            run.append_snapshot({"when": when, "step": step, "layers": layers(value)})
        status = chance.choice(["finished", "finished", "diverged"])
        run.finish({"status": status, "final": {"val_accuracy": value, "test_accuracy": value}}, weights=b"w")


def stop_file(root: Path) -> Path:
    """Return the path of the file that makes the writers stop."""
    return root.with_name("stop")


def work(root: Path, number: int) -> None:
    """Write and remove runs: mostly its own, sometimes those that other writers also write and remove."""
    store, chance = Store(root), random.Random(number)
    while not stop_file(root).exists():
        own = chance.random() < 0.7
        seed = chance.randrange(SEEDS)
        run_id = f"relu-s{seed}-{number if own else 'shared'}"
        with suppress(StoreError, UsageError):  # another has it, or it is finished, or gone
            if chance.random() < 0.3:
                store.remove(run_id)
            else:
                attempt(store, run_id, seed, chance.random(), chance)


class Sure(random.Random):
    """A random generator with which `attempt` always reruns a run and finishes it."""

    def random(self) -> float:
        return 0.0

    def choice(self, options: Any) -> Any:
        return options[0]


def rerun(root: Path, number: int) -> None:
    while not stop_file(root).exists():
        attempt(Store(root), "relu-s0-again", 0, random.random(), Sure())


@contextmanager
def writers(
    root: Path, work: Callable[[Path, int], None] = work, count: int = WRITERS
) -> Iterator[Callable[[Callable[[int], bool]], Iterator[None]]]:
    """Run writer processes while a test reads.

    Yields a function; iterating over its result yields until `enough(reads)` is true or time is up.
    """
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(root, number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)

    def until(enough: Callable[[int], bool]) -> Iterator[None]:
        looks, end = 0, time.monotonic() + PATIENCE
        while not enough(looks) and time.monotonic() < end:
            yield
            looks += 1
        assert enough(looks)

    try:
        yield until
    finally:
        stop_file(root).touch()
        statuses = {os.waitpid(child, 0)[1] for child in children}
    assert statuses == {0}


def check_whole(run: RunSummary) -> None:
    """Assert that all numbers of a run come from one attempt, and that a complete run has all of them."""
    values = {number for _, *row in run.evaluations for number in row}
    values |= {layer["act_std"] for moment in run.layers.values() for layer in moment}
    assert len(values) <= 1, "attempts are never mixed"
    if run.is_complete:
        assert len(run.evaluations) == LINES
        assert set(run.layers) == {"init", "end"}
        assert {*run.final.values()} == values
    else:
        assert run.status in ("running", "interrupted"), "no process of this test dies"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_reader_sees_whole_runs_or_unfinished_ones(root: Path) -> None:
    statuses, from_summary = set(), 0
    plain, live = Store.read_or_mark_damaged, []
    expected = {"finished", "diverged", "running", "interrupted"}

    def enough(looks: int) -> bool:
        """Return whether every status was seen and summaries were used."""
        return looks > 20 and from_summary > 20 and statuses >= expected

    with writers(root) as until, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Store, "read_or_mark_damaged", lambda self, run_id: live.append(run_id) or plain(self, run_id)
        )
        for _ in until(enough):
            live.clear()
            found = load_run_summaries(Store(root), [])
            for run in found:
                check_whole(run)
            assert len({run.run_id for run in found}) == len(found)
            statuses |= {run.status for run in found}
            from_summary += len({run.run_id for run in found} - set(live))
    last = load_run_summaries(Store(root), [])
    assert [run.run_id for run in last] == Store(root).find([])


def test_a_run_that_is_rerun_again_and_again_is_there_at_every_look(root: Path) -> None:
    attempt(Store(root), "relu-s0-again", 0, 0.5, Sure())
    seen = set()
    with writers(root, rerun, 1) as until:
        for _ in until(lambda _: len(seen) > 20):
            (run,) = load_run_summaries(Store(root), [])
            check_whole(run)
            assert run.is_finished
            seen.add(run.final["val_accuracy"])


def test_the_command_always_ends_well(root: Path) -> None:
    """The command runs in a new process each time, starting with an empty store."""
    command = [sys.executable, "-m", "initbench", "compare", "--json", "--runs-dir", str(root)]
    with writers(root) as until:
        for _ in until(lambda looks: looks >= 2):
            ended = subprocess.run(command, capture_output=True, text=True)
            assert (ended.returncode, ended.stderr) == (0, "")
            for table in json.loads(ended.stdout)["tables"]:
                for row in table["rows"]:
                    assert row["n"] + row["unfinished"] <= SEEDS * (WRITERS + 1)
                    assert row["metrics"]["final_val_accuracy"]["n"] == row["n"] - row["diverged"]


def test_the_table_of_a_changing_store(root: Path, initbench: Callable[..., Any]) -> None:
    with writers(root) as until:
        for _ in until(lambda looks: looks > 20):
            said = initbench("compare", "--runs-dir", root)
            assert said.code == 0, said.err
            assert said.err == "" or said.err.startswith("No runs in ")
