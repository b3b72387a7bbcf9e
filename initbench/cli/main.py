"""The `initbench` command: what every command shares, and how errors and signals end it."""

from __future__ import annotations

import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from initbench import __version__
from initbench.cli import (
    catalog,
    compare,
    data,
    explain,
    lesson,
    lint,
    ls,
    merge,
    probe,
    rm,
    run,
    schema,
    show,
    sweep,
    validate,
)
from initbench.cli.options import add
from initbench.cli.output_streams import install_output_streams
from initbench.errors import ConfigError, InitbenchError, Terminated

app = typer.Typer(
    name="initbench",
    help="Which weight init, activation and norm layer lets this net learn, and why?",
    epilog="Start with: initbench run configs/relu_kaiming.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: whole lines when piped, and half the time to start
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    run.run,
    probe.probe,
    lint.lint,
    sweep.sweep,
    lesson.lesson,
    compare.compare,
    show.show,
    ls.ls,
    merge.merge,
    rm.rm,
    catalog.catalog,
    explain.explain,
    validate.validate,
    schema.schema,
):
    add(app, None, _command)
app.add_typer(data.app, name="data")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"initbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    del version


def main() -> NoReturn:
    """Run the command line and exit."""
    install_output_streams()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _terminate)
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return its exit code."""
    try:
        app(args=list(arguments), prog_name="initbench")
        sys.stdout.flush()
    except SystemExit as end:
        if isinstance(
            end.__context__, BrokenPipeError
        ):  # typer makes a silent exit of it, whosever pipe it was
            return _report_bug(end.__context__)
        return int(end.code or 0)
    except InitbenchError as error:
        return _explain(error)
    except Terminated as error:
        print(f"initbench: interrupted{_resuming(arguments)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        return _report_bug(error)
    return 0


def _report_bug(error: Exception) -> int:
    traceback.print_exception(error)
    print("initbench: this is a bug in initbench, not in your config; please report it", file=sys.stderr)
    return InitbenchError.exit_code


def _resuming(arguments: Sequence[str]) -> str:
    """How to go on from the last checkpoints, after a command that leaves some."""
    if list(arguments[:1]) not in (["run"], ["sweep"], ["lesson"]):
        return ""
    again = ["initbench", *(argument for argument in arguments if argument != "--rerun")]
    return f"; to go on: {shlex.join(again)}"


def _terminate(signum: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(signum)


def _explain(error: InitbenchError) -> int:
    from initbench.report.text import one_line

    lines = [one_line(line) for line in str(error).splitlines()] or [type(error).__name__]
    prefix = "" if isinstance(error, ConfigError) else "initbench: "
    print("\n".join([prefix + lines[0], *lines[1:]]), file=sys.stderr)
    return error.exit_code
