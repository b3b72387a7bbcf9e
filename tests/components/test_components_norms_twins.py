"""Norms of the activations: against torch's own where it has them, else against a short twin."""

from typing import Annotated

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

from initbench.components.norm import NORMS
from initbench.registry import Options
from initbench.registry_choice import Choice, options_model

BUILT = [entry.name for entry in NORMS if entry.acts_on == "activations" and entry.name != "none"]
FLAT, MAPS = (12, 8), (4, 8, 3, 5)


def options_of(name, **options):
    return options_model(NORMS[name], "name")(**options)


def built(name, features=8, **options):
    """In float64, with every parameter away from where it starts."""
    module = NORMS[name].build(features, options_of(name, **options)).double()
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * noise(*parameter.shape, seed=90 + k))
    return module


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(shape, seed=0):
    return (2.5 * noise(*shape, seed=seed) + 0.7).requires_grad_()


def assert_close(a, b):
    """Two float64 evaluations of one formula, of values around 1: thousands of roundings of 1e-16."""
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def assert_twins(module, twin, shape):
    """Outputs in training and evaluation, and the gradients of the input and of every parameter."""
    for training in (True, False):
        module.train(training)
        x = batch(shape)
        y, expected = module(x), twin(x)
        assert_close(y, expected)
        upstream, wanted = noise(*shape, seed=1), [x, *module.parameters()]
        for a, b in zip(
            torch.autograd.grad((y * upstream).sum(), wanted),
            torch.autograd.grad((expected * upstream).sum(), wanted),
            strict=True,
        ):
            assert_close(a, b)


def column(parameter, x):
    return parameter.view(-1, *[1] * (x.ndim - 2))


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_is_torchs(affine):
    module = built("instance", affine=affine, eps=0.3)
    assert_twins(module, lambda x: F.instance_norm(x, None, None, module.weight, module.bias, eps=0.3), MAPS)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_layer_norm_is_torchs_and_group_norms_with_one_group(shape, affine):
    module = built("layer", affine=affine, eps=0.3)
    assert_twins(module, lambda x: F.group_norm(x, 1, module.weight, module.bias, eps=0.3), shape)
    if not affine:
        assert_twins(module, lambda x: F.layer_norm(x, x.shape[1:], eps=0.3), shape)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_rms_norm_is_torchs(shape, affine):
    module = built("rms", affine=affine, eps=0.3)

    def twin(x):
        y = F.rms_norm(x, x.shape[1:], eps=0.3)
        return y * column(module.weight, x) if affine else y

    assert_twins(module, twin, shape)


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (4, 2.0, 0.6, 1.3), (1, 1.0, 2.0, 0.5)]
)
@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_local_response_norm_is_torchs(shape, size, alpha, beta, k):
    module = built("local_response", size=size, alpha=alpha, beta=beta, k=k)

    def twin(x):
        wide = x[:, :, None] if x.ndim == 2 else x
        return F.local_response_norm(wide, size, alpha, beta, k).view(x.shape)

    assert_twins(module, twin, shape)


