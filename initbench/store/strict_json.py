"""Strict JSON: what any parser accepts, with non-finite numbers as strings.

`dumps` writes NaN and the infinities as "NaN", "Infinity" and "-Infinity"; `number` and
`parse_number_or_none` read such a value back as a float.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_NESTING = 48
"""Lists and mappings within each other, at the most: some times what any document has."""
_TOO_DEEP = f"it is nested more than {MAX_NESTING} deep"
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"\\'))
_NESTING = frozenset((dict, list))
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> str:
    """Return `value` as one line of strict JSON, keys in the order of insertion, tuples as lists.

    Raises TypeError for a value, or a non-finite key, that JSON has no form for.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # only now is the slower walk worth its time: almost every document is finite
        return json.dumps(_with_nonfinite_as_text(value), allow_nan=False)


def loads(text: str) -> Any:
    """Parse strict JSON that can be walked, printed and written again.

    Raises ValueError for anything else: the literals NaN and Infinity, nesting
    deeper than DEEPEST, and half of a surrogate pair, which no output can be encoded with.
    """
    try:
        value = json.loads(text, parse_constant=_reject_literal)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _may_be_deep(text) and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def parse_number(value: object) -> float:
    """Return a number that `dumps` wrote as a float; raises ValueError for anything else, None included."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("not a number: it has hundreds of digits") from None
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise ValueError(f"not a number: {value!r}")


def parse_number_or_none(value: object) -> float | None:
    """Return `number(value)`, or None for None."""
    return None if value is None else parse_number(value)


def _with_nonfinite_as_text(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else _nonfinite_text(value)
    if isinstance(value, dict):
        return {_check_key(key): _with_nonfinite_as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nonfinite_as_text(item) for item in value]
    return value


def _nonfinite_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _check_key(key: Any) -> Any:
    if isinstance(key, float) and not math.isfinite(key):
        raise TypeError(f"a JSON key cannot be {key!r}")
    return key


def _may_be_deep(text: str) -> bool:
    """Whether `text` may be nested deeper than DEEPEST, by its brackets: in half the time of a walk.

    Where a string holds a bracket or a backslash, something is left over, and the answer is yes.
    """
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _NO_BRACKETS).replace(b'""', b"")
    for _ in range(MAX_NESTING // 2):  # each time, one or two levels go
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return True


def _is_deep(value: Any) -> bool:
    level = [value] if type(value) in _NESTING else []
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for item in level:
            inner = item.values() if type(item) is dict else item
            if not _NESTING.isdisjoint(map(type, inner)):  # most have none, and this sees it without a loop
                below += [child for child in inner if type(child) in _NESTING]
        if not below:
            return False
        level = below
    return True


def _reject_literal(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")
