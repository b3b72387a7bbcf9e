"""Functions of the user that take part in training, as objects or by name: a net and a loss.

The code of these functions is part of the identity of runs, and is read from their files. Notebooks edit and
reload files while they run, so each use checks that the files are still those of the imported functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from initbench import plugins
from initbench.components.loss import add_requested_loss, user_loss
from initbench.config.schema import rebuild_schemas
from initbench.errors import UsageError
from initbench.models.model_factory import load_factory, loaded_factory
from initbench.runner.code_fingerprint import forget_code, project_sources

UserCode = str | Callable[..., Any]
"""A function of a module, or its name `module:function`."""
_sources: dict[str, str] = {}
"""Module of the user → its source at its last use."""
_first_sources: dict[int, tuple[Callable[..., Any], Mapping[str, str]]] = {}
"""Id of a function → the function, and the sources of its project at its first use."""


def use_functions(model: UserCode | None, loss: UserCode | None) -> dict[str, str]:
    """Use these functions, and no others, for the following trainings, also in worker processes.

    Returns:
        The values of the config keys that stand for the functions.

    Raises:
        UsageError: If a function cannot be imported, or its code has changed since it was imported.
    """
    load_factory(None)
    load_factory(None if model is None else function_path(model, "model"))
    keys = {} if model is None else {"model.family": "custom"}
    if (name := _use_loss(None if loss is None else function_path(loss, "loss"))) is not None:
        keys["train.loss"] = name
    _check_sources()
    return keys


def function_path(function: UserCode, argument: str) -> str:
    """Return the name `module:function`, under which worker processes import the function, too.

    Raises:
        UsageError: If it cannot be imported, because it belongs to a script, a notebook or another function.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module in (None, "__main__") or name is None or "<" in name:
        raise UsageError(
            f"{argument}={name or type(function).__name__} cannot be imported by worker processes, and its"
            " code is part of the runs: put the function into a file, and import it from there"
        )
    return f"{module}:{name}"


def _use_loss(path: str | None) -> str | None:
    """Register a loss in place of the previous one of the user, and return its name."""
    previous = user_loss()
    if path is None and previous is None:
        return None
    name = None if path is None else plugins.request_loss(path)
    try:
        add_requested_loss(path)
    finally:
        if user_loss() is None:
            os.environ.pop(plugins.LOSS_VARIABLE, None)
        if user_loss() is not previous:
            rebuild_schemas()
            forget_code()
    return name


def _check_sources() -> None:
    """Raise UsageError if the code of a function in use is not that of its file."""
    factory, loss = loaded_factory(), user_loss()
    functions = [] if factory is None else [(factory.function, factory.module)]
    functions += [] if loss is None else [(loss, loss.__module__)]
    for function, module in functions:
        sources = project_sources(module)
        _, first_sources = _first_sources.setdefault(id(function), (function, sources))
        changed = [name for name, text in sources.items() if first_sources.get(name, text) != text]
        if changed:
            raise UsageError(
                f"the file of module {changed[0]} has changed since {module} was imported: reload both with"
                " importlib.reload, or restart Python"
            )
        if any(_sources.get(name, text) != text for name, text in sources.items()):
            forget_code()
        _sources.update(sources)
