"""`initbench probe`: predict and measure signal propagation in untrained nets."""

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
from initbench.cli.load_configs import (
    load_experiment,
    load_experiments,
    load_with_defaults,
    untrained_nets,
)
from initbench.cli.options import AllLayers, DataDir, Json, Plugins, RunsDir, TargetArguments
from initbench.cli.probe_map_axes import EXAMPLE, parse_axes, split_axes
from initbench.cli.report_option import ReportFile, check_report_file, command_line, save_page
from initbench.errors import UsageError
from initbench.render.terminal import stdout_console

if TYPE_CHECKING:
    from pathlib import Path

    from initbench.config.schema import ExperimentConfig
    from initbench.data.dataset import DataSource
    from initbench.diagnostics.net_source import NetSource
    from initbench.diagnostics.survey import Survey
    from initbench.diagnostics.trainability_map import TrainabilityMap

SEEDS = 16
SAMPLES = 128
"""Size of the batch, shared by all nets: nets vary far more than batches do, and each batch costs a pass."""
MapAxes = Annotated[
    str | None,
    typer.Option("--map", metavar="AXIS=A:B[:N]", help=f"Map weight scale and depth, as in {EXAMPLE}."),
]
TrainSteps = Annotated[
    int | None,
    typer.Option("--train", metavar="STEPS", min=1, help="Train the nets of the map for this many updates."),
]
_MAP_DEFAULTS = {"seeds": 1, "probe.batch": 128}
_SET_BY_THE_MAP = ("model.depth", "init.scheme", "init.gain")


def probe(
    arguments: TargetArguments = None,
    model: ModelOption = None,
    shape: InputOption = None,
    data: DataOption = None,
    data_from: DataFrom = None,
    batch: BatchOption = None,
    depths: Annotated[
        str | None,
        typer.Option("--depths", metavar="D,D,…", help="Compare nets of these depths, one row each."),
    ] = None,
    axes: MapAxes = None,
    train_steps: TrainSteps = None,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:n.")
    ] = "auto",
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="No network access.")] = False,
    all_layers: AllLayers = False,
    _plugins: Plugins = None,
    report: ReportFile = None,
    json_output: Json = False,
) -> None:
    """Predict and measure the signal in untrained nets, layer by layer, and diagnose problems.

    Runs one batch of 128 samples (probe.batch=…) through 16 nets (seeds=…). Nothing is stored, and nothing
    is trained without --train. --map draws one net per point, or seeds=…. Several configs are probed in turn.
    """
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root

    arguments = arguments or []
    _check_combination(model, axes, depths, train_steps)
    is_module = model is not None and not has_config(arguments)
    check_report_file(report)
    arguments = use_data(data_from, arguments or [])
    source = DataSource(
        root=data_root(data_dir),
        offline=offline,
        notify=lambda m: typer.echo(m, err=True),
        function=import_data_function(data_from),
    )
    if is_module:
        assert model is not None
        custom_model = parse_custom_model(model, arguments, shape, data, batch)
        if custom_model.target.init is not None:
            raise UsageError("init.* is for `initbench lint`; probe measures the weights as they are")
        surveys = [_survey(custom_model.nets(source, device))]
    elif shape is not None or data is not None or batch is not None:
        raise UsageError(CONFIG_HAS_DATA)
    elif axes is not None:
        trainability_map = _compute_map(arguments, axes, source, device, steps=train_steps)
        _print_map(trainability_map, json_output=json_output)
        _write_map_report(report, trainability_map)
        return
    else:
        configs = _load_configs(use_model(model, arguments), depths)
        surveys = [_survey(untrained_nets(config, source, runs_dir, device)) for config in configs]
    if depths is None:
        _print_surveys(surveys, all_layers=all_layers, json_output=json_output)
        _write_report(report, [survey.name for survey in surveys], surveys)
    else:
        numbers = _parse_depths(depths)
        _print_depths(dict(zip(numbers, surveys, strict=True)), json_output=json_output)
        _write_report(report, [f"depth {depth}" for depth in numbers], surveys)


