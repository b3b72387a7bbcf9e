"""One kind of registry for everything a config can name.

A new init scheme, activation, norm, optimizer, family or data set is one entry in one
file. Validation, the JSON Schema, the docs and the property tests iterate the registry.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError

from initbench.errors import UnknownNameError

MAX_NUMBER = 1e38
"""Largest size of a number with a fraction in a config: it is finite in float32."""
MAX_COUNT = 10**9
"""Largest number of steps, samples or the like in a config."""


class Section(BaseModel):
    """Base of every config object: frozen, strict, extra keys refused, fields documented."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*")
    @classmethod
    def _numbers_fit_float32(cls, value: Any) -> Any:
        """Refuse numbers that are infinite in float32, in which nets are drawn and trained."""
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in numbers:
            if isinstance(number, float) and abs(number) > MAX_NUMBER:
                problem = f"must be at most {MAX_NUMBER:g} in size, is {number:g}"
                raise PydanticCustomError("key_fault", "{problem}", {"problem": problem})
        return value


class Options(Section):
    """Options of one registry entry; a subclass adds a documented field for each."""

    name: str = ""
    """Name of the entry."""


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """What every registry entry states about itself."""

    name: str
    summary: str
    """One sentence: what it is and when it is right."""
    source: str
    """Author and year."""
    formula: str = ""
    options: type[Section] = field(default=Options)
    aliases: tuple[str, ...] = ()
    """Other names of the same thing, as torch, Keras and papers write it; each means this entry alone."""
    suggested_for: tuple[str, ...] = ()
    """Names that are not accepted, since they say less or more than `name`, but are answered with it."""


E = TypeVar("E", bound=RegistryEntry)


class Registry(Generic[E]):
    """Named entries of one kind.

    `kind` is the singular noun used in messages. When `package` is given, all its modules
    are imported at the first look-up, so that adding a file is enough to register what it holds.
    Entries are in the order of their modules' names, those of the module `first` before all others,
    whichever was imported early. `absent` are names of well-known things of this kind that
    are not offered, and that no offered name may be suggested for.

    A name is looked up as it is written, then without regard to case, `_`, `-` and blanks, then
    among the entries' aliases: `BatchNorm2d` and `batch_norm` are `batch`.
    """

    def __init__(
        self, kind: str, package: str | None = None, *, first: str = "", absent: Iterable[str] = ()
    ) -> None:
        self.kind = kind
        self._package = package
        self._first = first
        self._absent = frozenset(map(normalize_name, absent))
        self._entries: dict[str, E] = {}
        self._folded: dict[str, str] = {}
        self._origins: dict[str, tuple[str, int]] = {}

    def add(self, entry: E) -> E:
        """Register `entry`; a name or alias that is taken is a programming error."""
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is registered twice")
        for name in (entry.name, *entry.aliases):
            if self._folded.setdefault(normalize_name(name), entry.name) != entry.name:
                raise ValueError(f"{self.kind} {name!r} means {self._folded[normalize_name(name)]!r} already")
        self._entries[entry.name] = entry
        self._origins[entry.name] = _registering_statement()
        return entry

    def origin(self, name: str) -> tuple[str, int]:
        """Return the module that registered the entry, and a line of the statement that did."""
        self._discover()
        return self._origins[name]

    def __getitem__(self, name: str) -> E:
        """Return the entry that `name` means, or raise UnknownNameError with the nearest name."""
        canonical = self.canonical_name(name)
        if canonical is None:
            raise UnknownNameError(self.unknown_message(name))
        return self._entries[canonical]

    def __iter__(self) -> Iterator[E]:
        self._discover()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        """Whether an entry has exactly this name; aliases are for `canonical`."""
        self._discover()
        return name in self._entries

    def canonical_name(self, name: object) -> str | None:
        """The name of the entry that `name` means: its name or an alias, in any spelling; None for none."""
        self._discover()
        if not isinstance(name, str):
            return None
        return name if name in self._entries else self._folded.get(normalize_name(name))

    def unknown_message(self, name: str, noun: str = "") -> str:
        """Say that no entry is called `name`, and which are meant, are near or are there.

        `noun` stands for `kind` where a command has a shorter word for it.
        """
        noun = noun or self.kind
        self._discover()
        folded = normalize_name(name)
        meant = [entry.name for entry in self if folded in map(normalize_name, entry.suggested_for)]
        if meant:
            return f"unknown {noun} {name!r}; did you mean {' or '.join(map(repr, meant))}?"
        spellings: dict[str, str] = {}
        if folded not in self._absent:
            for entry in self:
                for spelling in (entry.name, *entry.aliases, *entry.suggested_for):
                    spellings.setdefault(normalize_name(spelling), entry.name)
        close = difflib.get_close_matches(folded, spellings, n=1, cutoff=_CUTOFF)
        if close:
            return f"unknown {noun} {name!r}; did you mean {spellings[close[0]]!r}?"
        return f"unknown {noun} {name!r}; choose from {', '.join(self.names())}"

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def names(self) -> list[str]:
        """All names, in order."""
        return [entry.name for entry in self]

    def _discover(self) -> None:
        if self._package is None:
            return
        package, self._package = importlib.import_module(self._package), None
        names = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        for name in names:
            importlib.import_module(name)
        first = f"{package.__name__}.{self._first}"
        by_module = sorted(
            self._entries, key=lambda entry: (self._origins[entry][0] != first, self._origins[entry][0])
        )
        self._entries = {name: self._entries[name] for name in by_module}


_CUTOFF = 0.5
"""Least likeness, from 0 to 1, of a name that is suggested."""


def normalize_name(name: str) -> str:
    """`name` without case and without anything but letters and digits: `Batch_Norm` as `batchnorm`."""
    return re.sub(r"[\W_]+", "", name.casefold())


def missing_space_advice(text: str) -> str | None:
    """Return what to write for `depth:3`, which YAML reads as one word; None for other text."""
    pair = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*):([^\s/:][^\n]*)", text.strip())
    return f"a space is missing behind ':'; write {pair[1]}: {pair[2]}" if pair else None


def _registering_statement() -> tuple[str, int]:
    """The module whose import is adding an entry, and the line that it has reached."""
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals["__name__"]), frame.f_lineno


def nearest_name(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when none is near."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=_CUTOFF)
    return folded[close[0]] if close else None


def unknown_name_message(kind: str, name: str, choices: Iterable[str]) -> str:
    """The sentence that answers an unknown name: the nearest one, or all there are."""
    choices = list(choices)
    guess = nearest_name(name, choices)
    if guess is not None:
        return f"unknown {kind} {name!r}; did you mean {guess!r}?"
    return f"unknown {kind} {name!r}; choose from {', '.join(choices)}"
