"""Messages for faults of a config: what was found, what is expected, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from initbench.registry import missing_space_advice, nearest_name, normalize_name


def yaml_type_name(value: Any) -> str:
    """Describe `value` as a noun for a message: `the text 'ten'`, `a list`."""
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
    """Describe an error of PyYAML's scanner or parser in plain words."""
    problem = error.problem or error.context or "is not valid YAML"
    words = next((re.sub(old, new, problem) for old, new in _PLAIN_WORDS if re.match(old, problem)), problem)
    context_mark, problem_mark = error.context_mark, error.problem_mark
    if (spaced := _missing_space_near(context_mark, problem_mark)) is not None:
        return spaced
    if context_mark is None or problem_mark is None or context_mark.line == problem_mark.line:
        return words
    return f"{words} (it begins on line {context_mark.line + 1})"


def _missing_space_near(*marks: yaml.Mark | None) -> str | None:
    """Return advice if a line at one of the marks, or right above, lacks a space after its key."""
    for mark in marks:
        if mark is None or mark.buffer is None:
            continue
        lines = mark.buffer.rstrip("\0").split("\n")
        for number in (mark.line, mark.line - 1):
            if 0 <= number < len(lines) and (spaced := missing_space_advice(lines[number].strip(" -"))):
                return f"{spaced} (line {number + 1})"
    return None


_KEY_WORDS = {
    "lr": "learning_rate, step_size, eta, learn_rate",
    "batch_size": "batchsize, bs, minibatch, batch",
    "epochs": "epoch, n_epochs, num_epochs, max_epochs",
    "steps": "iterations, iters, max_steps, num_steps, n_steps, updates, max_iter",
    "weight_decay": "wd, l2, decay, l2_penalty",
    "optimizer": "optim, opt, optimiser",
    "schedule": "scheduler, lr_schedule, lr_scheduler, learning_rate_schedule",
    "clip_norm": "clip, grad_clip, clip_grad, gradient_clipping, clip_grad_norm, max_norm, max_grad_norm",
    "warmup_steps": "warmup, warm_up",
    "precision": "dtype, amp",
    "activation": "act, act_fn, activation_fn, activation_function, nonlinearity, non_linearity",
    "norm": "normalization, normalisation, norm_layer, batchnorm, batch_norm, layer_norm",
    "depth": "layers, num_layers, n_layers, hidden_layers, num_hidden_layers",
    "width": "hidden, hidden_size, hidden_dim, units, neurons, num_hidden, features, hidden_units",
    "scheme": "name, method, type, initializer, distribution",
    "family": "name, type, arch, architecture, net, network",
    "init": "initialization, initialisation, initializer, weight_init",
    "data": "dataset, data_set",
    "model": "net, network, arch, architecture",
    "train": "training, fit, optimization",
    "seeds": "seed, n_seeds, num_seeds, repeats",
    "val_fraction": "val_split, validation_split, validation_fraction, valid_fraction",
    "normalize": "normalise, standardize, standardise, scale",
    "path": "file, filename",
    "num_groups": "groups, n_groups",
}
"""Keys, and their names in other libraries."""
_OF_THE_OPTIMIZER = ("momentum", "nesterov", "beta1", "beta2", "betas")


def unknown_key(
    key: str, siblings: Sequence[str], *, prefix: Sequence[str] = (), suffix: Sequence[str] = ()
) -> str:
    """Return the message for a key that is not among `siblings`, the valid ones.

    `prefix` and `suffix`: the other parts of a dotted key that the user wrote, which the suggestion repeats.
    """
    if (spaced := missing_space_advice(key)) is not None:
        return f"unknown key; {spaced}"
    word = normalize_name(key)
    if key in _OF_THE_OPTIMIZER and "optimizer" in siblings:
        return f"unknown key; it is an option of the optimizer: optimizer: {{name: ..., {key}: ...}}"
    synonym = next(
        (sibling for sibling in siblings if word in map(normalize_name, _spellings(sibling))), None
    )
    guess = synonym or nearest_name(key, siblings)
    if guess is not None:
        return f"unknown key; did you mean {'.'.join([*prefix, guess, *suffix])!r}?"
    return f"unknown key; choose from {', '.join(siblings)}" if siblings else "unknown key"


def dotted_key_in_file(meant: Sequence[str]) -> str:
    """Return the message for a dotted key in a file; `meant`: the valid keys nearest to its parts, if any."""
    problem = "unknown key; in a file, keys are nested by indentation instead of dots"
    return f"{problem}: write {': {'.join(meant)}: …{'}' * (len(meant) - 1)}" if meant else problem


def _spellings(key: str) -> list[str]:
    return [key, *_KEY_WORDS.get(key, "").split(", ")]


def _reworded(message: str) -> str:
    """Rewrite a message of pydantic in the style of initbench."""
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


def issue_text(entry: Any) -> str:
    """Return the message for one pydantic error, with the value and the bounds."""
    value = entry["input"]
    template = _SENTENCES.get(entry["type"])
    if template is None:
        return _reworded(entry["msg"])
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


