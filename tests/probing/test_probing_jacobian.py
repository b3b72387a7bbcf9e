"""The Jacobians of the probe against torch.func.jacrev on the same net, one sample at a time."""

import pytest
import torch
from torch.func import functional_call, jacrev

from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing.jacobian import SAMPLES, jacobian_statistics
from initbench.registry_choice import options_model


def _net(**options):
    model = options_model(FAMILIES["mlp"], "family")(depth=4, width=12, **options)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    return build(model, InitOptions(), form=SampleShape((6,), 5), seed=0, batch=x), x


def _rest_of_the_net(network, index, pre):
    """Logits of one sample as a function of its pre-activation in hidden layer `index`."""
    block = network.blocks[index - 1]
    h = block.activation(pre)
    for following in list(network.blocks)[index:]:
        h = following(h)
    return network.head(h)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_jacobians_equal_jacrev_sample_by_sample(activation):
    network, x = _net(activation=activation)
    found = jacobian_statistics(network, dict(network.named_parameters()), {}, x)
    assert list(found) == [1, 2, 3]
    for index in found:
        squares, conditions = [], []
        for sample in x[:SAMPLES]:
            h = sample[None]
            for block in list(network.blocks)[: index - 1]:
                h = block(h)
            pre = network.blocks[index - 1].linear(h).detach()
            j = jacrev(lambda p, i=index: _rest_of_the_net(network, i, p)[0])(pre)[:, 0].double()
            sigma = torch.linalg.svdvals(j)
            squares.append(sigma.square().mean())
            conditions.append(sigma.max() / sigma.min())
        assert found[index]["mean_sigma2"] == pytest.approx(float(torch.stack(squares).mean()), rel=1e-5)
        # relu can cut a sample's Jacobian to a rank below 5, where σ_min is rounding noise.
        if activation == "tanh":
            median = float(torch.stack(conditions).median())
            assert found[index]["condition"] == pytest.approx(median, rel=1e-3)


def test_a_linear_net_of_orthogonal_layers_has_condition_one():
    model = options_model(FAMILIES["mlp"], "family")(depth=4, width=5, activation="linear")
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    init = InitOptions.model_validate({"scheme": "orthogonal"})
    network = build(model, init, form=SampleShape((5,), 5), seed=0, batch=x)
    for jacobian in jacobian_statistics(network, dict(network.named_parameters()), {}, x).values():
        assert jacobian["mean_sigma2"] == pytest.approx(1.0, rel=1e-5)
        assert jacobian["condition"] == pytest.approx(1.0, rel=1e-4)


def test_buffers_and_gradients_are_left_alone_and_a_bare_head_has_none():
    network, x = _net(norm="batch")
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    jacobian_statistics(network, dict(network.named_parameters()), dict(network.named_buffers()), x)
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    assert all(p.grad is None for p in network.parameters())
    assert functional_call(network, {}, (x,)).shape == (40, 5)
    model = options_model(FAMILIES["mlp"], "family")(depth=1)
    head = build(model, InitOptions(), form=SampleShape((6,), 5), seed=0, batch=x)
    assert jacobian_statistics(head, dict(head.named_parameters()), {}, x) == {}
