"""Layer statistics of an experiment, averaged over its seeds, from stored snapshots."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.stats.summary import summarise, summarise_geometric
from initbench.store.record_schema import layer_signature
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number, parse_number_or_none

_Form = tuple[Any, Any, int | None]
"""Signatures of the probed layers and of those with a measured shift, and number of pre-trained layers.

Each is None if the run does not record it."""


@dataclass(frozen=True)
class LayerView:
    """Statistics of one layer at one moment, averaged over all runs that were probed then."""

    index: int
    is_head: bool
    pre_q: float | None
    act_std: float | None
    zero: float | None
    dead: float | None
    saturated: float | None
    gradient: float | None
    """Geometric mean of E[δ²] over the runs; 0 if it is 0 in any run."""
    shape: list[float]
    """Counts of the non-zero activations in the bins of `edges`; empty for a layer without activation."""
    edges: list[float]


def snapshot_at(run: StoredRun, when: str) -> dict[str, Any] | None:
    """Return the run's snapshot at `when` ("init" or "end"), or None if it was not probed then."""
    return next((s for s in run.snapshots if s["when"] == when), None)


def group_by_layers(runs: Sequence[StoredRun]) -> list[list[StoredRun]]:
    """Group the runs by their layers; a run that does not record its layers joins the first group."""
    parts: list[tuple[list[StoredRun], list[_Form]]] = []
    for run in runs:
        form = _form(run)
        for members, forms in parts:
            if all(_agree(form, other) for other in forms):
                members.append(run)
                forms.append(form)
                break
        else:
            parts.append(([run], [form]))
    return [members for members, _ in parts]


def _form(run: StoredRun) -> _Form:
    pretraining = run.record.get("pretraining") or {}
    return (
        layer_signature(run.snapshots[0]) if run.snapshots else None,
        layer_signature(run.shifts[0]) if run.shifts else None,
        len(pretraining["layers"]) if pretraining else None,
    )


def _agree(form: _Form, other: _Form) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(form, other, strict=True))


def probed_at_both_ends(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the runs to average from init to end: those probed at both moments, or all if there are none.

    Means over different runs at the two moments would show a change that happened in no run.
    """
    both = [run for run in runs if snapshot_at(run, "init") and snapshot_at(run, "end")]
    return both or list(runs)


def layers_at(runs: Sequence[StoredRun], when: str) -> list[LayerView]:
    """Return the layers at `when` ("init" or "end"); empty if no run was probed then."""
    return layer_views([s for run in runs if (s := snapshot_at(run, when))])


def layer_views(snapshots: Sequence[dict[str, Any]]) -> list[LayerView]:
    """Return the layers of snapshots of one net, averaged over the snapshots; empty without any."""
    if not snapshots:
        return []
    depth = len(snapshots[0]["layers"])
    return [_view([s["layers"][i] for s in snapshots], is_head=i == depth - 1) for i in range(depth)]


def _view(layers: Sequence[dict[str, Any]], *, is_head: bool) -> LayerView:
    def mean(section: str, statistic: str) -> float | None:
        values = [layer[section][statistic] if layer[section] else None for layer in layers]
        return summarise([parse_number_or_none(v) for v in values]).mean

    gradients = [parse_number_or_none(layer["grad"]["pre_q"]) for layer in layers]
    shapes = [_without_zeros(layer["act"]) for layer in layers if layer["act"]]
    return LayerView(
        index=layers[0]["index"],
        is_head=is_head,
        pre_q=mean("pre", "q"),
        act_std=mean("act", "std"),
        zero=mean("act", "zero_fraction"),
        dead=mean("act", "dead_fraction"),
        saturated=mean("act", "saturated_fraction"),
        gradient=0.0 if 0.0 in gradients else summarise_geometric(gradients).mean,
        shape=[sum(column) for column in zip(*shapes, strict=True)],
        edges=layers[0]["act"]["histogram"]["edges"] if layers[0]["act"] else [],
    )


def _without_zeros(act: dict[str, Any]) -> list[float]:
    """Return the counts without the exact zeros, which have their own column and would dwarf the rest."""
    histogram = act["histogram"]
    counts = [float(count) for count in histogram["counts"]]
    total = sum(counts) + histogram["below"] + histogram["above"] + histogram["nan"]
    zero_bin = bisect_right(histogram["edges"], 0.0) - 1
    zeros = parse_number(act["zero_fraction"])
    if 0 <= zero_bin < len(counts) and not math.isnan(zeros):
        counts[zero_bin] = max(0.0, counts[zero_bin] - round(zeros * total))
    return counts


MAX_LAYERS = 24


def layers_to_show(count: int, *, everything: bool) -> list[int]:
    """Return the positions of the layers to show: all up to 24, else both ends and some evenly between."""
    if everything or count <= MAX_LAYERS:
        return list(range(count))
    middle = [round(i * (count - 1) / 12) for i in range(13)]
    return sorted({0, 1, 2, *middle, count - 3, count - 2, count - 1})
