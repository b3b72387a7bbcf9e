"""What `run` and `show` print of batch norm: running against batch statistics, and what they evaluate to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from initbench.compare.statistics import Summary, geometric, summarise
from initbench.report import text
from initbench.report.grid import Grid
from initbench.report.layers import chosen
from initbench.store.store import StoredRun
from initbench.store.strictjson import number_or_none

_MOST_MOMENTS = 4
_KINDS = {"": "running", "_batch": "each batch's own", "_population": "the population's"}


def norm_tables(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> list[RenderableType]:
    """Tables of the nets' batch norm; none where they have none or nothing was measured."""
    return [table for table in (_gaps(runs, all_layers=all_layers, width=width), _evaluations(runs)) if table]


def _gaps(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> RenderableType | None:
    moments = _moments(runs)
    layers = [layer["index"] for layer in next(iter(moments.values()), [[]])[0] if "batch_norm" in layer]
    if not layers:
        return None
    steps = text.spread(sorted(moments), _MOST_MOMENTS)
    while True:
        grid = Grid(["Batch norm", "running mean gap", "running var ratio"], left=("Batch norm",))
        for i in chosen(len(layers), everything=all_layers):
            found = [[_layer(one, layers[i]) for one in moments[step]] for step in steps]
            gaps = [text.fine(summarise(_values(at, "running_mean_gap")).mean) for at in found]
            ratios = [text.fine(geometric(_values(at, "running_var_ratio")).mean) for at in found]
            grid.add([f"layer {layers[i]}", text.arrows(gaps), text.arrows(ratios)])
        if grid.width <= width or len(steps) < 3:
            break
        steps = text.spread(steps, len(steps) - 1)
    legend = (
        "gap: from the probe batch's means, in its standard deviations; ratio: to its variances;"
        f" {text.plural(len(moments[steps[0]]), 'seed')}, steps {text.arrows([f'{s:,}' for s in steps])}"
    )
    return Group(grid.table(), Text(legend, style="dim"))


def _moments(runs: Sequence[StoredRun]) -> dict[int, list[list[dict[str, Any]]]]:
    """By step, the layers of every run, for the steps at which all that did not diverge were probed."""
    going = [run for run in runs if run.record["status"] not in ("diverged", "failed")] or list(runs)
    by_step: dict[int, list[list[dict[str, Any]]]] = {}
    for run in going:
        for snapshot in (one for one in run.snapshots if "step" in one):
            by_step.setdefault(snapshot["step"], []).append(snapshot["layers"])
    most = max(map(len, by_step.values()), default=0)
    return {step: found for step, found in by_step.items() if len(found) == most}


def _layer(layers: Sequence[dict[str, Any]], index: int) -> dict[str, Any]:
    return next(layer for layer in layers if layer["index"] == index)


def _values(layers: Sequence[dict[str, Any]], statistic: str) -> list[float | None]:
    return [number_or_none(layer.get("batch_norm", {}).get(statistic)) for layer in layers]


def _evaluations(runs: Sequence[StoredRun]) -> RenderableType | None:
    """Accuracy and loss at both ends, by the statistics that batch norm standardises with."""
    ends = list(_ends(runs))
    if not ends:
        return None
    batch = (runs[0].record["config"].get("train") or {}).get("batch_size")
    headings = [f"{what}, {when}" for what in ("val %", "val loss") for when, _ in ends]
    grid = Grid(["Evaluated by", *headings], left=("Evaluated by",))
    for kind, words in _KINDS.items():
        forms: tuple[tuple[str, Callable[[Summary], str]], ...] = (
            ("val_accuracy", text.percent_summary),
            ("val_loss", text.loss_summary),
        )
        cells = [
            form(summarise([number_or_none(one.get(name + kind)) for one in found]))
            for name, form in forms
            for _, found in ends
        ]
        grid.add([f"{words} ({batch})" if kind == "_batch" and batch else words, *cells])
    return grid.table()


def _ends(runs: Sequence[StoredRun]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    begins = [entry for run in runs for entry in run.convergence[:1] if "val_loss_batch" in entry]
    finals = [final for run in runs if "val_loss_batch" in (final := run.record.get("final") or {})]
    yield from ((when, found) for when, found in (("init", begins), ("end", finals)) if found)
