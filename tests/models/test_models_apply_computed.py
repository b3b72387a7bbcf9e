"""apply_init on weights that are computed, on transposed layers, and under other defaults of torch."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations

from initbench import apply_init
from initbench.errors import UsageError

warnings.simplefilter("ignore", FutureWarning)

TAKES_SCALE = {
    "spectral": (parametrizations.spectral_norm,),
    "orthogonal": (parametrizations.orthogonal,),
    "weight, spectral": (parametrizations.weight_norm, parametrizations.spectral_norm),
    "spectral twice": (parametrizations.spectral_norm, parametrizations.spectral_norm),
    "old spectral": (utils.spectral_norm,),
}
LEAVES_SCALE = {"weight": (parametrizations.weight_norm,), "old weight": (utils.weight_norm,)}


def wrapped(wrappers):
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Conv1d(1, 8, 3))
    for wrap in wrappers:
        wrap(net[0])
        wrap(net[2])
    return net


def multiplied_by(layer, x, *, training):
    layer.train(training)
    layer(x)
    return layer.weight.detach().clone()


@pytest.mark.parametrize("scheme", ["kaiming_normal", "orthogonal"])
@pytest.mark.parametrize(
    "wrappers", [*TAKES_SCALE.values(), *LEAVES_SCALE.values()], ids=[*TAKES_SCALE, *LEAVES_SCALE]
)
def test_a_computed_weight_is_the_same_in_training_and_evaluation(wrappers, scheme):
    net = wrapped(wrappers)
    report = {row.name: row for row in apply_init(net, scheme).set}
    for place, x in ((0, torch.randn(4, 32)), (2, torch.randn(4, 1, 32))):
        evaluated = multiplied_by(net[place], x, training=False)
        for _ in range(3):
            trained = multiplied_by(net[place], x, training=True)
        torch.testing.assert_close(evaluated, trained, rtol=1e-4, atol=1e-5)
        rms = float(evaluated.square().mean().sqrt())
        assert report[f"{place}.weight"].std == pytest.approx(rms, rel=1e-4)


@pytest.mark.parametrize("wrappers", TAKES_SCALE.values(), ids=TAKES_SCALE)
def test_what_takes_the_scale_is_said_and_refused_to_schemes_that_set_it(wrappers):
    net = wrapped(wrappers)
    before = [p.detach().clone() for p in [*net.parameters(), *net.buffers()]]
    for scheme in ("lsuv", "data_weightnorm", "data_dependent"):
        with pytest.raises(UsageError, match=r"sets the scale.*0\.weight takes it away"):
            apply_init(net[:2], scheme, batch=torch.randn(8, 32))
    assert all(torch.equal(a, b) for a, b in zip(before, [*net.parameters(), *net.buffers()], strict=True))
    row = apply_init(net, "kaiming_normal").set[0]
    assert row.std_asked is None
    assert "takes the scale away" in row.note


def test_a_parametrization_that_cannot_be_set_is_refused():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    net = nn.Linear(4, 4)
    utils.parametrize.register_parametrization(net, "weight", Doubled())
    with pytest.raises(UsageError, match="cannot be set"):
        apply_init(net)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(64, 32, 4, stride=2),
        nn.ConvTranspose2d(64, 32, 3, groups=2),
        nn.ConvTranspose1d(32, 64, 4, stride=2),
        nn.ConvTranspose3d(8, 16, 3),
        nn.Conv2d(64, 32, 3, groups=4),
        nn.Linear(100, 50),
    ],
    ids=repr,
)
def test_torch_default_transposed_is_what_the_constructor_draws(layer):
    """U(±1/√(weight.shape[1]·k²)), of weight and bias: the reach of both is that of reset_parameters."""
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    bound = fan_in**-0.5
    row = apply_init(layer, "torch_default").set[0]
    assert 0.98 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert 0.6 * bound < float(layer.bias.detach().abs().max()) <= bound
    assert row.std_asked == pytest.approx(bound / 3**0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", ["kaiming_uniform", "orthogonal", "sparse", "torch_default", "lsuv"])
def test_the_draw_does_not_depend_on_the_default_dtype(dtype, scheme):
    def drawn():
        net = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64))
        batch = torch.randn(16, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        apply_init(net, scheme, batch=batch.to(net[0].weight.dtype))
        return net[2].weight.detach()

    expected, default = drawn(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        weight = drawn()
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(default)
    assert weight.dtype is dtype
    torch.testing.assert_close(weight.float(), expected, rtol=2e-2, atol=2e-3)


def test_a_default_device_changes_nothing_and_meta_modules_are_refused():
    net = nn.Linear(8, 8)
    apply_init(net, "orthogonal")
    expected = net.weight.detach().clone()
    with torch.device("meta"):
        apply_init(net, "orthogonal")
    assert torch.equal(net.weight, expected)
    with pytest.raises(UsageError, match="meta, which holds no numbers"):
        apply_init(nn.Linear(4, 4, device="meta"))
