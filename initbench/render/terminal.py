"""Console for the output on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 240
"""Columns when stdout is not a terminal: rich would assume 80 and cut longer lines."""


def print_uncut(console: Console, renderable: RenderableType) -> None:
    """Print lines at their natural width, without the trailing spaces that rich adds.

    If the output encoding is ASCII, characters are replaced before tables are laid out.
    """
    from rich.console import Group

    if console.options.ascii_only:
        from initbench.render.ascii_layout import in_ascii

        renderable = in_ascii(renderable)
    with console.capture() as captured:
        # In a group, because rich ignores `no_wrap` of a text that is printed by itself.
        console.print(Group(renderable), crop=False)
    lines = captured.get().splitlines()
    console.file.write("".join(line.rstrip(" ") + "\n" for line in lines))


def stdout_console() -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes, no highlighting.

    rich respects NO_COLOR and FORCE_COLOR; neither changes the width of piped output.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def stdout_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not a terminal, for lines of any length."""
    return stdout_console().width if sys.stdout.isatty() else None
