"""Use data of the user on the command line: `--data-from package.module:function`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.user_functions import UserFunction

DataFrom = Annotated[
    str | None,
    typer.Option(
        "--data-from",
        metavar="MODULE:FUNCTION",
        help="Your own data: a function that returns arrays or data sets (docs/own_data.md).",
    ),
]
_NAME = "data.name="


def use_data(path: str | None, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with the data set of `--data-from`, `data.name=custom`.

    Raises:
        UsageError: If they name another data set.
    """
    if path is None:
        return list(arguments)
    other = next((argument for argument in arguments if argument.startswith(_NAME)), f"{_NAME}custom")
    if other != f"{_NAME}custom":
        raise UsageError(f"--data-from cannot be combined with {other}: it replaces data.name")
    return [*(argument for argument in arguments if argument != other), other]


def import_data_function(path: str | None) -> UserFunction | None:
    """Import the function of `--data-from`; None without the option.

    Raises:
        UsageError: If the function cannot be imported.
    """
    from initbench.user_functions import import_user_function

    if path is None:
        return None
    return import_user_function(path, "--data-from", example="data:make_data", returns="the data")
