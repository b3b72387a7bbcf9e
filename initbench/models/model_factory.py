"""The user's function that builds a net: `--model package.module:function`.

A process trains with at most one such function. The command that names it loads it with `load_factory`, and
each worker process does the same. A config never names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from initbench.errors import UsageError, reporting_user_code
from initbench.plugins import isolated_arguments
from initbench.torch_defaults import user_defaults
from initbench.user_functions import UserFunction, import_user_function

_loaded: list[ModelFactory] = []
"""The function in use, if there is one."""


class ModelFactory(UserFunction):
    """A function of the user that returns a module."""

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
    imported = import_user_function(
        path, "--model", example="torchvision.models:resnet18", returns="the network"
    )
    if isinstance(imported.function, nn.Module):
        raise UsageError(
            f"--model {path} is a network; name a function that returns one, called once per seed"
        )
    return ModelFactory(**vars(imported))
