"""Imports of the packages of extras."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from initbench.errors import MissingExtraError


def import_optional(module: str, subject: str, extra: str) -> Any:
    """Import and return a module of an extra.

    Args:
        module: The full name of the module.
        subject: Plural noun, the part of initbench that needs it; the beginning of the error message.
        extra: The extra that installs it.

    Raises:
        MissingExtraError: If the module is not installed. A directory of its name in the working directory
            does not count.
    """
    try:
        package = import_module(module.partition(".")[0])
        if getattr(package, "__file__", None) is None:  # a directory without code, such as ./wandb
            raise MissingExtraError(subject, extra)
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(subject, extra) from error
