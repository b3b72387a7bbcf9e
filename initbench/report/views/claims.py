"""The claims of lessons, with their verdicts and the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.render.lesson_tables import claim_evidence, verdict_counts
from initbench.render.text import one_line
from initbench.report.page import HtmlTable, ReportSection
from initbench.study.run_study import LessonResult
from initbench.study.verdicts import ClaimResult


def claim_sections(results: Sequence[LessonResult]) -> list[ReportSection]:
    """Return a section for each lesson, with a row for each claim."""
    return [_section(result, is_only=len(results) == 1) for result in results]


def _section(result: LessonResult, *, is_only: bool) -> ReportSection:
    config = result.study.config
    question = "" if is_only else config.question  # that of a single lesson is the heading of the page
    prose = (question, config.source, config.notes.strip(), f"{verdict_counts(result.claims)}.")
    return ReportSection(
        "claims" if is_only else f"claims-{config.name}",
        "Claims" if is_only else f"Claims of {config.name}",
        paragraphs=[one_line(text) for text in prose if text],
        tables=[
            HtmlTable(
                ["claim", "verdict", "condition", "numbers"],
                [_row(claim, config.source) for claim in result.claims],
            )
        ],
    )


def _row(result: ClaimResult, source: str) -> list[str]:
    claim = result.claim
    says = claim.says if claim.source in ("", source) else f"{claim.says} ({claim.source})"
    return list(map(one_line, (says, str(result.verdict), claim.holds_if, "; ".join(claim_evidence(result)))))
