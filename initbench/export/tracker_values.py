"""Values of a run in the form that experiment trackers share: named numbers and histograms by step."""

from __future__ import annotations

from collections.abc import Iterator

from initbench.export.tables import LAYER_STATISTICS, RunTables
from initbench.store.histograms import Histogram


def curve_scalars(tables: RunTables) -> Iterator[tuple[int, str, float]]:
    """Yield step, column of `curves` and number of every evaluation; the epoch is omitted."""
    for row in tables.curves:
        for name, number in row.items():
            if name not in ("step", "epoch") and number is not None:
                yield row["step"], name, number


def layer_scalars(tables: RunTables) -> Iterator[tuple[int, str, float]]:
    """Yield step, name (such as `act_std/layer_03`) and number of every statistic of a layer.

    If a name occurs twice at a step, the later measurement comes last.
    """
    for row in tables.layers:
        for column in LAYER_STATISTICS:
            if (number := row.get(column.name)) is not None:
                yield row["step"] or 0, f"{column.name}/{_layer_tag(row['layer'])}", number


def layer_histograms_by_step(tables: RunTables) -> Iterator[tuple[int, str, Histogram]]:
    """Yield step, name (such as `activation/layer_03`) and histogram, in the order of `layer_scalars`."""
    for entry in tables.histograms:
        yield entry.step or 0, f"{entry.quantity}/{_layer_tag(entry.layer)}", entry.histogram


def bins_with_outside(histogram: Histogram) -> list[tuple[float, float, int]]:
    """Return lower edge, upper edge and count of each bin.

    Entries below or above all bins are in an additional bin of the width of its neighbour; NaN is omitted.
    A histogram without a scale, whose edges are all equal, becomes bins of width 1 around that value.
    """
    edges, counts = histogram.edges, histogram.counts
    if edges[0] == edges[-1]:
        edges, counts = [edges[0] - 0.5, edges[0] + 0.5], [sum(counts)]
    bins = list(zip(edges, edges[1:], counts, strict=False))
    if histogram.below:
        bins.insert(0, (2 * edges[0] - edges[1], edges[0], histogram.below))
    if histogram.above:
        bins.append((edges[-1], 2 * edges[-1] - edges[-2], histogram.above))
    return bins


def _layer_tag(layer: int) -> str:
    """Return the name of a layer with two digits, because trackers sort names as text."""
    return f"layer_{layer:02d}"
