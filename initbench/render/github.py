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
    found: list[tuple[Level, str, str]] = [*_of_gates(gates, strict=strict)]
    found += [("error" if strict else "warning", "initbench: not judged", line) for line in obstacles]
    found += _of_runs(runs)
    shown: Counter[str] = Counter()
    lines = []
    for level, title, message in found:
        shown[level] += 1
        if shown[level] <= MAX_ANNOTATIONS:
            lines.append(command(level, title, message))
    return lines


def _of_gates(gates: Sequence[GateResult], *, strict: bool) -> Iterator[tuple[Level, str, str]]:
    for judgement in gates:
        if judgement.state == GateState.CLEAR:
            continue
        level: Level = "error" if judgement.fails(strict=strict) else "warning"
        message = "\n".join([verdict_line(judgement), *case_lines(judgement)])
        yield level, f"initbench: gate {judgement.state}", message


def _of_runs(runs: Sequence[RunSummary]) -> Iterator[tuple[Level, str, str]]:
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


def command(level: Level, title: str, message: str) -> str:
    """One workflow command, escaped by GitHub's rules: `%`, CR and LF; in properties `:` and `,` too."""
    escaped = _escaped(message[:MAX_MESSAGE_LENGTH])
    return f"::{level} title={_escaped(title).replace(':', '%3A').replace(',', '%2C')}::{escaped}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def summary(
    gates: Sequence[GateResult],
    runs: Sequence[RunSummary],
    changes: Changes | None,
    obstacles: Sequence[str] = (),
    *,
    command: str = "compare",
) -> str:
    """Return the job's summary in Markdown, of at most MOST_BYTES bytes; `command` is its heading."""
    lines = [f"## initbench {command}", "", _runs_line(runs), ""]
    lines += [f"- {_SIGNS[GateState.UNDECIDED]} not judged: {markdown(line)}" for line in obstacles]
    lines += [""] if obstacles else []
    if gates:
        lines += ["| | gate | why |", "| --- | --- | --- |", *map(_row, gates), ""]
    if changes is not None:
        lines += ["### Against the earlier state", ""]
        lines += [f"- {markdown(line.strip())}" for line in change_lines(changes)]
    return _bounded(lines)


def _runs_line(runs: Sequence[RunSummary]) -> str:
    counts = Counter(run.status for run in runs)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"{len(runs)} runs" + (f": {markdown(said)}" if said else "")


def _row(judgement: GateResult) -> str:
    why = "<br>".join(markdown(line) for line in [held_line(judgement), *case_lines(judgement)])
    return f"| {_SIGNS[judgement.state]} {judgement.state} | {markdown(judgement.gate.text)} | {why} |"


def markdown(text: str) -> str:
    """Text as one line that Markdown and HTML take for nothing but text: signs become references."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)


def _bounded(lines: Sequence[str]) -> str:
    size = 0
    kept: list[str] = []
    for line in lines:
        size += len(line.encode("utf-8", "replace")) + 1
        if size > MAX_BYTES:
            return "\n".join([*kept, "", "… and more: the summary is cut off here.", ""])
        kept.append(line)
    return "\n".join([*kept, ""])


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