def _load_configs(arguments: Sequence[str], depths: str | None) -> list[ExperimentConfig]:
    """Return the configs to probe: those of the files, or a single one with each of the depths."""
    defaults = {"seeds": SEEDS, "probe.batch": SAMPLES}
    if depths is None:
        return load_with_defaults(arguments, defaults)
    changes = [f"model.depth={depth}" for depth in _parse_depths(depths)]
    return [load_experiment([*arguments, change], defaults, "probe") for change in changes]


def _write_report(path: Path | None, names: Sequence[str], surveys: Sequence[Survey]) -> None:
    """Write the page of the surveys, one row for each."""
    if path is None:
        return
    from initbench.report.probe_page import build_probe_page

    save_page(path, build_probe_page(list(zip(names, surveys, strict=True)), command=command_line()))


def _check_combination(
    model: str | None, axes: str | None, depths: str | None, train_steps: int | None
) -> None:
    if model is not None and (axes is not None or depths is not None):
        raise UsageError(
            "--map and --depths change model.depth of a config and cannot be combined with --model"
        )
    if axes is not None and depths is not None:
        raise UsageError("--map has its own depth axis and cannot be combined with --depths")
    if axes is None and train_steps is not None:
        raise UsageError(f"--train trains the nets of a map; add {EXAMPLE}")


def _survey(nets: NetSource) -> Survey:
    from initbench.diagnostics.survey import survey

    with redirect_stdout(sys.stderr):  # stdout is reserved for data; a forward of the user may print
        return survey(nets)


def _print_surveys(surveys: Sequence[Survey], *, all_layers: bool, json_output: bool) -> None:
    from initbench.render.probe_document import survey_json, surveys_json
    from initbench.render.probe_tables import print_survey

    if json_output:
        typer.echo(survey_json(surveys[0]) if len(surveys) == 1 else surveys_json(surveys))
        return
    for survey in surveys:
        print_survey(stdout_console(), survey, all_layers=all_layers)


def _print_depths(surveys: dict[int, Survey], *, json_output: bool) -> None:
    from initbench.render.depth_table import depths_json, print_depths

    if json_output:
        typer.echo(depths_json(surveys))
    else:
        print_depths(stdout_console(), surveys)


def _parse_depths(text: str) -> list[int]:
    try:
        depths = [int(part) for part in text.split(",")]
    except ValueError:
        depths = []
    if not depths or min(depths) < 1 or len(set(depths)) < len(depths):
        raise UsageError(
            f"--depths takes different whole numbers from 1, as in --depths 10,100; got {text!r}"
        )
    return depths


def _compute_map(
    arguments: Sequence[str], axes_text: str, source: DataSource, device: str, *, steps: int | None
) -> TrainabilityMap:
    """Compute the map of a config over the given axes."""
    from initbench.data.locate import resolve_dataset
    from initbench.data.preprocessing import preprocess
    from initbench.diagnostics.trainability_map import check_family, compute_map
    from initbench.render.progress import StageDisplay
    from initbench.runner.device import resolve_device

    texts, rest = split_axes(arguments)
    axes = parse_axes([axes_text, *texts])
    config = _load_map_config(rest)
    torch_device = resolve_device(device)
    data = preprocess(resolve_dataset(config.data, source), config.data, torch_device)
    check_family(config, data)
    for depth in {axes.depth[0], axes.depth[-1]}:
        load_experiments([*rest, "init.scheme=lecun_normal", f"model.depth={depth}"])
    with StageDisplay(config.name) as display:
        return compute_map(config, axes, data, display, steps=steps)


def _print_map(trainability_map: TrainabilityMap, *, json_output: bool) -> None:
    from initbench.render.map_plot import map_json, print_map

    if json_output:
        typer.echo(map_json(trainability_map))
    else:
        print_map(stdout_console(), trainability_map)


def _write_map_report(path: Path | None, trainability_map: TrainabilityMap) -> None:
    if path is None:
        return
    from initbench.report.map_page import build_map_page

    save_page(path, build_map_page(trainability_map, command=command_line()))


def _load_map_config(arguments: Sequence[str]) -> ExperimentConfig:
    overridden_keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    for key in _SET_BY_THE_MAP:
        if any(name == key or name.startswith(f"{key}.") for name in overridden_keys):
            raise UsageError(f"--map sets {key} at every point; remove the override")
    return load_experiment(arguments, _MAP_DEFAULTS, "probe")
