"""The user's function that builds a net: `--model package.module:function`.

A process trains with at most one such function. The command that names it loads it with `load_factory`, and
each worker process does the same. A config never names it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from initbench.errors import UsageError, reporting_user_code
from initbench.plugins import import_user_module, isolated_arguments
from initbench.registry import nearest_name, unknown_name_message
from initbench.torch_defaults import user_defaults

_loaded: list[ModelFactory] = []
"""The function in use, if there is one."""


@dataclass(frozen=True)
class ModelFactory:
    """A function of the user that returns a module."""

    path: str
    """`package.module:function`."""
    function: Callable[..., Any]

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
            return f"{self.attribute} of --model {self.path} takes no arguments"
        return f"--model {self.path}: {unknown_name_message('argument', name, self._keywords)}"

    def missing(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the required parameters without an argument."""
        return [
            parameter.name
            for parameter in self.parameters
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and (parameter.kind is parameter.POSITIONAL_ONLY or parameter.name not in arguments)
        ]

    def build(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return the module that the function builds from keyword arguments.

        Raises:
            UsageError: If the function raises an exception, or returns something else than a module.
        """
        error_context = reporting_user_code(f"--model {self.path} could not build a network:")
        with isolated_arguments(self.path), error_context, user_defaults():
            module = self.function(**arguments)
        if not isinstance(module, nn.Module):
            raise UsageError(f"--model {self.path} returned {type(module).__name__}, not an nn.Module")
        return module

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


def load_factory(path: str | None) -> None:
    """Use the function at `path` for the nets of `model.family=custom` in this process; None for no function.

    Raises:
        UsageError: If the function cannot be imported.
    """
    if [factory.path for factory in _loaded] != ([] if path is None else [path]):
        _loaded[:] = [] if path is None else [import_factory(path)]


def loaded_factory() -> ModelFactory | None:
    """Return the function that this process uses, or None."""
    return _loaded[0] if _loaded else None


def import_factory(path: str) -> ModelFactory:
    """Import `package.module:function`, also from the working directory.

    Raises:
        UsageError: If there is no such module or function, or its import fails.
    """
    module_name, colon, attribute = path.rpartition(":")
    if (correction := _suggest_dotted_path(path)) is not None:
        raise UsageError(f"--model takes module:function, not a file: {correction}")
    if not colon and "." in path.strip("."):
        module_name, _, attribute = path.rpartition(".")
        raise UsageError(f"--model takes module:function: write {module_name}:{attribute}")
    if not colon or not module_name or not attribute:
        raise UsageError(f"--model takes module:function, as in torchvision.models:resnet18; got {path!r}")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)
    subject = f"--model {path}: {module_name} cannot be imported:"
    target: Any = import_user_module(module_name, subject)
    for part in attribute.split("."):
        with reporting_user_code(f"--model {path}: {part} cannot be read:"):
            missing = not hasattr(target, part)
        if missing:
            guess = nearest_name(part, [name for name in dir(target) if not name.startswith("_")])
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UsageError(f"--model {path}: there is no attribute {part!r}{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise UsageError(
            f"--model {path}: {attribute} cannot be called; name a function that returns the network"
        )
    if isinstance(target, nn.Module):
        raise UsageError(
            f"--model {path} is a network; name a function that returns one, called once per seed"
        )
    return ModelFactory(path, target)


def _suggest_dotted_path(path: str) -> str | None:
    """Return advice for file paths such as `./nets.py:make`; None for other text."""
    file_part, colon, attribute = path.rpartition(":")
    file, function = (file_part, attribute) if colon and "/" not in attribute else (path, "FUNCTION")
    if "/" not in file and "\\" not in file and not file.endswith(".py"):
        return None
    location = Path(file.replace("\\", "/").removesuffix(".py")).expanduser()
    if location.is_absolute() and location.is_relative_to(Path.cwd()):
        location = location.relative_to(Path.cwd())
    if location.is_absolute() or ".." in location.parts:
        return f"write {location.name}:{function}, in the folder {location.parent}"
    return f"write {'.'.join(location.parts)}:{function}"
