"""The JUnit report: its shape, its verdicts, and names that XML cannot hold as they are."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.analysis.gates.evaluate import GateResult, evaluate_gates, read_gates
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.errors import StoreError
from initbench.render.junit import MAX_ERROR_LENGTH, junit_xml, replace_invalid_xml, write_junit
from tests.analysis.stored_runs import stored

NASTY = "<b>&\"']]>\x00\x1b[31m\n\t| ` $ 名\ud800 " + "x" * 200
OUTCOMES = ("failure", "error", "skipped")
GATES = ["test_accuracy < 0.5", "test_accuracy < 0.95", "test_accuracy < 1.5"]
"""Of a, with an interval from 0.84 to 1.02: clear, undecided, triggered."""


def runs() -> list[RunSummary]:
    finished = [stored("a", seed, test=value) for seed, value in enumerate((0.90, 0.92, 0.97))]
    diverged = replace(stored("a", 3, status="diverged"), diverged_step=12)
    others = [stored("a", 4 + i, status=status) for i, status in enumerate(("failed", "interrupted"))]
    return [replace(finished[0], seconds=1.25), *finished[1:], diverged, *others]


def judged(texts: list[str]) -> list[GateResult]:
    return evaluate_gates(read_gates(texts), build_tables(runs()))


def cases(text: str) -> dict[str, tuple[str | None, ET.Element]]:
    """The outcome of each testcase."""
    found = {}
    for case in ET.fromstring(text.encode("utf-8")).iter("testcase"):
        outcomes = [child.tag for child in case if child.tag in OUTCOMES]
        assert len(outcomes) < 2
        found[str(case.get("name"))] = (outcomes[0] if outcomes else None, case)
    return found


GOLDEN = """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="initbench" tests="3" failures="1" errors="0" time="1.250">
  <testsuite name="initbench.runs" tests="2" failures="0" errors="0" skipped="1" time="1.250" \
timestamp="2026-01-02T03:04:05" hostname="box">
    <testcase classname="initbench.runs.a" name="a-s0" time="1.250">
      <system-out>a-s0-arm</system-out>
    </testcase>
    <testcase classname="initbench.runs.a" name="a-s3" time="0.000">
      <skipped message="diverged at step 12" />
      <system-out>a-s3-arm</system-out>
    </testcase>
  </testsuite>
  <testsuite name="initbench.gates" tests="1" failures="1" errors="0" skipped="0" time="0.000" \
timestamp="2026-01-02T03:04:05" hostname="box">
    <testcase classname="initbench.gates" name="test_accuracy &lt; 1.5" time="0.000">
      <failure message="triggered: test_accuracy &lt; 1.5" type="triggered">\
a (digits): test_accuracy = 0.93, 95 % interval 0.8404 to 1.02, n = 3, 1 run without a value (t): \
the whole interval is &lt; 1.5</failure>
    </testcase>
  </testsuite>
