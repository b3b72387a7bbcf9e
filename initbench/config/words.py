"""Faults of a config in plain words: what was found, what belongs there, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from initbench.registry import nearest


def kind(value: Any) -> str:
    """What `value` is, as a noun for a message: `the text 'ten'`, `a list`."""
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value if len(value) <= 60 else value[:57] + '...'!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a mapping" if isinstance(value, dict) else "a list"


_PLAIN_WORDS = (
    (r"found character '\\t' that cannot.*", "a tab stands here; YAML is indented with spaces"),
    (r"found character ('.+') that cannot.*", r"\1 cannot begin a value; put the text in quotes"),
    (
        r"mapping values are not allowed here",
        "a ':' is not allowed here; check the indentation, or quote the text",
    ),
    (r"expected ',' or '\]', but got .*", "a ',' or ']' is missing in the list"),
    (r"expected ',' or '\}', but got .*", "a ',' or '}' is missing in the mapping"),
    (r"expected <block end>, but found .*", "the indentation does not fit the lines above"),
    (r"could not find expected ':'", "a key without ':'"),
    (r"expected '<document start>', but found .*", "the document has ended above; a config file holds one"),
    (r"expected the node content, but found '<stream end>'", "the text ends where a value belongs"),
    (r"expected the node content, but found (.*)", r"a value is missing before \1"),
    (r"found unexpected end of stream", "a quoted text is never closed"),
)


def syntax_problem(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML's scanner or parser found, in plain words."""
    problem = error.problem or error.context or "is not valid YAML"
    words = next((re.sub(old, new, problem) for old, new in _PLAIN_WORDS if re.match(old, problem)), problem)
    opened, found = error.context_mark, error.problem_mark
    if opened is None or found is None or opened.line == found.line:
        return words
    return f"{words} (it begins on line {opened.line + 1})"


def unknown_key(key: str, siblings: tuple[str, ...]) -> str:
    """The answer to a key that is not among `siblings`, the valid ones."""
    guess = nearest(key, siblings)
    if guess is not None:
        return f"unknown key; did you mean {guess!r}?"
    if "." in key:
        return "unknown key; in a file, keys are nested by indentation instead of dots"
    return f"unknown key; choose from {', '.join(siblings)}" if siblings else "unknown key"


def _other(message: str) -> str:
    """Pydantic's own sentence, shaped like ours."""
    for prefix, words in (
        ("Input should be ", "must be "),
        ("Value error, ", ""),
        ("Assertion failed, ", ""),
    ):
        if message.startswith(prefix):
            return words + message.removeprefix(prefix)
    return message[:1].lower() + message[1:]


_SENTENCES = {
    "missing": "this key is required",
    "greater_than": "must be greater than {gt}, is {value}",
    "greater_than_equal": "must be at least {ge}, is {value}",
    "less_than": "must be less than {lt}, is {value}",
    "less_than_equal": "must be at most {le}, is {value}",
    "multiple_of": "must be a multiple of {multiple_of}, is {value}",
    "finite_number": "must be a finite number, is {value}",
    "too_short": "must have at least {min_length} values, has {actual_length}",
    "too_long": "must have at most {max_length} values, has {actual_length}",
    "string_too_short": "must have at least {min_length} characters, has {length}",
    "string_too_long": "must have at most {max_length} characters, has {length}",
    "string_pattern_mismatch": "must match the pattern {pattern}, is {value!r}",
}


def sentence(entry: Any) -> str:
    """What one of pydantic's errors says, with the value and the bounds in it."""
    value = entry["input"]
    template = _SENTENCES.get(entry["type"])
    if template is None:
        return _other(entry["msg"])
    bounds = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in entry.get("ctx", {}).items()
    }
    text = template.format(value=value, length=len(str(value)), **bounds)
    return re.sub(r"\b1 (value|character)s", r"1 \1", text)


NOUNS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "string_type": "text",
    "none_required": "empty",
    "literal_error": "",
    "enum": "",
}


def mismatch(entries: Sequence[Any]) -> str:
    """`must be a whole number or 'auto', not the text 'aut'; did you mean 'auto'?`"""
    value = entries[0]["input"]
    nouns = dict.fromkeys(NOUNS[entry["type"]] or entry["ctx"]["expected"] for entry in entries)
    problem = f"must be {' or '.join(nouns)}, not {kind(value)}"
    hint = _hint(value, nouns)
    return f"{problem}; {hint}" if hint else problem


def _hint(value: Any, nouns: Mapping[str, None]) -> str | None:
    quoted = [text for noun in nouns for text in re.findall(r"'([^']*)'", noun)]
    if "text" in nouns:
        return None if isinstance(value, list | tuple | dict) else f"write {_as_text(value)}"
    if isinstance(value, str):
        return _meant(value, nouns) or (
            f"did you mean {guess!r}?" if (guess := nearest(value, quoted)) else None
        )
    if "a whole number" in nouns and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return None


def _as_text(value: Any) -> str:
    return "''" if value is None else repr(str(value).lower() if isinstance(value, bool) else str(value))


def _meant(value: str, nouns: Mapping[str, None]) -> str | None:
    """What to write where text stands for a truth value, a number or nothing."""
    word = value.strip().lower()
    if "true or false" in nouns and word in _TRUTH:
        return f"write {_TRUTH[word]}"
    bare = re.sub(r"(?<=\d)[_, '](?=\d)", "", word)
    pattern = {"a whole number": r"[-+]?\d+", "a number": r"[-+]?(\d++(\.\d*+)?|\.\d++)(e[-+]?\d++)?"}
    if any(re.fullmatch(pattern[noun], bare) for noun in nouns if noun in pattern):
        return f"write {bare}" if bare != word else f"write {bare} without quotes"
    return None


_TRUTH = {
    **dict.fromkeys(("yes", "on", "y", "true", "1"), "true"),
    **dict.fromkeys(("no", "off", "n", "false", "0"), "false"),
}
