"""Output of `run` and `show` for an experiment: layers, convergence, diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from initbench.analysis.stats.summary import Summary, summarise
from initbench.render import text
from initbench.render.condition_notes import condition_words
from initbench.render.layer_means import (
    LayerView,
    group_by_layers,
    layers_at,
    layers_to_show,
    probed_at_both_ends,
    snapshot_at,
)
from initbench.render.run_sections import (
    data_line,
    model_line,
    norm_tables,
    plugin_lines,
    pretraining_table,
    shift_table,
    transfer_lines,
)
from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable
from initbench.store.scores import RecordedScore, recorded_scores
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number_or_none

_STATUS_STYLE = {"finished": "green", "diverged": "yellow", "running": "cyan"}
_MAX_STEPS = 6


def print_experiment(console: Console, runs: Sequence[StoredRun], *, all_layers: bool) -> None:
    """Print all tables of the runs of one experiment."""
    print_uncut(
        console,
        render_experiment(
            runs, all_layers=all_layers, width=console.width, ascii_only=console.options.ascii_only
        ),
    )


def render_experiment(
    runs: Sequence[StoredRun], *, all_layers: bool, width: int, ascii_only: bool = False
) -> RenderableType:
    """Return heading, activation statistics, convergence and diagnosis of the runs of one experiment.

    If `width` is too small, fewer steps and columns are shown; the histogram at init is dropped last. Runs
    with different layers are shown one after another, even if their records claim the same experiment.
    """
    parts = group_by_layers(runs)
    if len(parts) > 1:
        return Group(
            *(
                render_experiment(part, all_layers=all_layers, width=width, ascii_only=ascii_only)
                for part in parts
            )
        )
    blank = Text("")
    sections = (
        model_line(runs),
        data_line(runs),
        plugin_lines(runs),
        pretraining_table(runs),
        transfer_lines(runs),
    )
    preparation = [section for section in sections if section is not None]
    return Group(
        render_heading(runs),
        blank,
        *(part for table in preparation for part in (table, blank)),
        activation_table(runs, all_layers=all_layers, width=width, ascii_only=ascii_only),
        blank,
        convergence_table(runs, width=width),
        blank,
        *(part for table in _measured(runs, all_layers, width) for part in (table, blank)),
        render_diagnosis(runs),
        blank,
    )


def _measured(runs: Sequence[StoredRun], all_layers: bool, width: int) -> list[RenderableType]:
    """Return the tables that only some nets have, or only some configs request."""
    shift = shift_table(runs, all_layers=all_layers, width=width)
    return [*norm_tables(runs, all_layers=all_layers, width=width), *([shift] if shift else [])]


def render_heading(runs: Sequence[StoredRun]) -> Text:
    """Return one line that says what was run."""
    record = runs[0].record
    config = record["config"]
    used, asked = record["dataset"], record["dataset_requested"]
    parts = [
        *net_words(config),
        text.dataset_used(used, asked),
        *condition_words(config.get("data", {})),
        text.plural(len(runs), "seed"),
        record["device"],
    ]
    if record.get("steps"):
        parts.append(text.plural(record["steps"], "step"))
    line = Text(text.one_line(record["experiment"]), style="bold")
    line.append("   " + text.one_line(" · ".join(parts)), style="not bold")
    return line


def net_words(config: Mapping[str, Any]) -> list[str]:
    """Return four terms that describe the net of a stored config: shape, activation, norm and init.

    A net of the user has its options in place of the shape.
    """
    model = config["model"]
    size = f"{model['depth']} × {model['width']}" if "depth" in model else str(model.get("model", ""))
    options = model.get("options", {})
    words = [size, *(f"{key}={value}" for key, value in options.items())]
    return [
        " ".join([model["family"], *filter(None, words)]),
        *text.layer_words(_name(model["activation"]), _name(model["norm"])),
        str(_name(config["init"]["scheme"])),
    ]


def _name(choice: Any) -> str | None:
    name: str | None = choice["name"] if isinstance(choice, dict) else choice
    return name


def activation_table(
    runs: Sequence[StoredRun], *, all_layers: bool, width: int, ascii_only: bool = False
) -> RenderableType:
    """Return a table of the layers at init and end, averaged over the runs that were probed at both."""
    probed = probed_at_both_ends(runs)
    init, end = layers_at(probed, "init"), layers_at(probed, "end")
    reference = init or end
    if not reference:
        return Text("No layer was probed.", style="dim")
    bounded = any(layer.saturated is not None for layer in reference)
    columns = ["Activations", "std", "zeros %", "dead %", *(["saturated %"] if bounded else []), "E[δ²]"]
    moments = [moment for moment, layers in (("init", init), ("end", end)) if layers]
    grid = TextTable([*columns, *moments], left_aligned=("Activations", *moments))
    for i in layers_to_show(len(reference), everything=all_layers):
        views = [layers[i] for layers in (init, end) if layers]
        grid.add(
            _layer_cells(views, bounded=bounded, ascii_only=ascii_only), None if views[0].shape else "dim"
        )
    narrower = grid.fitting(width, expendable=[*moments[1:], "dead %", *moments[:1]])
    legend = _legend(_seeds(len(probed), len(runs)), reference, moments)
    dropped = [_IN_WORDS.get(name, name) for name in grid.headings if name not in narrower.headings]
    if dropped:
        legend += f"; omitted at {width} columns: {', '.join(dropped)}"
    return Group(narrower.table(), Text(legend, style="dim"))


_IN_WORDS = {"init": "bars at init", "end": "bars at the end"}


def _seeds(part: int, whole: int) -> str:
    """Return in words over how many of the seeds a number is averaged."""
    if whole == 1:
        return "one seed"
    share = f"{whole} seeds" if part == whole else f"{part} of {whole} seeds"
    return share if part == 1 else f"means over {share}"


def _legend(seeds: str, layers: Sequence[LayerView], moments: Sequence[str]) -> str:
    edges = layers[0].edges
    bars = f"bars: non-zero activations from {edges[0]:g} to {edges[-1]:g}; " if edges else ""
    return f"{bars}E[δ²]: mean squared pre-activation gradient; {seeds}, {' → '.join(moments)}"


def _layer_cells(views: Sequence[LayerView], *, bounded: bool, ascii_only: bool) -> list[str]:
    first, last = views[0], views[-1]

    def cell(form: Any, statistic: str) -> str:
        return text.transition(form(getattr(first, statistic)), form(getattr(last, statistic)))

    shares = ["zero", "dead", *(["saturated"] if bounded else [])]
    return [
        f"head {first.index}" if first.is_head else f"layer {first.index}",
        cell(text.format_number, "act_std"),
        *(cell(text.format_percent, share) for share in shares),
        cell(text.format_scientific, "gradient"),
        *(text.sparkline(view.shape, ascii_only=ascii_only) if view.shape else "" for view in views),
    ]


def convergence_table(runs: Sequence[StoredRun], *, width: int) -> RenderableType:
    """Return scores and losses over the steps, then test scores and the runs that did not finish.

    Numbers are mean ± std over the runs that neither diverged nor failed, or over all if there are none.
    """
    steps = sorted({entry["step"] for run in runs for entry in run.convergence})
    if not steps:
        return Text("No run was evaluated.", style="dim")
    going = [run for run in runs if run.record["status"] not in ("diverged", "failed")]
    for most in range(_MAX_STEPS, 1, -1):
        grid = _convergence_grid(going or runs, text.evenly_spaced(steps, most), best=bool(going))
        if grid.width <= width:
            break
    return Group(grid.table(), *_ends(runs))


def _convergence_grid(runs: Sequence[StoredRun], steps: Sequence[int], *, best: bool) -> TextTable:
    headings = ["Convergence", *(f"step {step:,}" for step in steps), *(["best"] if best else [])]
    grid = TextTable(headings, left_aligned=("Convergence",))
    recorded = recorded_scores(key for run in runs for entry in run.convergence for key in entry)
    quantities = [(f"val_{score.name}", score) for score in recorded]
    losses = [
        (key, RecordedScore("loss", "loss", "loss", "loss", "lower")) for key in ("val_loss", "train_loss")
    ]
    for key, score in (*quantities, *losses):
        form = text.percent_summary if score.form == "percent" else text.loss_summary
        cells = [form(_at(runs, step, key)) for step in steps]
        extreme = [form(_extreme(runs, key, max if score.better == "higher" else min))] if best else []
        title = f"{key.partition('_')[0]} {score.title}" + " %" * (score.form == "percent")
        grid.add([title, *cells, *extreme])
    return grid


def _at(runs: Sequence[StoredRun], step: int, key: str) -> Summary:
    entries = [entry for run in runs for entry in run.convergence if entry["step"] == step]
    return summarise([parse_number_or_none(entry.get(key)) for entry in entries])


def _extreme(runs: Sequence[StoredRun], key: str, pick: Callable[[list[float]], float]) -> Summary:
    values = [[parse_number_or_none(e.get(key)) for e in run.convergence] for run in runs]
    finite = [[v for v in column if v is not None and not math.isnan(v)] for column in values]
    return summarise([pick(column) for column in finite if column])


def _ends(runs: Sequence[StoredRun]) -> list[Text]:
    """Return a line for the test scores, and one for each run that did not finish."""
    finals = [run.record["final"] for run in runs if run.record.get("final")]
    lines = []
    words = [_test_words(finals, score) for score in recorded_scores((k for f in finals for k in f), "test_")]
    if words:
        n = len(finals)
        spread = "so no standard deviation" if n == 1 else "± is the standard deviation"
        lines.append(Text(f"test {', '.join(words)}  (n = {n}, {spread})"))
    for run in runs:
        status = run.record["status"]
        if status != "finished":
            lines.append(
                Text(f"seed {run.record['seed']} {_status_text(run)}", style=_STATUS_STYLE.get(status, "red"))
            )
    return lines


def _test_words(finals: Sequence[Mapping[str, Any]], score: RecordedScore) -> str:
    """Return the name and the mean of a test score, as in `accuracy 97.3 ±0.2 %`."""
    summary = summarise([parse_number_or_none(final.get(f"test_{score.name}")) for final in finals])
    if score.form == "percent":
        return f"{score.title} {text.percent_summary(summary)} %"
    return f"{score.title} {text.loss_summary(summary)}"


def _status_text(run: StoredRun) -> str:
    record = run.record
    if record["status"] == "diverged" and record.get("diverged"):
        at = record["diverged"]
        layer = "" if at["layer"] is None else f", first in layer {at['layer']}"
        return f"diverged after {text.plural(at['step'], 'update')}{layer}"
    error = str(record.get("error") or "").strip().splitlines()
    return str(record["status"]) + (f": {text.one_line(error[-1])}" if error else "")


def failure_tracebacks(runs: Sequence[StoredRun]) -> Iterator[str]:
    """Yield each traceback of failed runs once, after the ids of the runs that failed with it."""
    run_ids_by_error: dict[str, list[str]] = {}
    for run in runs:
        if run.record["status"] == "failed" and run.record.get("error"):
            run_ids_by_error.setdefault(str(run.record["error"]).rstrip(), []).append(run.run_id)
    for error, run_ids in run_ids_by_error.items():
        yield text.escape_lines(f"{', '.join(run_ids)}\n{error}\n")


def render_diagnosis(runs: Sequence[StoredRun]) -> RenderableType:
    """Return the findings, each code once, with the number of runs in which it was found."""
    findings_by_code: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for finding in run.record.get("diagnosis") or []:
            findings_by_code.setdefault(finding["code"], []).append(finding)
    if not findings_by_code:
        return Text.assemble(("Diagnosis  ", "bold"), _nothing_found(runs))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    if all(finding.get("level") == "note" for findings in findings_by_code.values() for finding in findings):
        grid.add_row(Text("Diagnosis", style="bold"), Text("healthy, with a note:", style="green"))
    for code, findings in findings_by_code.items():
        label = Text("" if grid.row_count else "Diagnosis", style="bold")
        message = text.one_line(findings[0]["message"])
        share = "" if len(runs) == 1 else f" ({len(findings)} of {len(runs)} seeds)"
        style = "bold" if findings[0].get("level") == "note" else "bold yellow"
        grid.add_row(label, Text.assemble((f"{text.one_line(code)}{share}: ", style), message))
    return grid


def _nothing_found(runs: Sequence[StoredRun]) -> tuple[str, str]:
    """Return the meaning of an empty diagnosis and its style: only a probed net is called healthy."""
    if any(run.record.get("diagnosis") is None for run in runs):
        return "none yet", "dim"
    if not all(snapshot_at(run, "init") for run in runs):
        return "nothing found, but not probed at init", "dim"
    return "healthy", "green"