</testsuites>
"""


def test_golden():
    shown = [run for run in runs() if run.seed in (0, 3)]
    text = junit_xml(shown, judged(GATES[2:]), strict=False)
    written = datetime.now(UTC)
    stamps = re.findall(r'timestamp="([^"]*)" hostname="([^"]*)"', text)
    assert {host for _, host in stamps} == {socket.gethostname()}
    assert all(
        abs(written - datetime.fromisoformat(f"{when}+00:00")) < timedelta(minutes=1) for when, _ in stamps
    )
    fixed = 'timestamp="2026-01-02T03:04:05" hostname="box"'
    assert re.sub(r'timestamp="[^"]*" hostname="[^"]*"', fixed, text) == GOLDEN


def test_an_error_says_what_the_run_says():
    trace = "Traceback:\n" + "x" * MAX_ERROR_LENGTH + "\x1b\nValueError: <bad> & \x00 worse\n"
    failed = replace(stored("a", 0, status="failed"), error=trace)
    damaged = replace(stored("a", 1, status="damaged"), error="runs/a/layers.jsonl is damaged: line 3: no")
    silent = stored("a", 2, status="failed")
    found = cases(junit_xml([failed, damaged, silent], [], strict=False))
    errors = [case.find("error") for _, case in found.values()]
    said = [(str(e.get("message")), e.get("type"), e.text) for e in errors if e is not None]
    assert said[0][:2] == ("run failed: ValueError: <bad> & \ufffd worse", "failed")
    assert said[0][2] == replace_invalid_xml(trace[-MAX_ERROR_LENGTH:]) and "\x1b" not in str(said[0][2])
    assert said[1][:2] == ("run damaged: runs/a/layers.jsonl is damaged: line 3: no", "damaged")
    assert said[2] == ("run failed", "failed", None)


def test_equal_gates_have_names_of_their_own():
    found = cases(junit_xml([], judged([GATES[0]] * 3), strict=False))
    assert list(found) == [GATES[0], f"{GATES[0]} (2)", f"{GATES[0]} (3)"]


def test_names_outlive_a_change_of_the_code():
    """Each commit has other digests; CI tells testcases by their names."""
    before, now = (
        cases(junit_xml([replace(run, run_id=run.run_id + code) for run in runs()], [], strict=False))
        for code in ("0123456789", "abcdef0123")
    )
    assert list(before) == list(now)
    both = [stored("a", 0, arm=arm) for arm in ("one", "other")]
    assert list(cases(junit_xml(both, [], strict=False))) == ["a-s0", "a-s0 (2)"]


@pytest.mark.parametrize("strict", [False, True])
def test_what_was_not_judged_is_a_testcase(strict: bool):
    found = cases(junit_xml([], [], strict=strict, obstacles=["3 seeds are missing"]))
    ((outcome, case),) = found.values()
    assert outcome == ("failure" if strict else "skipped")
    assert "3 seeds are missing" in ET.tostring(case, encoding="unicode")
    (name,) = cases(junit_xml([], [GateResult(read_gates([], GATES[:1])[0], [])], strict=strict))
    assert name == f"fail unless {GATES[0]}"


def test_what_a_failure_says_is_said_once():
    found = cases(junit_xml([], judged(GATES), strict=False))
    assert [case.find("system-out") is None for _, case in found.values()] == [False, False, True]


@pytest.mark.parametrize(("strict", "undecided"), [(False, "skipped"), (True, "failure")])
def test_outcomes(strict: bool, undecided: str):
    found = {
        name: outcome for name, (outcome, _) in cases(junit_xml(runs(), judged(GATES), strict=strict)).items()
    }
    assert found == {
        "a-s0": None,
        "a-s1": None,
        "a-s2": None,
        "a-s3": "skipped",
        "a-s4": "error",
        "a-s5": "skipped",
        GATES[0]: None,
        GATES[1]: undecided,
        GATES[2]: "failure",
    }


def test_the_counts_are_those_of_the_testcases():
    """The schema requires these counts in testsuites, testsuite and testcase."""
    root = ET.fromstring(junit_xml(runs(), judged(GATES), strict=False).encode("utf-8"))
    assert root.tag == "testsuites" and [suite.tag for suite in root] == ["testsuite"] * 2
    for suite in root:
        assert set(suite.attrib) == {
            *("name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname")
        }
        assert int(suite.get("tests", "")) == len(suite) > 0
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(attribute, "")) == sum(case.find(tag) is not None for case in suite)
        for case in suite:
            assert set(case.attrib) == {"classname", "name", "time"}
            order = [child.tag for child in case]
            assert order == sorted(order, key=["skipped", "error", "failure", "system-out"].index)
    for total in ("tests", "failures", "errors"):
        assert int(root.get(total, "")) == sum(int(suite.get(total, "")) for suite in root)


def test_nasty_names_are_text():
    run = replace(stored("a", 0), run_id=NASTY, experiment=NASTY)
    (name, (outcome, case)) = next(iter(cases(junit_xml([run], [], strict=False)).items()))
    assert outcome is None and name == replace_invalid_xml(NASTY) + "-s0"
    assert "\x00" not in name and "\x1b" not in name and "\ud800" not in name and "<b>&" in name
    assert str(case.get("classname")).startswith("initbench.runs.<b>")


@given(st.text(alphabet=st.characters()))
def test_any_text_survives_but_for_what_xml_forbids(text: str):
    run = replace(stored("a", 0), experiment=text, run_id=text)
    parsed = ET.fromstring(junit_xml([run], [], strict=False).encode("utf-8"))
    (case,) = parsed.iter("testcase")
    assert case.get("name") == f"{replace_invalid_xml(text)}-s0"
    assert len(replace_invalid_xml(text)) == len(text)


def test_it_is_written_where_it_is_wanted(tmp_path: Path):
    path = tmp_path / "reports" / "junit.xml"
    write_junit(path, runs(), judged(GATES), strict=False)
    assert cases(path.read_text(encoding="utf-8"))
    with pytest.raises(StoreError, match="--junit-xml: cannot write"):
        write_junit(tmp_path, runs(), [], strict=False)