@pytest.mark.parametrize("tlu", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_filter_response_norm_is_its_formula(affine, tlu):
    module = built("frn", affine=affine, tlu=tlu, eps=0.3)

    def twin(x):
        y = x / (x.square().mean((2, 3), keepdim=True) + 0.3).sqrt()
        y = y * column(module.weight, x) + column(module.bias, x) if affine else y
        return torch.where(y > column(module.threshold, x), y, column(module.threshold, x)) if tlu else y

    assert_twins(module, twin, MAPS)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_dynamic_tanh_is_its_formula(shape, affine):
    module = built("dyt", affine=affine, alpha=0.8)
    fresh = NORMS["dyt"].build(8, options_of("dyt", alpha=0.8))
    assert float(fresh.alpha.detach()) == pytest.approx(0.8)

    def twin(x):
        y = (2 * torch.sigmoid(2 * module.alpha * x)) - 1
        return y * column(module.weight, x) + column(module.bias, x) if affine else y

    assert_twins(module, twin, shape)


def torchs_batch_norm(module, shape, **options):
    torch_class = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    theirs = torch_class(shape[1], affine=module.weight is not None, **options).double()
    theirs.load_state_dict({**theirs.state_dict(), **dict(module.named_parameters())})
    return theirs


@pytest.mark.parametrize("samples", [12, 14, 3])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_ghost_batches_are_batches_of_torchs(shape, affine, samples):
    """One after another; what 4 does not divide joins the last one."""
    module = built("ghost_batch", affine=affine, ghost_size=4, momentum=0.3, eps=0.2)
    theirs, x = torchs_batch_norm(module, shape, momentum=0.3, eps=0.2), batch((samples, *shape[1:]))
    parts = {12: [4, 4, 4], 14: [4, 4, 6], 3: [3]}[samples]
    y, expected = module(x), torch.cat([theirs(part) for part in x.split(parts)])
    assert_close(y, expected)
    upstream = noise(*x.shape, seed=1)
    assert_close(*(torch.autograd.grad((out * upstream).sum(), x)[0] for out in (y, expected)))
    assert_close(module.running_mean, theirs.running_mean)
    assert_close(module.running_var, theirs.running_var)
    assert_close(module.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("shape", [FLAT, MAPS])
def test_batch_renorm_is_its_formula(shape):
    module = built("batch_renorm", momentum=0.3, r_max=1.4, d_max=0.5, warmup_steps=4, eps=0.2)
    mean, var, axes = (
        torch.zeros(8).double(),
        torch.ones(8).double(),
        [a for a in range(len(shape)) if a != 1],
    )
    clipped = {"r": 0, "d": 0}
    for step in range(6):
        x = batch(shape, seed=step)
        mu, sigma = x.mean(axes), (x.var(axes, correction=0) + 0.2).sqrt()
        share, running = min(1.0, step / 4), (var + 0.2).sqrt()
        r_max, d_max = 1 + share * 0.4, share * 0.5
        r, d = (sigma / running).detach(), ((mu - mean) / running).detach()
        clipped["r"] += int((r > r_max).sum())
        clipped["d"] += int((d.abs() > d_max).sum())
        r, d = r.clamp(1 / r_max, r_max), d.clamp(-d_max, d_max)
        y = (x - column(mu, x)) / column(sigma, x) * column(r, x) + column(d, x)
        expected, ours = y * column(module.weight, x) + column(module.bias, x), module(x)
        assert_close(ours, expected)
        upstream = noise(*shape, seed=50)
        assert_close(*(torch.autograd.grad((out * upstream).sum(), x)[0] for out in (ours, expected)))
        count = x.numel() // 8
        mean = 0.7 * mean + 0.3 * mu.detach()
        var = 0.7 * var + 0.3 * x.detach().var(axes, correction=0) * count / (count - 1)
        assert_close(module.running_mean, mean)
        assert_close(module.running_var, var)
    assert all(clipped.values()), "both limits are met"


def test_batch_renorm_without_limits_trains_as_it_evaluates_and_starts_as_batch_norm():
    x, free = batch(FLAT), built("batch_renorm", r_max=1e9, d_max=1e9, warmup_steps=0)
    before = free.eval()(x)
    assert_close(free.train()(x), before)
    assert not torch.allclose(free.eval()(x), before)
    for warmup, alike in ((10, True), (0, False)):
        module = built("batch_renorm", warmup_steps=warmup)
        theirs = torchs_batch_norm(module, FLAT)
        assert torch.allclose(module(x), theirs(x), rtol=1e-11, atol=1e-11) == alike


@pytest.mark.parametrize("name", [n for n in BUILT if "affine" in NORMS[n].options.model_fields])
def test_affine_off_leaves_no_scale_and_no_shift(name):
    on, off = ({n for n, _ in built(name, affine=a).named_parameters()} for a in (True, False))
    assert on - off == ({"weight"} if name == "rms" else {"weight", "bias"})
    fresh = NORMS[name].build(8, options_of(name)).double()
    assert_close(
        fresh(batch(MAPS)), NORMS[name].build(8, options_of(name, affine=False)).double()(batch(MAPS))
    )


def another(name, field):
    """A value for an option that is not its default and that its constraints allow."""
    default = NORMS[name].options.model_fields[field].default
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default / 2 + 0.5 * (field == "r_max")


@pytest.mark.parametrize("name", NORMS.names())
def test_options_round_trip_through_yaml(name):
    fields = [field for field in NORMS[name].options.model_fields if field not in Options.model_fields]
    written = {"name": name, **{field: another(name, field) for field in fields}}
    adapter = TypeAdapter(Annotated[Options, Choice(NORMS)])
    value = adapter.validate_python(yaml.safe_load(yaml.safe_dump(written)))
    dumped = adapter.dump_python(value)
    assert (dumped if isinstance(dumped, dict) else {"name": dumped}) == written
    assert adapter.validate_python(dumped) == value


@pytest.mark.parametrize(
    ("name", "options", "shape", "option"),
    [
        ("instance", {}, (8,), ""),
        ("instance", {}, (8, 1, 1), ""),
        ("instance", {}, (8, 1, 2), None),
        ("frn", {}, (8,), ""),
        ("frn", {}, (8, 1, 1), ""),
        ("frn", {}, (1, 2, 2), None),
        ("rms", {}, (1,), ""),
        ("rms", {}, (2,), None),
        ("rms", {}, (1, 1, 2), None),
        ("local_response", {"size": 5}, (4,), "size"),
        ("local_response", {"size": 5}, (5,), None),
        ("weight_standardization", {}, (1,), ""),
        ("scaled_ws", {}, (1,), ""),
        ("cosine", {}, (1,), ""),
        ("cosine", {}, (1, 2, 2), None),
        ("cosine", {}, (2,), None),
    ],
)
def test_shapes_that_are_refused(name, options, shape, option):
    problem = NORMS[name].problem(shape, options_of(name, **options))
    assert (problem is None) == (option is None)
    if problem is not None:
        assert problem[0] == option
        assert len(problem[1].split()) > 5


def test_what_is_refused_would_be_0_or_a_sign():
    x = batch((8, 6)).detach()
    assert float(built("instance", 6, affine=False)(x[:, :, None, None]).abs().max()) == 0
    assert_close(built("frn", 6, affine=False, eps=1e-20)(x), x.sign())
    assert_close(built("rms", 1, affine=False, eps=1e-20)(x[:, :1]), x[:, :1].sign())


@pytest.mark.parametrize(("batch_size", "fits"), [(64, True), (32, True), (48, False), (16, False)])
def test_ghost_batches_must_divide_the_batch(batch_size, fits):
    problem = NORMS["ghost_batch"].batch_problem(batch_size, options_of("ghost_batch", ghost_size=32))
    assert (problem is None) == fits
    assert fits or (problem[0] == "ghost_size" and str(batch_size) in problem[1] and "32" in problem[1])
