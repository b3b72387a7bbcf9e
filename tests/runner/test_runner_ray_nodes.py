"""A Ray cluster of two nodes, of which one is killed in the middle of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.runner.plan import RunContext
from initbench.runner.scheduler import Scheduler
from initbench.runner.workers.base import Died
from initbench.runner.workers.training_session import NodeFacts
from initbench.store.store import Store
from initbench.train.events import Advanced, RunEvent
from tests.runner.driven import Silent, files_with_numbers, numbers, run_all

ray: Any = pytest.importorskip("ray")
from initbench.runner.workers.ray_pool import RayPool  # noqa: E402

Places = Callable[..., RunContext]
OPTIONS = {"include_dashboard": False, "object_store_memory": 200 * 2**20}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    def make(name: str = "runs", executor: str = "inprocess", **more: Any) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True)
        store, device = Store(tmp_path / name), torch.device("cpu")
        return RunContext(store=store, source=source, device=device, executor=executor, **more)

    return make


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> list[NodeFacts]:
    """Return the reports of the actors about themselves, in the order in which they start."""
    seen: list[NodeFacts] = []
    check = RayPool._check_code
    monkeypatch.setattr(RayPool, "_check_code", lambda self, new: (seen.append(new), check(self, new)))
    return seen


class NodeKiller(Silent):
    """Acts once all of these experiments have made updates."""

    def __init__(self, names: set[str], act: Callable[[], None]) -> None:
        super().__init__()
        self.waiting, self.kill = set(names), act

    def receive(self, cohort: Any, event: RunEvent) -> None:
        super().receive(cohort, event)
        if isinstance(event, Advanced) and self.waiting:
            self.waiting -= {config.name for config, _ in cohort}
            if not self.waiting:
                self.kill()


@pytest.mark.slow
def test_a_lost_node_costs_its_cohort_a_second_try_and_nothing_else(
    make_config: Any,
    places: Places,
    facts: list[NodeFacts],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The single run of an experiment is not blamed for the loss, and nothing is printed by Ray."""
    assert not ray.is_initialized()
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **OPTIONS})
    try:
        nodes = [cluster.head_node, cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)]
        capfd.readouterr()
        names = ("a", "b")
        configs = [make_config(name=name, train={"steps": 12_000, "eval_every": 100}) for name in names]
        place, whole = places("runs", "ray", executor_address=cluster.address), places("whole")

        def kill() -> None:
            assert {fact.node for fact in facts} == {node.node_id for node in nodes}
            cluster.remove_node(nodes[1], allow_graceful=False)

        deaths: list[Died] = []
        react = Scheduler._on_worker_death

        def record(self: Scheduler, group: Any, recorder: Any, event: Died) -> None:
            deaths.append(event)
            react(self, group, recorder, event)

        monkeypatch.setattr(Scheduler, "_on_worker_death", record)
        watcher = NodeKiller(set(names), kill)
        outcomes = run_all(configs, place, watcher)
        assert not watcher.waiting
        assert [outcome.errors for outcome in outcomes] == [(), ()]
        assert sorted(watcher.ends) == [("a", 0, "finished"), ("b", 0, "finished")]
        assert [death.is_machine_lost for death in deaths] == [True]
        assert not ray.is_initialized(), "initbench ends the connection that it made"
    finally:
        cluster.shutdown()
    run_all(configs, whole)
    assert numbers(place.store) == numbers(whole.store)
    files = files_with_numbers(whole.store)
    assert len(files) == 2 and files_with_numbers(place.store) == files
    printed = capfd.readouterr()
    assert printed.out == "" and all(line.startswith("initbench: ") for line in printed.err.splitlines())
