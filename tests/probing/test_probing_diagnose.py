"""Diagnosis: sick nets get their code, layer, value, threshold and message; healthy ones get none.

Nets are probed at init on standard normal data of 64 features, as wide as the scans of digits.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from initbench.components.init_scheme import INITS
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing.diagnosis import CODES, diagnose
from initbench.probing.finding import AdviceCheck
from initbench.probing.log_slopes import VANISHING_RATIO, log_slope
from initbench.probing.network_probe import probe
from initbench.probing.remedies import network_context
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry_choice import options_model

GONE = AdviceCheck("x", 2.0, 1.0)
NAMES = [code.name for code in CODES]
THRESHOLDS = {code.name: code.threshold for code in CODES}


def parts(init, *, seed=0, samples=256, family="mlp", **model):
    """A net, its snapshot at init, and the situation, as execute/ puts them together."""
    options = options_model(FAMILIES[family], "family")(**{"depth": 20, "width": 128, **model})
    init = InitOptions.model_validate(init if "scheme" in init else {"scheme": init})
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(samples, 64, generator=generator)
    y = torch.randint(0, 10, (samples,), generator=generator)
    network = build(options, init, form=SampleShape((64,), 10), seed=seed, batch=x)
    layers = probe(
        network,
        dict(network.named_parameters()),
        dict(network.named_buffers()),
        x=x,
        y=y,
        loss=F.cross_entropy,
        bins=8,
        detail=ProbeDetail.EVALUATION,
    )
    situation = replace(
        network_context(network, options, init, layers[0]["pre"]["q"]), check=lambda _code, _words: GONE
    )
    return {"when": "init", "step": 0, "layers": layers}, situation


def diagnosed(init, *, diverged=None, **arguments):
    snapshot, situation = parts(init, **arguments)
    return diagnose([snapshot], situation, diverged)


def codes(findings):
    return [finding.code for finding in findings]


class TestHealthy:
    def test_fifty_seeds_of_relu_with_kaiming(self):
        """Over 18 factors log q has the standard deviation √(5·18/128) = 0.84, by mean −0.35: the limit of
        log 1e-4 = −9.2 lies ten of them away, so not one of fifty may be called ill.
        """
        for seed in range(50):
            assert diagnosed("kaiming_normal", seed=seed) == []

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize(
        ("scheme", "model"),
        [
            ("kaiming_uniform", {}),
            ("xavier_normal", {"activation": "tanh"}),
            ("lecun_normal", {"activation": "selu"}),
            ("lecun_uniform", {"activation": "linear"}),
            ("orthogonal", {"activation": "tanh"}),
            ("xavier_normal", {"norm": "batch"}),
            ("xavier_normal", {"norm": "group"}),
            ("xavier_normal", {"norm": "layer"}),
            ("xavier_normal", {"norm": "batch", "activation": "sigmoid"}),
            ("lsuv", {}),
            ("lsuv", {"activation": "tanh"}),
            ("kaiming_normal", {"activation": "gelu"}),
            ("kaiming_normal", {"activation": "leaky_relu"}),
            ("kaiming_normal", {"depth": 50}),
            ("torch_default", {"depth": 3}),
            ("kaiming_normal", {"depth": 2}),
            ("kaiming_normal", {"depth": 1}),
        ],
    )
    def test_other_healthy_nets(self, scheme, model, seed):
        assert diagnosed(scheme, seed=seed, **model) == []

    def test_a_single_unit_is_not_symmetric(self):
        assert "symmetric" not in codes(diagnosed("kaiming_normal", width=1, depth=3))


SCATTER = 4 * 0.05 + 0.02
"""Of a log-slope over 18 factors at width 128: log q scatters by √(5·18/128) = 0.84 over all of them, 0.047 a
layer, and a line fitted to a random walk by a tenth more; finite width lowers it by 5/(2·128) = 0.02."""


def check(finding, code, *, exact=None):
    assert finding.code == code
    data = finding.as_data()
    assert set(data) == {"code", "layer", "value", "threshold", "message", "when", "level", "advice"}
    if exact is not None:
        assert finding.value == pytest.approx(exact, abs=SCATTER)
    assert finding.message[0] != " "
    assert "None" not in finding.message
    assert "nan" not in finding.message


def test_where_nothing_cures_nothing_is_promised():
    snapshot, situation = parts("xavier_normal")
    for finding in diagnose([snapshot], replace(situation, check=lambda _code, _words: None), None):
        assert finding.message.endswith("xavier_normal gives 1. None of the tried changes cures it")
        assert finding.advice == ()


class TestSick:
    def test_xavier_under_relu_vanishes_both_ways(self):
        forward, backward = diagnosed("xavier_normal")
        check(forward, "vanishing_forward", exact=math.log(0.5))
        check(backward, "vanishing_backward", exact=math.log(0.5))
        assert forward.threshold == backward.threshold == pytest.approx(math.log(1e-4) / 18)
        assert 10 <= forward.layer <= 18  # 0.5^13 = 1.2e-4
        assert 2 <= backward.layer <= 10
        for finding in (forward, backward):
            assert "xavier_normal gives 1" in finding.message
            assert "relu keeps q at σ_w² = 2" in finding.message
            assert "×0.50" in finding.message
            assert "init.scheme=kaiming_normal" in finding.message

    def test_torch_default_vanishes_by_a_sixth(self):
        forward, backward = diagnosed("torch_default")
        check(forward, "vanishing_forward", exact=math.log(1 / 6))
        check(backward, "vanishing_backward", exact=math.log(1 / 6))
        assert "torch_default gives 0.333" in forward.message

    def test_the_misprint_explodes_both_ways(self):
        forward, backward = diagnosed("kaiming_misprint")
        check(forward, "exploding_forward", exact=math.log(2))
        check(backward, "exploding_backward", exact=math.log(2))
        assert forward.threshold == pytest.approx(-math.log(1e-4) / 18)
        assert 10 <= forward.layer <= 19
        assert "kaiming_misprint gives 4" in forward.message
        assert "init.scheme=kaiming_normal" in backward.message

    def test_a_forward_that_overflows_is_infinitely_steep(self):
        (finding,) = diagnosed({"scheme": {"name": "normal", "std": 10.0}}, depth=40)
        check(finding, "exploding_forward")
        assert finding.value == math.inf
        assert 2 <= finding.layer <= 5

    def test_a_backward_that_vanishes_alone(self):
        """Its gradient is made to fall by 0.4 a layer; forward it is as healthy as before."""
        snapshot, situation = parts("kaiming_normal")
        for layer, record in enumerate(snapshot["layers"], 1):
            record["grad"]["pre_q"] *= 0.4 ** (20 - layer)
        (finding,) = diagnose([snapshot], situation, None)
        check(finding, "vanishing_backward", exact=math.log(0.4))

    def test_steep_tanh_explodes_backward_and_is_saturated(self):
        backward, saturated = diagnosed({"scheme": {"name": "normal", "std": 1.0}}, activation="tanh")
        check(backward, "exploding_backward")
        check(saturated, "saturated")
        assert (saturated.layer, saturated.threshold) == (1, 0.5)
        # |h| of N(0, 64) beyond the point where sech² = 0.05, |h| > 2.178: 2(1 − Φ(0.272)) = 78.6 %.
        assert saturated.value == pytest.approx(0.786, abs=0.03)
        assert "in layer 1 and 18 more at init" in saturated.message
        assert "model.norm=batch" in saturated.message

    def test_sigmoid_vanishes_whatever_the_scale(self):
        forward, backward = diagnosed("xavier_normal", activation="sigmoid")
        check(forward, "vanishing_forward")
        check(backward, "vanishing_backward", exact=math.log(0.06))
        assert "theory ×0.06" in backward.message
        assert "No scale of the weights helps at q = 1" in forward.message
        assert "sigmoid" in backward.message

    def test_a_strongly_negative_bias_kills_relu(self):
        found = {f.code: f for f in diagnosed({"scheme": "kaiming_normal", "bias": -10.0}, depth=5)}
        check(found["dead"], "dead")
        assert (found["dead"].layer, found["dead"].threshold) == (1, 0.9)
        assert found["dead"].value > 0.99
        assert "The cause is init.bias=-10. Try init.bias=0 (checked: " in found["dead"].message
        assert set(found) == {"dead"}  # what vanishes above it vanishes because of it

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
    @pytest.mark.parametrize("scheme", ["zeros", {"name": "constant", "value": 0.01}])
    def test_equal_weights_are_symmetric_and_nothing_else(self, scheme, activation):
        (finding,) = diagnosed(scheme, activation=activation)
        check(finding, "symmetric")
        assert finding.layer == 1
        assert finding.value <= finding.threshold == 1e-3
        assert "all 128 units of layer 1 are identical" in finding.message
        assert "init.scheme=kaiming_normal" in finding.message

    def test_a_large_constant_is_symmetric_and_explodes(self):
        assert codes(diagnosed({"scheme": {"name": "constant", "value": 1.0}}, depth=8)) == [
            "symmetric",
            "exploding_forward",
            "exploding_backward",
        ]

    @pytest.mark.parametrize("layer", [3, None])
    def test_divergence(self, layer):
        first, *others = diagnosed("kaiming_misprint", diverged=(17, layer))
        check(first, "diverged")
        assert (first.layer, first.value, first.threshold) == (layer, 17.0, None)
        assert "after 17 updates" in first.message
        assert ("layer 3 was the first" if layer else "only the loss overflowed") in first.message
        assert "train.lr" in first.message
        assert codes(others) == ["exploding_forward", "exploding_backward"]

    def test_the_codes_are_those_met_above(self):
        assert set(NAMES) == {
            "symmetric",
            "not_finite",  # tests/trace/test_public.py
            "diverged",
            "vanishing_forward",
            "exploding_forward",
            "vanishing_backward",
            "exploding_backward",
            "dead",
            "saturated",
            "samples_alike",  # these four: test_probing_conditions.py
            "input_scale",
            "head_scale",
            "not_learned",
        }


NOT_RANDOM = ("zeros", "ones", "constant", "pretrained")


@pytest.mark.parametrize("scheme", [s.name for s in INITS if s.edit is None and s.name not in NOT_RANDOM])
def test_no_random_scheme_is_symmetric(scheme):
    assert "symmetric" not in codes(diagnosed(scheme, depth=5))


HIDDEN = 11


@pytest.fixture(scope="module")
def healthy():
    return parts("kaiming_normal", depth=HIDDEN + 1, width=16, samples=32)


class TestThresholds:
    """Just inside and just outside, by snapshots whose numbers are set by hand."""

    def with_values(self, healthy, **values):
        """The healthy snapshot with hidden layers' statistics replaced, by layer."""
        snapshot = copy.deepcopy(healthy[0])
        places = {
            "signal": "pre",
            "q": "pre",
            "pre_q": "grad",
            "dead_fraction": "act",
            "saturated_fraction": "act",
        }
        for name, numbers in values.items():
            for layer, number in zip(snapshot["layers"], numbers, strict=False):
                where = layer if name == "unit_spread" else layer[places[name]]
                where[name] = number
        return snapshot

    def codes_of(self, healthy, when="init", diverged=None, **values):
        snapshot = self.with_values(healthy, **values) | {"when": when}
        snapshots = [snapshot] if when == "init" else [healthy[0], snapshot]
        return codes(diagnose(snapshots, healthy[1], diverged))

    def geometric(self, share):
        """One number a hidden layer, `share` of the first at the last."""
        return [share ** (i / (HIDDEN - 1)) for i in range(HIDDEN)]

    @pytest.mark.parametrize(
        ("name", "falling", "code"),
        [
            ("signal", True, "vanishing_forward"),
            ("q", False, "exploding_forward"),
            ("pre_q", False, "vanishing_backward"),
            ("pre_q", True, "exploding_backward"),
        ],
    )
    def test_slopes(self, healthy, name, falling, code):
        near, beyond = (
            (VANISHING_RATIO * 1.01, VANISHING_RATIO * 0.99)
            if falling
            else (0.99 / VANISHING_RATIO, 1.01 / VANISHING_RATIO)
        )
        assert self.codes_of(healthy, **{name: self.geometric(near)}) == []
        assert self.codes_of(healthy, **{name: self.geometric(beyond)}) == [code]
        # What training makes of the slopes is not judged.
        assert self.codes_of(healthy, when="end", **{name: self.geometric(beyond)}) == []

    def test_q_may_fall_and_the_signal_may_grow(self, healthy):
        """A falling q is judged by its signal, and a growing signal by its q."""
        assert self.codes_of(healthy, q=self.geometric(1e-8), signal=self.geometric(1e8)) == []

    @pytest.mark.parametrize(("name", "limit"), [("dead", 0.9), ("saturated", 0.5)])
    @pytest.mark.parametrize("when", ["init", "end"])
    def test_shares(self, healthy, name, limit, when):
        for share, expected in ((limit, []), (limit + 1e-9, [name])):
            assert self.codes_of(healthy, when=when, **{f"{name}_fraction": [0.0, 0.0, share]}) == expected
        assert self.codes_of(healthy, when="train", **{f"{name}_fraction": [1.0]}) == []

    @pytest.mark.parametrize("when", ["init", "end"])
    def test_spread(self, healthy, when):
        assert self.codes_of(healthy, when=when, unit_spread=[1, 1, 1.001e-3]) == []
        assert self.codes_of(healthy, when=when, unit_spread=[1, 1, 0.999e-3]) == ["symmetric"]

    def test_one_unit_is_not_symmetric_to_itself(self, healthy):
        snapshot = self.with_values(healthy, unit_spread=[0.0])
        snapshot["layers"][0]["units"] = 1
        assert diagnose([snapshot], healthy[1], None) == []

    def test_the_layer_is_the_first_one_over_and_each_code_comes_once(self, healthy):
        snapshot = self.with_values(healthy, dead_fraction=[0.0, 0.95, 0.99], unit_spread=[1, 1, 1, 0])
        end = copy.deepcopy(snapshot) | {"when": "end"}
        (symmetric,) = diagnose([snapshot, end], healthy[1], None)
        assert symmetric.layer == 4
        snapshot = self.with_values(healthy, dead_fraction=[0.0, 0.95, 0.99])
        (dead,) = diagnose([snapshot, end | {"layers": snapshot["layers"]}], healthy[1], None)
        assert (dead.layer, dead.value) == (2, 0.95)
        assert "layer 2 and 1 more at init" in dead.message
        falling = self.with_values(healthy, signal=self.geometric(1e-10))
        (vanishing,) = diagnose([falling], healthy[1], None)
        # 1e-10 over ten steps: 1e-4 is passed at the fifth layer; the fourth step reaches it up to rounding.
        assert vanishing.layer in (5, 6)
        assert vanishing.value == pytest.approx(math.log(0.1), rel=1e-9)

    def test_precedence_and_hiding(self, healthy):
        ill = {
            "dead_fraction": [1.0],
            "saturated_fraction": [1.0],
            "signal": self.geometric(1e-9),
            "q": self.geometric(1e9),
            "pre_q": self.geometric(1e9),
        }
        expected = ["diverged", "exploding_forward", "vanishing_backward", "dead", "saturated"]
        assert self.codes_of(healthy, diverged=(3, 2), **ill) == expected
        assert [name for name in NAMES if name in expected] == expected
        symmetric = self.codes_of(healthy, diverged=(3, 2), unit_spread=[0.0], **ill)
        assert symmetric == ["symmetric", "diverged", "exploding_forward"]

    def test_after_a_divergence_only_the_start_is_judged_for_shares(self, healthy):
        assert self.codes_of(healthy, when="end", diverged=(3, 2), dead_fraction=[1.0]) == ["diverged"]

    def test_numbers_that_are_none(self, healthy):
        """A net lost at init: NaN in the upper layers, gradients that are NaN or were never there."""
        nan, q = math.nan, self.geometric(1e9)
        lost = {"q": [*q[:6], nan, nan, nan, nan, nan], "pre_q": [nan] * 11, "dead_fraction": [nan] * 11}
        assert self.codes_of(healthy, **lost) == ["exploding_forward"]
        assert self.codes_of(healthy, q=[nan] * 11, signal=[nan] * 11, pre_q=[None] * 11) == ["not_finite"]
        assert self.codes_of(healthy, q=[1.0, 2.0, math.inf, nan, nan]) == ["exploding_forward"]
        assert self.codes_of(healthy, signal=[1.0] * 10 + [0.0], unit_spread=[nan] * 11) == [
            "vanishing_forward"
        ]

    def test_nothing_to_judge(self, healthy):
        assert diagnose([], healthy[1], None) == []
        assert codes(diagnose([], healthy[1], (0, 1))) == ["diverged"]


