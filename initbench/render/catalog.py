"""Catalogue of all registry entries and diagnoses, as plain data and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from rich.console import Console
from torch import nn

from initbench.components.activation import ACTIVATIONS, Activation, BoundActivation, bound
from initbench.components.init_scheme import INITS, Scheme
from initbench.components.norm import Norm
from initbench.config import registry_fields
from initbench.config.fields import default_value, type_words
from initbench.errors import UnknownNameError
from initbench.linting.rule import LINT_RULES, LintRule
from initbench.models.init_weights import rule_for_module
from initbench.probing.diagnosis import DIAGNOSTICS
from initbench.probing.finding import DiagnosisCode
from initbench.registry import RegistryEntry, nearest_name, normalize_name, unknown_name_message
from initbench.registry_choice import default_choice
from initbench.render.terminal import print_uncut
from initbench.render.text import DASH
from initbench.render.text_table import TextTable
from initbench.runner.workers.base import EXECUTORS, Executor

SCHEMA = "initbench.catalog/1"
EXAMPLE_FANS = (128, 64)
"""(fan_in, fan_out) of the example layer of init schemes."""

_SHORT = {"init scheme": "init", "model family": "family", "data set": "dataset"}
_FIRST = ("inits", "activations", "norms")


@dataclass(frozen=True)
class CatalogKind:
    """Entries of one kind, e.g. activations or diagnostics."""

    singular: str
    title: str
    entries: tuple[RegistryEntry, ...]
    field: registry_fields.RegistryField | None
    """Config field that names an entry; None if no config names entries of this kind."""

    @property
    def word(self) -> str:
        """Name of the kind on the command line, e.g. `norms` or `families`."""
        stem = self.singular
        return stem[:-1] + "ies" if stem.endswith("y") else stem + "s"


def catalog_kinds() -> list[CatalogKind]:
    """Return all kinds: those of a config (inits, activations, norms first), executors, diagnostics."""
    registry_kinds = [
        CatalogKind(_SHORT.get(noun := field.registry.kind, noun), field.title, tuple(field.registry), field)
        for field in registry_fields.registry_fields()
    ]
    registry_kinds.sort(key=lambda kind: _FIRST.index(kind.word) if kind.word in _FIRST else len(_FIRST))
    executors = CatalogKind(EXECUTORS.kind, "Executors", tuple(EXECUTORS), None)
    return [*registry_kinds, executors, CatalogKind("diagnostic", "Diagnostics", tuple(DIAGNOSTICS), None)]


def lint_codes() -> CatalogKind:
    """Return the kind of lint codes, which is not one of `catalog_kinds`; docs/lint.md lists them."""
    return CatalogKind("lint code", "Lint codes", tuple(LINT_RULES), None)


def kind_of(word: str) -> CatalogKind:
    """Return the kind called `word`, singular or plural.

    Raises:
        UnknownNameError: If there is no such kind; the message suggests the nearest.
    """
    all_kinds = [*catalog_kinds(), lint_codes()]
    for kind in all_kinds:
        if word in (kind.word, kind.singular):
            return kind
    raise UnknownNameError(unknown_name_message("kind", word, [kind.word for kind in all_kinds]))


def find_entries(name: str, word: str | None = None) -> list[tuple[CatalogKind, RegistryEntry]]:
    """Return all entries called `name`, or the entries called `kind/name`.

    Aliases and other spellings count only if no name matches exactly.

    Raises:
        UnknownNameError: If there is no such entry; the message suggests the nearest name.
    """
    prefix, slash, suffix = name.partition("/")
    if slash and word is None:
        name, word = suffix, prefix
    searched_kinds = [*catalog_kinds(), lint_codes()] if word is None else [kind_of(word)]
    entries = [(kind, entry) for kind in searched_kinds for entry in kind.entries]
    matches = [pair for pair in entries if pair[1].name == name]
    matches = matches or [
        pair for pair in entries if normalize_name(name) in map(normalize_name, _spellings(pair[1]))
    ]
    if not matches:
        raise UnknownNameError(_unknown(name, searched_kinds, is_one_kind=word is not None), name)
    return matches


def _spellings(entry: RegistryEntry) -> tuple[str, ...]:
    return (entry.name, *entry.aliases)


def _unknown(name: str, among: list[CatalogKind], *, is_one_kind: bool) -> str:
    if is_one_kind and among[0].field is not None:
        return among[0].field.registry.unknown_message(name, among[0].singular)
    if is_one_kind:
        return unknown_name_message(among[0].singular, name, [entry.name for entry in among[0].entries])
    entries = [entry for kind in among for entry in kind.entries]
    meant = [
        f"{kind.word}/{entry.name}"
        for kind in among
        for entry in kind.entries
        if normalize_name(name) in map(normalize_name, entry.suggested_for)
    ]
    if meant:
        return f"unknown name {name!r}; did you mean {' or '.join(meant)}?"
    names = {spelling: entry.name for entry in entries for spelling in _spellings(entry)}
    guess = nearest_name(name, names)
    hint = f"did you mean {names[guess]!r}?" if guess else "`initbench catalog` lists all names"
    return f"unknown name {name!r}; {hint}"


def catalog_document(selected_kinds: list[CatalogKind]) -> dict[str, Any]:
    """Return the catalogue as one JSON document."""
    return {
        "schema": SCHEMA,
        **{kind.word: [describe(kind, entry) for entry in kind.entries] for kind in selected_kinds},
    }


def describe(kind: CatalogKind, entry: RegistryEntry) -> dict[str, Any]:
    """Return an entry as plain data: the keys of every entry, then those of its kind."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "formula": entry.formula,
        "source": "" if entry.source == "-" else entry.source,
        "options": describe_options(kind, entry),
        "aliases": list(entry.aliases),
        **entry_facts(entry),
    }


