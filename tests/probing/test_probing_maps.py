"""Statistics of maps: a unit is a channel, a sample is its whole map. Against plain numpy, in float64."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import initbench
from initbench.components.activation import bound
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing import layer_record, network_probe, tensor_statistics
from initbench.probing.jacobian import jacobian_statistics
from initbench.probing.layer_factors import predict_stack_factors
from initbench.probing.log_slopes import VANISHING_RATIO
from initbench.probing.network_probe import probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry_choice import options_model

SAMPLES = 6


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(family="cnn", shape=(2, 8, 8), init=None, **options):
    model = options_model(FAMILIES[family], "family")(**options)
    chosen = InitOptions.model_validate(init or {})
    batch = noise(4, *shape).float()
    return build(model, chosen, form=SampleShape(shape, 5), seed=0, batch=batch)


def probed(network, x, **more):
    state = dict(network.named_parameters()), dict(network.named_buffers())
    y = torch.arange(len(x)).remainder(5)
    options = {"loss": cross_entropy, "bins": 8, "detail": ProbeDetail.FULL, **more}
    return probe(network, *state, x=x, y=y, **options)


class TestMoments:
    maps = noise(SAMPLES, 4, 5, 3)

    def test_correlation_is_that_of_whole_maps(self):
        rows = self.maps.numpy().reshape(SAMPLES, -1)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        gram = rows @ rows.T
        expected = gram[~np.eye(SAMPLES, dtype=bool)].mean()
        assert tensor_statistics.correlation(self.maps) == pytest.approx(expected, rel=1e-10)

    def test_a_channel_that_is_zero_on_every_sample_leaves_the_correlation(self):
        maps = self.maps.clone()
        maps[:, 0] = 0
        assert tensor_statistics.correlation(maps) is not None

    def test_effective_rank_is_that_of_the_channels_with_positions_as_samples(self):
        rows = np.moveaxis(self.maps.numpy(), 1, -1).reshape(-1, 4)
        share = np.linalg.eigvalsh(np.cov(rows.T))
        share = share / share.sum()
        expected = np.exp(-(share * np.log(share)).sum())
        assert tensor_statistics.effective_rank(self.maps) == pytest.approx(expected, rel=1e-10)

    def test_a_dead_unit_is_zero_at_every_position_of_every_sample(self):
        act = self.maps.abs()
        act[:, 1] = 0
        act[:, 2, :4] = 0
        act[:5, 3] = 0
        found = layer_record.activation_record(act, act, bound("relu"), ProbeDetail.DIAGNOSIS)
        assert found["dead_fraction"] == 0.25
        assert found["zero_fraction"] == pytest.approx(float((act == 0).double().mean()), rel=1e-12)

    def test_quantiles_of_a_large_tensor_are_read_off_a_part(self):
        """2²¹ normals, one in 17: the density at the 1 % point is 0.027, so its standard error is 0.01."""
        x = noise(32, 64, 32, 32).float()
        found = tensor_statistics.quantiles(x)
        kept = x.numel() / (-(-x.numel() // tensor_statistics.MAX_SORTED) | 1)
        for share, value in ((0.01, -2.3263), (0.25, -0.6745), (0.5, 0.0), (0.75, 0.6745), (0.99, 2.3263)):
            density = np.exp(-(value**2) / 2) / np.sqrt(2 * np.pi)
            error = np.sqrt(share * (1 - share) / kept) / density
            assert abs(found[f"p{round(100 * share):02d}"] - value) < 5 * error

    def test_the_part_meets_every_column_of_a_map(self):
        """Columns that differ from one another: a step of a power of two would see one of them alone."""
        x = torch.arange(32.0).expand(8, 64, 32, 32).contiguous().repeat(4, 1, 1, 1)
        assert x.numel() > tensor_statistics.MAX_SORTED
        found = tensor_statistics.quantiles(x)
        assert (found["p25"], found["p75"]) == pytest.approx((7.5, 23.5), abs=0.5)


class TestProbe:
    def test_equal_channels_are_symmetric_and_unequal_positions_do_not_hide_it(self):
        x = noise(SAMPLES, 2, 8, 8).float()
        spread = {
            scheme: [layer["unit_spread"] for layer in probed(net(depth=4, init={"scheme": scheme}), x)[:-1]]
            for scheme in ("constant", "kaiming_normal")
        }
        assert max(spread["constant"]) < 1e-3 < 0.1 < min(spread["kaiming_normal"])

    def test_the_pre_activation_is_what_the_branch_adds_and_act_is_after_the_addition(self):
        network, seen = net("resnet", depth=8, width=4, norm="batch"), {}
        block = network.blocks[0]
        block.layers[1].norm.register_forward_hook(lambda _m, _x, y: seen.update(pre=y.detach().double()))
        block.register_forward_hook(lambda _m, _x, y: seen.update(act=y.detach().double()))
        x = noise(SAMPLES, 2, 8, 8).float()
        found = probed(network, x, detail=ProbeDetail.EVALUATION)[2]
        assert found["name"] == "blocks.0.layers.1.op"
        assert found["pre"]["q"] == pytest.approx(float(seen["pre"].square().mean()), rel=1e-6)
        assert found["act"]["q"] == pytest.approx(float(seen["act"].square().mean()), rel=1e-6)

    def test_a_shortcuts_projection_is_measured_without_an_activation(self):
        found = probed(
            net("resnet", depth=8, width=4, shortcut="projection"), noise(SAMPLES, 2, 8, 8).float()
        )
        without = [layer["name"] for layer in found if layer["act"] is None]
        assert without == ["blocks.1.shortcut.op", "blocks.2.shortcut.op", "head"]
        assert all(layer["pre"]["q"] > 0 and layer["grad"]["pre_q"] > 0 for layer in found)
        assert all("jacobian" in layer for layer in found[:-1])

    def test_maps_are_measured_on_the_first_samples(self):
        x = noise(network_probe.MAP_SAMPLES + 9, 2, 8, 8).float()
        network = net(depth=4)
        assert probed(network, x) == probed(network, x[: network_probe.MAP_SAMPLES])
        assert probed(network, x) != probed(network, x[1:])

    def test_jacobian_of_the_last_convolution_is_the_head_on_the_mean(self):
        """∂logit/∂h = W_c φ′(h)/(H·W): with a linear activation σ² is that of W, over the positions."""
        network = net(depth=4, activation="linear").double()
        x = noise(SAMPLES, 2, 8, 8)
        found = jacobian_statistics(network, dict(network.named_parameters()), {}, x)[3]
        weight = network.head.weight.detach()
        assert found["mean_sigma2"] == pytest.approx(
            float(torch.linalg.svdvals(weight).square().mean()) / 4, rel=1e-9
        )

    @pytest.mark.slow
    def test_a_probe_of_a_usual_net_takes_two_seconds_at_most(self):
        """Time of this process alone, on one thread."""
        torch.set_num_threads(1)
        network, x = net(shape=(3, 32, 32), norm="batch"), noise(512, 3, 32, 32).float()
        start = time.process_time()
        probed(network, x)
        assert time.process_time() - start < 2.0


class TestShrinkingMaps:
    """A position of a larger map gets a smaller gradient; a weight gets the sum over all positions."""

    @staticmethod
    def findings(downsample, gain):
        torch.manual_seed(0)
        parts = []
        for index in range(8):
            stride = 2 if downsample == "stride" else 1
            parts += [nn.Conv2d(16 if index else 3, 16, 3, stride, 1, bias=False), nn.ReLU()]
            nn.init.kaiming_normal_(parts[-2].weight)
            parts[-2].weight.data *= gain
            parts += [] if downsample == "stride" else [nn.MaxPool2d(2)]
        module = nn.Sequential(*parts, nn.Flatten(), nn.Linear(16, 10))
        torch.nn.init.zeros_(module[-1].bias)
        x = torch.randn(4, 3, 256, 256)
        probed = initbench.probe(module, (x, torch.arange(4)))
        deltas = [layer["measured"]["grad_ratio"]["mean"] for layer in probed.as_data()["layers"][:-2]]
        return math.prod(deltas), {finding.code: finding for finding in probed.findings}

    @pytest.mark.parametrize("downsample", ["stride", "max_pool"])
    def test_a_gradient_that_is_shared_out_over_more_positions_does_not_vanish(self, downsample):
        per_position, findings = self.findings(downsample, gain=1.0)
        assert per_position < VANISHING_RATIO
        assert "vanishing_backward" not in findings

    @pytest.mark.parametrize("downsample", ["stride", "max_pool"])
    def test_a_gradient_that_vanishes_over_shrinking_maps_is_named(self, downsample):
        _, findings = self.findings(downsample, gain=0.4)
        assert "summed over the positions of a map falls" in findings["vanishing_backward"].message


class TestTheory:
    @pytest.mark.parametrize(
        ("family", "options"),
        [
            ("resnet", {"depth": 8}),
            ("resnet_mlp", {"depth": 6}),
            ("cnn", {"downsample": "max_pool"}),
        ],
    )
    def test_has_no_word_on_shortcuts_and_pooling(self, family, options):
        found = predict_stack_factors(net(family, **options), InitOptions(), first_q=1.0, normed=False)
        assert found.forward is None
        assert found.backward is None

    def test_stride_shares_a_gradient_out_over_the_positions(self):
        """Kaiming and relu: q stays; E[δ²] of a layer is that of the next × fan_out/fan_in/stride²."""
        network = net(depth=4, stages=3, width=8)
        found = predict_stack_factors(network, InitOptions(), first_q=1.0, normed=False)
        assert found.forward == pytest.approx(1.0, rel=1e-6)
        assert found.backward == pytest.approx((2.0 * 2.0 / 4 / 4) ** 0.5, rel=1e-6)

    def test_stride_is_met_by_what_is_measured(self):
        """Kernels of 1 × 1 meet no border. Halving 16 × 16 maps of 64 channels twice: E[δ²] × 1/2 a layer.

        Four seeds; a layer's ratio scatters by about √(5/64) for relu at this width, so the mean of 2 × 4 of
        them by a tenth, and five of those leave a factor of 1.6.
        """
        logs = []
        for seed in range(4):
            model = options_model(FAMILIES["cnn"], "family")(depth=4, width=64, kernel=1, head="flatten")
            x = noise(64, 3, 16, 16, seed=seed).float()
            network = build(model, InitOptions(), form=SampleShape((3, 16, 16), 5), seed=seed, batch=x)
            one, _, three, _ = (
                layer["grad"]["pre_q"] for layer in probed(network, x, detail=ProbeDetail.EVALUATION)
            )
            logs.append(0.5 * np.log(one / three))
        predicted = predict_stack_factors(network, InitOptions(), first_q=1.0, normed=False).backward
        assert predicted == pytest.approx(0.5, rel=1e-6)
        assert abs(np.mean(logs) - np.log(predicted)) < np.log(1.6)
