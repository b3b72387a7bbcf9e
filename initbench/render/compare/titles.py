"""What the runs of a table share, and why there are several tables."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.analysis.grouping import TableConditions
from initbench.analysis.tables import Table
from initbench.render import text

_DIGITS = 8
"""As much of a fingerprint as tells data sets of one name apart."""


def title(table: Table, tables: Sequence[Table]) -> str:
    """The data set, whatever else sets this table apart from others, and how many rows it has."""
    terms = table.terms
    words = [text.one_line(terms.dataset)]
    if len({one.terms.fingerprint for one in tables if one.dataset == terms.dataset}) > 1:
        words[0] += f" {(terms.fingerprint or 'unknown')[:_DIGITS]}"
    differing = _differing([one.terms for one in tables])
    words += [_said(terms, name) for name in ("steps", "batch_size", "precision") if name in differing]
    noun = "row" if table.by else "experiment"
    return " · ".join(words) + f"   {text.plural(len(table.rows), noun)}"


def distinction(table: Table, tables: Sequence[Table]) -> str:
    """What sets a table apart from others: `40 steps`, or a name of its data; empty for the only one."""
    (name, *words) = title(table, tables).rpartition("   ")[0].split(" · ")
    is_apart = len({(one.dataset, one.fingerprint) for one in tables}) > 1
    return ", ".join([*([name] if is_apart else []), *words])


def why_separate(tables: Sequence[Table]) -> str | None:
    """Why runs stand in several tables; None for one."""
    if len(tables) < 2:
        return None
    reasons = []
    terms = [table.terms for table in tables]
    differing = _differing(terms)
    if "dataset" in differing or "fingerprint" in differing:
        names = list(dict.fromkeys(text.one_line(one.dataset) for one in terms))
        reasons.append(
            "different data: " + (_listed(names) if len(names) > 1 else f"{names[0]} of two kinds")
        )
    if "steps" in differing:
        steps = sorted({one.steps or 0 for one in terms})
        reasons.append(f"different budget: {_listed([f'{one:,}' for one in steps])} steps")
    if "batch_size" in differing:
        sizes = sorted({one.batch_size or 0 for one in terms})
        reasons.append(f"different batch size: {_listed([f'{one:,}' for one in sizes])}")
    if "precision" in differing:
        reasons.append("different precision: " + _listed(sorted({one.precision for one in terms})))
    return f"{len(tables)} tables, since unlike runs are not averaged: {'; '.join(reasons)}."


def _differing(terms: Sequence[TableConditions]) -> set[str]:
    names = ("dataset", "fingerprint", "precision", "steps", "batch_size")
    return {name for name in names if len({getattr(one, name) for one in terms}) > 1}


def _said(terms: TableConditions, name: str) -> str:
    number = getattr(terms, name)
    if name == "precision":
        return str(number)
    if number is None:
        return "steps unknown" if name == "steps" else "batch size unknown"
    return text.plural(number, "step") if name == "steps" else f"batch {number:,}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
