"""`initbench lint`: check the init of an untrained net for mistakes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.custom_data import DataFrom, import_data_function, use_data
from initbench.cli.custom_model import (
    CONFIG_HAS_DATA,
    BatchOption,
    DataOption,
    InputOption,
    ModelOption,
    has_config,
    parse_custom_model,
    use_model,
)
from initbench.cli.load_configs import load_experiment, untrained_nets
from initbench.cli.options import DataDir, Json, Plugins, RunsDir, TargetArguments
from initbench.errors import UsageError
from initbench.render.terminal import stdout_console

if TYPE_CHECKING:
    from initbench.diagnostics.lint_report import LintReport
    from initbench.diagnostics.net_source import NetSource

SEEDS = 3
SAMPLES = 128
ANY = "any"


def lint(
    arguments: TargetArguments = None,
    model: ModelOption = None,
    shape: InputOption = None,
    data: DataOption = None,
    data_from: DataFrom = None,
    batch: BatchOption = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on", metavar="CODE", help="Exit 1 if this code is found; any means every warning."
        ),
    ] = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="No network access.")] = False,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """Check the init of a config's nets, or of your own network, for mistakes.

    Runs one batch through 3 nets, or one net per seed of seeds=…. docs/lint.md lists the codes.
    With --model, init.scheme=… is the intended scheme. Exit 1 if a code of --fail-on is found.
    """
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root
    from initbench.diagnostics.lint_report import lint_nets

    _check_codes(fail_on or [])
    arguments = use_data(data_from, arguments or [])
    source = DataSource(
        root=data_root(data_dir),
        offline=offline,
        notify=lambda m: typer.echo(m, err=True),
        function=import_data_function(data_from),
    )
    if model is not None and not has_config(arguments or []):
        nets: NetSource = parse_custom_model(model, arguments or [], shape, data, batch).nets(source)
    elif shape is not None or data is not None or batch is not None:
        raise UsageError(CONFIG_HAS_DATA)
    else:
        arguments = use_model(model, arguments or [])
        config = load_experiment(arguments, {"seeds": SEEDS, "probe.batch": SAMPLES}, "lint")
        nets = untrained_nets(config, source, runs_dir, keep_weights=True)
    with redirect_stdout(sys.stderr):  # stdout is reserved for data; a forward of the user may print
        report = lint_nets(nets)
    _print_report(report, json_output=json_output)
    if _has_forbidden_finding(report, fail_on or []):
        raise typer.Exit(1)


def _check_codes(codes: Sequence[str]) -> None:
    from initbench.linting.rule import LINT_RULES
    from initbench.registry import unknown_name_message

    valid_codes = [*LINT_RULES.names(), ANY]
    for code in codes:
        if code not in valid_codes:
            raise UsageError(f"--fail-on: {unknown_name_message('lint code', code, valid_codes)}")


def _has_forbidden_finding(report: LintReport, codes: Sequence[str]) -> bool:
    return any(
        finding.code in codes or (ANY in codes and finding.level == "warning") for finding in report.findings
    )


def _print_report(report: LintReport, *, json_output: bool) -> None:
    from initbench.render.lint_tables import lint_json, print_lint

    if json_output:
        typer.echo(lint_json(report))
    else:
        print_lint(stdout_console(), report)
