"""Functions of the user that an option names as `package.module:function`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.errors import UsageError, reporting_user_code
from initbench.plugins import import_user_module
from initbench.registry import nearest_name, unknown_name_message


@dataclass(frozen=True)
class UserFunction:
    """A function of the user, and the option that names it."""

    option: str
    """Option of the command line, such as `--model`."""
    path: str
    """`package.module:function`."""
    function: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.option} {self.path}"

    @property
    def module(self) -> str:
        """Name of the Python module."""
        return self.path.rpartition(":")[0]

    @property
    def attribute(self) -> str:
        """Name of the function, with dots for an attribute of a class."""
        return self.path.rpartition(":")[2]

    def names(self, name: str) -> bool:
        """Return whether the function has a parameter called `name`."""
        return name in self._keywords

    def takes(self, name: str) -> bool:
        """Return whether the function has a parameter called `name`, or accepts any keyword."""
        return self.names(name) or self._takes_any_keyword

    def unknown_option(self, name: str) -> str:
        """Return the error message for an option that the function does not take."""
        if not self._keywords:
            return f"{self.attribute} of {self} takes no arguments"
        return f"{self}: {unknown_name_message('argument', name, self._keywords)}"

    def missing(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the required parameters without an argument."""
        return [
            parameter.name
            for parameter in self.parameters
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and (parameter.kind is parameter.POSITIONAL_ONLY or parameter.name not in arguments)
        ]

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """Parameters of the function; empty if it has no signature."""
        try:
            return list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # some callables have no signature
            return []

    @property
    def _keywords(self) -> list[str]:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return [parameter.name for parameter in self.parameters if parameter.kind in kinds]

    @property
    def _takes_any_keyword(self) -> bool:
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self.parameters)


def import_user_function(path: str, option: str, *, example: str, returns: str) -> UserFunction:
    """Import `package.module:function`, also from the working directory.

    Args:
        path: Value of the option.
        option: Option that names the function, such as `--model`.
        example: Example of a value, for messages.
        returns: What the function returns, for messages, such as "the network".

    Raises:
        UsageError: If there is no such module or function, or its import fails.
    """
    module_name, colon, attribute = path.rpartition(":")
    if (correction := _suggest_dotted_path(path)) is not None:
        raise UsageError(f"{option} takes module:function, not a file: {correction}")
    if not colon and "." in path.strip("."):
        module_name, _, attribute = path.rpartition(".")
        raise UsageError(f"{option} takes module:function: write {module_name}:{attribute}")
    if not colon or not module_name or not attribute:
        raise UsageError(f"{option} takes module:function, as in {example}; got {path!r}")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)
    subject = f"{option} {path}: {module_name} cannot be imported:"
    target: Any = import_user_module(module_name, subject)
    for part in attribute.split("."):
        with reporting_user_code(f"{option} {path}: {part} cannot be read:"):
            missing = not hasattr(target, part)
        if missing:
            guess = nearest_name(part, [name for name in dir(target) if not name.startswith("_")])
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UsageError(f"{option} {path}: there is no attribute {part!r}{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise UsageError(
            f"{option} {path}: {attribute} cannot be called; name a function that returns {returns}"
        )
    return UserFunction(option, path, target)


def _suggest_dotted_path(path: str) -> str | None:
    """Return advice for file paths such as `./nets.py:make`; None for other text."""
    file_part, colon, attribute = path.rpartition(":")
    file, function = (file_part, attribute) if colon and "/" not in attribute else (path, "FUNCTION")
    if "/" not in file and "\\" not in file and not file.endswith(".py"):
        return None
    location = Path(file.replace("\\", "/").removesuffix(".py"))
    with suppress(RuntimeError):  # a user who does not exist
        location = location.expanduser()
    if location.is_absolute() and location.is_relative_to(Path.cwd()):
        location = location.relative_to(Path.cwd())
    if location.is_absolute() or ".." in location.parts:
        return f"write {location.name}:{function}, in the folder {location.parent}"
    return f"write {'.'.join(location.parts)}:{function}"
