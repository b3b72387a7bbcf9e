"""The `initbench` command: what every command shares, and how errors and signals end it."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from initbench import __version__
from initbench.cli import (
    catalog,
    compare,
    explain,
    lesson,
    lint,
    ls,
    merge,
    new,
    probe,
    rm,
    run,
    schema,
    show,
    sweep,
    training_data,
    validate,
)
from initbench.cli.options import add_command
from initbench.cli.output_streams import check_output, install_output_streams
from initbench.errors import AllocationError, ConfigError, InitbenchError, StoreError, Terminated
from initbench.interrupts import begin_command, install_signal_handlers
from initbench.memory import failed_allocation_size

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
    new.new,
    catalog.catalog,
    explain.explain,
    validate.validate,
    schema.schema,
):
    add_command(app, None, _command)
app.add_typer(training_data.app, name="data")


def _print_version(is_requested: bool) -> None:
    if is_requested:
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
    install_signal_handlers()
    install_output_streams()
    begin_command()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return its exit code.

    A code that was decided outlives the loss of what was printed.
    """
    code = _call_app(arguments)
    try:
        check_output()
    except InitbenchError as error:
        output_error_code = _print_error(error)
        return code or output_error_code
    return code


def _call_app(arguments: Sequence[str]) -> int:
    try:
        app(args=list(arguments), prog_name="initbench")
    except SystemExit as end:
        # typer makes a silent exit of a broken pipe and of an end of file, wherever they come from
        cause = end.__context__ if isinstance(end.__context__, BrokenPipeError) else _end_of_file(end)
        return int(end.code or 0) if cause is None else _report_exception(cause)
    except InitbenchError as error:
        return _print_error(error)
    except Terminated as error:
        print(f"initbench: interrupted{_resume_advice(arguments)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        return _report_exception(error)
    return 0


def _end_of_file(end: SystemExit) -> Exception | None:
    """Return the EOFError that typer made "Aborted!" of; None if a prompt was not answered."""
    abort = end.__context__
    cause = None if abort is None else abort.__cause__
    return cause if isinstance(cause, EOFError) else None


def _report_exception(error: Exception) -> int:
    """Print what went wrong and return the exit code: 3 if the machine refused something, 4 for a bug."""
    requested = failed_allocation_size(error)
    if requested is not None:
        print(f"initbench: not enough memory: {requested} were asked for and refused", file=sys.stderr)
        return AllocationError.exit_code
    if isinstance(error, OSError) and error.strerror is not None:
        name = "" if error.filename is None else f": {str(error.filename)[:200]}"
        print(f"initbench: {error.strerror.lower()}{name}", file=sys.stderr)
        return StoreError.exit_code
    traceback.print_exception(error)
    print("initbench: this is a bug in initbench, not in your config; please report it", file=sys.stderr)
    return InitbenchError.exit_code


def _resume_advice(arguments: Sequence[str]) -> str:
    """Return the advice to resume from the last checkpoints; empty after a command that leaves none."""
    if list(arguments[:1]) not in (["run"], ["sweep"], ["lesson"]):
        return ""
    command = ["initbench", *(argument for argument in arguments if argument != "--rerun")]
    return f"; to go on: {shlex.join(command)}"


def _print_error(error: InitbenchError) -> int:
    from initbench.render.text import one_line

    lines = [one_line(line) for line in str(error).splitlines()] or [type(error).__name__]
    prefix = "" if isinstance(error, ConfigError) else "initbench: "
    print("\n".join([prefix + lines[0], *lines[1:]]), file=sys.stderr)
    return error.exit_code
