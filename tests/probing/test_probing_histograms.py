"""Histograms of pre-activations and gradients: counts against numpy on the raw tensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing import tensor_statistics
from initbench.probing.network_probe import MAP_SAMPLES, probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry_choice import options_model
from initbench.store.histograms import layer_histograms, parse_histogram

BINS = 32


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scaled_histogram(x, bins=BINS):
    x = x.double()
    return tensor_statistics.scaled_histogram(x, tensor_statistics.mean_square(x), bins)


def total(histogram):
    return sum(histogram["counts"]) + histogram["below"] + histogram["above"] + histogram["nan"]


def assert_equals_numpy(histogram, raw, bins=BINS):
    """Compare with np.histogram over ±4 root mean squares of the raw float32 entries."""
    entries = raw.detach().double().numpy()
    high = 4.0 * np.sqrt(np.mean(entries**2))
    low, end = histogram["span"]
    assert (low, end) == (-end, pytest.approx(high, rel=2e-12))
    assert histogram["counts"] == np.histogram(entries, bins, (low, end))[0].tolist()
    assert histogram["below"] == (entries < low).sum()
    assert histogram["above"] == (entries > end).sum()
    assert histogram["nan"] == 0
    assert all(type(count) is int for count in histogram["counts"])


TENSORS = {
    "normal": noise(512, 128),
    "shifted": noise(512, 128) + 3.0,
    "relu": noise(512, 128).relu(),
    "cubed": noise(512, 128) ** 3,
    "tiny": noise(512, 128) * 1e-30,
    "subnormal": noise(512, 128) * 1e-42,
    "huge": noise(512, 128) * 1e30,
    "largest": noise(512, 128) * 4e37,
    "maps": noise(8, 4, 9, 7).movedim(1, -1),
    "ones": torch.ones(64, 4),
    "signs": noise(64, 4).sign(),
    "single": noise(1, 1),
}


@pytest.mark.parametrize("bins", [2, 7, 32, 1024])
@pytest.mark.parametrize("name", TENSORS)
def test_the_counts_are_those_of_numpy(name, bins):
    assert_equals_numpy(scaled_histogram(TENSORS[name], bins), TENSORS[name], bins)


def test_entries_lie_outside_only_if_tails_are_heavy():
    """Beyond 4σ, 4 of 65,536 normals are expected, and 1.3 % of their cubes, whose σ is √15."""
    outside = {
        name: (h["below"] + h["above"]) / total(h)
        for name, h in ((name, scaled_histogram(TENSORS[name])) for name in ("normal", "cubed", "ones"))
    }
    assert outside["normal"] < 20 / 65536
    cubed = math.erfc((4 * math.sqrt(15)) ** (1 / 3) / math.sqrt(2))
    assert outside["cubed"] == pytest.approx(cubed, rel=0.2)
    assert outside["ones"] == 0.0


@pytest.mark.parametrize("value", [1.5, 0.1, 1 / 3, 1e-30])
def test_rounding_does_not_decide_the_bin_of_an_entry_at_an_edge(value):
    """One entry in 16 is ±c, so that 4 root mean squares are c; or all are, and c is an edge of 8 bins."""
    x = torch.zeros(64)
    x[:3], x[3] = value, -value
    single = scaled_histogram(x, 4)
    assert (single["below"], single["counts"], single["above"]) == (0, [1, 0, 60, 3], 0)
    signs = scaled_histogram(torch.tensor([value] * 5 + [-value] * 2), 8)
    assert signs["counts"] == [0, 0, 0, 2, 5, 0, 0, 0]


@pytest.mark.parametrize("bins", [2, 7, 10, 32, 33])
def test_zeros_lie_in_the_middle_bin(bins):
    x = noise(4096).relu() * 0.37
    zeros = int((x == 0).sum())
    half = scaled_histogram(x, bins)["counts"]
    assert sum(half[: bins // 2]) == 0
    assert half[bins // 2] >= zeros
    nothing = scaled_histogram(torch.zeros(50), bins)
    assert parse_histogram(nothing).edges == [0.0] * (bins + 1)
    assert nothing["span"] == [0.0, 0.0]
    assert nothing["counts"] == [50 if i == bins // 2 else 0 for i in range(bins)]
    assert (nothing["below"], nothing["above"], nothing["nan"]) == (0, 0, 0)


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_without_a_finite_scale_the_signs_are_counted(lost):
    x = torch.tensor([lost, -2.0, -1.0, 0.0, 3.0, 4.0, 5.0])
    assert scaled_histogram(x, 4) == {
        "span": [0.0, 0.0],
        "counts": [0, 0, 1, 0],
        "below": 2 + (lost == -math.inf),
        "above": 3 + (lost == math.inf),
        "nan": int(math.isnan(lost)),
    }


@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0]), min_size=1, max_size=40),
    st.integers(2, 40),
)
def test_no_entry_is_lost_and_the_span_is_symmetric(entries, bins):
    x = torch.tensor(entries, dtype=torch.float32)
    histogram = scaled_histogram(x, bins)
    assert total(histogram) == len(entries)
    assert min(histogram["counts"]) >= 0
    assert len(histogram["counts"]) == bins
    assert histogram["nan"] == sum(map(math.isnan, entries))
    low, high = histogram["span"]
    assert -low == high
    assert math.isfinite(high)
    # At least one entry is not larger than the root mean square, and lies well inside of the span.
    if all(map(math.isfinite, entries)):
        assert sum(histogram["counts"]) > 0
        assert (high > 0.0) == any(entries)
        for end, count in ((low, histogram["below"]), (high, histogram["above"])):
            ratios = [value / end if end else 0.0 for value in entries]
            assert sum(r > 1.0 + 1e-12 for r in ratios) <= count <= sum(r > 1.0 - 1e-12 for r in ratios)


def probed(network, x, detail):
    state = dict(network.named_parameters()), dict(network.named_buffers())
    y = torch.arange(len(x)).remainder(5)
    return probe(network, *state, x=x, y=y, loss=cross_entropy, bins=BINS, detail=detail)


NETS = {
    "mlp": {"depth": 4, "width": 16},
    "cnn": {"depth": 4},
    "resnet": {"depth": 8, "width": 4, "norm": "batch"},
    "torchvision": {},
}


@pytest.mark.parametrize("detail", [ProbeDetail.EVALUATION, ProbeDetail.FULL])
@pytest.mark.parametrize("family", NETS)
def test_every_layer_of_a_probe_has_the_histograms_of_its_tensors(family, detail):
    network = build(
        options_model(FAMILIES[family], "family")(**NETS[family]),
        InitOptions(),
        form=SampleShape((3, 32, 32), 5),
        seed=0,
        batch=noise(4, 3, 32, 32),
    )
    tensors, gradients = {}, {}
    for layer in network.weight_layers():

        def keep(_module, _inputs, output, index=layer.index):
            if output.requires_grad and index not in tensors:  # the pass itself, without those of Jacobians
                tensors[index] = output.detach().clone()
                output.register_hook(lambda delta: gradients.update({index: delta.clone()}))

        layer.output.register_forward_hook(keep)
    records = probed(network, noise(MAP_SAMPLES, 3, 32, 32), detail)
    assert [record["index"] for record in records] == list(tensors)
    for record in records:
        index = record["index"]
        assert_equals_numpy(record["pre"]["histogram"], tensors[index])
        assert_equals_numpy(record["grad"]["histogram"], gradients[index])
        read = layer_histograms(record)
        assert list(read) == ["activation", "pre_activation", "gradient"][record["act"] is None :]
        assert read["pre_activation"].total == tensors[index].numel() == read["gradient"].total
    assert records[-1]["act"] is None


def test_a_diagnosis_needs_no_histograms():
    network = build(
        options_model(FAMILIES["mlp"], "family")(**NETS["mlp"]),
        InitOptions(),
        form=SampleShape((6,), 5),
        seed=0,
        batch=noise(4, 6),
    )
    for record in probed(network, noise(20, 6), ProbeDetail.DIAGNOSIS):
        assert not any("histogram" in record[key] for key in ("pre", "act", "grad") if record[key])
