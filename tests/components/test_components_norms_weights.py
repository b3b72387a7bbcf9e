"""Norms of the weights: against torch's own or a short twin, and what an init writes is kept."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from initbench.components.norm import NORMS
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.registry_choice import options_model
from initbench.testing.norms import trained_weight

WEIGHTY = [entry.name for entry in NORMS if entry.acts_on == "weights"]
LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided_groups": lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2, bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, padding_mode="circular"),
}
INPUTS = {"linear": (8, 7), "conv": (3, 4, 6, 5), "strided_groups": (3, 4, 7, 6), "dilated": (3, 4, 6, 6)}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(kind="linear", seed=1):
    """A layer in float64 whose weight has rows of unlike lengths."""
    layer = LAYERS[kind]().double()
    with torch.no_grad():
        for k, parameter in enumerate(layer.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=seed + k) + 0.3)
    return layer


def wrapped(name, layer, **options):
    return NORMS[name].wrap(layer, options_model(NORMS[name], "name")(**options))


def assert_close(a, b):
    """Two float64 evaluations of one formula, of values around 1: thousands of roundings of 1e-16."""
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def gradients(layer, y):
    return torch.autograd.grad((y * noise(*y.shape, seed=5)).sum(), list(layer.parameters()))


@pytest.mark.parametrize("kind", LAYERS)
def test_weight_norm_is_torchs(kind):
    ours, theirs = wrapped("weight", plain(kind)), parametrizations.weight_norm(plain(kind))
    x = noise(*INPUTS[kind])
    assert_close(ours(x), theirs(x))
    for a, b in zip(gradients(ours, ours(x)), gradients(theirs, theirs(x)), strict=True):
        assert_close(a.flatten(), b.flatten())


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norm_is_torchs(kind, iterations):
    ours = wrapped("spectral", plain(kind), iterations=iterations)
    theirs = parametrizations.spectral_norm(plain(kind), n_power_iterations=iterations)
    u, v = noise(weight_of(ours).shape[0], seed=2), noise(weight_of(ours)[0].numel(), seed=3)
    mine, torchs = ours.parametrizations.weight[0], theirs.parametrizations.weight[0]
    for start, buffer, other in ((u, mine.u, torchs._u), (v, mine.v, torchs._v)):
        buffer.copy_(start / start.norm())
        other.copy_(start / start.norm())
    x = noise(*INPUTS[kind])
    for _ in range(3):
        a, b = ours(x), theirs(x)
        assert_close(a, b)
        for one, other in zip(gradients(ours, a), gradients(theirs, b), strict=True):
            assert_close(one, other)
        assert_close(mine.u, torchs._u)
        assert_close(mine.v, torchs._v)
    ours.eval()
    theirs.eval()
    before = mine.u.clone()
    assert_close(ours(x), theirs(x))
    assert torch.equal(mine.u, before)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_spectral_norm_makes_the_largest_singular_value_1(kind):
    """Also after another weight has been assigned; 200 more iterations leave the gap's 200th power."""
    layer = wrapped("spectral", plain(kind))
    for seed in (7, 8):
        assign_weight(layer, 40 * plain(kind, seed).weight)
        assert float(torch.linalg.matrix_norm(weight_of(layer).detach().flatten(1), 2)) == pytest.approx(
            1, rel=0.05
        )
        for _ in range(200):
            layer(noise(*INPUTS[kind]))
        assert float(torch.linalg.matrix_norm(weight_of(layer).detach().flatten(1), 2)) == pytest.approx(
            1, rel=1e-6
        )


def standardized(rows, eps):
    return (rows - rows.mean(1, keepdim=True)) / (rows.var(1, correction=0, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("kind", LAYERS)
def test_standardized_weights_are_their_formulas(kind):
    rows = plain(kind).weight.flatten(1)
    ws = wrapped("weight_standardization", plain(kind), eps=0.3)
    assert_close(weight_of(ws).flatten(1), standardized(rows, 0.3))
    scaled = wrapped("scaled_ws", plain(kind), gain=1.7)
    expected = 1.7 * standardized(rows, 0.0) / rows.shape[1] ** 0.5
    assert_close(weight_of(scaled).flatten(1), expected)
    scale = noise(len(rows), seed=4)
    with torch.no_grad():
        scaled.get_parameter("parametrizations.weight.0.scale").copy_(scale)
    assert_close(weight_of(scaled).flatten(1), expected * scale[:, None])
    fixed = wrapped("scaled_ws", plain(kind), affine=False, eps=1e6)
    assert_close(weight_of(fixed).flatten(1), (rows - rows.mean(1, keepdim=True)) / 1e3)
    assert len(list(fixed.parameters())) == len(list(plain(kind).parameters()))


def cosine_twin(layer, x, *, centered, eps):
    """Every patch laid out as a row: (N, groups, patch, places) against (groups, out, patch)."""
    if isinstance(layer, nn.Linear):
        patches, groups, places = x[:, None, :, None], 1, (x.shape[0], layer.out_features)
    else:
        groups = layer.groups
        if layer.padding_mode == "circular":
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode="circular")
        padding = 0 if layer.padding_mode == "circular" else layer.padding
        rows = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
        patches = rows.view(len(x), groups, -1, rows.shape[2])
        places = F.conv2d(x, layer.weight, None, layer.stride, padding, layer.dilation, groups).shape
    weight = layer.weight.flatten(1).view(groups, -1, patches.shape[2])
    if centered:
        weight, patches = weight - weight.mean(2, keepdim=True), patches - patches.mean(2, keepdim=True)
    lengths = (weight.square().sum(2)[None, :, :, None] + eps).sqrt()
    y = (weight @ patches) / (lengths * (patches.square().sum(2) + eps).sqrt().unsqueeze(2))
    y = y.reshape(places)
    return y if layer.bias is None else y + layer.bias.view(-1, *[1] * (y.ndim - 2))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_cosine_norm_is_a_cosine_of_patches(kind, centered):
    layer, x = plain(kind), noise(*INPUTS[kind]) + 0.5
    ours, x_twin = wrapped("cosine", copy.deepcopy(layer), centered=centered, eps=1e-3), x.clone()
    assert isinstance(ours, type(layer))
    y, twin = (
        ours(x.requires_grad_()),
        cosine_twin(layer, x_twin.requires_grad_(), centered=centered, eps=1e-3),
    )
    assert_close(y, twin)
    for a, b in zip(gradients(ours, y), gradients(layer, twin), strict=True):
        assert_close(a, b)
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (y.ndim - 2))
    assert float((y - bias).detach().abs().max()) < 1


