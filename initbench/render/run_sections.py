"""Sections that only some runs have: pre-training, weight transfer, batch norm and covariate shift."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from initbench.analysis.stats.summary import Summary, summarise, summarise_geometric
from initbench.plugins import PluginOrigin
from initbench.render import text
from initbench.render.layer_means import layers_to_show
from initbench.render.text_table import TextTable
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number_or_none


def pretraining_table(runs: Sequence[StoredRun]) -> RenderableType | None:
    """Return each layer's reconstruction loss before and after, averaged over the pre-trained runs.

    None if no run was pre-trained.
    """
    trained = [run.record for run in runs if run.record.get("pretraining")]
    if not trained:
        return None
    scheme = trained[0]["config"]["init"]["scheme"]
    grid = TextTable(["Pre-training", "loss before", "after", "remaining %"], left_aligned=("Pre-training",))
    for position, layer in enumerate(trained[0]["pretraining"]["layers"]):
        layer_records = [record["pretraining"]["layers"][position] for record in trained]
        start, end = (
            [parse_number_or_none(record[key]) for record in layer_records]
            for key in ("loss_start", "loss_end")
        )
        remaining = [b / a if a and b is not None else None for a, b in zip(start, end, strict=True)]
        grid.add(
            [
                f"layer {layer['layer']}",
                text.format_scientific(summarise(start).mean),
                text.format_scientific(summarise(end).mean),
                text.percent_summary(summarise(remaining)),
            ]
        )
    return Group(grid.table(), Text(_cost(trained, str(scheme["kind"])), style="dim"))


def _cost(trained: Sequence[dict[str, Any]], kind: str) -> str:
    """Return the cost per run in words; the seconds of a cohort are divided evenly among its runs."""
    first = trained[0]["pretraining"]
    seconds = math.fsum(
        float(record["pretraining"]["seconds"]) / max(1, int(record.get("cohort") or 1)) for record in trained
    ) / len(trained)
    steps, samples = text.plural(first["steps"], "update"), text.format_count(first["samples"])
    return f"{kind} auto-encoders on a fixed sample; per run: {steps}, {samples} samples, {seconds:.1f} s"


_ACTIVITIES = ("pretrain", "train", "evaluate", "probe", "total")


def timings_table(runs: Sequence[StoredRun]) -> RenderableType:
    """Return the seconds that each run's cohort spent on updates, evaluations and probes."""
    grid = TextTable(["Timings", *_ACTIVITIES, "share %"], left_aligned=("Timings",))
    for run in runs:
        timings = run.record.get("timings") or {}
        seconds = [parse_number_or_none(timings.get(name)) for name in _ACTIVITIES]
        cells = [text.DASH if value is None else f"{value:.2f}" for value in seconds]
        grid.add([run.run_id, *cells, text.format_percent(run.evaluation_share, 1)])
    if not any((run.record.get("timings") or {}).get("pretrain") for run in runs):
        grid = grid.without(["pretrain"])
    legend = (
        "seconds of the whole cohort, whose runs train together; share: evaluations and probes relative to"
        " the updates (train)"
    )
    return Group(grid.table(), Text(legend, style="dim"))


_SHOWN = 4


def transfer_lines(runs: Sequence[StoredRun]) -> Text | None:
    """Return the source of transferred weights, and which tensors were transferred, initialised and frozen.

    None if no run transfers weights. All runs of an experiment transfer the same tensors, from one source or
    from one source per seed.
    """
    transfers = [run.record["transfer"] for run in runs if run.record.get("transfer")]
    if not transfers:
        return None
    first = transfers[0]
    sources = list(dict.fromkeys(str(transfer["source"]) for transfer in transfers))
    more = f" and {len(sources) - 1} more (one per seed)" if len(sources) > 1 else ""
    skipped = {name: why for name, why in first["skipped"].items() if name not in first["drawn"]}
    count = len(first["taken"]) + len(first["drawn"])
    lines = [
        f"from {sources[0]}{more}",
        f"{len(first['taken'])} of {text.plural(count, 'tensor')} transferred",
        *_reasons("newly initialised", first["drawn"]),
        *_reasons("not transferred", skipped),
        *([f"frozen: {_abbreviate_names(first['frozen'])}"] if first["frozen"] else []),
    ]
    body = Text("Transfer  ", style="bold")
    body.append("\n          ".join(map(text.one_line, lines)), style="not bold")
    return body


