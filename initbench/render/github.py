"""What GitHub Actions shows: a summary of the job in Markdown, and annotations.

Everything that is written there is bounded, and escaped so that no name of a run or of an experiment is
taken for markup or for a command.
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
"""Of each level: GitHub shows no more of a step."""
MAX_BYTES = 60_000
MAX_MESSAGE_LENGTH = 4_000
_MARKUP = re.compile(r"[^\w\s.,;=%/−–≈…-]|[_\\]")
_SIGNS = {GateState.TRIGGERED: "❌", GateState.CLEAR: "✅", GateState.UNDECIDED: "⚠️"}


def workflow_commands(
    gates: Sequence[GateResult], runs: Sequence[RunSummary], *, strict: bool, obstacles: Sequence[str] = ()
) -> list[str]:
    """Workflow commands: gates that fail as errors, undecided ones and runs that failed as warnings.

    `obstacles`: what keeps a strict command from passing whatever its gates say; an error each.
    """
    annotations: list[tuple[Level, str, str]] = [*_gate_annotations(gates, strict=strict)]
    annotations += [("error" if strict else "warning", "initbench: not judged", line) for line in obstacles]
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
                ": ".join([f"{run.run_id} is {run.status}", *why]),
            )


def workflow_command(level: Level, title: str, message: str) -> str:
    """One workflow command, escaped by GitHub's rules: `%`, CR and LF; in properties `:` and `,` too."""
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
    """Return the job's summary in Markdown, of at most MOST_BYTES bytes; `command` is its heading."""
    lines = [f"## initbench {command}", "", _runs_line(runs), ""]
    lines += [f"- {_SIGNS[GateState.UNDECIDED]} not judged: {escape_markdown(line)}" for line in obstacles]
    lines += [""] if obstacles else []
    if gates:
        lines += ["| | gate | why |", "| --- | --- | --- |", *map(_row, gates), ""]
    if changes is not None:
        lines += ["### Against the earlier state", ""]
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
    """Text as one line that Markdown and HTML take for nothing but text: signs become references."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def _truncate(lines: Sequence[str]) -> str:
    size = 0
    complete_lines: list[str] = []
    for line in lines:
        size += len(line.encode("utf-8", "replace")) + 1
        if size > MAX_BYTES:
            return "\n".join([*complete_lines, "", "… and more: the summary is cut off here.", ""])
        complete_lines.append(line)
    return "\n".join([*complete_lines, ""])


def wants_annotations(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether GitHub Actions runs this."""
    return environment.get(ACTIONS) == "true"


def append_summary(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Add to the job's summary, where there is one. Raises StoreError where it cannot be written."""
    path = environment.get(SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{SUMMARY}: cannot write {path}: {error.strerror}") from None
