"""Results of the tracer, against nets whose layers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from initbench.components.target import SampleShape
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.probing.module_probe import ModuleProbe, probe_module
from initbench.trace.weight_use import WeightUse


def seen(module: nn.Module, *shape: int, samples: int = 4) -> ModuleProbe:
    generator = torch.Generator().manual_seed(0)
    return probe_module(module, torch.randn(samples, *shape, generator=generator))


def labels(found: ModuleProbe) -> list[tuple[str, str | None, str | None]]:
    return [
        (use.name, use.norm, None if use.activation is None else use.activation.label)
        for use in found.trace.uses
    ]


class Functional(nn.Module):
    """Functions and operators instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.matrix = nn.Parameter(torch.randn(8, 5))
        self.shift = nn.Parameter(torch.randn(5))
        self.turned = nn.Parameter(torch.randn(7, 5))
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).clamp(min=0)
        h = torch.tanh(h @ self.matrix + self.shift)
        h = F.gelu(torch.mm(h, self.turned.t()), approximate="tanh")
        return self.head(h)


def test_functions_and_operators_are_followed() -> None:
    found = seen(Functional(), 6)
    assert labels(found) == [
        ("first", None, "relu"),
        ("matrix", None, "tanh"),
        ("turned", None, "gelu_tanh"),
        ("head", None, None),
    ]
    uses = found.trace.uses
    assert [(use.fan_in, use.fan_out, use.units) for use in uses] == [
        (6, 8, 8),
        (8, 5, 5),
        (5, 7, 7),
        (7, 3, 3),
    ]
    assert uses[1].bias is not None and uses[1].bias.shape == (5,)
    assert found.trace.unseen == {}


class Swish(nn.Module):
    """A user's own, with a parameter-free forward."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Bent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.3 * x)


@pytest.mark.parametrize(
    ("activation", "label"),
    [
        (nn.ReLU(inplace=True), "relu"),
        (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
        (nn.PReLU(init=0.25), "prelu(0.25)"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(), "hard_tanh"),
        (nn.ELU(), "elu"),
        (nn.ELU(0.5), "elu(0.5)"),
        (nn.SELU(), "selu"),
        (nn.CELU(), "celu"),
        (nn.GELU(), "gelu"),
        (nn.SiLU(), "silu"),
        (nn.Mish(), "mish"),
        (nn.Softplus(), "softplus"),
        (nn.Softsign(), "softsign"),
        (nn.Tanh(), "tanh"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.Hardsigmoid(), "hard_sigmoid"),
        (nn.Hardswish(), "hard_swish"),
        (nn.LogSigmoid(), "log_sigmoid"),
        (Swish(), "silu"),
        (Bent(), "Bent"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_activations_are_named_and_measured(activation: nn.Module, label: str) -> None:
    net = nn.Sequential(nn.Linear(6, 9), activation, nn.Linear(9, 3))
    found = seen(net, 6)
    assert labels(found)[0] == ("0", None, label)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = activation(net[0](x).clone()).double()
    assert found.records[0]["act"]["mean"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert found.records[0]["act"]["std"] == pytest.approx(float(expected.std(correction=0)), rel=1e-5)


class TwoReaders(nn.Module):
    """Two layers take the same function of the first layer's output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = [function]
        self.first, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.function[0](self.first(x))
        return self.left(h) * self.right(h)


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (lambda z: 0.1 * torch.relu(z), "0.1·relu"),
        (lambda z: torch.sigmoid(z) - 0.5, "sigmoid - 0.5"),
        (lambda z: 2 * torch.sigmoid(z) - 1, "2·sigmoid - 1"),
        (lambda z: 2 * (torch.sigmoid(z) - 0.5), "2·sigmoid - 1"),
        (lambda z: torch.add(torch.relu(z), 0.25, alpha=2), "relu + 0.5"),
        (lambda z: torch.relu(z).clone().sub_(torch.tensor(0.5)), "relu - 0.5"),
        (lambda z: torch.relu(z) + 0.0, "relu"),
        (lambda z: 1.0 - torch.sigmoid(z), "-1·sigmoid + 1"),
        (lambda z: 0.5 - (1.0 - torch.sigmoid(z)), "sigmoid - 0.5"),
        (lambda z: -torch.tanh(z), "-1·tanh"),
        (lambda z: torch.relu(-z), "relu(-1x)"),
        (lambda z: z * torch.sigmoid(-z), "-1·silu(-1x)"),
        (lambda z: (torch.relu(z) - 0.4) + 0.4, "relu"),
        (lambda z: z * (torch.sigmoid(z) + 1.0), "x·(sigmoid + 1)(x)"),
        (lambda z: torch.exp(torch.sigmoid(z) - 0.5), "exp∘sigmoid - 0.5"),
    ],
)
def test_constants_after_an_activation_belong_to_it_once(
    function: Callable[[Tensor], Tensor], label: str
) -> None:
    net = TwoReaders(function)
    found = seen(net, 6)
    assert labels(found)[0] == ("first", None, label)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = function(net.first(x)).double()
    assert found.records[0]["act"]["mean"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert found.records[0]["act"]["std"] == pytest.approx(float(expected.std(correction=0)), rel=1e-5)


def test_a_shifted_sigmoid_is_predicted_by_theory_and_still_saturates() -> None:
    first, last = nn.Linear(6, 400), nn.Linear(400, 3)
    nn.init.normal_(first.weight, 0.0, 4.0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, last

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.sigmoid(self.first(x)) - 0.5)

    found = seen(Net(), 6)
    assert found.records[0]["act"]["saturated_fraction"] > 0.5
    (source,) = found.trace.uses[1].below
    assert found.trace.uses[1].source is source


def test_saturation_is_measured_on_what_an_activation_in_place_was_given() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 64), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).mul(20.0).tanh_())

    net = InPlace()
    found = seen(net, 6, samples=64)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    flat = 1.0 - torch.tanh(net.layer(x) * 20.0).double().square() < 0.05
    assert found.records[0]["act"]["saturated_fraction"] == pytest.approx(
        float(flat.double().mean()), abs=0.01
    )