def plugin_lines(runs: Sequence[StoredRun]) -> Text | None:
    """Return the plug-ins whose components the runs use, and whether they are missing; None without any."""
    lines: dict[str, None] = {}
    for run in runs:
        for entry in run.record.get("plugins") or ():
            origin = PluginOrigin(entry["module"], entry["distribution"], entry["version"])
            state = origin.absence if origin.distribution is not None else ""
            lines[f"{entry['kind']} {entry['name']}: {origin}{state and f', {state}'}"] = None
    if not lines:
        return None
    body = Text("Plug-ins  ", style="bold")
    body.append("\n          ".join(map(text.one_line, lines)), style="not bold")
    return body


def model_line(runs: Sequence[StoredRun]) -> Text | None:
    """Return the function that built the nets of the runs; None for nets of initbench."""
    entries = [run.record["custom_model"] for run in runs if run.record.get("custom_model")]
    sources = [f"--model {e['function']} of module {e['module']}, code {e['code']}" for e in entries]
    return _source_lines("Network   ", sources)


def data_line(runs: Sequence[StoredRun]) -> Text | None:
    """Return the function that returned the data of the runs; None for data of initbench."""
    entries = [run.record["custom_data"] for run in runs if run.record.get("custom_data")]
    return _source_lines("Data      ", [f"--data-from {entry['function']}" for entry in entries])


def _source_lines(title: str, sources: Sequence[str]) -> Text | None:
    if not sources:
        return None
    body = Text(title, style="bold")
    lines = [f"made with {text.one_line(source)}" for source in dict.fromkeys(sources)]
    body.append(f"\n{' ' * len(title)}".join(lines), style="not bold")
    return body


