"""Registry class for everything that a config can name.

A new init scheme, activation, norm, optimizer, family or data set is one entry in one file.
Validation, the JSON Schema, the docs and the property tests iterate over the registry.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError

from initbench import plugins
from initbench.errors import NameTakenError, UnknownNameError

MAX_NUMBER = 1e38
"""Largest absolute value of a float in a config; it is finite in float32."""
MAX_COUNT = 10**9
"""Largest count in a config, such as a number of steps or samples."""


class Section(BaseModel):
    """Base class of every config object: frozen and strict, without extra keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,  # until the first value, so that plug-ins can import every module of initbench
    )

    @field_validator("*")
    @classmethod
    def _numbers_fit_float32(cls, value: Any) -> Any:
        """Reject numbers that are infinite in float32, the precision of nets and training."""
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in numbers:
            if isinstance(number, float) and abs(number) > MAX_NUMBER:
                problem = f"must be at most {MAX_NUMBER:g} in size, is {number:g}"
                raise PydanticCustomError("key_fault", "{problem}", {"problem": problem})
        return value


class Options(Section):
    """Options of one registry entry; a subclass adds one documented field per option."""

    name: str = ""
    """Name of the entry."""


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """Metadata of a registry entry."""

    name: str
    summary: str
    """One sentence that describes the entry and when to use it."""
    source: str
    """Author and year."""
    formula: str = ""
    options: type[Section] = field(default=Options)
    aliases: tuple[str, ...] = ()
    """Other accepted names of this entry, as used by torch, Keras and papers."""
    suggested_for: tuple[str, ...] = ()
    """Names that are rejected as ambiguous or too specific, with this entry as the suggestion."""
    chosen_by: str = ""
    """Option of the command line that chooses this entry, such as `--model MODULE:FUNCTION`, if any."""


E = TypeVar("E", bound=RegistryEntry)


