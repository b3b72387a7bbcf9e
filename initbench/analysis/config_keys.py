"""Dotted keys of runs: search, filtering with `--where`, and comparison of their values."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from initbench.analysis.run_summary import RunSummary
from initbench.errors import UsageError
from initbench.registry import nearest_name

_CONDITION = re.compile(r"([\w.-]+)\s*(!=|=)(.*)")


@dataclass(frozen=True)
class KeyFilter:
    """A condition of `--where`: a key has, or has not if `negated`, the value, which may be a glob."""

    key: str
    value: str
    negated: bool

    def matches_run(self, run: RunSummary) -> bool:
        """Return whether a run meets the condition; a missing key has the value null."""
        return self.matches_keys(run.keys)

    def matches_keys(self, keys: Mapping[str, Any]) -> bool:
        """Return whether a mapping of dotted keys to values meets the condition."""
        return _matches_value(keys.get(self.key), self.value) != self.negated


def parse_filters(texts: Sequence[str], runs: Sequence[RunSummary]) -> list[KeyFilter]:
    """Parse conditions `KEY=VALUE` and `KEY!=VALUE`; raise UsageError for a key that no run has."""
    return [_parse_filter(text, runs) for text in texts]


def _parse_filter(text: str, runs: Sequence[RunSummary]) -> KeyFilter:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--where takes KEY=VALUE or KEY!=VALUE, as in --where init.scheme=lsuv; got {text!r}"
        )
    key, sign, value = match.groups()
    return KeyFilter(resolve_key(key, runs, "--where"), value.strip(), negated=sign == "!=")


def resolve_key(key: str, runs: Sequence[RunSummary], option: str) -> str:
    """Return `key` if a run has it, or the key without a final `.name` (`data` for `data.name`).

    Raises:
        UsageError: No run has the key; the message suggests the nearest one.
    """
    all_keys = known_keys(runs)
    short = key.removesuffix(".name")
    if not runs or key in all_keys:
        return key
    if short in all_keys:
        return short
    same_leaf = [full for full in all_keys if full.rpartition(".")[2] == key]
    guess = same_leaf[0] if same_leaf else nearest_name(key, all_keys)
    hint = f"did you mean {guess!r}?" if guess else "see `initbench show RUN --json` for the keys of a run"
    raise UsageError(f"{option}: no stored run has the key {key!r}; {hint}")


def known_keys(runs: Iterable[RunSummary]) -> list[str]:
    """Return all keys that at least one run has, sorted."""
    return sorted({key for run in runs for key in run.keys})


def _matches_value(value: Any, wanted: str) -> bool:
    if value is None or isinstance(value, bool):
        return wanted.lower() == {None: "null", True: "true", False: "false"}[value]
    number = _parse_number(wanted)
    if isinstance(value, int | float) and number is not None:
        return bool(value == number)
    return _compile_glob(wanted).fullmatch(str(value)) is not None


@lru_cache(maxsize=64)
def _compile_glob(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def keys_that_differ(samples: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values differ between mappings, sorted; a missing key has the value None."""
    keys = sorted({key for sample in samples for key in sample})
    return [key for key in keys if len({repr(sample.get(key)) for sample in samples}) > 1]


def distinct_values(key: str, runs: Iterable[RunSummary]) -> Iterator[Any]:
    """Yield the distinct values that runs have for a key, in order of first occurrence."""
    seen_values: set[str] = set()
    for run in runs:
        value = run.keys.get(key)
        if repr(value) not in seen_values:
            seen_values.add(repr(value))
            yield value
