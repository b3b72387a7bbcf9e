"""The whole set of codes of many nets, and the factor a layer that is reported, against mean-field theory."""

import math

import pytest
from test_probing_diagnose import codes, diagnosed, parts

from initbench.components.activation import bound
from initbench.probing.diagnosis import diagnose
from initbench.theory import mean_field

VANISHING = {"vanishing_forward", "vanishing_backward"}
EXPLODING = {"exploding_forward", "exploding_backward"}
SMALL = {"name": "normal", "std": 0.01}
LARGE = {"name": "normal", "std": 1.0}


@pytest.mark.parametrize(
    ("init", "model", "expected"),
    [
        ({"scheme": SMALL}, {"depth": 40}, VANISHING),
        ({"scheme": SMALL}, {"depth": 5}, VANISHING),
        # Underflow: no gradient reaches even the last hidden layer, so what falls is the signal alone.
        ({"scheme": "xavier_normal"}, {"depth": 500}, {"vanishing_forward"}),
        ({"scheme": "torch_default", "bias": 0.0}, {"depth": 150}, {"vanishing_forward"}),
        ({"scheme": "torch_default"}, {"depth": 150}, VANISHING),
        ({"scheme": "xavier_normal"}, {"depth": 20}, VANISHING),
        ({"scheme": "xavier_normal"}, {"depth": 50, "activation": "sigmoid"}, VANISHING),
        pytest.param(
            {"scheme": "xavier_normal"},
            {"depth": 500, "activation": "sigmoid"},
            VANISHING,
            marks=pytest.mark.slow,
        ),
        ({"scheme": "xavier_normal"}, {"depth": 300, "activation": "sigmoid", "norm": "layer"}, VANISHING),
        ({"scheme": "kaiming_normal", "bias": -10.0}, {"depth": 5}, {"dead"}),
        ({"scheme": "kaiming_normal", "bias": -10.0}, {"depth": 60}, {"dead"}),
        ({"scheme": "xavier_normal", "bias": -3.0}, {"activation": "tanh"}, VANISHING | {"saturated"}),
        ({"scheme": LARGE}, {"activation": "tanh"}, {"exploding_backward", "saturated"}),
        pytest.param(
            {"scheme": LARGE},
            {"activation": "tanh", "depth": 150},
            {"exploding_backward", "saturated"},
            marks=pytest.mark.slow,
        ),
        ({"scheme": "kaiming_misprint"}, {}, EXPLODING),
        ({"scheme": "kaiming_normal", "gain": 0.5}, {}, VANISHING),
        ({"scheme": "kaiming_normal"}, {"depth": 100, "norm": "batch"}, {"exploding_backward"}),
        ({"scheme": "kaiming_normal", "bias": 3.0}, {}, set()),
        ({"scheme": "kaiming_normal", "bias": -0.1}, {}, set()),
        ({"scheme": "kaiming_normal", "head": "zeros"}, {}, set()),
        ({"scheme": "xavier_normal"}, {"activation": "tanh", "depth": 100}, set()),
        ({"scheme": "lecun_normal"}, {"activation": "selu", "depth": 50}, set()),
    ],
)
def test_the_set_of_codes(init, model, expected):
    assert set(codes(diagnosed(init, **model))) == expected


@pytest.mark.parametrize("seed", range(10))
def test_relu_with_kaiming_is_healthy(seed):
    assert diagnosed("kaiming_normal", seed=seed, depth=20, width=128) == []


def chi_at_the_fixed_point(activation, sigma_w2):
    q = 1.0
    for _ in range(200):
        q = mean_field.length_map(activation.phi, q, sigma_w2=sigma_w2)
    return mean_field.chi(activation.derivative, q, sigma_w2=sigma_w2)


@pytest.mark.parametrize("depth", [50, 500])
def test_the_factor_of_sigmoid_does_not_depend_on_what_lies_below_the_floor(depth):
    """χ₁ at the fixed point of q, for the signal as for the gradient (Schoenholz et al. 2017).

    One layer's factor scatters by √(κ/n) about it, κ = 3E[φ′⁴]/E[φ′²]² − 1 ≈ 2 to 3, and a fixed point of q
    that itself is off by √(2/n); over the ten layers above the floor the slope's error is below 0.16/√10.
    """
    chi = chi_at_the_fixed_point(bound("sigmoid"), 1.0)
    found = {f.code: f for f in diagnosed("xavier_normal", depth=depth, activation="sigmoid")}
    for code in VANISHING:
        assert found[code].value == pytest.approx(math.log(chi), abs=4 * 0.16 / math.sqrt(10))
        assert f"theory ×{chi:.2f}" in found[code].message
    assert found["vanishing_forward"].layer in (4, 5, 6)  # 0.058³ = 2e-4, 0.058⁴ = 1e-5


