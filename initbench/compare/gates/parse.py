"""Text to tree. What cannot be read is answered by the column, what was expected there, and the nearest name.

Brings lark, and is imported only when a gate is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import cast

from lark import Lark, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from initbench.compare.gates.builder import FaultError, builder
from initbench.compare.gates.grammar import GRAMMAR
from initbench.compare.gates.tree import Node
from initbench.errors import UsageError

LONGEST = 2000
"""Characters of a gate: far more than a person writes."""

_EXPECTED = {
    "NUMBER": "a number",
    "REFERENCE": "a metric (or row.metric)",
    "RELATION": "one of < <= > >= == !=",
    "NEAR": "≈",
    "PLUS": "+ − × ÷",
    "_WITHIN": "within",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "[",
    "RSQB": "]",
    "DOT": ".",
    "INTEGER": "the number of a layer",
    "WORD": "a name",
    "_AND": "and",
    "_OR": "or",
    "_NOT": "not",
    "__ANON_0": "@",
    "AT": "@",
    "$END": "the end",
}
"""What is said for a terminal; those not listed go without saying beside one of these."""

_MEANT = {"=": "; equality is ==", "&": "; write: and", "|": "; write: or", "!": "; write: not"}


def parse(text: str, option: str = "--fail-if") -> Node:
    """The condition that `text` states. Raises UsageError, with the column, for what is none."""
    if len(text) > LONGEST:
        raise UsageError(f"{option}: a gate has at most {LONGEST} characters; this one has {len(text)}")
    try:
        return condition(text)
    except FaultError as fault:
        raise UsageError(f"{option}: {pointed(text, fault.column, str(fault))}") from None


def condition(text: str) -> Node:
    """The same; raises FaultError."""
    try:
        return cast(Node, _lark().parse(text))
    except VisitError as error:
        if not isinstance(error.orig_exc, FaultError):
            raise
        raise error.orig_exc from None
    except UnexpectedInput as error:
        raise FaultError(*_unexpected(error, text)) from None


def pointed(text: str, column: int, problem: str) -> str:
    """The problem, and below it the gate with a caret under the column, which counts from 0."""
    line = "".join(c if c.isprintable() else " " for c in text)
    start = max(0, column - 60)
    shown = ("…" if start else "") + line[start : start + 100] + ("…" if len(line) > start + 100 else "")
    return f"column {column + 1}: {problem}\n  {shown}\n  {' ' * (column - start + bool(start))}^"


def _unexpected(error: UnexpectedInput, text: str) -> tuple[int, str]:
    if isinstance(error, UnexpectedToken):
        ended = error.token.type == "$END"
        column = len(text.rstrip()) if ended else int(error.token.start_pos or 0)
        found = "the end" if ended else repr(str(error.token))
        return column, f"expected {_listed(error.accepts or error.expected)}, found {found}"
    assert isinstance(error, UnexpectedCharacters)
    column = int(error.pos_in_stream or 0)
    character = text[column]
    if character in "\"'":
        return column, "a quoted name has no end"
    return column, f"{character!r} means nothing here" + _MEANT.get(character, "")


def _listed(terminals: Iterable[str]) -> str:
    found = set(terminals)
    said = [words for name, words in _EXPECTED.items() if name in found]
    return " or ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or "something else"


@lru_cache(maxsize=1)
def _lark() -> Lark:
    return Lark(GRAMMAR, parser="lalr", transformer=builder(), maybe_placeholders=False)