ratios = st.floats(1e-3, 1e3)


class TestLogSlope:
    @given(first=st.floats(1e-20, 1e20), ratio=ratios, count=st.integers(2, 20))
    def test_exact_for_geometric_sequences(self, first, ratio, count):
        values = [first * ratio**i for i in range(count)]
        assume(min(values) > 1e-89)
        assert log_slope(values) == pytest.approx(math.log(ratio), rel=1e-9, abs=1e-9)

    @given(st.lists(st.floats(1e-30, 1e30), min_size=2, max_size=12), st.floats(1e-10, 1e10))
    def test_a_factor_changes_nothing_and_reversal_the_sign(self, values, factor):
        slope = log_slope(values)
        assert log_slope([v * factor for v in values]) == pytest.approx(slope, rel=1e-9, abs=1e-9)
        assert log_slope(values[::-1]) == pytest.approx(-slope, rel=1e-9, abs=1e-9)

    @given(st.lists(st.floats(1e-30, 1e30), min_size=2, max_size=12))
    def test_is_the_least_squares_slope(self, values):
        x = torch.arange(len(values), dtype=torch.float64)
        y = torch.tensor(values, dtype=torch.float64).log()
        covariance = torch.cov(torch.stack([x, y]))
        expected = float(covariance[0, 1] / covariance[0, 0])
        assert log_slope(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    def test_ends_of_the_scale(self):
        assert log_slope([]) == log_slope([3.0]) == log_slope([0.0, 0.0, 0.0]) == 0.0
        assert log_slope([1.0, 0.0]) == pytest.approx(math.log(1e-90))
        assert log_slope([1.0, math.inf]) == math.inf
        assert log_slope([1.0, 1.0, 1.0]) == 0.0
