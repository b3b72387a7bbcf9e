"""Output for GitHub Actions: escaped, limited in size, and only inside of GitHub Actions."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.analysis.gates.evaluate import GateResult, evaluate_gates, read_gates
from initbench.analysis.regression.changes import compare_states
from initbench.analysis.regression.reference import ReferenceRuns
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.errors import StoreError
from initbench.render import github
from tests.analysis.stored_runs import stored
from tests.render.test_render_junit import GATES, NASTY, judged, runs


def nasty() -> tuple[list[RunSummary], list[GateResult]]:
    found = [replace(stored("a", seed, test=0.5), experiment=NASTY, run_id=NASTY) for seed in range(2)]
    return found, evaluate_gates(read_gates(["test_accuracy < 0.9"]), build_tables(found))


def test_levels():
    lines = github.workflow_commands(judged(GATES), runs(), strict=False)
    levels = [line.split(" ", 1)[0] for line in lines]
    assert levels == ["::warning", "::error", "::notice", "::warning", "::warning"]
    assert lines[1].startswith("::error title=initbench%3A gate triggered::triggered: test_accuracy < 1.5%0A")
    strict = github.workflow_commands(judged(GATES), [], strict=True)
    assert [line.split(" ", 1)[0] for line in strict] == ["::error", "::error"]


def test_at_most_ten_of_a_level():
    gates = judged([f"test_accuracy < {i}" for i in range(200, 230)])
    assert len(github.workflow_commands(gates, [], strict=False)) == github.MAX_ANNOTATIONS


def test_commands_are_escaped():
    assert (
        github.workflow_command("error", "a:b,c%\n", "x:y,z%\r\n")
        == "::error title=a%3Ab%2Cc%25%0A::x:y,z%25%0D%0A"
    )


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_a_command_is_one_line_that_reads_back(title: str, message: str):
    line = github.workflow_command("notice", title, message)
    assert "\n" not in line and "\r" not in line
    found = re.fullmatch(r"::notice title=([^:,]*)::(.*)", line, re.DOTALL)
    assert found is not None

    def read(text: str) -> str:
        for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, sign)
        return text

    assert (read(found[1]), read(found[2])) == (title, message[: github.MAX_MESSAGE_LENGTH])


def test_the_summary_is_a_table_of_gates():
    text = github.job_summary(judged(GATES), runs(), None)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"\|", row)) for row in rows] == [4] * 5
    assert "❌ triggered" in text and "✅ clear" in text and "⚠️ undecided" in text
    assert "6 runs: 1 diverged, 1 failed, 3 finished, 1 interrupted" in text


def test_nasty_names_stay_in_their_cells():
    found, gates = nasty()
    state = build_tables(found)
    text = github.job_summary(gates, found, compare_states(state, ReferenceRuns(state)))
    assert all(line.count("|") in (0, 4) for line in text.splitlines())
    assert not re.search(r"<(?!br>)", text) and "`" not in text and "\x1b" not in text


@given(st.text(alphabet=st.characters()))
def test_markdown_is_text_again_once_rendered(text: str):
    line = github.escape_markdown(text)
    assert not set("|`*_<>[]()#@$\\\n!~{}\"'") & set(re.sub(r"&#\d+;", "", line))
    assert "".join(c if c.isprintable() else " " for c in text) == html.unescape(line)


def test_the_summary_is_bounded():
    gates = judged([f"test_accuracy < {i}" for i in range(200, 230)]) * 40
    text = github.job_summary(gates, runs(), None)
    assert len(text.encode("utf-8")) < github.MAX_BYTES + 100
    assert text.endswith("… the rest is omitted: the summary is too long.\n")


def test_only_where_it_listens(tmp_path: Path):
    assert github.wants_annotations({"GITHUB_ACTIONS": "true"}) and not github.wants_annotations({})
    github.append_summary("x", {})
    path = tmp_path / "summary.md"
    for text in ("one\n", "two \ud800\n"):
        github.append_summary(text, {"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text(encoding="utf-8") == "one\ntwo ?\n"
    with pytest.raises(StoreError, match="cannot write"):
        github.append_summary("x", {"GITHUB_STEP_SUMMARY": str(tmp_path)})