def test_cosine_norm_is_for_linear_and_conv_alone():
    with pytest.raises(TypeError, match="not Conv1d"):
        wrapped("cosine", nn.Conv1d(2, 2, 1))


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("name", WEIGHTY)
def test_what_an_init_writes_is_kept(name, kind):
    layer, fresh = wrapped(name, plain(kind)), plain(kind, seed=30).weight.detach()
    before = weight_of(layer).detach().clone()
    assign_weight(layer, fresh)
    assert torch.equal(layer.get_parameter(trained_weight(layer)), fresh)
    other = wrapped(name, plain(kind, seed=70))
    assign_weight(other, fresh)
    assert torch.equal(weight_of(layer), weight_of(other)), "nothing is left of what was there before"
    assert not torch.allclose(weight_of(layer), before)
    if name == "weight":
        assert_close(weight_of(layer), fresh)
    kept = fresh.clone()
    fresh.zero_()
    assert torch.equal(layer.get_parameter(trained_weight(layer)), kept), "a copy is taken"


@pytest.mark.parametrize("name", WEIGHTY)
def test_looking_at_the_weight_changes_nothing(name):
    layer = wrapped(name, plain())
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    weight_of(layer)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    assert all(module.training for module in layer.modules())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", WEIGHTY)
def test_copies_and_state_round_trip(name, kind):
    layer, x = wrapped(name, plain(kind)), noise(*INPUTS[kind])
    layer(x)
    twin, other = copy.deepcopy(layer), wrapped(name, plain(kind, seed=50))
    other.load_state_dict(layer.state_dict())
    expected = layer(x)
    assert torch.equal(twin(x), expected)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        twin.get_parameter(trained_weight(twin)).add_(noise(*weight_of(twin).shape, seed=3))
    assert not torch.allclose(twin(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", WEIGHTY)
def test_stacked_layers_compute_what_each_does(name, kind, training):
    layers = [nn.Sequential(wrapped(name, plain(kind, seed=10 * k))).train(training) for k in range(3)]
    parameters, buffers = stack_module_state(layers)
    skeleton, x = copy.deepcopy(layers[0]), noise(3, *INPUTS[kind])
    stacked = vmap(lambda p, b, x: functional_call(skeleton, {**p, **b}, (x,)))(parameters, buffers, x)
    for k, layer in enumerate(layers):
        assert_close(stacked[k], layer(x[k]))
        for key, buffer in layer.named_buffers():
            assert_close(buffers[key][k], buffer)


@pytest.mark.parametrize("name", WEIGHTY)
def test_the_stated_axes_are_those_over_which_weights_depend_on_one_another(name):
    """One-hot patches read out the weight (O, I, H, W) that is multiplied by, also where x is divided by ‖x‖.

    Entries that differ on an axis that is not averaged over leave one another exactly alone.
    """
    layer = wrapped(name, nn.Conv2d(2, 3, 2, bias=False).double()).eval()
    assign_weight(layer, noise(3, 2, 2, 2, seed=6) + 0.3)
    key, patches = trained_weight(layer), torch.eye(8, dtype=torch.float64).view(8, 2, 2, 2)

    def effective(weight):
        return functional_call(layer, {key: weight}, (patches,)).flatten(1).mT

    jacobian = torch.autograd.functional.jacobian(effective, layer.get_parameter(key).detach())
    found = jacobian.reshape(24, 24).abs()
    index = torch.stack(torch.meshgrid(*map(torch.arange, (3, 2, 2, 2)), indexing="ij")).flatten(1)
    expected = torch.ones(24, 24, dtype=torch.bool)
    for axis, at in zip("OIHW", index, strict=True):
        if axis not in NORMS[name].axes:
            expected &= at[:, None] == at[None]
    assert set(NORMS[name].axes) <= set("OIHW")
    assert bool((found[~expected] == 0).all())
    assert float((found[expected] > 1e-6).double().mean()) > 0.95
