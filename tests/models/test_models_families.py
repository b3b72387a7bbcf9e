"""Properties of nets of every family: shapes, order of the layers, any activation with any norm."""

import copy
import itertools
import math

import pytest
import torch
from family_nets import CIFAR, DIGITS, MNIST, SMALL, images, net, options_of, parameters
from pydantic import ValidationError
from slices import pairwise_fast
from torch.func import functional_call

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.config.loading import load_config, to_yaml
from initbench.config.schema import ExperimentConfig, TrainOptions
from initbench.errors import ConfigError
from initbench.models.build import check
from initbench.models.init_weights import InitOptions, fans
from initbench.models.network import FAMILIES, WeightLayer
from initbench.train.cohort import Cohort

CPU = torch.device("cpu")
STANDARDISED = ("weight_standardization", "scaled_ws")
"""Norms that give the weights a scale of their own, whatever they were drawn with."""
RESIDUAL = ("resnet", "resnet_mlp", "torchvision")
VARIANTS = [
    *((family, {}) for family in SMALL),
    ("cnn", {"norm": "batch", "norm_placement": "after_activation", "downsample": "max_pool"}),
    ("cnn", {"head": "flatten", "downsample": "avg_pool", "stages": 2, "double": False}),
    ("resnet", {"shortcut": "projection", "norm": "batch"}),
    ("resnet", {"shortcut": "projection", "norm": "batch", "norm_placement": "after_activation"}),
    ("resnet_mlp", {"block_depth": 1, "norm": "batch"}),
    ("torchvision", {"model": "mobilenet_v2"}),
    ("torchvision", {"model": "resnet50", "norm": "none"}),
]


def test_every_family_is_here():
    assert set(SMALL) == set(FAMILIES.names()) - {"custom"}, "tests/custom_models covers nets of the user"


