"""What `run` and `show` print of internal covariate shift."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from initbench.compare.statistics import summarise
from initbench.report import text
from initbench.report.grid import Grid
from initbench.report.layers import chosen
from initbench.store.store import StoredRun
from initbench.store.strictjson import number_or_none

_COLUMNS = {
    "gradient shift": "gradient_shift",
    "cosine": "gradient_shift_cosine",
    "mean drift": "input_mean_drift",
    "std drift": "input_std_drift",
}
_FROM_INIT = {"mean, from init": "input_mean_from_init", "std, from init": "input_std_from_init"}


def shift_table(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> RenderableType | None:
    """Each layer's covariate shift, means over the measured updates and the runs; None where none was."""
    measured = [run for run in runs if run.shifts]
    if not measured:
        return None
    layers = measured[0].shifts[0]["layers"]
    grid = Grid(["Covariate shift", *_COLUMNS, *_FROM_INIT], left=("Covariate shift",))
    for i in chosen(len(layers), everything=all_layers):
        is_head = i == len(layers) - 1
        cells = [text.fine(_mean(measured, i, name)) for name in _COLUMNS.values()]
        last = [text.fine(_last(measured, i, name)) for name in _FROM_INIT.values()]
        name = f"{'head' if is_head else 'layer'} {layers[i]['index']}"
        grid.add([name, *cells, *last], "dim" if is_head else None)
    updates = text.plural(len(measured[0].shifts), "measured update")
    legend = (
        "shift: ‖G′ − G‖/‖G‖, cosine: of G and G′, a layer's gradients before and after the layers below it"
        " made the same update; drift: of its input since the update measured before, in standard deviations;"
        f" means over {updates} and {text.plural(len(measured), 'seed')}"
    )
    return Group(grid.fitting(width, expendable=list(_FROM_INIT)).table(), Text(legend, style="dim"))


def _mean(runs: Sequence[StoredRun], layer: int, name: str) -> float | None:
    """Over the updates of each run, and then over runs."""
    means = [
        summarise([number_or_none(entry["layers"][layer][name]) for entry in run.shifts]).mean for run in runs
    ]
    return summarise(means).mean


def _last(runs: Sequence[StoredRun], layer: int, name: str) -> float | None:
    return summarise([number_or_none(run.shifts[-1]["layers"][layer][name]) for run in runs]).mean
