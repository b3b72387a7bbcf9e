"""Group of commands whose modules are imported when a command is used.

Names and summaries are declared with the group, so that `initbench --help` and the completion of command
names import no command. The pattern is the `LazyGroup` of click's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

_LAST_WORD = "initbench.last_word"
"""Key under which the context of a command keeps the last complete word of its arguments."""


class _SignedValueCommand(TyperCommand):
    """Command that completes values with a minus sign, such as `--sort -val`.

    The completion of click takes every word that begins with a minus sign for the name of an option.
    """

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Parse the arguments, and remember the last of them."""
        last = next((word for word in reversed(args) if word != "="), "")  # bash splits --sort=-val
        context = super().make_context(info_name, args, *rest, **extra)
        context.meta[_LAST_WORD] = last
        return context

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the value of the option before it, if there is one, else the name of an option."""
        for option in self.params:
            if not getattr(option, "is_flag", True) and ctx.meta.get(_LAST_WORD) in option.opts:
                return option.shell_complete(ctx, incomplete) or super().shell_complete(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)


class LazyCommand(TyperCommand):
    """Stand-in for a command: it knows the name and the summary, and loads the rest to parse arguments."""

    def load(self) -> Any:
        """Import the module `initbench.cli.NAME` and build the command.

        The module defines a function of the command's name or, for a command with subcommands, a typer
        application called `app`.
        """
        module = import_module(f"initbench.cli.{self.name}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            app.command(self.name, cls=_SignedValueCommand)(getattr(module, str(self.name)))
        command = typer.main.get_command(app)
        command.name = self.name
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments with the loaded command."""
        return self.load().make_context(*args, **kwargs)


class LazyGroup(TyperGroup):
    """Group of the commands in `summaries`."""

    summaries: ClassVar[Mapping[str, str]] = {}
    """Summary of each command, in the order of the list of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, summary in self.summaries.items():
            self.add_command(LazyCommand(name, short_help=summary))


def load_command(command: Any) -> Any:
    """Return the command itself if `command` is its stand-in, else `command`."""
    return command.load() if isinstance(command, LazyCommand) else command
