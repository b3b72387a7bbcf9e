"""Rule about nets of which too little could be traced for a judgement."""

from __future__ import annotations

from collections.abc import Iterator

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget


def _unseen(target: LintTarget) -> Iterator[LintMessage]:
    coverage = target.nets[0].coverage
    if not coverage.is_slight:
        return
    names = tuple(name for _, group in coverage.unseen for name in group)
    amount = "Nothing" if coverage.measured == 0 else f"Only {coverage.share}"
    reasons = f": {coverage.gaps}" if coverage.gaps else ""
    yield LintMessage(
        f"{amount} could be traced{reasons}.",
        "Multiply by weights with torch's functions or modules, outside of scripted and transformed"
        " functions, or check these weights in another way.",
        names,
    )


LINT_RULES.add(
    LintRule(
        name="unseen",
        summary="Fewer than half of the weights could be traced, so a clean result is not informative.",
        source="",
        level="warning",
        limit="fewer than 50 % of the weights traced, or none",
        cure="Multiply by weights with torch's functions or modules, outside of scripted and transformed"
        " functions, or check these weights in another way.",
        look=_unseen,
        needs_uses=False,
    )
)