def describe_options(kind: CatalogKind, entry: RegistryEntry) -> dict[str, dict[str, Any]]:
    """Return type, default and description of each option of the entry."""
    tag = kind.field.tag if kind.field else "name"
    return {
        key: {
            "type": type_words(field),
            "required": field.is_required(),
            "default": default_value(field),
            "description": " ".join((field.description or "").split()),
        }
        for key, field in entry.options.model_fields.items()
        if key != tag
    }


@singledispatch
def entry_facts(entry: Any) -> dict[str, Any]:
    """Return the keys that only entries of this kind have; empty unless registered for the type."""
    del entry
    return {}


@entry_facts.register
def _(entry: Activation) -> dict[str, Any]:
    own = bound(entry.name)
    return {
        "gain": own.preserving_gain,
        "kaiming_gain": own.kaiming_gain,
        "bounded": entry.bounded,
        "saturates": entry.saturates,
        "kinks": list(entry.kinks),
        "elementwise": entry.elementwise,
    }


@entry_facts.register
def _(entry: Scheme) -> dict[str, Any]:
    return {"needs": str(entry.needs), "has_gain": entry.default_gain is not None}


@entry_facts.register
def _(entry: Norm) -> dict[str, Any]:
    return {"axes": list(entry.axes), "min_batch": entry.min_batch}


@entry_facts.register
def _(entry: Executor) -> dict[str, Any]:
    return {"devices": list(entry.devices)}


@entry_facts.register
def _(entry: DiagnosisCode) -> dict[str, Any]:
    return {
        "level": entry.level,
        "measure": entry.measure,
        "threshold": entry.threshold,
        "limit": entry.limit,
        "cause": entry.cause,
        "cure": entry.cure,
        "hides": list(entry.hides),
    }


@entry_facts.register
def _(entry: LintRule) -> dict[str, Any]:
    return {"level": entry.level, "limit": entry.limit, "cure": entry.cure}


def sigma_w2(scheme: Scheme, fan_in: int, fan_out: int, activation: BoundActivation) -> float | None:
    """Return fan_in times the weight variance of a hidden layer, for default gain and options.

    None if the scheme states no variance, or has none for this activation.
    """
    module = nn.Linear(fan_in, fan_out, bias=False, device="meta")
    try:
        value = rule_for_module(module, default_choice(INITS, scheme.name), None, activation, 2).sigma_w2
    except ValueError:  # `critical`: not every activation has a critical point
        return None
    return value if value is not None and math.isfinite(value) else None


def growth_factors(scheme: Scheme, width: int) -> Iterator[tuple[str, float]]:
    """Yield for each activation the q after a wide layer without biases whose input has q = 1: σ_w² E[φ(z)²].

    `width` is the number of units. An activation with more output than input channels increases the fan_in
    of the next layer.
    """
    for entry in ACTIVATIONS:
        activation = bound(entry.name)
        fan_out = entry.features_in(width, activation.options)
        fan_in = entry.features_out(width, activation.options)
        drawn = sigma_w2(scheme, fan_in, fan_out, activation)
        if drawn is not None:
            yield entry.name, activation.length_map(1.0, sigma_w2=drawn)


_COLUMNS = ("name", "formula", "description", "source")


def print_catalogue(console: Console, selected_kinds: Sequence[CatalogKind], width: int | None) -> None:
    """Print a table per kind, fitted to `width` columns; None for lines of any length."""
    for position, kind in enumerate(selected_kinds):
        key = f"  {kind.field.key}" if kind.field else ""
        console.print(("\n" if position else "") + kind.title + key, style="bold")
        print_uncut(console, _grid(kind, width).table())


def _grid(kind: CatalogKind, width: int | None) -> TextTable:
    """Return a table with a line per entry; if it is too wide, formula and source move to a second line."""
    rows = [describe(kind, entry) for entry in kind.entries]
    wide = TextTable(_COLUMNS, left_aligned=_COLUMNS)
    for row in rows:
        wide.add([row["name"], row["formula"] or DASH, row["summary"], row["source"] or DASH])
    empty = [heading for heading in ("formula", "source") if not any(row[heading] for row in rows)]
    wide = wide.without(empty)
    if width is None or wide.width <= width:
        return wide
    columns = ("name", f"description{''.join(f', {h}' for h in ('formula', 'source') if h not in empty)}")
    tall = TextTable(columns, left_aligned=columns)
    for row in rows:
        tall.add([row["name"], row["summary"]])
        below = "   ".join(filter(None, (row["formula"], row["source"])))
        if below:
            tall.add(["", below], "dim")
    return tall.wrapped(width)
