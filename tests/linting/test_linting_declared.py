"""lint under a declared scheme never denies what apply_init has just drawn by it."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from initbench import apply_init, lint
from initbench.errors import UsageError


def mlp(act):
    return nn.Sequential(nn.Linear(64, 256), act(), nn.Linear(256, 256), act(), nn.Linear(256, 64))


class Attention(nn.Module):
    def __init__(self, kdim=None):
        super().__init__()
        self.kdim = kdim
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, kdim=kdim, vdim=kdim)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        other = x if self.kdim is None else x[..., : self.kdim]
        return self.head(self.attention(x, other, other)[0]).mean(1)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.hidden = nn.Linear(64, 32, bias=False), nn.Linear(32, 32)

    def forward(self, x):
        return functional.linear(torch.tanh(self.hidden(torch.tanh(self.encoder(x)))), self.encoder.weight.T)


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.hidden = nn.Embedding(50, 64), nn.Linear(64, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.hidden(self.table(tokens)))).mean(1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        x = self.stem(x)
        return x + self.second(functional.gelu(self.first(x)))


def normed(wrap):
    net = mlp(nn.ReLU)
    for place in (0, 2, 4):
        wrap(net[place])
    return net


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(16, 32, 4, stride=2),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(32, 32, 4, stride=2, groups=2),
    )


X, SEQUENCE, IMAGES = (64,), (6, 32), (16, 4, 4)
CASES = [
    (lambda: mlp(nn.Tanh), X, "lecun_normal", {"gain": "auto"}, {"activation": "tanh"}),
    (lambda: mlp(nn.GELU), X, "lecun_normal", {"gain": "auto"}, {"activation": "gelu"}),
    (lambda: mlp(nn.SELU), X, "analytic", {}, {"activation": "selu"}),
    (lambda: mlp(nn.Tanh), X, "critical", {}, {"activation": "tanh"}),
    (lambda: mlp(lambda: nn.ELU(0.5)), X, "lecun_uniform", {"gain": "auto"}, {"activation": "elu"}),
    (lambda: mlp(lambda: nn.Softplus(5.0)), X, "lecun_normal", {"gain": "auto"}, {"activation": "softplus"}),
    (lambda: mlp(lambda: nn.LeakyReLU(0.2)), X, "kaiming_normal", {}, {"activation": "leaky_relu"}),
    (lambda: mlp(lambda: nn.LeakyReLU(0.2)), X, "kaiming_normal", {}, {}),
    (lambda: mlp(lambda: nn.LeakyReLU(0.3)), X, "kaiming_uniform", {}, {"activation": "leaky_relu(0.3)"}),
    (lambda: mlp(nn.PReLU), X, "kaiming_normal", {}, {"activation": "prelu"}),
    (Attention, SEQUENCE, "xavier_uniform", {}, {}),
    (lambda: Attention(kdim=16), SEQUENCE, "xavier_uniform", {}, {}),
    (Tied, X, "kaiming_normal", {}, {"activation": "tanh"}),
    (Tied, X, "xavier_normal", {}, {}),
    (Residual, X, "lecun_normal", {"gain": "auto"}, {"activation": "gelu"}),
    (lambda: normed(parametrizations.spectral_norm), X, "kaiming_normal", {}, {}),
    (lambda: normed(parametrizations.weight_norm), X, "kaiming_normal", {}, {}),
    (lambda: normed(parametrizations.orthogonal), X, "kaiming_normal", {}, {}),
    (transposed, IMAGES, "torch_default", {}, {}),
    (transposed, IMAGES, "kaiming_normal", {}, {"activation": "leaky_relu"}),
    (lambda: mlp(nn.ReLU), X, "weights_init", {}, {}),
    (lambda: mlp(nn.ReLU), X, "orthogonal", {}, {}),
]


def variance_findings(net, x, scheme, gain):
    found = lint(net, x, loss=lambda output: output.square().mean(), scheme=scheme, **gain).findings
    return [finding for finding in found if finding.code == "variance"]


@pytest.mark.parametrize(("make", "shape", "scheme", "gain", "told"), CASES)
def test_what_apply_init_has_drawn_is_not_denied(make, shape, scheme, gain, told):
    net, x = make(), torch.randn(8, *shape)
    apply_init(net, scheme, **gain, **told)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert variance_findings(net, x, scheme, gain) == []
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_weight_tied_to_an_embedding_is_held_against_the_layers_rule():
    net = TiedEmbedding()
    apply_init(net, "kaiming_normal")
    assert variance_findings(net, torch.randint(50, (8, 5)), "kaiming_normal", {}) == []


@pytest.mark.parametrize(("make", "shape"), [(lambda: mlp(nn.Tanh), X), (Attention, SEQUENCE), (Tied, X)])
def test_what_was_rescaled_afterwards_is_still_told(make, shape):
    net = make()
    apply_init(net, "xavier_uniform")
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.2)
    assert variance_findings(net, torch.randn(8, *shape), "xavier_uniform", {})


def test_a_scheme_that_cannot_serve_the_net_is_refused():
    with pytest.raises(UsageError, match="no stable q"):
        lint(mlp(nn.Softplus), torch.randn(8, 64), scheme="critical")