@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR])
@pytest.mark.parametrize("family", [name for name in SMALL if name != "torchvision"])
def test_logits_have_the_shape_of_the_classes(family, shape):
    network = net(family, shape, classes=7)
    logits = network(images(shape))
    assert logits.shape == (8, 7)
    assert bool(logits.isfinite().all())
    assert float(logits.detach().std(0).min()) > 0, "the logits depend on the image"


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_weight_layers_are_in_the_order_of_execution_and_complete(family, options):
    network, called = net(family, **options), []
    layers = network.weight_layers()
    for layer in layers:
        layer.module.register_forward_hook(lambda _m, _x, _y, index=layer.index: called.append(index))
    network(images(SMALL[family][1], 4))
    assert called == [layer.index for layer in layers] == list(range(1, len(layers) + 1))
    modules = dict(network.named_modules())
    assert all(modules[layer.name] is layer.module for layer in layers)
    with_weights = [m for m in modules.values() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(with_weights) == len(layers)
    assert [layer.is_head for layer in layers] == [False] * (len(layers) - 1) + [True]


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_each_layer_has_an_activation_and_an_output_of_its_own(family, options):
    """Whatever is hooked is called once a pass, after the weights it belongs to and before the next's."""
    network, events = net(family, **options), []
    layers = network.weight_layers()
    for layer in layers:
        for role in ("module", "output", "activation"):
            hooked = getattr(layer, role)
            if hooked is not None:
                hooked.register_forward_hook(lambda _m, _x, _y, e=(layer.index, role): events.append(e))
    network(images(SMALL[family][1], 4))
    expected = [
        (layer.index, role)
        for layer in layers
        for role in ("module", "output", "activation")
        if getattr(layer, role) is not None
    ]
    assert sorted(events) == sorted(expected), "every module is called exactly once"
    position = {event: i for i, event in enumerate(events)}
    for one, two in itertools.pairwise(layers):
        last = "output" if one.activation is None else "activation"
        assert position[one.index, "module"] <= position[one.index, "output"] <= position[one.index, last]
        assert position[one.index, last] < position[two.index, "module"]


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_a_copy_computes_the_same_with_layers_of_its_own(family, options):
    network = net(family, **options).eval()
    x = images(SMALL[family][1], 4)
    twin = copy.deepcopy(network)
    originals = {id(module) for module in network.modules()}
    for layer in twin.weight_layers():
        assert isinstance(layer, WeightLayer)
        assert not {id(layer.module), id(layer.output), id(layer.activation)} & originals
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(functional_call(twin, state, (x,)), network(x))


def fits(family, activation, norm):
    """Return whether the net can be built, according to the registry entries, without building it."""
    entry = ACTIVATIONS[activation]
    chosen = options_of("mlp", activation=activation).activation
    changes = (entry.features_in(8, chosen), entry.features_out(8, chosen)) != (8, 8)
    return not (family in RESIDUAL and changes)


def norm_needs_maps(norm):
    """Return whether the norm has nothing to average in a list of features."""
    return NORMS[norm].problem((16,), options_of("cnn", norm=norm).norm) is not None


@pytest.mark.parametrize(
    ("activation", "norm", "family"),
    pairwise_fast(ACTIVATIONS.names(), NORMS.names(), ["cnn", "resnet", "resnet_mlp"]),
)
def test_every_activation_and_norm_trains(family, activation, norm):
    """Two steps on images of digits' size, from weights so small that no activation explodes."""
    if not fits(family, activation, norm):
        with pytest.raises(ValidationError, match="another number of channels"):
            options_of(family, activation=activation)
        return
    if family == "resnet_mlp" and norm_needs_maps(norm):
        with pytest.raises(ValidationError, match=r"model\.width=16"):
            options_of(family, norm=norm)
        return
    small = {"scheme": {"name": "normal", "std": 0.05}}
    network = net(family, activation=activation, norm=norm, init=small)
    if (
        activation == "squared_relu" and norm in STANDARDISED
    ):  # no small weights keep squares of squares small
        assert network(images(DIGITS)).shape == (8, 10)
        return
    steps_stay_finite(network, DIGITS)


@pytest.mark.parametrize("norm", NORMS.names())
def test_torchvisions_resnet_trains_with_every_norm_that_fits(norm):
    """On 64 × 64, where its last maps are 2 × 2: there is something to average for every norm."""
    network = net("torchvision", (3, 64, 64), norm=norm)
    if norm == "weight_standardization":  # each layer multiplies by √fan_in, up to 68
        assert network(images((3, 64, 64))).shape == (8, 10)
        return
    steps_stay_finite(network, (3, 64, 64))


@pytest.mark.parametrize("activation", ["tanh", "prelu"])
def test_torchvisions_mobilenet_trains_with_other_activations(activation):
    steps_stay_finite(net("torchvision", model="mobilenet_v2", activation=activation), CIFAR)


def steps_stay_finite(network, shape):
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    cohort = Cohort([network], TrainOptions(), "single", CPU)
    y = torch.arange(8).remainder(10)
    for _ in range(2):
        losses = cohort.gradients(images(shape)[None], y[None])
        assert bool(losses.isfinite().all())
        cohort.update(1e-6)  # squared_relu squares a residual block's sum, and leaves no more room than this
    after = cohort.run_state(0)[0]
    assert all(bool(p.isfinite().all()) for p in after.values())
    head = network.weight_layers()[-1].name
    assert not torch.equal(after[f"{head}.bias"], before[f"{head}.bias"])


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("family", ["cnn", "resnet", "resnet_mlp"])
def test_stacked_runs_compute_what_single_runs_do(family, norm):
    """Three steps with momentum, in float32: the two differ by roundings."""
    options = TrainOptions.model_validate({"optimizer": {"name": "sgd", "momentum": 0.9}})
    x = torch.stack([images(DIGITS, 16, seed) for seed in range(3)])
    y = torch.arange(16).remainder(10).expand(3, 16)
    stacked = Cohort([net(family, norm=norm, seed=seed) for seed in range(3)], options, "vmap", CPU)
    singles = [Cohort([net(family, norm=norm, seed=seed)], options, "single", CPU) for seed in range(3)]
    for _ in range(3):
        losses = stacked.gradients(x, y)
        alone = [single.gradients(x[k : k + 1], y[k : k + 1]) for k, single in enumerate(singles)]
        assert torch.allclose(losses, torch.cat(alone), rtol=1e-4)
        for cohort in (stacked, *singles):
            cohort.update(0.05)
    for k, single in enumerate(singles):
        for name, p in single.run_state(0)[0].items():
            assert torch.allclose(stacked.run_state(k)[0][name], p, rtol=1e-3, atol=1e-3), name


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_options_survive_yaml(family, options, tmp_path):
    data = {"name": "mnist", "resize": 32}  # what torchvision's nets need at least
    config = ExperimentConfig.model_validate(
        {"name": "x", "data": data, "model": {"family": family, **options}}
    )
    path = tmp_path / "x.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path, [], ExperimentConfig) == config


def refuse_or_pass(family, shape, **options):
    init = InitOptions.model_validate({})
    check(options_of(family, **options), init, form=SampleShape(shape, 10))


@pytest.mark.parametrize("family", ["cnn", "resnet", "torchvision"])
def test_lists_of_features_are_refused_naming_both_keys(family):
    with pytest.raises(ConfigError) as caught:
        refuse_or_pass(family, (64,))
    assert str(caught.value).startswith("model.family: ")
    assert "data.name" in str(caught.value)
    assert "64 features" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options", "shape", "key", "words"),
    [
        ("cnn", {"stages": 5, "depth": 6}, DIGITS, "model.stages", "data.resize"),
        ("cnn", {"kernel": 17, "stages": 1}, DIGITS, "model.kernel", "17 × 17"),
        (
            "cnn",
            {"stages": 4, "kernel": 1, "downsample": "max_pool", "depth": 9},
            (1, 4, 4),
            "model.stages",
            "",
        ),
        ("cnn", {"norm": {"name": "group", "num_groups": 3}}, DIGITS, "model.norm.num_groups", "3 groups"),
        ("resnet", {}, (1, 4, 4), "model.family", "data.resize"),
        ("resnet", {"norm": {"name": "group", "num_groups": 3}}, CIFAR, "model.norm.num_groups", "layer 1"),
        ("torchvision", {"model": "vgg11"}, DIGITS, "model.model", "data.resize=32"),
        (
            "torchvision",
            {"norm": {"name": "group", "num_groups": 512}},
            CIFAR,
            "model.norm.num_groups",
            "norm layer 1 of resnet18",
        ),
    ],
)
def test_what_does_not_fit_the_images_is_refused_by_arithmetic(family, options, shape, key, words):
    with pytest.raises(ConfigError) as caught:
        refuse_or_pass(family, shape, **options)
    (fault,) = caught.value.issues
    assert fault.key == key
    assert words in fault.problem
    assert f"images of {shape[1]} × {shape[2]}" in fault.problem


