"""The verdicts in words: what the diagnosis found in each row, and what the gates decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from initbench.analysis.metrics import METRICS
from initbench.render.compare.formatting import lettered_cell
from initbench.render.text import one_line, plural
from initbench.report.page import FoldedText, HtmlTable, ReportSection
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.views.gates import GateOutcome, gate_paragraphs, gate_tables
from initbench.report.views.runs import config_key
from initbench.report.views.sparklines import COLUMNS, NOTE, sparklines

MAX_EXPLANATIONS = 8
"""Largest number of findings above the table."""
_METRICS = ("test_accuracy", "best_val_accuracy", "steps_to_target")


def verdict_section(
    report: ReportRuns, gates: GateOutcome | None = None, failures: Sequence[str] = ()
) -> ReportSection:
    """Return the section with everything that failed, the gates, and one line for each row."""
    curves = sparklines(report)
    rows = [
        [
            row.name,
            _diagnosis(row),
            *curves[row.name],
            *(_mean(row, name) for name in _METRICS),
            _counts(row),
        ]
        for row in report.rows
    ]
    findings = _findings(report)
    more = len(findings) - MAX_EXPLANATIONS
    notes = [f"{plural(more, 'more finding')}: `initbench show` explains all."] if more > 0 else []
    return ReportSection(
        "verdict",
        "Verdict",
        paragraphs=[
            *(f"The command failed: {one_line(line)}." for line in failures),
            *(gate_paragraphs(gates) if gates else []),
        ],
        folds=findings[:MAX_EXPLANATIONS],
        tables=[
            *(gate_tables(gates) if gates else []),
            HtmlTable(
                [
                    "row",
                    "diagnosis",
                    *COLUMNS,
                    "test accuracy, %",
                    "best validation accuracy, %",
                    "steps to target",
                    "n",
                ],
                rows,
                [NOTE, *notes],
                [config_key(report, number) for number in range(len(report.rows))],
            ),
        ],
    )


def _diagnosis(row: ReportRow) -> str:
    complete = [run for run in row.summaries if run.is_complete]
    counts = Counter(code for run in complete for code in dict.fromkeys(run.diagnosis))
    if not counts:
        return "healthy" if complete else "not finished"
    return ", ".join(f"{code} ({count} of {len(complete)} seeds)" for code, count in counts.most_common())


def _mean(row: ReportRow, name: str) -> str:
    cell = lettered_cell(row.table, METRICS[name], row.row)
    return f"{cell.text} {cell.letters}".strip()


def _counts(row: ReportRow) -> str:
    words = [str(row.row.n)]
    words += [f"{row.row.diverged} diverged"] * bool(row.row.diverged)
    words += [f"{row.row.unfinished} unfinished"] * bool(row.row.unfinished)
    return ", ".join(words)


def _findings(report: ReportRuns) -> list[FoldedText]:
    """Return the findings of each row, those of the first run that has any; divergences come first."""
    pairs = []
    for row in report.rows:
        diagnoses = (run.record["diagnosis"] for run in row.runs if run.record.get("diagnosis"))
        findings: list[dict[str, Any]] = next(diagnoses, [])
        pairs += [(row.name, finding) for finding in findings if finding.get("level") != "note"]
    pairs.sort(key=lambda each: each[1]["code"] != "diverged")
    return [folded_finding(name, str(finding["code"]), finding["message"]) for name, finding in pairs]


def folded_finding(name: str, code: str, message: str) -> FoldedText:
    """Return a finding of a row.

    The first sentence of its message says what was measured, the others give the cause and the remedy.
    """
    words = code.replace("_", " ")
    measured, _, advice = one_line(message).partition(". ")
    return FoldedText(f"{name}: {words}: {measured.removesuffix('.')}.", advice)