class Registry(Generic[E]):
    """Named entries of one kind.

    A name is looked up as written, then without case, `_`, `-` and spaces, and finally among the aliases of
    the entries: `BatchNorm2d` and `batch_norm` mean `batch`.

    Args:
        kind: Singular noun for messages.
        package: Package whose modules are all imported at the first lookup, so that a new file needs no
            other registration. Entries are sorted by the names of their modules.
        first: Module whose entries precede all others.
        absent: Names of well-known components that are not available; no similar name is suggested for them.
        group: Plural of the kind: plug-ins add entries by an entry point in `initbench.GROUP`. Empty for
            registries without plug-ins.
        extend: Function that adds further entries, called once after the plug-ins.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        *,
        first: str = "",
        absent: Iterable[str] = (),
        group: str = "",
        extend: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self._extend = extend
        self.group = group
        self._package = package
        self._first = first
        self._has_package = False
        self._is_complete = False
        self._absent = frozenset(map(normalize_name, absent))
        self._entries: dict[str, E] = {}
        self._folded: dict[str, str] = {}
        self._origins: dict[str, tuple[str, int]] = {}

    def add(self, entry: E, origin: tuple[str, int] | None = None) -> E:
        """Register `entry`.

        Args:
            entry: The entry.
            origin: Module and line of the code of the entry; by default the module whose import calls this
                method.

        Raises:
            NameTakenError: If its name or an alias is taken.
        """
        module, line = origin or _registering_statement()
        if not _is_built_in(module):
            self.import_package()  # so that an entry of a plug-in never takes the name of a built-in one
        names = (entry.name, *entry.aliases)
        for name in names:
            self._check_free(name, entry, module)
        self._folded.update(dict.fromkeys(map(normalize_name, names), entry.name))
        self._entries[entry.name] = entry
        self._origins[entry.name] = module, line
        if not _is_built_in(module):
            _user_entries.add((self.kind, entry.name))
        return entry

    def remove(self, name: str) -> None:
        """Remove the entry that has exactly this name."""
        del self._entries[name], self._origins[name]
        _user_entries.discard((self.kind, name))
        self._folded = {spelling: entry for spelling, entry in self._folded.items() if entry != name}

    def _check_free(self, name: str, entry: E, module: str) -> None:
        """Raise NameTakenError if `name`, an alias or the name of an entry of `module`, is taken."""
        holder = self._folded.get(normalize_name(name))
        if holder is not None:
            alias = "" if name == entry.name else f"the alias {name!r} of "
            raise NameTakenError(
                f"{alias}{self.kind} {entry.name!r} of {module} is taken: it is a name of {holder!r} of"
                f" {self._origins[holder][0]}; choose another one"
            )

    def origin(self, name: str) -> tuple[str, int]:
        """Return the module that registered the entry, and a line of the registering statement."""
        self._discover()
        return self._origins[name]

    def __getitem__(self, name: str) -> E:
        """Return the entry that `name` means, or raise UnknownNameError with the nearest name."""
        canonical = self.canonical_name(name)
        if canonical is None:
            raise UnknownNameError(self.unknown_message(name), name)
        return self._entries[canonical]

    def __iter__(self) -> Iterator[E]:
        self._discover()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        """Whether an entry has exactly this name; see `canonical_name` for aliases."""
        self._discover()
        return name in self._entries

    def canonical_name(self, name: object) -> str | None:
        """Return the name of the entry that `name`, a name or alias in any spelling, refers to, or None."""
        self._discover()
        if not isinstance(name, str):
            return None
        return name if name in self._entries else self._folded.get(normalize_name(name))

    def unknown_message(self, name: str, noun: str = "") -> str:
        """Return the error message for an unknown name, with a suggestion or all valid names.

        Args:
            name: The unknown name.
            noun: Shorter word for `kind`.
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
        """Return all names in order."""
        return [entry.name for entry in self]

    def _discover(self) -> None:
        """Import the modules of the package, then the plug-ins, once."""
        if self._is_complete:
            return
        self._is_complete = True
        try:
            self.import_package()
            if self.group:
                plugins.import_plugins(self.group)
            self._extend()
        except BaseException:
            self._is_complete = False
            raise
        by_module = sorted(self._entries, key=self._position)
        self._entries = {name: self._entries[name] for name in by_module}

    def import_package(self) -> None:
        """Import the modules of the package, without plug-ins."""
        if self._package is not None and not self._has_package:
            self._has_package = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")

    def _position(self, name: str) -> tuple[bool, bool, str]:
        """Return the sort key of an entry: those of initbench first, by module, then those of plug-ins."""
        module = self._origins[name][0]
        return not _is_built_in(module), module != f"{self._package}.{self._first}", module


_user_entries: set[tuple[str, str]] = set()
"""Kind and name of the entries that code outside of initbench has added."""
_CUTOFF = 0.5
"""Minimum similarity of a suggested name, from 0 to 1."""


def normalize_name(name: str) -> str:
    """Return the lower-case letters and digits of `name`: `batchnorm` for `Batch_Norm`."""
    return re.sub(r"[\W_]+", "", name.casefold())


def missing_space_advice(text: str) -> str | None:
    """Return advice for text such as `depth:3`, which YAML reads as a string; None for other text."""
    pair = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*):([^\s/:][^\n]*)", text.strip())
    return f"a space is missing behind ':'; write {pair[1]}: {pair[2]}" if pair else None


def _registering_statement() -> tuple[str, int]:
    """Return the module whose import adds an entry, and the current line of it."""
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals["__name__"]), frame.f_lineno


def has_user_entries() -> bool:
    """Return whether code outside of initbench has added entries to any registry so far."""
    return bool(_user_entries)


def _is_built_in(module: str) -> bool:
    return module.startswith("initbench.")


def nearest_name(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `name`, or None if none is similar."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=_CUTOFF)
    return folded[close[0]] if close else None


def unknown_name_message(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return the error message for an unknown name, with the nearest choice or all choices."""
    choices = list(choices)
    guess = nearest_name(name, choices)
    if guess is not None:
        return f"unknown {kind} {name!r}; did you mean {guess!r}?"
    return f"unknown {kind} {name!r}; choose from {', '.join(choices)}"
