"""`initbench probe --map`: parse the options, compute the map and print it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.load_configs import load_experiment, load_experiments
from initbench.cli.probe_map_axes import EXAMPLE, parse_axes, split_axes
from initbench.errors import UsageError
from initbench.render.terminal import stdout_console

if TYPE_CHECKING:
    from initbench.config.schema import ExperimentConfig
    from initbench.data.dataset import DataSource

MapAxes = Annotated[
    str | None,
    typer.Option("--map", metavar="AXIS=A:B[:N]", help=f"Map weight scale and depth, as in {EXAMPLE}."),
]
TrainSteps = Annotated[
    int | None,
    typer.Option("--train", metavar="STEPS", min=1, help="Train the nets of the map for this many updates."),
]
DEFAULTS = {"seeds": 1, "probe.batch": 128}
SET_BY_THE_MAP = ("model.depth", "init.scheme", "init.gain")


def show_map(
    arguments: Sequence[str],
    axes_text: str,
    source: DataSource,
    device: str,
    *,
    steps: int | None,
    json_output: bool,
) -> None:
    """Compute and print the map of a config over the given axes."""
    from initbench.data.locate import resolve_dataset
    from initbench.data.preprocessing import preprocess
    from initbench.diagnostics.trainability_map import check_family, compute_map
    from initbench.render.map_plot import map_json, print_map
    from initbench.render.stage_progress import StageDisplay
    from initbench.runner.device import resolve_device

    texts, rest = split_axes(arguments)
    axes = parse_axes([axes_text, *texts])
    config = _load_config(rest)
    torch_device = resolve_device(device)
    data = preprocess(resolve_dataset(config.data, source), config.data, torch_device)
    check_family(config, data)
    for depth in {axes.depth[0], axes.depth[-1]}:
        load_experiments([*rest, "init.scheme=lecun_normal", f"model.depth={depth}"])
    with StageDisplay(config.name) as display:
        trainability_map = compute_map(config, axes, data, display, steps=steps)
    if json_output:
        typer.echo(map_json(trainability_map))
    else:
        print_map(stdout_console(), trainability_map)


def _load_config(arguments: Sequence[str]) -> ExperimentConfig:
    overridden_keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    for key in SET_BY_THE_MAP:
        if any(name == key or name.startswith(f"{key}.") for name in overridden_keys):
            raise UsageError(f"--map sets {key} at every point; remove the override")
    return load_experiment(arguments, DEFAULTS, "probe")
