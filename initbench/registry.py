"""One kind of registry for everything a config can name.

A new init scheme, activation, norm, optimizer, family or data set is one entry in one
file. Validation, the JSON Schema, the docs and the property tests iterate the registry.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError

from initbench.errors import UnknownNameError

MAX_NUMBER = 1e15
"""Largest size of a number with a fraction in a config: weights and updates of it are finite in float32."""
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
        """Refuse numbers whose products, such as lr times weight_decay, overflow float32."""
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
class Entry:
    """What every registry entry states about itself."""

    name: str
    summary: str
    """One sentence: what it is and when it is right."""
    source: str
    """Author and year."""
    formula: str = ""
    options: type[Section] = field(default=Options)


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Named entries of one kind.

    `kind` is the singular noun used in messages. When `package` is given, all its modules
    are imported at the first look-up, so that adding a file is enough to register what it holds.
    Entries are in the order of their modules' names, those of the module `first` before all others,
    whichever was imported early.
    """

    def __init__(self, kind: str, package: str | None = None, *, first: str = "") -> None:
        self.kind = kind
        self._package = package
        self._first = first
        self._entries: dict[str, E] = {}
        self._modules: dict[str, str] = {}

    def add(self, entry: E) -> E:
        """Register `entry`; a name that is taken is a programming error."""
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry
        self._modules[entry.name] = sys._getframe(1).f_globals["__name__"]
        return entry

    def __getitem__(self, name: str) -> E:
        """Return the entry called `name`, or raise UnknownNameError with the nearest name."""
        self._discover()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(unknown_name(self.kind, name, self._entries)) from None

    def __iter__(self) -> Iterator[E]:
        self._discover()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

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
            self._entries, key=lambda entry: (self._modules[entry] != first, self._modules[entry])
        )
        self._entries = {name: self._entries[name] for name in by_module}


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when none is near."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """The sentence that answers an unknown name: the nearest one, or all there are."""
    choices = list(choices)
    guess = nearest(name, choices)
    if guess is not None:
        return f"unknown {kind} {name!r}; did you mean {guess!r}?"
    return f"unknown {kind} {name!r}; choose from {', '.join(choices)}"
