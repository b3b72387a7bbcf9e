"""docs/ci.md and its workflow are correct: every gate in them can be parsed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from initbench.analysis.gates.parser import ALIASES, parse_gate
from initbench.errors import UsageError
from initbench.store.packed_numbers import LAYER_STATISTICS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "ci.md").read_text(encoding="utf-8")
WORKFLOW = (DOCS / "ci-workflow.yml").read_text(encoding="utf-8")
OPTIONS = re.findall(r"--fail-(?:if|unless) '([^']+)'", PAGE + WORKFLOW)
WRONG = "relu_kaiming.final_val_acuracy < 0.95"
ROWS = re.findall(r"^\| `([^|]+)` \| ", PAGE.partition("## Grammar")[2].partition("```text")[0], re.MULTILINE)
INLINE = re.findall(r"`((?:not |mean\(|divergence_rate|test_accuracy)[^`]*[<>≈][^`]*)`", PAGE)


def test_the_page_shows_gates():
    assert len(OPTIONS) >= 8 and len(ROWS) >= 15 and len(INLINE) >= 4


@pytest.mark.parametrize("gate", dict.fromkeys([*OPTIONS, *ROWS, *INLINE]))
def test_every_gate_is_read(gate: str):
    if gate == WRONG:
        with pytest.raises(UsageError) as caught:
            parse_gate(gate)
        assert str(caught.value) in PAGE
    else:
        assert parse_gate(gate)


def test_every_statistic_is_named():
    for name in (*LAYER_STATISTICS, *ALIASES):
        assert f"`{name}`" in PAGE


def test_the_workflow_is_one():
    document = yaml.safe_load(WORKFLOW)
    jobs = document["jobs"]
    assert document["permissions"] == {"contents": "read"}
    installs = [name for name, job in jobs.items() if "pip install" in str(job)]
    assert installs == ["install"] and "'cache': 'pip'" in str(jobs["install"])
    restored = "needs.install.outputs.environment"
    assert all(
        restored in str(job) and "install" in job["needs"] for job in jobs.values() if job != jobs["install"]
    )
    shard = [step.get("uses", "") for step in jobs["shard"]["steps"] if "matrix.shard" in str(step)]
    assert {"actions/cache/restore@v4", "actions/cache/save@v4"} <= set(shard)
    commands = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for path in re.findall(r"configs/\S+\.yaml", commands):
        assert (DOCS.parent / path).is_file()
    assert "initbench compare" in commands and "--junit-xml" in commands
    assert f"--shard ${{{{ matrix.shard }}}}/{len(jobs['shard']['strategy']['matrix']['shard'])}" in commands
