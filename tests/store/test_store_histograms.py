"""Histograms in layer records, with stored edges or with a span."""

from __future__ import annotations

from initbench.store.histograms import Histogram, layer_histograms, parse_histogram

REST = {"below": 1, "above": 2, "nan": 3}


def test_edges_are_returned_as_stored():
    parsed = parse_histogram({"edges": [0, 0.5, 2.0], "counts": [4, 5], **REST})
    assert parsed == Histogram([0.0, 0.5, 2.0], [4, 5], 1, 2, 3)
    assert parsed.total == 15


def test_a_span_is_divided_into_equal_bins_that_end_at_its_ends():
    parsed = parse_histogram({"span": [-0.3, 0.3], "counts": [0, 4, 0], **REST})
    assert parsed.edges[0] == -0.3 and parsed.edges[-1] == 0.3  # -0.3 + 3 · 0.2 is not
    widths = [high - low for low, high in zip(parsed.edges, parsed.edges[1:], strict=False)]
    assert max(abs(width - 0.2) for width in widths) < 1e-15
    assert parsed.counts == [0, 4, 0]


def test_absent_histograms_are_omitted():
    record = {"span": [0, 1], "counts": [7], **REST}
    layer = {"pre": {"q": 1.0, "histogram": record}, "act": None, "grad": {"pre_q": None, "histogram": None}}
    assert layer_histograms(layer) == {"pre_activation": Histogram([0.0, 1.0], [7], 1, 2, 3)}
    layer["act"] = {"histogram": record}
    assert list(layer_histograms(layer)) == ["activation", "pre_activation"]
