"""Rules about the input and about non-finite numbers, which apply before any layer is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget
from initbench.probing.diagnosis import CODES
from initbench.probing.finding import Finding
from initbench.probing.initial_conditions import condition_findings
from initbench.probing.input_checks import LARGE, LARGE_COLUMN, SMALL
from initbench.probing.nonfinite_causes import HUGE


def _finding(target: LintTarget, code: str) -> Finding | None:
    """Return the first finding with this code of any net, or None."""
    for net in target.nets:
        layers = {use.name: use.index for use in reversed(net.trace.uses)}
        for finding in condition_findings(net.conditions, layers):
            if finding.code == code:
                return finding
    return None


def _check(code: str) -> Callable[[LintTarget], Iterator[LintMessage]]:
    """Return a function that reports the diagnosis of the same code, with its last sentence as the fix."""

    def look(target: LintTarget) -> Iterator[LintMessage]:
        finding = _finding(target, code)
        if finding is None:
            return
        sentence, _, fix = finding.message.removesuffix(".").rpartition(". ")
        names = [use.name for use in target.uses if use.index == finding.layer]
        yield LintMessage(f"{sentence}.", f"{fix}.", tuple(names), target.ways.get(code, ()))

    return look


_CODES = {code.name: code for code in CODES}

LINT_RULES.add(
    LintRule(
        name="not_finite",
        summary="A weight, buffer or input contains NaN or an infinity (−∞ in a buffer counts as a mask), a"
        f" weight has an entry beyond {HUGE:g}, or an operation of the pass returns non-finite numbers.",
        source="IEEE 754",
        level="warning",
        limit=_CODES["not_finite"].limit,
        cure=_CODES["not_finite"].cure,
        look=_check("not_finite"),
    )
)
LINT_RULES.add(
    LintRule(
        name="samples_alike",
        summary="All samples of the batch are identical.",
        source="",
        level="warning",
        limit=_CODES["samples_alike"].limit,
        cure=_CODES["samples_alike"].cure,
        look=_check("samples_alike"),
    )
)
LINT_RULES.add(
    LintRule(
        name="input_scale",
        summary=f"The input of the first layer has E[x²] > {LARGE:g} or < {SMALL:g}, or a column with"
        f" more than {LARGE_COLUMN:,.0f}, and no norm after that layer removes the scale.",
        source="LeCun et al. 1998",
        level="warning",
        limit=_CODES["input_scale"].limit,
        cure=_CODES["input_scale"].cure,
        look=_check("input_scale"),
    )
)
