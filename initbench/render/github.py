"""Output for GitHub Actions: a job summary in Markdown, and annotations.

The length of all output is limited, and names of runs and experiments are escaped so that GitHub interprets
none of them as markup or as a workflow command.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from initbench.analysis.gates.evaluate import GateResult, GateState
from initbench.analysis.regression.changes import Changes
from initbench.analysis.run_summary import RunSummary
from initbench.errors import StoreError
from initbench.render.gate_tables import case_lines, held_line, verdict_line
from initbench.render.regression import change_lines

Level = Literal["error", "warning", "notice"]

SUMMARY = "GITHUB_STEP_SUMMARY"
ACTIONS = "GITHUB_ACTIONS"
MAX_ANNOTATIONS = 10
"""Annotations per level; GitHub shows at most 10 of each level per step."""
MAX_BYTES = 60_000
MAX_MESSAGE_LENGTH = 4_000
_MARKUP = re.compile(r"[^\w\s.,;=%/−–≈…-]|[_\\]")
_SIGNS = {GateState.TRIGGERED: "❌", GateState.CLEAR: "✅", GateState.UNDECIDED: "⚠️"}


def workflow_commands(
    gates: Sequence[GateResult], runs: Sequence[RunSummary], *, strict: bool, obstacles: Sequence[str] = ()
) -> list[str]:
    """Return workflow commands: errors for failing gates, warnings for undecided gates and failed runs.

    Args:
        gates: Results of the gates.
        runs: Runs that the command used; each diverged run is a notice, each unfinished run a warning.
        strict: Whether undecided gates and obstacles are errors.
        obstacles: Reasons why a strict command fails regardless of its gates; one annotation each.
    """
    annotations: list[tuple[Level, str, str]] = [*_gate_annotations(gates, strict=strict)]
    annotations += [
        ("error" if strict else "warning", "initbench: not evaluated", line) for line in obstacles
    ]
    annotations += _run_annotations(runs)
    counts: Counter[str] = Counter()
    lines = []
    for level, title, message in annotations:
        counts[level] += 1
        if counts[level] <= MAX_ANNOTATIONS:
            lines.append(workflow_command(level, title, message))
    return lines


def _gate_annotations(gates: Sequence[GateResult], *, strict: bool) -> Iterator[tuple[Level, str, str]]:
    for judgement in gates:
        if judgement.state == GateState.CLEAR:
            continue
        level: Level = "error" if judgement.fails(strict=strict) else "warning"
        message = "\n".join([verdict_line(judgement), *case_lines(judgement)])
        yield level, f"initbench: gate {judgement.state}", message


def _run_annotations(runs: Sequence[RunSummary]) -> Iterator[tuple[Level, str, str]]:
    for run in runs:
        if run.status == "diverged":
            step = "" if run.diverged_step is None else f" at step {run.diverged_step}"
            yield "notice", "initbench: run diverged", f"{run.run_id} diverged{step}"
        elif not run.is_finished:
            why = (run.error or "").strip().splitlines()[-1:]
            yield (
                "warning",
                f"initbench: run {run.status}",
                ": ".join([f"{run.run_id} {run.status}", *why]),
            )


def workflow_command(level: Level, title: str, message: str) -> str:
    """Return a workflow command, escaped as GitHub requires: `%`, CR, LF; in properties also `:` and `,`."""
    escaped = _escape(message[:MAX_MESSAGE_LENGTH])
    return f"::{level} title={_escape(title).replace(':', '%3A').replace(',', '%2C')}::{escaped}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def job_summary(
    gates: Sequence[GateResult],
    runs: Sequence[RunSummary],
    changes: Changes | None,
    obstacles: Sequence[str] = (),
    *,
    command: str = "compare",
) -> str:
    """Return the job summary in Markdown, at most MAX_BYTES bytes long; `command` is its heading."""
    lines = [f"## initbench {command}", "", _runs_line(runs), ""]
    lines += [f"- {_SIGNS[GateState.UNDECIDED]} not evaluated: {escape_markdown(line)}" for line in obstacles]
    lines += [""] if obstacles else []
    if gates:
        lines += ["| | gate | why |", "| --- | --- | --- |", *map(_row, gates), ""]
    if changes is not None:
        lines += ["### Changes since the earlier state", ""]
        lines += [f"- {escape_markdown(line.strip())}" for line in change_lines(changes)]
    return _truncate(lines)


def _runs_line(runs: Sequence[RunSummary]) -> str:
    counts = Counter(run.status for run in runs)
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"{len(runs)} runs" + (f": {escape_markdown(statuses)}" if statuses else "")


def _row(judgement: GateResult) -> str:
    why = "<br>".join(escape_markdown(line) for line in [held_line(judgement), *case_lines(judgement)])
    return f"| {_SIGNS[judgement.state]} {judgement.state} | {escape_markdown(judgement.gate.text)} | {why} |"


def escape_markdown(text: str) -> str:
    """Return the text as one line of plain text for Markdown and HTML; signs become character references."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def _truncate(lines: Sequence[str]) -> str:
    size = 0
    complete_lines: list[str] = []
    for line in lines:
        size += len(line.encode("utf-8", "replace")) + 1
        if size > MAX_BYTES:
            return "\n".join([*complete_lines, "", "… the rest is omitted: the summary is too long.", ""])
        complete_lines.append(line)
    return "\n".join([*complete_lines, ""])


def wants_annotations(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the process runs in GitHub Actions."""
    return environment.get(ACTIONS) == "true"


def append_summary(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Append to the job summary, if there is one; raise StoreError if it cannot be written."""
    path = environment.get(SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{SUMMARY}: cannot write {path}: {error.strerror}") from None
