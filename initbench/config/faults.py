"""Every fault of a config in plain words: what was found, what belongs there, the nearest name.

`explain` turns pydantic's list of errors into Faults. Pydantic's locations hold labels of
unions beside keys; the path a person can find is won back by walking the model's types.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from initbench.choice import Choice, options_model
from initbench.errors import Fault
from initbench.registry import nearest

Path = tuple[str | int, ...]
Where = Callable[[Path, bool], str]
"""(path, of the key rather than the value) -> the `where` of a Fault."""


def dotted(path: Sequence[str | int]) -> str:
    """A path as it is written on the command line: `model.norm.num_groups`."""
    return ".".join(str(part) for part in path)


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


@dataclass(frozen=True)
class Place:
    """Where one pydantic error belongs."""

    path: Path
    siblings: tuple[str, ...]
    """Keys that are valid beside the last one."""
    union: Path | None
    """The location up to the first union without a tag: its branches fail together."""


def locate(model: type[BaseModel], loc: Path) -> Place:
    """The path of keys for a pydantic location, without the labels of unions and choices."""
    nodes: list[Any] = [model]
    path: Path = ()
    siblings: tuple[str, ...] = ()
    union: Path | None = None
    for index, part in enumerate(loc):
        nodes = [inner for node in nodes for inner in _unwrap(node)]
        label = next((step for node in nodes if (step := _label(node, part)) is not None), None)
        if label is not None:
            if union is None and not any(isinstance(node, Choice) for node in nodes):
                union = loc[:index]
            nodes = label
            continue
        if part == "[key]":
            continue
        siblings = tuple(key for node in nodes for key in _keys(node))
        nodes = [child for node in nodes for child in _children(node, part)]
        path = (*path, part)
    return Place(path, siblings, union)


def _unwrap(node: Any) -> Iterator[Any]:
    """Take Annotated and `| None` off; a Choice in the annotation stands for the whole of it."""
    origin, arguments = get_origin(node), get_args(node)
    if origin is Annotated:
        choice = next((mark for mark in arguments[1:] if isinstance(mark, Choice)), None)
        yield from [choice] if choice is not None else _unwrap(arguments[0])
    elif origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        yield from _unwrap(members[0]) if len(members) == 1 else [_Branches(tuple(members))]
    else:
        yield node


@dataclass(frozen=True)
class _Branches:
    members: tuple[Any, ...]


def _label(node: Any, part: str | int) -> list[Any] | None:
    """What lies below `part` when it is a label that pydantic put in, else None."""
    if isinstance(node, _Branches):
        named = [member for member in node.members if getattr(member, "__name__", None) == part]
        return named or list(node.members)
    if isinstance(node, Choice) and part in node.registry:
        return [options_model(node.registry[str(part)], node.tag)]
    return None


def _is_model(node: Any) -> bool:
    return isinstance(node, type) and issubclass(node, BaseModel)


def _keys(node: Any) -> list[str]:
    return [info.alias or name for name, info in node.model_fields.items()] if _is_model(node) else []


def _children(node: Any, part: str | int) -> list[Any]:
    if _is_model(node):
        fields = {info.alias or name: info for name, info in node.model_fields.items()}
        info = fields.get(str(part))
        return [] if info is None else [Annotated[info.annotation, *info.metadata, "field"]]
    origin, arguments = get_origin(node), get_args(node)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [arguments[1]]
    if origin is tuple and Ellipsis not in arguments:
        return [arguments[part]] if isinstance(part, int) and part < len(arguments) else []
    return [arguments[0]] if arguments and isinstance(part, int) else []


def explain(error: ValidationError, model: type[BaseModel], where: Where) -> list[Fault]:
    """One Fault for each thing that `error` says is wrong with data meant for `model`."""
    groups: dict[Any, list[tuple[Place, Any]]] = {}
    for index, entry in enumerate(error.errors(include_url=False)):
        place = locate(model, entry["loc"])
        groups.setdefault(index if place.union is None else place.union, []).append((place, entry))
    return [fault for group in groups.values() for fault in _faults(group, where)]


def _faults(group: list[tuple[Place, Any]], where: Where) -> Iterator[Fault]:
    """Faults of one value: where all branches of a union refuse it, one sentence names them all."""
    top = min(len(place.path) for place, _ in group)
    specific = [pair for pair in group if pair[1]["type"] not in _NOUNS or len(pair[0].path) > top]
    if specific:
        yield from (_fault(place, entry, where) for place, entry in specific)
    else:
        place, problem = group[0][0], _mismatch([entry for _, entry in group])
        yield Fault(where(place.path, False), dotted(place.path), problem)


def _fault(place: Place, entry: Any, where: Where) -> Fault:
    path, code, ctx = place.path, entry["type"], entry.get("ctx", {})
    if code == "missing" and isinstance(path[-1], int):
        path, problem = path[:-1], f"needs more values, has {len(entry['input'])}"
    elif code == "extra_forbidden":
        problem = _unknown_key(str(path[-1]), place.siblings)
    elif code.startswith("choice_") or code == "key_fault":
        problem = str(ctx["problem"])
        path = _steps(ctx["key"]) if "key" in ctx else path + _steps(ctx.get("at", ""))
    elif code in _NOUNS:
        problem = _mismatch([entry])
    else:
        problem = _sentence(entry)
    return Fault(where(path, code == "extra_forbidden"), dotted(path), problem)


def _steps(key: str) -> Path:
    return tuple(int(part) if part.isdecimal() else part for part in key.split(".") if part)


def _unknown_key(key: str, siblings: tuple[str, ...]) -> str:
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


def _sentence(entry: Any) -> str:
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


_NOUNS = {
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


def _mismatch(entries: Sequence[Any]) -> str:
    """`must be a whole number or 'auto', not the text 'aut'; did you mean 'auto'?`"""
    value = entries[0]["input"]
    nouns = dict.fromkeys(_NOUNS[entry["type"]] or entry["ctx"]["expected"] for entry in entries)
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
    pattern = {"a whole number": r"[-+]?\d+", "a number": r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"}
    if any(re.fullmatch(pattern[noun], bare) for noun in nouns if noun in pattern):
        return f"write {bare}" if bare != word else f"write {bare} without quotes"
    return None


_TRUTH = {
    **dict.fromkeys(("yes", "on", "y", "true", "1"), "true"),
    **dict.fromkeys(("no", "off", "n", "false", "0"), "false"),
}
