"""`initbench run`: train an experiment and explain what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.options import AllLayers, ConfigArguments, DataDir, Json, RunsDir, runs_root
from initbench.errors import RunFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from initbench.config.schema import ExperimentConfig
    from initbench.execute.serial import Execution
    from initbench.report.progress import ProgressDisplay
    from initbench.store.store import Store, StoredRun


def run(
    arguments: ConfigArguments,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:n.")
    ] = "auto",
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Train again what is finished.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config and stop.")
    ] = False,
    all_layers: AllLayers = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json_output: Json = False,
) -> None:
    """Train experiments under all their seeds, store every run, and explain what was seen.

    A run that is stored already is shown, not trained again.
    """
    from initbench.cli.configs import load_experiments

    configs = load_experiments(arguments)
    if print_config:
        _print_configs(configs)
        return
    from initbench.report.progress import ProgressDisplay
    from initbench.store.store import Store

    store, display = Store(runs_root(runs_dir)), ProgressDisplay(quiet=quiet)
    executions = []
    documents = []
    for config in configs:
        execution = _execute(config, store, display, device, data_dir, offline=offline, rerun=rerun)
        executions.append(execution)
        runs = [store.read(run_id) for run_id in execution.run_ids if store.status(run_id)]
        if json_output and runs:
            documents.append(runs)
        elif not json_output:
            _show(runs, all_layers=all_layers)
    if json_output:
        _print_documents(documents)
    _fail_if_any_failed(executions)


def _execute(
    config: ExperimentConfig,
    store: Store,
    display: ProgressDisplay,
    device: str,
    data_dir: Path | None,
    *,
    offline: bool,
    rerun: bool,
) -> Execution:
    from initbench.data.dataset import Source
    from initbench.data.resolve import data_root
    from initbench.execute.device import resolve_device
    from initbench.execute.serial import Workplace, run_experiment

    # What a fallback says is never silenced: the numbers are not those that were asked for.
    source = Source(root=data_root(data_dir), offline=offline, notify=lambda m: typer.echo(m, err=True))
    workplace = Workplace(store=store, source=source, device=resolve_device(device))
    with display.experiment():
        return run_experiment(config, workplace, display, rerun=rerun)


def _print_configs(configs: list[ExperimentConfig]) -> None:
    from initbench.config.load import to_yaml

    typer.echo("---\n".join(to_yaml(config) for config in configs), nl=False)


def _show(runs: list[StoredRun], *, all_layers: bool) -> None:
    from initbench.report.run_tables import print_experiment
    from initbench.report.terminal import stdout_console

    if runs:
        print_experiment(stdout_console(), runs, all_layers=all_layers)


def _print_documents(experiments: list[list[StoredRun]]) -> None:
    from initbench.report.document import experiments_json

    if experiments:
        typer.echo(experiments_json(experiments))


def _fail_if_any_failed(executions: list[Execution]) -> None:
    failed = [e for e in executions if e.error is not None]
    if failed:
        lines = [f"{e.config.name} failed: {type(e.error).__name__}: {e.error}" for e in failed]
        raise RunFailedError("\n".join([*lines, "the traceback is in run.json of the runs, under error"]))
