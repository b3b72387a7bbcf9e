"""The work of commands grows in proportion to the number of runs: operations are counted, not timed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.analysis import grouping
from initbench.analysis.load_runs import load_listed_summaries, load_run_summaries
from initbench.analysis.tables import build_tables
from initbench.config.schema import ExperimentConfig
from initbench.runner import batching
from initbench.runner.batching import WorkItem, choose_cohort_sizes
from initbench.store.store import Store
from tests.processes import run_forked

SIZES = (4, 8, 12)
EXECUTOR = Path(__file__).parents[2] / "benchmarks" / "simulated_executor.py"
COUNTED = """
import json, os, sys

counts = {}

def count(event, arguments):
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"):
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if "/runs/" in path or path.endswith("/runs"):
            counts[event] = counts.get(event, 0) + 1

sys.addaudithook(count)
from initbench.cli.main import run_command

every = []
for folder in sys.argv[1:]:
    counts.clear()
    store = ["--runs-dir", os.path.join(folder, "runs"), "--executor", "simulated", "--workers", "1"]
    if code := run_command(["sweep", os.path.join(folder, "tiny.yaml"), "--quiet", *store]):
        sys.exit(code)
    every.append(dict(counts))
open("counts.json", "w").write(json.dumps(every))
"""
"""Code that runs the sweep in each folder, and counts the operations on the files of its store."""
SWEEP = """\
kind: sweep
name: tiny
base:
  data: {{name: digits}}
  model: {{family: mlp, depth: 2, width: 8}}
  train: {{steps: 2, batch_size: 32}}
  probe: {{batch: 16, bins: 4, when: [init]}}
grid:
  train.lr: [{rates}]
seeds: 2
"""


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    """Return stores of SIZES runs, each run of its own experiment."""
    for size in SIZES:
        write_runs(tmp_path / str(size), [SyntheticRow(f"row{i}") for i in range(size)], depth=3, bins=4)
    return [Store(tmp_path / str(size)) for size in SIZES]


def is_proportional(counts: Iterable[int]) -> bool:
    """Return whether the counts for SIZES increase by equal amounts."""
    first, second, third = counts
    return third - second == second - first > 0


def count_opened_files(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Counter[str]:
    """Return how many files of each name were opened during the call."""
    names: Counter[str] = Counter()
    original = os.open

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        names[Path(os.fsdecode(path)).name] += 1
        return original(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        act()
    return names


def test_comparison_opens_three_files_of_each_run_and_no_line_of_evaluations(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    for store, size in zip(stores, SIZES, strict=True):
        names = count_opened_files(monkeypatch, lambda s=store: build_tables(load_run_summaries(s, [])))
        files = {name: names[name] for name in ("manifest.json", "run.json", "summary.jsonl")}
        assert files == dict.fromkeys(files, size)
        assert not names.keys() & {"metrics.jsonl", "layers.jsonl", "config.yaml"}


def test_study_reads_its_own_runs_and_not_the_rest_of_the_store(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[-1]
    run_ids = [*sorted(store.run_ids())[:2], "missing-s0-0000000000"]
    runs = load_listed_summaries(store, run_ids)
    assert [run.run_id for run in runs] == run_ids[:2]
    names = count_opened_files(monkeypatch, lambda: load_listed_summaries(store, run_ids))
    assert names["summary.jsonl"] == 2


def test_status_of_missing_runs_takes_one_listing(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = stores[0], []
    original = Store.status
    monkeypatch.setattr(Store, "status", lambda self, run_id: asked.append(run_id) or original(self, run_id))
    stored = sorted(store.run_ids())
    missing = [f"missing-s{seed}-0000000000" for seed in range(100)]
    assert store.statuses([*missing, *stored]) == dict.fromkeys(stored, "finished")
    assert asked == stored


def test_rows_are_grouped_in_one_pass(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    original = grouping.keys_that_differ
    for store in stores:
        samples = []
        with monkeypatch.context() as patch:
            patch.setattr(grouping, "keys_that_differ", lambda s, seen=samples: seen.extend(s) or original(s))
            build_tables(load_run_summaries(store, []))
        counts.append(len(samples))
    assert is_proportional(counts)


def test_number_of_tried_cohort_sizes_does_not_grow_with_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = batching.makespan
    monkeypatch.setattr(batching, "makespan", lambda times, n: calls.append(n) or original(times, n))
    config = ExperimentConfig.model_validate({"kind": "experiment", "name": "x"})
    for runs in (1_000, 10_000):
        assert choose_cohort_sizes([WorkItem(config, "program", runs, 16)], 2) == [16]
    assert len(calls) <= 4


def test_driver_makes_the_same_number_of_calls_for_every_run(tmp_path: Path) -> None:
    folders = [tmp_path / str(size) for size in SIZES]
    for folder, size in zip(folders, SIZES, strict=True):
        folder.mkdir()
        rates = ", ".join(f"{0.01 + 0.001 * i:.3f}" for i in range(size // 2))
        (folder / "tiny.yaml").write_text(SWEEP.format(rates=rates), encoding="utf-8")
    run = run_forked(tmp_path, *map(str, folders), source=COUNTED, INITBENCH_PLUGINS=str(EXECUTOR))
    assert run.returncode == 0, run.stderr
    counts = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert counts[0].keys() >= {"open", "os.mkdir", "os.rename"}
    for event in counts[0]:
        values = [count.get(event, 0) for count in counts]
        assert is_proportional(values) or len(set(values)) == 1, (event, values)
