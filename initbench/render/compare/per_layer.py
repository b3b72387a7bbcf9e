"""Table with one line for each layer of each row, init → end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import summarise, summarise_geometric
from initbench.analysis.tables import Row
from initbench.render import text
from initbench.render.compare import notes
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.table import ComparisonTable
from initbench.store.packed_numbers import Layer

_Form = Callable[[float | None], str]
_LayersOfRun = dict[str, list[Layer]]
"""Layers of one run by moment. A run unpacks them whenever it is asked, so the tables ask only once a row."""
_STATISTICS: dict[str, tuple[str, _Form]] = {
    "std": ("act_std", text.format_number),
    "mean": ("act_mean", text.format_number),
    "zeros %": ("zero_fraction", text.format_percent),
    "dead %": ("dead_fraction", text.format_percent),
    "saturated %": ("saturated_fraction", text.format_percent),
    "effective rank": ("effective_rank", text.format_number),
    "q": ("q", text.format_number),
    "E[δ²]": ("delta_q", text.format_scientific),
    "running mean gap": ("running_mean_gap", text.format_number),
    "running var ratio": ("running_var_ratio", text.format_number),
}


def layer_lines(judged: AnalysedTable, title: str) -> ComparisonTable:
    """Return a table of every layer of every row; a warning names rows whose runs differ in depth."""
    probed = {row.label: _probed(row) for row in judged.rows}
    measured = _measured_statistics(probed.values())
    statistics = {heading: form for heading, form in _STATISTICS.items() if form[0] in measured}
    label = "row" if judged.table.by else "experiment"
    block = ComparisonTable(title, [label, "layer", "n", *statistics], frozenset([label, "layer"]), fixed=2)
    mixed = []
    for row in judged.rows:
        runs, name = [run.layers for run in probed[row.label]], text.one_line(row.label)
        depths = {len(layers["init"]) for layers in runs}
        if len(depths) > 1:
            mixed.append(f"{name} has runs with {_join_depths(depths)} layers, which cannot be averaged.")
        if len(depths) != 1:
            block.add(name, text.DASH, str(len(runs)), *[text.DASH] * len(statistics))
            continue
        for i in range(depths.pop()):
            block.add(
                name,
                _layer_label(runs, i),
                "" if i else str(len(runs)),
                *(_transition(runs, i, *s) for s in statistics.values()),
            )
            name = ""
    block.notes = [
        "init → end, means over seeds (geometric for E[δ²]). Runs that were probed only at init are omitted"
        " if other runs were probed at both. q = E[h²] of the pre-activation h; E[δ²]: mean square of the"
        " gradient δ = ∂L/∂h."
    ]
    block.summary = "init → end, means over seeds"
    block.warnings = [*mixed, *notes.row_warnings(judged)]
    return block


def _probed(row: Row) -> list[RunSummary]:
    """Return the complete runs that were probed at init and at the end; otherwise those probed at init."""
    probed_runs = [run for run in row.group.runs if run.is_complete and run.layers.get("init")]
    both = [run for run in probed_runs if len(run.layers.get("end", [])) == len(run.layers["init"])]
    return both or probed_runs


def _measured_statistics(rows: Iterable[list[RunSummary]]) -> set[str]:
    """Return the statistics that at least one layer of one run has."""
    layers_of_runs = (layers for runs in rows for run in runs for layers in run.layers.values())
    return {
        name
        for layers in layers_of_runs
        for layer in layers
        for name, value in layer.items()
        if value is not None
    }


def _layer_label(runs: Sequence[_LayersOfRun], i: int) -> str:
    return f"head {i + 1}" if runs[0]["init"][i]["act_std"] is None else f"layer {i + 1}"


def _transition(runs: Sequence[_LayersOfRun], i: int, statistic: str, form: _Form) -> str:
    moments = [
        [layers[moment][i] for layers in runs] for moment in ("init", "end") if _all_have(runs, moment)
    ]
    means = [form(_mean(layers, statistic)) for layers in moments]
    return text.transition(means[0], means[-1])


def _all_have(runs: Sequence[_LayersOfRun], moment: str) -> bool:
    return all(len(layers.get(moment, [])) == len(layers["init"]) for layers in runs)


def _mean(layers: Sequence[Layer], statistic: str) -> float | None:
    values = [layer.get(statistic) for layer in layers]
    if statistic != "delta_q":
        return summarise(values).mean
    # The logarithm of 0 does not exist, so gradients that contain zeros have an arithmetic mean.
    return summarise_geometric(values).mean if all(values) else summarise(values).mean


def _join_depths(depths: set[int]) -> str:
    return " and ".join(map(str, sorted(depths)))


LAYER_FIELDS = ("dataset", "row", "layer", "moment", "n", *(name for name, _ in _STATISTICS.values()))


def layer_records(judged: AnalysedTable) -> Iterator[dict[str, object]]:
    """Yield one record for each row, layer and moment, with the means under the keys LAYER_FIELDS.

    Rows whose runs differ in depth are skipped.
    """
    for row in judged.rows:
        runs = [run.layers for run in _probed(row)]
        if len({len(layers["init"]) for layers in runs}) != 1:
            continue
        for i in range(len(runs[0]["init"])):
            for moment in ("init", "end"):
                if _all_have(runs, moment):
                    layers = [layers_of_run[moment][i] for layers_of_run in runs]
                    means = {name: _mean(layers, name) for name, _ in _STATISTICS.values()}
                    shared = {"dataset": judged.table.dataset, "row": row.label, "n": len(runs)}
                    yield {**shared, "layer": i + 1, "moment": moment, **means}
