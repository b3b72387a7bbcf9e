"""The `initbench` command: its subcommands, and the exit codes of errors and signals."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from initbench import __version__
from initbench.cli.lazy_group import LazyGroup
from initbench.cli.output_streams import check_output, install_output_streams
from initbench.errors import AllocationError, ConfigError, InitbenchError, StoreError, Terminated
from initbench.interrupts import begin_command, install_signal_handlers
from initbench.machine import failed_allocation_size

COMMANDS = {
    "run": "Train experiments with all their seeds, store every run, and explain the results.",
    "probe": "Predict and measure the signal in untrained nets, layer by layer, and diagnose problems.",
    "lint": "Check the init of a config's nets, or of your own network, for mistakes.",
    "sweep": "Train the missing runs of a sweep and compare its points.",
    "bisect": "Find the key, or the keys, that make the difference between a config that trains and one that"
    " does not.",
    "lesson": "Run the missing experiments of a lesson and report each claim as supported, contradicted or"
    " undecided.",
    "compare": "Compare stored runs (default: all): activation statistics and convergence.",
    "report": "Write one HTML page with pictures of stored runs (default: all): histograms, layers and"
    " convergence.",
    "figure": "Write one figure of stored runs (default: all) as SVG, PNG or PDF, sized for a paper.",
    "show": "Show stored runs as `run` prints them, grouped by experiment, and the errors of failed runs.",
    "watch": "Show the runs in progress live: steps, learning curves and layers, until all have ended.",
    "export": "Export stored runs (default: all) as tables, TensorBoard event files, or MLflow or W&B runs.",
    "ls": "List the stored runs: status, data set, accuracy, steps and age.",
    "merge": "Merge the runs of several directories; existing runs are not copied again.",
    "upgrade": "Add to runs of earlier versions the summaries with which `compare` and `ls` are fast.",
    "rm": "Delete stored runs; if one of them is running, nothing is deleted.",
    "new": "Write NAME.yaml, a commented config that trains within a minute; never overwrite a file.",
    "catalog": "List components, executors and diagnoses with their formulas, meanings and sources.",
    "explain": "Explain one init, activation, norm, … or diagnosis: options, usage and a plot.",
    "validate": "Check configs, lessons and sweeps; list every issue as file:line:column: key: problem.",
    "schema": "Print the JSON Schema of a config file; editors use it to complete and check YAML.",
    "data": "List, fetch and verify data sets.",
}
"""Summary of each command, in the order of the list of commands."""


class _Commands(LazyGroup):
    """Commands of initbench."""

    summaries = COMMANDS


app = typer.Typer(
    name="initbench",
    cls=_Commands,
    help="Find out which weight init, activation and norm layer lets a net learn, and why.",
    epilog="To start, run: initbench run configs/relu_kaiming.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: whole lines when piped, and half the time to start
    context_settings={"help_option_names": ["-h", "--help"]},
)


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

    If the output cannot be written, an exit code other than 0 of the command is kept.
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
        # typer converts every BrokenPipeError and EOFError to a silent exit
        cause = end.__context__ if isinstance(end.__context__, BrokenPipeError) else _end_of_file(end)
        return int(end.code or 0) if cause is None else _report_exception(cause)
    except InitbenchError as error:
        return _print_error(error, arguments)
    except Terminated as error:
        print(f"initbench: interrupted{_resume_advice(arguments)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        return _report_exception(error)
    return 0


def _end_of_file(end: SystemExit) -> Exception | None:
    """Return the EOFError that typer converted to "Aborted!"; None if a prompt was not answered."""
    abort = end.__context__
    cause = None if abort is None else abort.__cause__
    return cause if isinstance(cause, EOFError) else None


def _report_exception(error: Exception) -> int:
    """Print the error and return the exit code: 3 for an error of the system, 4 for a bug."""
    requested = failed_allocation_size(error)
    if requested is not None:
        print(f"initbench: not enough memory: allocating {requested} failed", file=sys.stderr)
        return AllocationError.exit_code
    if isinstance(error, OSError) and error.strerror is not None:
        name = "" if error.filename is None else f": {str(error.filename)[:200]}"
        print(f"initbench: {error.strerror.lower()}{name}", file=sys.stderr)
        return StoreError.exit_code
    traceback.print_exception(error)
    print("initbench: this is a bug in initbench, not in your config; please report it", file=sys.stderr)
    return InitbenchError.exit_code


def _resume_advice(arguments: Sequence[str]) -> str:
    """Return advice to resume from the last checkpoints; empty for commands without checkpoints."""
    if list(arguments[:1]) not in (["run"], ["sweep"], ["bisect"], ["lesson"]):
        return ""
    command = ["initbench", *(argument for argument in arguments if argument != "--rerun")]
    return f"; resume with: {shlex.join(command)}"


def _print_error(error: InitbenchError, arguments: Sequence[str] = ()) -> int:
    from initbench.cli.recorded_sources import recorded_sources
    from initbench.render.text import one_line

    lines = [*str(error).splitlines(), *recorded_sources(error, arguments)]
    lines = [one_line(line) for line in lines] or [type(error).__name__]
    prefix = "" if isinstance(error, ConfigError) else "initbench: "
    print("\n".join([prefix + lines[0], *lines[1:]]), file=sys.stderr)
    return error.exit_code
