"""Histograms in the layer records of a run.

A record stores either the edges of its bins, or `span`, the interval that its counts divide into equal bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUANTITIES = {"activation": "act", "pre_activation": "pre", "gradient": "grad"}
"""Names of the quantities with histograms, and the keys of their statistics in the record of a layer."""


@dataclass(frozen=True)
class Histogram:
    """Counts of the entries of one tensor."""

    edges: list[float]
    """Edges of the bins in ascending order, one more than bins; all are 0 for a tensor without a scale."""
    counts: list[int]
    """Number of entries in each bin; an entry at the last edge belongs to the last bin."""
    below: int
    """Number of entries below the first edge."""
    above: int
    """Number of entries above the last edge."""
    nan: int
    """Number of entries that are NaN."""

    @property
    def total(self) -> int:
        """Number of entries of the tensor."""
        return sum(self.counts) + self.below + self.above + self.nan


def parse_histogram(record: Mapping[str, Any]) -> Histogram:
    """Return the histogram in a checked record.

    Args:
        record: Has `counts`, `below`, `above` and `nan`, and either `edges` or `span` = [low, high].
    """
    counts = list(map(int, record["counts"]))
    if "edges" in record:
        edges = list(map(float, record["edges"]))
    else:
        low, high = record["span"]
        width = (high - low) / len(counts)
        edges = [low + width * i for i in range(len(counts))] + [float(high)]
    return Histogram(edges, counts, int(record["below"]), int(record["above"]), int(record["nan"]))


def histogram_range(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the first and the last edge of the histogram in a checked record."""
    ends = record["edges"] if "edges" in record else record["span"]
    return float(ends[0]), float(ends[-1])


def layer_histograms(layer: Mapping[str, Any]) -> dict[str, Histogram]:
    """Return the histograms in the record of a layer by the names in QUANTITIES; absent ones are omitted."""
    records = {name: (layer.get(key) or {}).get("histogram") for name, key in QUANTITIES.items()}
    return {name: parse_histogram(record) for name, record in records.items() if record is not None}