@pytest.mark.parametrize(
    ("init", "depth", "factor"),
    [
        ({"scheme": SMALL}, 40, 128 * 1e-4 / 2),
        ({"scheme": "xavier_normal"}, 500, 0.5),
        ({"scheme": "torch_default", "bias": 0.0}, 150, 1 / 6),
    ],
)
def test_the_factor_of_relu_down_to_the_underflow(init, depth, factor):
    """σ_w²/2 a layer. log of it scatters by √(5/128) = 0.2, less its mean of −5/256; a line fitted to the sum
    over k layers by √(6/5)·0.2/√k. k is what float32's range of 1e-76 leaves: log(1e-76)/log(factor).
    """
    found = {f.code: f for f in diagnosed(init, depth=depth)}
    k = min(depth - 2, -175 / math.log(factor))
    scatter = math.sqrt(6 / 5) * 0.2 / math.sqrt(k)
    # The samples grow alike as well, as 1/l²: a line through −2·log(l) over k layers falls by 6/k a layer.
    expected, value = math.log(factor) - 5 / 256, found["vanishing_forward"].value
    assert expected - 4 * scatter - 6 / k <= value <= expected + 4 * scatter
    assert found["vanishing_forward"].value <= found["vanishing_forward"].threshold


class TestCauseAndConsequence:
    """Snapshots in which one layer is set by hand."""

    def found(self, *, dead_at, signal, pre_q=None, when="init"):
        snapshot, situation = parts("kaiming_normal", depth=7, width=16, samples=64)
        layers = snapshot["layers"]
        for layer, value in zip(layers, signal, strict=False):
            layer["pre"]["signal"] = value
        for layer, value in zip(layers, pre_q or [], strict=False):
            layer["grad"]["pre_q"] = value
        dead = {"when": when, "step": 0, "layers": [{**x, "act": dict(x["act"] or {})} for x in layers[:-1]]}
        for layer in dead["layers"]:
            layer["act"]["dead_fraction"] = 1.0 if layer["index"] in dead_at else 0.0
        snapshots = [dead] if when == "init" else [snapshot, dead]
        return set(codes(diagnose(snapshots, situation, None)))

    def test_dead_without_a_signal_is_a_consequence(self):
        assert self.found(dead_at=[4, 5, 6], signal=[1, 1e-30, 1e-60, 0, 0, 0]) == {"vanishing_forward"}
        # A part of q that rounding alone can make is none either.
        assert self.found(dead_at=[4, 5, 6], signal=[1, 1e-6, 1e-12, 1e-15, 1e-15, 1e-15]) == {
            "vanishing_forward"
        }

    def test_units_that_die_of_what_they_do_get_are_the_cause(self):
        assert self.found(dead_at=[3, 4, 5, 6], signal=[1, 1, 1, 0, 0, 0]) == {"dead"}
        assert self.found(dead_at=[3], signal=[1, 1, 1, 0, 0, 0], pre_q=[0, 0, 0, 1, 1, 1]) == {"dead"}

    def test_what_was_lost_before_the_units_died_is_told_as_well(self):
        assert self.found(dead_at=[5, 6], signal=[1, 1e-3, 1e-6, 1e-9, 1e-12, 0]) == {
            "vanishing_forward",
            "dead",
        }
        # The gradient is lost above the layer that is dead.
        assert self.found(dead_at=[1], signal=[1] * 6, pre_q=[1e-25, 1e-20, 1e-15, 1e-10, 1e-5, 1]) == {
            "vanishing_backward",
            "dead",
        }

    def test_units_dead_at_the_end_of_a_net_that_never_had_a_signal(self):
        signal = [1, 1e-30, 1e-60, 0, 0, 0]
        assert self.found(dead_at=[4, 5], signal=signal, when="end") == {"vanishing_forward"}
        assert self.found(dead_at=[1], signal=signal, when="end") == {"vanishing_forward", "dead"}


def test_one_update_is_singular():
    (finding,) = diagnosed("kaiming_normal", depth=3, diverged=(1, None))
    assert "after 1 update;" in finding.message
    (finding,) = diagnosed("kaiming_normal", depth=3, diverged=(2, None))
    assert "after 2 updates;" in finding.message


def test_a_signal_lost_in_the_first_layer():
    """Weights are so small relative to the bias that float32 cannot distinguish samples after layer 1."""
    init = {"scheme": {"name": "normal", "std": 1e-9}, "bias": 1.0}
    finding = diagnosed(init, depth=5)[0]
    assert (finding.code, finding.layer) == ("vanishing_forward", 1)
    assert finding.value == pytest.approx(math.log(1e-13))
    # A signal that never existed was not lost.
    assert diagnosed({"scheme": "kaiming_normal", "head": "zeros"}, depth=5) == []


@pytest.mark.parametrize("scheme", ["fixup", "skipinit", "rezero"])
def test_closed_branches_are_no_lost_signal(scheme):
    """At init such a net consists of its shortcuts: the branches get no gradient, the shortcuts all of it."""
    snapshot, situation = parts(scheme, family="resnet_mlp", depth=42, width=64)
    hidden = snapshot["layers"][:-1]
    assert any(layer["grad"]["pre_q"] == 0.0 for layer in hidden), "closed indeed"
    assert diagnose([snapshot], situation, None) == []


def test_what_is_lost_in_a_residual_net_is_found():
    """Open branches that double q forty times."""
    findings = diagnosed({"scheme": {"name": "normal", "std": 0.5}}, family="resnet_mlp", depth=42, width=64)
    assert set(codes(findings)) == EXPLODING
