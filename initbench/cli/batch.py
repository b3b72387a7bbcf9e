"""Commands over several configs or lessons: report an item that cannot run and continue with the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import typer

from initbench.errors import InitbenchError, RunFailedError
from initbench.render.text import plural


class NamedItem(Protocol):
    """An item of a batch that error messages refer to by name."""

    @property
    def name(self) -> str:
        """The name from the item's file."""


Item = TypeVar("Item", bound=NamedItem)
Result = TypeVar("Result")


def process_or_skip(
    items: Sequence[Item], process: Callable[[Item], Result], errors: list[InitbenchError]
) -> Iterator[Result]:
    """Yield the result of each item; report, record and skip the items that raise an InitbenchError.

    Args:
        items: Processed in this order. The error of a single item is raised, not skipped.
        process: Called once per item.
        errors: Receives the errors of the skipped items.
    """
    for item in items:
        try:
            result = process(item)
        except InitbenchError as error:
            if len(items) == 1:
                raise
            errors.append(error)
            typer.echo(f"{item.name}: {error}", err=True)
        else:
            yield result


def exit_with_failures(failures: Sequence[str], errors: Sequence[InitbenchError]) -> None:
    """Exit with an error code if a run failed or an item was skipped; return otherwise.

    Args:
        failures: One line for each failed run.
        errors: Errors of skipped items, which were reported already.

    Raises:
        RunFailedError: If a run failed.
        typer.Exit: If items were skipped; its code is the highest exit code of their errors.
    """
    if errors:
        typer.echo(f"initbench: skipped {plural(len(errors), 'config')} (reasons above)", err=True)
    if failures:
        raise RunFailedError("\n".join([*failures, "`initbench show RUN` prints the full traceback"]))
    if errors:
        raise typer.Exit(max(error.exit_code for error in errors))