def test_norms_move_the_pre_activation_behind_them() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )
    found = seen(net, 3, 8, 8, samples=16)
    assert labels(found)[0] == ("0", "batch", "relu")
    assert found.records[0]["pre"]["q"] == pytest.approx(1.0, abs=1e-3)


class OwnRMSNorm(nn.Module):
    """RMS norm as many language models define it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def test_a_norm_that_a_user_wrote_is_told_by_its_name() -> None:
    found = seen(nn.Sequential(nn.Linear(6, 9), OwnRMSNorm(9), nn.Tanh(), nn.Linear(9, 3)), 6)
    assert labels(found) == [("0", "rms", "tanh"), ("3", None, None)]
    assert found.records[0]["pre"]["q"] == pytest.approx(1.0, abs=1e-4)


def test_a_block_with_norm_in_its_name_is_no_norm() -> None:
    class LinearNormAct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(9, 9), nn.LayerNorm(9)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.linear(x)))

    found = seen(nn.Sequential(nn.Linear(6, 9), LinearNormAct(), nn.Linear(9, 3)), 6)
    assert labels(found) == [("0", None, None), ("1.linear", "layer", "relu"), ("2", None, None)]


def test_every_config_is_followed_as_its_family_declares_it() -> None:
    for path in sorted(Path("configs").glob("*.yaml")):
        config = load_config(path, ["data.name=digits"], ExperimentConfig)
        x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        net = build(config.model, config.init, form=SampleShape((1, 8, 8), 10), seed=0, batch=x)
        found = probe_module(net, x).trace
        declared = [(layer.name, layer.activation is not None) for layer in net.weight_layers()]
        assert [(use.name, use.activation is not None) for use in found.uses] == declared, path
        assert found.unseen == {}, path


class LayerNorm(nn.Module):
    """A norm layer as users write it, around torch's function."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(units)), nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


def test_a_norm_module_around_a_norm_function_is_one_norm() -> None:
    net = nn.Sequential(nn.Linear(6, 6), LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    found = seen(net, 6)
    assert labels(found) == [("0", "layer", "relu"), ("3", None, None)]


class Branch(nn.Module):
    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.a, self.b, self.past = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head, self.in_place = nn.Linear(6, 2), in_place

    def forward(self, x: Tensor) -> Tensor:
        branch, past = self.b(torch.relu(self.a(x))), self.past(x)
        if self.in_place:
            branch += past
            return self.head(torch.relu(branch))
        return self.head(torch.relu(past + branch))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_branch_is_the_longer_way_and_its_size_is_measured(in_place: bool) -> None:
    net = Branch(in_place=in_place)
    found = seen(net, 6)
    assert labels(found) == [
        ("a", None, "relu"),
        ("b", None, "relu"),
        ("past", None, None),
        ("head", None, None),
    ]
    (addition,) = found.trace.additions
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    branch, past = net.b(torch.relu(net.a(x))), net.past(x)
    assert addition.use.name == "b"
    assert addition.branch == pytest.approx(float(branch.detach().square().mean()), rel=1e-4)
    assert addition.skip == pytest.approx(float(past.detach().square().mean()), rel=1e-4)


def test_a_module_that_is_used_twice_has_two_uses_and_one_weight() -> None:
    shared = nn.Linear(6, 6)
    net = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 2))
    found = seen(net, 6)
    assert [(use.name, use.use_count) for use in found.trace.uses] == [("0", 1), ("0", 2), ("4", 1)]
    assert found.trace.uses[0].weight is found.trace.uses[1].weight


