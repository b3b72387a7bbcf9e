"""Was enough of the net looked at to say anything of it?"""

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
        f"{amount} could be looked at{reasons}.",
        "Write what multiplies by a weight with torch's functions or modules, outside of scripted and"
        " transformed functions; or judge these weights by other means.",
        names,
    )


LINT_RULES.add(
    LintRule(
        name="unseen",
        summary="Fewer than half of the weights were looked at, so that finding nothing says nothing.",
        source="",
        level="warning",
        limit="fewer than 50 % of the weights seen, or none",
        cure="Write what multiplies by a weight with torch's functions or modules, outside of scripted and"
        " transformed functions; or judge these weights by other means.",
        look=_unseen,
        needs_uses=False,
    )
)
