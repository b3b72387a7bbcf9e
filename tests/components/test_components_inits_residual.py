"""Schemes for residual nets, on a small one made here: y = x + s·F(x), F of m weight layers."""

import pytest
import torch
from torch import nn

from initbench.components.activation import bound
from initbench.components.init_scheme import INITS
from initbench.errors import ConfigError
from initbench.models.init_weights import InitOptions, check_init, initialise
from initbench.models.network import Network, WeightLayer

WIDTH, CLASSES = 32, 5


class SmallBranch(nn.Module):
    """F: m linear layers, relu before each but the first, and a norm at the end if asked for."""

    def __init__(self, layers, norm):
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))
        self.last_norm = nn.BatchNorm1d(WIDTH) if norm else None
        self.scale, self.shifts = None, None

    def insert_scale(self, value):
        self.scale = nn.Parameter(torch.full((1,), value))

    def insert_shifts(self):
        self.shifts = nn.Parameter(torch.zeros(2 * len(self.weights)))

    def forward(self, x):
        for i, layer in enumerate(self.weights):
            x = layer(x.relu() if i else x)
        x = self.last_norm(x) if self.last_norm else x
        return x if self.scale is None else self.scale * x


class SmallResidual(Network):
    """An input layer, L branches and a head."""

    def __init__(self, branches=6, layers=2, norm=False):
        super().__init__()
        self.activation = bound("relu")
        self.stem, self.head = nn.Linear(20, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.parts = nn.ModuleList(SmallBranch(layers, norm) for _ in range(branches))

    def forward(self, x):
        return self.head(self.body(x))

    def body(self, x):
        h = self.stem(x)
        for part in self.parts:
            h = h + part(h)
        return h

    def branches(self):
        return list(self.parts)

    def weight_layers(self):
        names = {module: name for name, module in self.named_modules()}
        inner = [layer for part in self.parts for layer in part.weights]
        modules = [self.stem, *inner, self.head]
        activations = [nn.ReLU()] * (len(modules) - 1) + [None]
        pairs = enumerate(zip(modules, activations, strict=True), 1)
        return [
            WeightLayer(i, names[module], module, module, activation, is_head=activation is None)
            for i, (module, activation) in pairs
        ]


def batch():
    return torch.randn(64, 20, generator=torch.Generator().manual_seed(2))


def drawn(init, **net):
    network = SmallResidual(**net)
    initialise(network, InitOptions.model_validate(init), seed=0, batch=batch())
    return network


def scheme(name, **options):
    return {"scheme": {"name": name, **options}}


EDITS = [s.name for s in INITS if s.edit is not None]


@pytest.mark.parametrize("name", ["fixup", "skipinit", "rezero", "zero_gamma"])
def test_the_net_starts_as_its_shortcuts_alone(name):
    norm = name == "zero_gamma"
    network = drawn(scheme(name), norm=norm)
    assert torch.equal(network.body(batch()), network.stem(batch()))
    plain = drawn(scheme("kaiming_normal"), norm=norm)
    assert not torch.allclose(plain.body(batch()), plain.stem(batch()), atol=0.1)


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize("branches", [4, 9])
def test_fixup_scales_all_but_the_last_layer_of_a_branch(branches, layers):
    """L^(−1/(2m − 2)) times what kaiming_normal draws from the same streams; the last and the head are 0."""
    network, plain = (
        drawn(scheme(name), branches=branches, layers=layers) for name in ("fixup", "kaiming_normal")
    )
    factor = branches ** (-1 / (2 * layers - 2))
    for part, other in zip(network.parts, plain.parts, strict=True):
        for layer, drawn_ in zip(part.weights[:-1], other.weights[:-1], strict=True):
            assert torch.allclose(layer.weight, factor * drawn_.weight, rtol=1e-5)
        assert bool((part.weights[-1].weight == 0).all())
        assert part.scale.tolist() == [1.0]
        assert part.shifts is not None
    assert torch.equal(network.stem.weight, plain.stem.weight)
    assert bool((network.head.weight == 0).all())


def test_fixup_with_branches_of_one_layer_only_clears_them():
    for part in drawn(scheme("fixup"), layers=1).parts:
        assert bool((part.weights[0].weight == 0).all())


def test_a_head_with_a_scheme_of_its_own_is_not_cleared():
    network = drawn({**scheme("fixup"), "head": "xavier_normal"})
    assert bool((network.head.weight != 0).any())


def test_the_factor_of_skipinit_is_an_option():
    assert [part.scale.tolist() for part in drawn(scheme("skipinit", alpha=0.5)).parts] == [[0.5]] * 6
    assert [part.scale.tolist() for part in drawn(scheme("rezero")).parts] == [[0.0]] * 6


@pytest.mark.parametrize("branches", [4, 9])
def test_residual_scaled_divides_the_last_layer_by_the_root_of_the_branches(branches):
    network, plain = (drawn(scheme(n), branches=branches) for n in ("residual_scaled", "kaiming_normal"))
    for part, other in zip(network.parts, plain.parts, strict=True):
        assert torch.equal(part.weights[0].weight, other.weights[0].weight)
        assert torch.allclose(part.weights[1].weight, other.weights[1].weight / branches**0.5, rtol=1e-6)


def test_zero_gamma_needs_a_norm_layer_with_a_scale():
    with pytest.raises(ConfigError, match=r"init.scheme=zero_gamma .*model.norm"):
        check_init(SmallResidual(), InitOptions.model_validate(scheme("zero_gamma")))
    check_init(SmallResidual(norm=True), InitOptions.model_validate(scheme("zero_gamma")))


@pytest.mark.parametrize("name", EDITS)
def test_a_training_step_is_finite_and_moves_the_branches(name):
    network = drawn(scheme(name), norm=name == "zero_gamma")
    before = [p.detach().clone() for p in network.parts.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(2):  # with a head of 0, no gradient passes it in the first step
        optimizer.zero_grad()
        y = torch.arange(64) % CLASSES
        nn.functional.cross_entropy(network(batch()), y).backward()
        optimizer.step()
    after = list(network.parts.parameters())
    assert all(bool(p.isfinite().all()) for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", EDITS)
def test_a_net_without_branches_is_refused_naming_both_keys(name):
    with pytest.raises(ConfigError, match=rf"init.scheme={name} .*model.family"):
        check_init(SmallResidual(branches=0), InitOptions.model_validate(scheme(name)))