@pytest.mark.parametrize(
    ("family", "options", "shape"),
    [
        ("cnn", {"stages": 4}, DIGITS),
        ("cnn", {"kernel": 15, "stages": 1}, DIGITS),
        ("cnn", {"stages": 3, "kernel": 1, "downsample": "max_pool"}, (1, 4, 4)),
        ("resnet", {}, (1, 5, 5)),
        ("torchvision", {"model": "vgg11"}, (1, 32, 33)),
    ],
)
def test_what_just_fits_is_not(family, options, shape):
    refuse_or_pass(family, shape, **options)
    if family != "torchvision":
        assert net(family, shape, **options)(images(shape, 2)).shape == (2, 10)


@pytest.mark.parametrize(
    ("family", "options", "at"),
    [
        ("cnn", {"depth": 3, "stages": 3}, "stages"),
        ("cnn", {"kernel": 4}, None),
        ("resnet", {"depth": 21}, "depth"),
        ("resnet_mlp", {"depth": 5, "block_depth": 2}, "depth"),
        ("resnet_mlp", {"depth": 2, "block_depth": 2}, "depth"),
        ("torchvision", {"norm_placement": "after_activation"}, "norm_placement"),
        *((family, {"activation": "maxout"}, "activation") for family in RESIDUAL),
    ],
)
def test_options_that_contradict_one_another_are_refused(family, options, at):
    with pytest.raises(ValidationError) as caught:
        options_of(family, **options)
    (error,) = caught.value.errors()
    assert error["ctx"].get("at") == at


@pytest.mark.parametrize("family", ["cnn", "resnet", "torchvision"])
def test_convolutions_train_one_by_one_on_a_cpu(family):
    assert FAMILIES[family].mode(options_of(family), 128, 3072, 10) == "single"


def test_weights_are_drawn_with_the_fans_of_the_kernel():
    """std of N weights: standard error 1/√(2N), five of them; depthwise convolutions see one channel each."""
    for layer in net("torchvision", model="mobilenet_v2", init={"scheme": "lecun_normal"}).weight_layers():
        weight = layer.module.weight.detach()
        inputs = weight.shape[1] * math.prod(weight.shape[2:])
        assert fans(layer.module)[0] == inputs
        assert float(weight.square().mean()) ** 0.5 == pytest.approx(
            inputs**-0.5, rel=5 / (2 * weight.numel()) ** 0.5
        )


def test_parameters_are_counted():
    """784·16+16, then 16·16+16 twice, then 16·10+10: the count that the other tests rely on."""
    assert parameters(net("mlp", MNIST)) == 12_560 + 2 * 272 + 170


@pytest.mark.parametrize("family", SMALL)
def test_a_check_makes_nothing_and_finds_what_an_init_cannot_serve(family):
    """On a net without data: identity fills no kernels, and fixup needs branches."""
    options, shape = options_of(family), SMALL[family][1]
    refused = []
    before = torch.random.get_rng_state()
    for name in ("kaiming_normal", "identity", "fixup"):
        init = InitOptions.model_validate({"scheme": name})
        try:
            check(options, init, form=SampleShape(shape, 10))
        except ConfigError as error:
            refused += [name]
            assert f"init.scheme={name} " in str(error)
            assert "model.family" in str(error)
    assert torch.equal(torch.random.get_rng_state(), before)
    branches = bool(net(family).branches())
    kernels = any(layer.module.weight.ndim > 2 for layer in net(family).weight_layers())
    assert refused == ["identity"] * kernels + ["fixup"] * (not branches)