def test_tied_weights_are_two_uses_of_one_weight() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    found = seen(net, 6)
    assert [(use.name, use.use_count) for use in found.trace.uses] == [("0", 1), ("0", 2)]


def test_an_embedding_tied_to_the_head_is_seen_as_what_it_is() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.layer(self.table(x).mean(1))))

    found = probe_module(Words(), torch.randint(20, (4, 5), generator=torch.Generator().manual_seed(0)))
    assert labels(found) == [("layer", None, "relu"), ("table", None, None)]
    assert [use.looked_up for use in found.trace.uses] == [False, True]
    assert found.trace.unseen == {}


def test_parameters_that_no_use_has_are_named_with_the_reason() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.idle = nn.Linear(6, 4), nn.Linear(6, 4)
            self.mixing = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(self.layer(x), self.mixing.mT)

    unseen = seen(Odd(), 6).trace.unseen
    assert set(unseen) == {"mixing", "idle.weight"}
    assert "cdist" in unseen["mixing"]
    assert "no function" in unseen["idle.weight"]


def conv(use: WeightUse) -> tuple[float, float, int]:
    return use.fan_in, use.fan_out, use.units


def test_fans_of_grouped_strided_and_transposed_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 64, 3),
    )
    uses = seen(net, 4, 8, 8).trace.uses
    assert [conv(use) for use in uses[:3]] == [(36, 72, 8), (9, 9 / 4, 8), (4 * 16 / 4, 3 * 16, 6)]
    assert uses[2].rows.shape == (6, 4 * 16)
    weight = net[4].weight.detach()  # (8 in, 3 out of a group, 4, 4): unit 4 is the second of group 1
    assert torch.equal(uses[2].rows[4].detach(), weight[4:, 1].flatten())


@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        torch.nn.utils.weight_norm,
    ],
    ids=["weight_norm", "spectral_norm", "orthogonal", "old_weight_norm"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_computed_weights_carry_the_name_of_their_layer(wrap: object) -> None:
    assert callable(wrap)
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), wrap(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2))
    found = seen(net, 6)
    assert [use.name for use in found.trace.uses] == ["0", "2", "4"]
    assert found.trace.unseen == {}
    assert torch.allclose(found.trace.uses[1].weight, net[2].weight, atol=0.3)


def test_attention_shows_its_projections() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    found = seen(nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 5, 3)), 5, 16)
    assert [use.name for use in found.trace.uses] == [
        "0.self_attn.in_proj_weight",
        "0.self_attn.out_proj",
        "0.linear1",
        "0.linear2",
        "2",
    ]
    assert [use.joins_residual for use in found.trace.uses] == [False, True, False, True, False]
    assert labels(found)[2] == ("0.linear1", None, "relu")


def test_gradients_are_those_at_the_outputs_of_the_weights() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
    records = probe_module(net, x, y).records
    first = net[0](x)
    first.retain_grad()
    logits = net[2](torch.relu(first))
    logits.retain_grad()
    F.cross_entropy(logits, y).backward()
    for record, pre in zip(records, (first, logits), strict=True):
        assert pre.grad is not None
        assert record["grad"]["pre_q"] == pytest.approx(float(pre.grad.double().square().mean()), rel=1e-6)


def test_parameters_in_a_list_keep_their_names_through_slices() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(nn.Parameter(torch.randn(6, 6)) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for weight in self.weights[:-1]:
                x = torch.relu(x @ weight)
            return x @ self.weights[-1]

    found = seen(Listed(), 6)
    assert [use.name for use in found.trace.uses] == ["weights.0", "weights.1", "weights.2"]
    assert found.trace.unseen == {}


def test_of_two_ways_as_long_the_later_one_is_the_branch() -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.branch(x.cumsum(0)))

    (addition,) = seen(Post(), 6).trace.additions
    assert addition.use.name == "branch"
