"""`parallel_map` over several processes returns the same as in one process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from initbench.analysis import process_map
from initbench.analysis.process_map import parallel_map
from initbench.errors import StoreError

HERE = os.getpid()


@pytest.fixture(autouse=True)
def several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_map, "MIN_PARALLEL_ITEMS", 1)
    monkeypatch.setattr(process_map, "available_cores", lambda: 2)
    monkeypatch.setattr(process_map, "_may_fork", lambda: True)


def where(item: int) -> tuple[int, bool]:
    return item, os.getpid() == HERE


def dying(item: int) -> tuple[int, bool]:
    if item == 50 and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return item, os.getpid() == HERE


def refusing(item: int) -> int:
    if item == 50:
        raise StoreError("run x is damaged")
    return item


def slow(item: int) -> int:
    time.sleep(0.01)
    return item


def test_the_results_come_in_order_from_elsewhere() -> None:
    assert list(parallel_map(where, range(100))) == [(item, False) for item in range(100)]


@pytest.mark.parametrize("reason", ["few items", "one core", "threads or torch"])
def test_where_it_does_not_pay_or_is_not_safe_all_is_done_here(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = {
        "few items": ("MIN_PARALLEL_ITEMS", 101),
        "one core": ("available_cores", lambda: 1),
        "threads or torch": ("_may_fork", lambda: False),
    }[reason]
    monkeypatch.setattr(process_map, name, value)
    assert list(parallel_map(where, range(100))) == [(item, True) for item in range(100)]


def test_a_process_that_dies_is_done_without() -> None:
    found = list(parallel_map(dying, range(100)))
    assert [item for item, _ in found] == list(range(100))
    assert found[-1] == (99, True)


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert list(parallel_map(where, range(100))) == [(item, True) for item in range(100)]


def test_an_error_is_what_it_was() -> None:
    with pytest.raises(StoreError, match="run x is damaged"):
        list(parallel_map(refusing, range(100)))


def test_leaving_early_does_not_wait_for_the_rest() -> None:
    begin = time.monotonic()
    looks = parallel_map(slow, range(4000))
    assert next(looks) == 0
    looks.close()
    assert time.monotonic() - begin < 10


def test_read_facts_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    from test_analysis_read import live, same, write

    from initbench.analysis.load_runs import load_run_summaries
    from initbench.store.store import Store

    store = Store(tmp_path / "runs")
    for seed in range(60):
        write(store, "relu", seed)
    assert same(load_run_summaries(store, [])) == live(store, [])
