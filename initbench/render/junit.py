"""JUnit reports with a test case for each run and for each gate.

A finished run passes; a failed or damaged run is an error. A run that diverged or is unfinished is skipped,
which CI displays without failing: divergence is a result, and gates decide whether it is a bad one.
A triggered gate is a failure. An undecided gate is skipped, unless it fails the command.
Any other reason why a strict command fails (missing runs, rows in one state only) is a failure of its own.

CI identifies a test case by its name over time, so names contain no digest, which changes with the code.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from initbench.analysis.gates.evaluate import GateResult, GateState
from initbench.analysis.run_summary import RunSummary
from initbench.errors import StoreError
from initbench.render.gate_tables import case_lines, gate_name, verdict_line

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot represent, not even escaped."""
_ERRORS = ("failed", "damaged")
MAX_ERROR_LENGTH = 8_000
"""Limit for the error text of a run; its end is kept, where a traceback names the cause."""


def write_junit(
    path: Path,
    runs: Sequence[RunSummary],
    gates: Sequence[GateResult],
    *,
    strict: bool,
    obstacles: Sequence[str] = (),
) -> None:
    """Write the report; raise StoreError if the file cannot be written."""
    text = junit_xml(runs, gates, strict=strict, obstacles=obstacles)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"--junit-xml: cannot write {path}: {error.strerror}") from None


def junit_xml(
    runs: Sequence[RunSummary], gates: Sequence[GateResult], *, strict: bool, obstacles: Sequence[str] = ()
) -> str:
    """Return the report as XML, in the schema that Jenkins, GitLab and actions of GitHub read.

    Args:
        runs: Runs; one test case each.
        gates: Results of the gates; one test case each.
        strict: Whether undecided gates and obstacles are failures.
        obstacles: Reasons why a strict command fails regardless of its gates.
    """
    gate_names = _distinct(gate_name(gate.gate) for gate in gates)
    run_names = _distinct(f"{run.experiment}-s{run.seed}" for run in runs)
    suites = [
        _suite("initbench.runs", [_run(run, name) for run, name in zip(runs, run_names, strict=True)]),
        _suite(
            "initbench.gates",
            [_gate(gate, name, strict=strict) for gate, name in zip(gates, gate_names, strict=True)],
        ),
    ]
    if obstacles:
        suites.append(_suite("initbench.strict", [_obstacle_case(obstacles, strict=strict)]))
    root = ET.Element("testsuites", {"name": "initbench", **_counts(suites)})
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """Yield unique names, numbering repeated ones: CI identifies test cases by name."""
    counts: Counter[str] = Counter()
    for name in names:
        counts[name] += 1
        yield name if counts[name] == 1 else f"{name} ({counts[name]})"


def _suite(name: str, cases: Sequence[ET.Element]) -> ET.Element:
    attributes = {
        "name": name,
        "tests": str(len(cases)),
        "failures": _count(cases, "failure"),
        "errors": _count(cases, "error"),
        "skipped": _count(cases, "skipped"),
        "time": f"{sum(float(case.get('time', '0')) for case in cases):.3f}",
        # Time and host of the report; the schema has no time zone, so the time is UTC.
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": replace_invalid_xml(socket.gethostname()),
    }
    suite = ET.Element("testsuite", attributes)
    suite.extend(cases)
    return suite


def _count(cases: Sequence[ET.Element], outcome: str) -> str:
    return str(sum(case.find(outcome) is not None for case in cases))


def _counts(suites: Sequence[ET.Element]) -> dict[str, str]:
    names = ("tests", "failures", "errors")
    whole = {name: str(sum(int(suite.get(name, "0")) for suite in suites)) for name in names}
    return {**whole, "time": f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}"}


def _case(classname: str, name: str, seconds: float | None) -> ET.Element:
    attributes = {
        "classname": replace_invalid_xml(classname),
        "name": replace_invalid_xml(name),
        "time": f"{seconds or 0.0:.3f}",
    }
    return ET.Element("testcase", attributes)


def _run(run: RunSummary, name: str) -> ET.Element:
    # Report viewers split class names into folders at dots.
    case = _case(f"initbench.runs.{run.experiment.replace('.', '_')}", name, run.seconds)
    _outcome(case, run)
    ET.SubElement(case, "system-out").text = replace_invalid_xml(run.run_id)
    return case


def _outcome(case: ET.Element, run: RunSummary) -> ET.Element:
    if run.is_finished:
        return case
    if run.status in _ERRORS:
        return _add_outcome(
            case, "error", _failure_message(run), run.status, (run.error or "")[-MAX_ERROR_LENGTH:]
        )
    if run.status == "diverged":
        step = "" if run.diverged_step is None else f" at step {run.diverged_step}"
        return _add_outcome(case, "skipped", f"diverged{step}")
    return _add_outcome(case, "skipped", f"not finished: {run.status}")


def _failure_message(run: RunSummary) -> str:
    """Return the status of a run and the last line of its error, which in a traceback names the cause."""
    error_lines = (run.error or "").strip().splitlines()
    return f"run {run.status}" + (f": {error_lines[-1][-MAX_ERROR_LENGTH:]}" if error_lines else "")


def _gate(judgement: GateResult, name: str, *, strict: bool) -> ET.Element:
    case = _case("initbench.gates", name, None)
    lines = "\n".join(case_lines(judgement))
    if judgement.fails(strict=strict):
        return _add_outcome(case, "failure", verdict_line(judgement), str(judgement.state), lines)
    if judgement.state == GateState.UNDECIDED:
        _add_outcome(case, "skipped", verdict_line(judgement))
    ET.SubElement(case, "system-out").text = replace_invalid_xml(lines)
    return case


def _obstacle_case(obstacles: Sequence[str], *, strict: bool) -> ET.Element:
    case = _case("initbench.strict", "evidence is complete", None)
    lines = "\n".join(obstacles)
    if strict:
        return _add_outcome(case, "failure", obstacles[0], "undecided", lines)
    return _add_outcome(case, "skipped", lines)


def _add_outcome(case: ET.Element, outcome: str, message: str, kind: str = "", text: str = "") -> ET.Element:
    attributes = {"message": replace_invalid_xml(message), **({"type": kind} if kind else {})}
    ET.SubElement(case, outcome, attributes).text = replace_invalid_xml(text) or None
    return case


def replace_invalid_xml(text: str) -> str:
    """Replace the characters that XML cannot represent by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)