def type_mismatch(entries: Sequence[Any]) -> str:
    """Return a message such as `must be a whole number or 'auto', not the text 'aut'`, plus any hint."""
    value = entries[0]["input"]
    nouns = dict.fromkeys(NOUNS[entry["type"]] or entry["ctx"]["expected"] for entry in entries)
    problem = f"must be {' or '.join(nouns)}, not {yaml_type_name(value)}"
    hint = _hint(value, nouns)
    return f"{problem}; {hint}" if hint else problem


def _hint(value: Any, nouns: Mapping[str, None]) -> str | None:
    quoted = [text for noun in nouns for text in re.findall(r"'([^']*)'", noun)]
    if "text" in nouns:
        return None if isinstance(value, list | tuple | dict) else f"write {_as_text(value)}"
    if isinstance(value, str):
        meant = missing_space_advice(value) if "a mapping" in nouns else _suggested_value(value, nouns)
        return meant or (f"did you mean {guess!r}?" if (guess := closest_spelling(value, quoted)) else None)
    if "a whole number" in nouns and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return None


def closest_spelling(word: str, choices: Sequence[str]) -> str | None:
    """Return the choice of which `word` is a misspelling, if any; `fp16` does not count as one of `bf16`."""
    folded = {normalize_name(choice): choice for choice in choices}
    swapped = [
        choice for spelling, choice in folded.items() if sorted(spelling) == sorted(normalize_name(word))
    ]
    close = difflib.get_close_matches(normalize_name(word), folded, n=1, cutoff=0.8)
    return swapped[0] if swapped else folded[close[0]] if close else None


def _as_text(value: Any) -> str:
    return "''" if value is None else repr(str(value).lower() if isinstance(value, bool) else str(value))


def _suggested_value(value: str, nouns: Mapping[str, None]) -> str | None:
    """Return advice for text that was meant as a truth value, a number or a list."""
    word = value.strip()
    if "true or false" in nouns and word.lower() in _TRUTH:
        return f"write {_TRUTH[word.lower()]}"
    numbers = [number for number in _readings(word) if _fits(number, nouns)]
    items = _items(word) if "a list" in nouns else None
    if items and (len(items) > 1 or list(nouns) == ["a list"]):
        numbers.append(f"[{', '.join(items)}]")
    if not numbers:
        return None
    return f"write {' or '.join(dict.fromkeys(numbers))}" + (" without quotes" if numbers == [word] else "")


_PLAIN_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_THOUSANDS = ((",", "."), (".", ","), (" ", ".,"), ("'", ".,"))
"""Thousands separators, each with its possible decimal points."""


def _readings(word: str) -> list[str]:
    """Return the numbers that `word` may mean, in YAML notation.

    A comma is a decimal comma or a thousands separator; `1,500` may be either.
    """
    sign, digits = (word[0], word[1:]) if word[:1] in ("-", "+") else ("", word)
    readings = []
    for mark, points in _THOUSANDS:
        groups = rf"[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+(?:[{points}]\d+)?"
        is_decimal = mark == "." and re.fullmatch(_PLAIN_NUMBER, digits) is not None
        if re.fullmatch(groups, digits) and not is_decimal:
            readings.append(digits.replace(mark, "").replace(",", "."))
    if re.fullmatch(r"\d+(?:_\d+)+", digits):
        readings.append(digits.replace("_", ""))
    if re.fullmatch(r"\d+,\d+(?:[eE][-+]?\d+)?", digits):
        readings.append(digits.replace(",", "."))
    if re.fullmatch(_PLAIN_NUMBER, digits):
        readings.append(digits)
    if (percent := re.fullmatch(r"(\d{1,9}(?:[.,]\d{1,9})?)\s*%", digits)) is not None:
        readings.append(f"{float(percent[1].replace(',', '.')) / 100:g}")
    return [sign.strip("+") + re.sub(r"^0+(?=\d)", "", reading) for reading in readings]


def _fits(number: str, nouns: Mapping[str, None]) -> bool:
    return "a number" in nouns or ("a whole number" in nouns and re.fullmatch(r"-?\d+", number) is not None)


def _items(word: str) -> list[str] | None:
    """Return the items of a list written without brackets or in round ones: `1,2,3`, `1 2 3`, `(1, 2)`."""
    inner = word[1:-1] if word[:1] + word[-1:] == "()" else word
    items = [item for item in re.split(r"[,;\s]+", inner) if item]
    if any(re.match(r"[-+]?0\d", item) for item in items):  # the decimals of one number
        return None
    if not all(re.fullmatch(rf"{_PLAIN_NUMBER}|[A-Za-z_]\w*", item) for item in items):
        return None
    return [item.removeprefix("+") for item in items]


_TRUTH = {
    **dict.fromkeys(("yes", "on", "y", "true", "1"), "true"),
    **dict.fromkeys(("no", "off", "n", "false", "0"), "false"),
}
