"""The decision of `sweep --until`, and what it means for the other intervals of the page."""

from __future__ import annotations

from initbench.analysis.gates.evaluate import GateResult
from initbench.render.stopping_rule import decision_lines
from initbench.render.text import one_line
from initbench.report.page import ReportSection
from initbench.study.run_study import SweepResult
from initbench.study.stopping_rule import StoppingRule


def decision_section(result: SweepResult, rule: StoppingRule, judgement: GateResult) -> ReportSection:
    """Return a section with what was decided, after how many seeds, and by which intervals."""
    lines = [one_line(line.strip()) for line in decision_lines(result, rule, judgement)]
    return ReportSection("until", "Seeds as needed", paragraphs=lines)
