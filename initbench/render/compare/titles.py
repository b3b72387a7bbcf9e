"""Titles of tables, and the reason why there are several tables."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.analysis.grouping import TableConditions
from initbench.analysis.tables import Table
from initbench.render import text

_DIGITS = 8
"""Displayed digits of a fingerprint, enough to distinguish data sets of the same name."""


def table_title(table: Table, tables: Sequence[Table]) -> str:
    """Return the title: data set, conditions that differ from other tables, and number of rows."""
    terms = table.conditions
    words = [text.one_line(terms.dataset)]
    if len({other.conditions.fingerprint for other in tables if other.dataset == terms.dataset}) > 1:
        words[0] += f" {text.one_line(terms.fingerprint or 'unknown')[:_DIGITS]}"
    differing = _differing([other.conditions for other in tables])
    words += [
        _format_condition(terms, name) for name in ("steps", "batch_size", "precision") if name in differing
    ]
    noun = "row" if table.by else "experiment"
    return " · ".join(words) + f"   {text.plural(len(table.rows), noun)}"


def distinguishing_terms(table: Table, tables: Sequence[Table]) -> str:
    """Return the conditions that distinguish a table, as in `40 steps`; empty for a single table."""
    (name, *words) = table_title(table, tables).rpartition("   ")[0].split(" · ")
    is_apart = len({(other.dataset, other.fingerprint) for other in tables}) > 1
    return ", ".join([*([name] if is_apart else []), *words])


def why_separate(tables: Sequence[Table]) -> str | None:
    """Return the reason why runs are split into several tables; None for a single table."""
    if len(tables) < 2:
        return None
    reasons = []
    terms = [table.conditions for table in tables]
    differing = _differing(terms)
    if "dataset" in differing or "fingerprint" in differing:
        names = list(dict.fromkeys(text.one_line(value.dataset) for value in terms))
        reasons.append(
            "different data: " + (_join_words(names) if len(names) > 1 else f"several versions of {names[0]}")
        )
    if "steps" in differing:
        steps = sorted({value.steps or 0 for value in terms})
        reasons.append(f"different budget: {_join_words([f'{value:,}' for value in steps])} steps")
    if "batch_size" in differing:
        sizes = sorted({value.batch_size or 0 for value in terms})
        reasons.append(f"different batch size: {_join_words([f'{value:,}' for value in sizes])}")
    if "precision" in differing:
        reasons.append(
            "different precision: " + _join_words(sorted({text.one_line(value.precision) for value in terms}))
        )
    return f"{len(tables)} tables, because their runs cannot be averaged: {'; '.join(reasons)}."


def _differing(terms: Sequence[TableConditions]) -> set[str]:
    names = ("dataset", "fingerprint", "precision", "steps", "batch_size")
    return {name for name in names if len({getattr(table_terms, name) for table_terms in terms}) > 1}


def _format_condition(terms: TableConditions, name: str) -> str:
    number = getattr(terms, name)
    if name == "precision":
        return text.one_line(str(number))
    if number is None:
        return "steps unknown" if name == "steps" else "batch size unknown"
    return text.plural(number, "step") if name == "steps" else f"batch {number:,}"


def _join_words(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