def _reasons(label: str, why: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason, with the tensors that share it."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in why.items():
        by_reason.setdefault(str(reason), []).append(name)
    return [f"{label}: {_abbreviate_names(names)} ({reason})" for reason, names in by_reason.items()]


def _abbreviate_names(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, … {names[-1]} ({len(names)})"


_MAX_MOMENTS = 4
_KINDS = {"": "running statistics", "_batch": "batch statistics", "_population": "population statistics"}


def norm_tables(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> list[RenderableType]:
    """Return the tables about batch norm; empty without batch norm or measurements."""
    return [table for table in (_gaps(runs, all_layers=all_layers, width=width), _evaluations(runs)) if table]


def _gaps(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> RenderableType | None:
    moments = _moments(runs)
    layers = [layer["index"] for layer in next(iter(moments.values()), [[]])[0] if "batch_norm" in layer]
    if not layers:
        return None
    steps = text.evenly_spaced(sorted(moments), _MAX_MOMENTS)
    while True:
        grid = TextTable(
            ["Batch norm", "running mean gap", "running var ratio"], left_aligned=("Batch norm",)
        )
        for i in layers_to_show(len(layers), everything=all_layers):
            layers_by_step = [
                [_layer(run_layers, layers[i]) for run_layers in moments[step]] for step in steps
            ]
            gaps = [
                text.format_share(summarise(_values(at, "running_mean_gap")).mean) for at in layers_by_step
            ]
            ratios = [
                text.format_share(summarise_geometric(_values(at, "running_var_ratio")).mean)
                for at in layers_by_step
            ]
            grid.add([f"layer {layers[i]}", text.transition_chain(gaps), text.transition_chain(ratios)])
        if grid.width <= width or len(steps) < 3:
            break
        steps = text.evenly_spaced(steps, len(steps) - 1)
    seeds = text.plural(len(moments[steps[0]]), "seed")
    legend = (
        "gap: distance of the running means from the probe batch's means, in its standard deviations;"
        " ratio: running variances divided by the probe batch's variances;"
        f" {seeds}, steps {text.transition_chain([f'{s:,}' for s in steps])}"
    )
    return Group(grid.table(), Text(legend, style="dim"))


def _moments(runs: Sequence[StoredRun]) -> dict[int, list[list[dict[str, Any]]]]:
    """Return the layers of every run by step, for the steps at which all healthy runs were probed.

    Runs that diverged or failed are ignored unless all runs did.
    """
    going = [run for run in runs if run.record["status"] not in ("diverged", "failed")] or list(runs)
    by_step: dict[int, list[list[dict[str, Any]]]] = {}
    for run in going:
        for snapshot in (entry for entry in run.snapshots if "step" in entry):
            by_step.setdefault(snapshot["step"], []).append(snapshot["layers"])
    most = max(map(len, by_step.values()), default=0)
    return {step: run_layers for step, run_layers in by_step.items() if len(run_layers) == most}


def _layer(layers: Sequence[dict[str, Any]], index: int) -> dict[str, Any]:
    return next(layer for layer in layers if layer["index"] == index)


def _values(layers: Sequence[dict[str, Any]], statistic: str) -> list[float | None]:
    return [parse_number_or_none(layer.get("batch_norm", {}).get(statistic)) for layer in layers]


def _evaluations(runs: Sequence[StoredRun]) -> RenderableType | None:
    """Return accuracy and loss at init and end, by the statistics that batch norm normalises with."""
    ends = list(_ends(runs))
    if not ends:
        return None
    batch = (runs[0].record["config"].get("train") or {}).get("batch_size")
    headings = [f"{what}, {when}" for what in ("val %", "val loss") for when, _ in ends]
    grid = TextTable(["Evaluated with", *headings], left_aligned=("Evaluated with",))
    for kind, words in _KINDS.items():
        forms: tuple[tuple[str, Callable[[Summary], str]], ...] = (
            ("val_accuracy", text.percent_summary),
            ("val_loss", text.loss_summary),
        )
        cells = [
            form(summarise([parse_number_or_none(entry.get(name + kind)) for entry in entries]))
            for name, form in forms
            for _, entries in ends
        ]
        grid.add([f"{words} ({batch})" if kind == "_batch" and batch else words, *cells])
    return grid.table()


def _ends(runs: Sequence[StoredRun]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    begins = [entry for run in runs for entry in run.convergence[:1] if "val_loss_batch" in entry]
    finals = [final for run in runs if "val_loss_batch" in (final := run.record.get("final") or {})]
    yield from ((when, entries) for when, entries in (("init", begins), ("end", finals)) if entries)


_COLUMNS = {
    "gradient shift": "gradient_shift",
    "cosine": "gradient_shift_cosine",
    "mean drift": "input_mean_drift",
    "std drift": "input_std_drift",
}
_FROM_INIT = {"mean, from init": "input_mean_from_init", "std, from init": "input_std_from_init"}


def shift_table(runs: Sequence[StoredRun], *, all_layers: bool, width: int) -> RenderableType | None:
    """Return each layer's covariate shift, averaged over measured updates and runs; None if not measured."""
    measured = [run for run in runs if run.shifts]
    if not measured:
        return None
    layers = measured[0].shifts[0]["layers"]
    grid = TextTable(["Covariate shift", *_COLUMNS, *_FROM_INIT], left_aligned=("Covariate shift",))
    for i in layers_to_show(len(layers), everything=all_layers):
        is_head = i == len(layers) - 1
        cells = [text.format_share(mean_shift(measured, i, name)) for name in _COLUMNS.values()]
        last = [text.format_share(_last(measured, i, name)) for name in _FROM_INIT.values()]
        name = f"{'head' if is_head else 'layer'} {layers[i]['index']}"
        grid.add([name, *cells, *last], "dim" if is_head else None)
    updates = text.plural(len(measured[0].shifts), "measured update")
    legend = (
        "gradient shift: ‖G′ − G‖/‖G‖, cosine: between G and G′, a layer's gradients before and after"
        " the layers below it make the same update; drift: change of the layer's input since the previous"
        " measured update, in standard deviations;"
        f" means over {updates} and {text.plural(len(measured), 'seed')}"
    )
    return Group(grid.fitting(width, expendable=list(_FROM_INIT)).table(), Text(legend, style="dim"))


def mean_shift(runs: Sequence[StoredRun], layer: int, name: str) -> float | None:
    """Return the mean over runs of the mean over the updates of each run, for the layer at a position."""
    means = [
        summarise([parse_number_or_none(entry["layers"][layer][name]) for entry in run.shifts]).mean
        for run in runs
    ]
    return summarise(means).mean


def _last(runs: Sequence[StoredRun], layer: int, name: str) -> float | None:
    return summarise([parse_number_or_none(run.shifts[-1]["layers"][layer][name]) for run in runs]).mean
