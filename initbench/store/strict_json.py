"""Strict JSON, which any parser accepts, with non-finite numbers as strings.

`dumps` writes NaN and the infinities as "NaN", "Infinity" and "-Infinity"; `parse_number` and
`parse_number_or_none` convert such a value back to a float.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_NESTING = 48
"""Maximum nesting depth of lists and mappings: several times that of any document in use."""
_TOO_DEEP = f"it is nested more than {MAX_NESTING} levels deep"
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"\\'))
_NESTING = frozenset((dict, list))
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> str:
    """Return `value` as one line of strict JSON, with keys in insertion order and tuples as lists.

    Raises TypeError for values that JSON cannot represent, and for non-finite keys.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # rare, as almost all documents are finite; only then pay for the slower conversion
        return json.dumps(_with_nonfinite_as_text(value), allow_nan=False)


def loads(text: str) -> Any:
    """Parse strict JSON that can be walked, printed and written again.

    Raises ValueError for anything else: the literals NaN and Infinity, nesting deeper than MAX_NESTING, and
    unpaired surrogates, which cannot be encoded in any output.
    """
    from pydantic_core import from_json

    try:  # takes half the time of the standard library, whose errors and limits apply where it fails
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        value = _load_by_standard_library(text)
    if _may_be_deep(text) and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _load_by_standard_library(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_reject_literal)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_number(value: object) -> float:
    """Return a number written by `dumps` as a float; raise ValueError for anything else, including None."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("not a number: it has hundreds of digits") from None
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise ValueError(f"not a number: {value!r}")


def parse_number_or_none(value: object) -> float | None:
    """Return `parse_number(value)`, or None for None."""
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
    """Return whether `text` may be nested deeper than MAX_NESTING, judged by its brackets only.

    Takes half the time of `_is_deep`. True, too, if a string contains a bracket or a backslash, as not all
    brackets cancel then.
    """
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _NO_BRACKETS).replace(b'""', b"")
    for _ in range(MAX_NESTING // 2):  # each iteration removes one or two levels
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
            if not _NESTING.isdisjoint(map(type, inner)):  # usually disjoint; checked without a Python loop
                below += [child for child in inner if type(child) in _NESTING]
        if not below:
            return False
        level = below
    return True


def _reject_literal(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")
