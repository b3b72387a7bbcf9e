"""Changes between an earlier and the current state."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from initbench.analysis.gates.evaluate import GateState, evaluate_gates, read_gates
from initbench.analysis.regression.changes import COMPARED, Change, Changes, compare_states
from initbench.analysis.regression.reference import ReferenceRuns
from initbench.analysis.regression.reference_document import read_document
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.mean_difference import Method
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.verdict import DifferenceVerdict
from initbench.analysis.tables import build_tables
from initbench.errors import UsageError
from initbench.render.gate_tables import case_lines
from initbench.render.regression import against_document, change_lines
from initbench.render.run_documents import compare_document
from initbench.store import strict_json
from tests.analysis.stored_runs import stored
from tests.analysis.test_gates_verdicts import arm

VALUES = [0.90, 0.92, 0.97, 0.93]


def newer(runs: list[RunSummary], by: float = 0.0, jitter: float = 0.0) -> list[RunSummary]:
    """Return the runs with another code version, and a test accuracy higher by `by` plus 0 or `jitter`."""
    return [
        replace(
            run,
            run_id=run.run_id + "-new",
            arm="new",
            identity={"code": "new"},
            final={**run.final, "test_accuracy": (run.final["test_accuracy"] or 0.0) + by + jitter * (i % 2)},
        )
        for i, run in enumerate(runs)
    ]


def between(before: list[RunSummary], now: list[RunSummary]) -> Changes:
    return compare_states(build_tables(now), ReferenceRuns(build_tables(before)))


def of(found: Changes, metric: str, row: int = 0) -> Change:
    (change,) = [one for one in found.rows[row].changes if one.metric.name == metric]
    return change


def test_a_change_is_shown_for_paired_seeds():
    before = arm("a", VALUES)
    found = between(before, newer(before, by=-0.05, jitter=1e-6))
    change = of(found, "test_accuracy")
    assert change.verdict == DifferenceVerdict.WORSE and change.difference.method == Method.PAIRED
    assert change.difference.difference == pytest.approx(-0.05, abs=1e-6)
    assert [one.metric.name for one in found.rows[0].detected_changes] == ["test_accuracy"]
    assert not found.rows[0].is_same_runs and not found.only_now and not found.only_before


def test_holm_corrects_over_all_metrics_of_all_rows():
    before = [*arm("a", VALUES), *arm("b", VALUES)]
    found = between(before, newer(before, by=-0.05, jitter=0.02))
    p_values = [change.difference.p for row in found.rows for change in row.changes]
    rates = [row.divergence.p for row in found.rows]
    adjusted = holm([*p_values, *rates])
    assert [change.p_adjusted for row in found.rows for change in row.changes] == adjusted[: len(p_values)]
    assert found.tests == sum(p is not None for p in (*p_values, *rates)) > 20


def test_seconds_are_not_compared():
    assert "seconds_to_target" not in COMPARED and "steps_to_target" in COMPARED


def test_the_very_same_runs_have_no_change():
    before = arm("a", VALUES)
    found = between(before, before)
    assert found.rows[0].is_same_runs and not found.rows[0].detected_changes
    assert "identical run ids: config, data, torch and code are unchanged" in "\n".join(change_lines(found))


def test_rows_of_one_side_and_of_other_configs_are_named():
    before = [*arm("a", VALUES), *arm("gone", VALUES)]
    now = [*newer(arm("a", VALUES, config={"train": {"lr": 0.2}})), *newer(arm("new", VALUES))]
    found = between(before, now)
    assert [row.config_changes for row in found.rows] == [["train.lr: 0.1 → 0.2"]]
    assert (found.only_now, found.only_before) == (["new (digits)"], ["gone (digits)"])
    assert found.reasons == {"new (digits)": "the earlier state has no new"}


LR = {"train": {"lr": 0.2}}


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (
            arm("a", VALUES),
            [*arm("a", VALUES), *newer(arm("a", VALUES, config=LR))],
            "the earlier a has the config of another current row",
        ),
        (
            arm("a", VALUES),
            [*newer(arm("a", VALUES, config=LR)), *arm("a", VALUES, config={"train": {"lr": 0.3}}, arm="b")],
            "several rows named a have a different config than before",
        ),
        (
            arm("a", VALUES),
            newer(arm("a", VALUES, config={"train": {"lr": 0.1, "steps": 9}})),
            "the earlier a was trained with different data, precision or budget",
        ),
        (
            arm("a", VALUES),
            arm("a", VALUES, dataset="mnist"),
            "the earlier a was trained with different data",
        ),
    ],
)
def test_a_row_without_an_earlier_state_says_why(
    before: list[RunSummary], now: list[RunSummary], reason: str, tmp_path: Path
):
    found = between(before, now)
    assert found.only_now and all(why.startswith(reason) for why in found.reasons.values())
    assert not found.is_whole
    assert reason in "\n".join(change_lines(found))


def test_a_collapse_by_another_config_is_seen():
    before = arm("a", [0.960, 0.963, 0.965], identity={"code": "old"})
    now = newer(arm("a", [0.101, 0.103, 0.102], config={"init": {"gain": 0.3}}))
    (gate,) = read_gates(["test_accuracy < before.test_accuracy - 1 %"])
    for earlier in (ReferenceRuns(build_tables(before)), ReferenceRuns(build_tables(newer(before)))):
        (found,) = evaluate_gates([gate], build_tables(now), reference=earlier)
        assert found.state == GateState.TRIGGERED


def test_rows_of_one_state_leave_a_gate_undecided():
    (gate,) = read_gates(["test_accuracy < before.test_accuracy - 1 %"])
    same = arm("a", VALUES)
    for before, now, named in (
        ([*same, *arm("gone", VALUES)], same, "gone (digits) is only in the earlier state"),
        (
            same,
            [*same, *arm("new", VALUES)],
            "new (digits) is only in the current state: the earlier state has",
        ),
    ):
        (found,) = evaluate_gates([gate], build_tables(now), reference=ReferenceRuns(build_tables(before)))
        assert (
            found.state == GateState.UNDECIDED and found.fails(strict=True) and not found.fails(strict=False)
        )
        assert named in found.gaps[0] and named in "\n".join(case_lines(found))
        (absolute,) = evaluate_gates(
            read_gates(["test_accuracy < 0"]),
            build_tables(now),
            reference=ReferenceRuns(build_tables(before)),
        )
        assert absolute.state == GateState.CLEAR


def test_of_several_earlier_versions_the_last_one_counts():
    old = [replace(run, created="2026-01-01") for run in arm("a", VALUES)]
    newest = [replace(run, created="2026-02-01") for run in newer(old, by=-0.5)]
    found = between([*newest, *old], arm("a", VALUES))
    assert of(found, "test_accuracy").earlier == pytest.approx(0.43)


def test_the_target_is_that_of_now():
    before = [stored("a", seed, accuracies=(0.1, 0.5, 0.6)) for seed in range(2)]
    now = [stored("a", seed, accuracies=(0.1, 0.2, 0.6), arm="new") for seed in range(2)]
    change = of(between(before, now), "steps_to_target")
    assert (change.earlier, change.now) == (20.0, 20.0)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "compare.json"
    path.write_text(strict_json.dumps(compare_document(build_tables(arm("a", VALUES)))), encoding="utf-8")
    return path


def test_against_a_document_welch_from_its_summaries(kept: Path):
    before = arm("a", VALUES)
    now = [replace(run, seed=run.seed + 10) for run in newer(before, by=-0.05, jitter=0.02)]
    found, expected = compare_states(build_tables(now), read_document(kept)), between(before, now)
    for metric in COMPARED:
        ours, theirs = of(found, metric), of(expected, metric)
        assert (
            ours.difference.p == pytest.approx(theirs.difference.p)
            if theirs.difference.p is not None
            else ours.difference.p is None
        )
        assert (ours.earlier, ours.now) == (theirs.earlier, theirs.now)
    assert of(found, "test_accuracy").difference.method == Method.WELCH
    assert not found.only_now and not found.only_before


def test_a_gate_on_a_document(kept: Path):
    now = newer(arm("a", VALUES), by=-0.2)
    earlier = read_document(kept)

    def state(text: str) -> GateState:
        (found,) = evaluate_gates(read_gates([text]), build_tables(now), reference=earlier)
        return found.state

    assert state("test_accuracy < before.test_accuracy - 0.05") == GateState.TRIGGERED
    assert state("2 * before.a.test_accuracy - 1 > 0.5") == GateState.TRIGGERED
    assert state("mean(before.test_accuracy) == 0.93") == GateState.TRIGGERED
    assert state("before.divergence_rate > 0.9") == GateState.CLEAR
    assert state("grad_ratio_init > before.grad_ratio_init * 2") == GateState.CLEAR
    assert state("min(before.test_accuracy) < 1") == GateState.UNDECIDED
    assert state("abs(before.test_accuracy) < 2") == GateState.UNDECIDED
    assert state("before.layer[1].std@init < 2") == GateState.UNDECIDED
    assert state("test_accuracy / before.test_accuracy < 2") == GateState.UNDECIDED


def test_rows_match_a_document_whatever_the_code(tmp_path: Path):
    both = [*arm("a", VALUES), *newer(arm("a", VALUES))]
    document = compare_document(build_tables(both))
    path = tmp_path / "x.json"
    path.write_text(strict_json.dumps(document), encoding="utf-8")
    assert compare_states(build_tables(arm("a", VALUES)), read_document(path)).only_now == ["a (digits)"], (
        "two are one too many"
    )
    del document["tables"][0]["rows"][0]
    path.write_text(strict_json.dumps(document), encoding="utf-8")
    assert len(compare_states(build_tables(arm("a", VALUES)), read_document(path)).rows) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"schema": "initbench.run/1"}',
        '{"schema": "initbench.compare/1"}',
        '{"schema": "initbench.compare/1", "tables": 7}',
        '{"schema": "initbench.compare/1", "tables": [{"rows": [7]}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_document_is_a_mistake(tmp_path: Path, text: str):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="is not the output of `initbench compare --json`"):
        read_document(path)


@pytest.mark.parametrize("field", ["n", "diverged", "metrics", "key"])
@pytest.mark.parametrize("value", [None, "x", -1, 1.5, [], True])
def test_a_damaged_row_is_a_mistake(kept: Path, field: str, value: object):
    document = json.loads(kept.read_text(encoding="utf-8"))
    document["tables"][0]["rows"][0][field] = value
    kept.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match="is not the output of"):
        read_document(kept)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read"):
        read_document(tmp_path / "x.json")


def test_lines_and_document():
    before = [*arm("a", VALUES), *arm("gone", VALUES), *arm("lost", VALUES)]
    found = between(before, newer(arm("a", VALUES), by=-0.05, jitter=1e-6))
    first, other, row, runs, shown, *rest = change_lines(found)
    assert first.startswith("1 row in both states, ") and first.endswith(
        "significant changes in 1 row (1 metric)"
    )
    assert other == "  1 of 1 row gives different results for the same seeds"
    assert row == "  a (digits), 4 runs before, 4 now"
    assert runs.startswith(
        "    different results in 4 of 4 runs with the same seeds; largest changes: test_accuracy"
    )
    assert shown.startswith("    test_accuracy: 0.93 → 0.88, -0.05 (-0.05 to -0.05), p = ")
    assert shown.endswith("paired t: worse")
    assert rest == ["  only before: gone (digits)", "  only before: lost (digits)"]
    document = json.loads(strict_json.dumps(against_document(found, "runs-before")))
    assert document["source"] == "runs-before" and document["only_before"] == [
        "gone (digits)",
        "lost (digits)",
    ]
    (row,) = document["rows"]
    assert row["changed"] == ["test_accuracy"] and row["metrics"]["test_accuracy"]["verdict"] == "worse"
    assert row["exact"]["runs"] == 4 and row["exact"]["identical"] == 0 and len(row["exact"]["other"]) == 4
    (largest,) = row["exact"]["largest"]
    assert (largest["metric"], largest["run"]) == ("test_accuracy", "seed=0")
    assert (largest["before"], largest["now"]) == (0.90, pytest.approx(0.85))
