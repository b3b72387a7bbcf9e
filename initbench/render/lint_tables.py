"""Output of `initbench lint`: each finding with its code, a sentence and a fix."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from initbench.diagnostics.lint_report import LintReport
from initbench.render import text
from initbench.render.terminal import print_uncut
from initbench.store import strict_json

SCHEMA = "initbench.lint/1"
_STYLES = {"warning": "bold yellow", "note": "bold"}


def print_lint(console: Console, linted: LintReport) -> None:
    """Print a heading, the findings, and how many there are."""
    parts = [
        text.plural(linted.layers, "weight layer"),
        text.plural(len(linted.seeds), "net"),
        f"{linted.samples} samples",
        "not trained",
    ]
    lines = [Text.assemble((linted.target, "bold"), "   ", " · ".join(parts)), Text("")]
    for finding in linted.findings:
        head = f"{finding.level} {finding.code}: "
        lines.append(Text.assemble((head, _STYLES[finding.level]), finding.message.sentence))
        lines.append(Text(f"    {finding.fix}"))
    lines += [Text(f"not traced: {name} ({why})") for name, why in linted.unseen.items()]
    if len(lines) > 2:
        lines.append(Text(""))
    lines.append(_count(linted))
    for line in lines:
        print_uncut(console, line)


def _count(linted: LintReport) -> Text:
    levels = [finding.level for finding in linted.findings]
    warnings, notes = levels.count("warning"), levels.count("note")
    coverage = linted.coverage
    if not levels:
        return Text(coverage.verdict) if coverage.verdict else Text("nothing found", style="green")
    counted = f"{text.plural(warnings, 'warning')}, {text.plural(notes, 'note')}"
    return Text(counted if coverage.is_complete else f"{counted} in {coverage.share}; {coverage.gaps}")


def lint_document(linted: LintReport) -> dict[str, Any]:
    """Return the findings as plain data, in the schema initbench.lint/1."""
    return {
        "schema": SCHEMA,
        "target": linted.target,
        "layers": linted.layers,
        "seeds": list(linted.seeds),
        "samples": linted.samples,
        "findings": [finding.as_data() for finding in linted.findings],
        "coverage": linted.coverage.as_data(),
        "unseen": [{"parameter": name, "why": why} for name, why in linted.unseen.items()],
    }


def lint_json(linted: LintReport) -> str:
    """Return the document as strict JSON."""
    return strict_json.dumps(lint_document(linted))
