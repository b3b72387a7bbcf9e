"""Loading of pretrained tensors, frozen layers, and the learning rates of body and head."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torchvision
from torch import nn

from initbench.components.init_scheme import INITS
from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.components.optimizer import OPTIMIZERS
from initbench.components.target import SampleShape
from initbench.config.schema import TrainOptions
from initbench.errors import ConfigError, UsageError
from initbench.models.apply_init import apply_init
from initbench.models.build import build, check
from initbench.models.freezing import freeze, layer_tensors
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.pretrain.torchvision_weights import adapted
from initbench.pretrain.transfer import load_pretrained, plan_transfer
from initbench.pretrain.weight_sources import WeightSource, _packed
from initbench.registry_choice import options_model
from initbench.train.cohort import Cohort

CPU = torch.device("cpu")
SHAPES = {
    "mlp": (12,),
    "resnet_mlp": (12,),
    "cnn": (3, 8, 8),
    "resnet": (3, 8, 8),
    "torchvision": (3, 32, 32),
}


def model_of(family="mlp", **options):
    small = {"mlp": {"depth": 4, "width": 16}, "resnet_mlp": {"depth": 4, "width": 16}}
    small |= {"cnn": {"depth": 4, "width": 4, "stages": 2}, "resnet": {"depth": 8, "width": 4}}
    return options_model(FAMILIES[family], "family")(**{**small.get(family, {}), **options})


def pretrained(head=None, **options):
    scheme = {"name": "pretrained", "from": "elsewhere", **options}
    return InitOptions.model_validate({"scheme": scheme, "head": head})


def net(init=None, *, family="mlp", seed=0, features=12, classes=5, **model):
    shape = (features,) if len(SHAPES[family]) == 1 else SHAPES[family]
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(5))
    init = init or InitOptions.model_validate({})
    return build(model_of(family, **model), init, form=SampleShape(shape, classes), seed=seed, batch=x)


def origin_of(network):
    return WeightSource("elsewhere", "0" * 64, "0", _packed("elsewhere", network.state_dict()))


def shapes_of(network):
    return {name: tuple(t.shape) for name, t in network.state_dict().items()}


@pytest.mark.parametrize("family", [name for name in FAMILIES.names() if name != "custom"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_tensor_goes_with_one_layer_and_norms_with_theirs(family, norm):
    network = net(family=family, norm=norm)
    found = layer_tensors(network)
    assert sorted(name for member in found for name in member.tensors) == sorted(network.state_dict())
    for layer, member in zip(network.weight_layers(), found, strict=True):
        assert member.weights == [f"{layer.name}.weight"]
        prefix = {module: name for name, module in network.named_modules()}[layer.output]
        own = [name for name in network.state_dict() if name.rpartition(".")[0] == prefix]
        assert set(own) <= set(member.tensors)


def test_a_computed_weight_is_the_weight_of_its_layer():
    for member in layer_tensors(net(norm="weight"))[:-1]:
        assert len(member.weights) == 2 and all(".parametrizations." in name for name in member.weights)


class TestTaking:
    def test_the_same_net_is_taken_whole_buffers_too(self):
        source = net(norm="batch", seed=1)
        for buffer in source.buffers():
            buffer.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(3))
        target = net(pretrained(), norm="batch", seed=2)
        load_pretrained([target], [origin_of(source)], pretrained())
        assert all(torch.equal(t, source.state_dict()[name]) for name, t in target.state_dict().items())
        assert all(p.requires_grad for p in target.parameters())

    def test_another_number_of_classes_draws_the_head_anew(self):
        source, init = net(seed=1, classes=7), pretrained()
        target, fresh = net(init, seed=2), net(seed=2)
        found = plan_transfer(target, shapes_of(source), init)
        assert found.drawn == {"head.weight": "5 × 16 here, 7 × 16 there", "head.bias": "5 here, 7 there"}
        assert set(found.skipped) == set(found.drawn)
        load_pretrained([target], [origin_of(source)], init)
        assert torch.equal(target.head.weight, fresh.head.weight)
        assert torch.equal(target.blocks[2].linear.weight, source.blocks[2].linear.weight)

    def test_init_head_draws_a_head_that_would_fit(self):
        source, init = net(seed=1), pretrained(head="xavier_normal")
        target = net(init, seed=2)
        before = target.head.weight.clone()
        load_pretrained([target], [origin_of(source)], init)
        assert torch.equal(target.head.weight, before)
        plain = net(pretrained(), seed=2)
        load_pretrained([plain], [origin_of(source)], pretrained())
        assert torch.equal(plain.head.weight, source.head.weight)

    def test_bias_and_norm_are_not_taken_without_their_weight(self):
        source, target = net(norm="batch", features=20), net(norm="batch")
        found = plan_transfer(target, shapes_of(source), pretrained())
        assert found.drawn["blocks.0.linear.weight"] == "16 × 12 here, 16 × 20 there"
        assert found.drawn["blocks.0.norm.running_mean"] == "goes with blocks.0.linear.weight"
        assert found.skipped["blocks.0.linear.bias"] == "its layer is drawn, not copied"
        assert not any(name.startswith("blocks.1.") for name in found.drawn)

    def test_a_deeper_net_keeps_the_draws_of_the_layers_that_are_new(self):
        source, target = net(depth=3), net(depth=4)
        found = plan_transfer(target, shapes_of(source), pretrained())
        assert set(found.drawn) == {"blocks.2.linear.weight", "blocks.2.linear.bias"}
        found = plan_transfer(source, shapes_of(target), pretrained())
        assert found.skipped == dict.fromkeys(
            ["blocks.2.linear.weight", "blocks.2.linear.bias"], "not in this net"
        )

    def test_nothing_that_fits_is_refused(self):
        with pytest.raises(
            ConfigError, match=r"init\.scheme\.from: no weight of elsewhere fits.*conv1\.weight"
        ):
            plan_transfer(net(), {"conv1.weight": (16, 12)}, pretrained())
        with pytest.raises(ConfigError, match="no weight"):  # a bias alone is no net
            plan_transfer(net(), {"head.bias": (5,)}, pretrained())

    def test_a_frozen_layer_has_to_be_taken(self):
        source, target = net(features=20), net()
        with pytest.raises(ConfigError, match=r"freezes blocks\.0\.linear, which is not taken"):
            plan_transfer(target, shapes_of(source), pretrained(freeze="first_1"))
        whole = plan_transfer(target, shapes_of(target), pretrained(freeze="first_2"))
        assert whole.frozen == ("blocks.0.linear", "blocks.1.linear")


class TestOptions:
    @pytest.mark.parametrize(
        ("freeze", "layers"), [("none", 0), ("all_but_head", 3), ("first_1", 1), ("first_3", 3)]
    )
    def test_freeze_counts_weight_layers(self, freeze, layers):
        assert pretrained(freeze=freeze).scheme.frozen(4) == layers
        check(model_of(), pretrained(freeze=freeze), form=SampleShape((12,), 5))

    def test_the_head_cannot_be_frozen(self):
        with pytest.raises(ConfigError, match=r"freeze=first_4 leaves nothing to train: the net has 4"):
            check(model_of(), pretrained(freeze="first_4"), form=SampleShape((12,), 5))

    @pytest.mark.parametrize("freeze", ["first_0", "first_k", "first_", "all", "first_-1", "first_2 "])
    def test_other_words_are_refused(self, freeze):
        with pytest.raises(ValueError, match="is none, all_but_head or first_k"):
            pretrained(freeze=freeze)

    @pytest.mark.parametrize(
        ("source", "is_file"),
        [
            ("a-s0-0123456789", False),
            ("my.exp", False),
            ("a/b", True),
            ("w.safetensors", True),
            ("n.pt", True),
        ],
    )
    def test_what_is_a_file(self, source, is_file):
        scheme = options_model(INITS["pretrained"], "name")(**{"from": source})
        assert isinstance(scheme, TransferOptions)
        assert scheme.is_file is is_file

    def test_torchvision_weights_are_checked_without_a_network(self):
        with pytest.raises(ValueError, match=r"torchvision knows no weights 'ResNet18_Weights\.V9'"):
            pretrained(**{"from": "torchvision:ResNet18_Weights.V9"})
        with pytest.raises(ValueError, match="needs a name such as"):
            pretrained(**{"from": "torchvision:resnet18"})
        asked = pretrained(**{"from": "torchvision:ResNet34_Weights.IMAGENET1K_V1"})
        with pytest.raises(ConfigError, match=r"has the weights of resnet34, and model\.model is resnet18"):
            check(model_of("torchvision"), asked, form=SampleShape((3, 32, 32), 5))
        check(model_of("torchvision", model="resnet34"), asked, form=SampleShape((3, 32, 32), 5))

    def test_modules_of_ones_own_are_refused(self):
        with pytest.raises(
            UsageError, match=r"apply_init: pretrained is for a config's nets.*load_state_dict"
        ):
            apply_init(nn.Linear(3, 3), "pretrained")


def trained(steps=4, *, layers=0, hold=True, seeds=(0, 1), mode="vmap", norm="batch", **options):
    """A cohort of nets, the first `layers` frozen, after some steps, with the nets as they were."""
    nets = [net(seed=seed, norm=norm, width=64) for seed in seeds]
    for network in nets:
        freeze(network, layers, hold_norms=hold)
    train = TrainOptions.model_validate({"lr": 0.1, "batch_size": 8, **options})
    cohort = Cohort(nets, train, mode, CPU)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 12, generator=generator).expand(len(nets), 8, 12)
        y = torch.randint(0, 5, (8,), generator=generator).expand(len(nets), 8)
        cohort.gradients(x, y)
        cohort.update(train.lr)
    return nets, cohort


def moved(nets, cohort, run=0):
    parameters, buffers = cohort.run_state(run)
    before = nets[run].state_dict()
    return {name: not torch.equal(t, before[name]) for name, t in {**parameters, **buffers}.items()}


class TestFrozen:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
    @pytest.mark.parametrize("mode", ["vmap", "single"])
    def test_frozen_layers_keep_every_bit_while_others_move(self, optimizer, mode):
        seeds = (0, 1) if mode == "vmap" else (0,)
        changes = {"optimizer": optimizer, "weight_decay": 0.1, "clip_norm": 0.5}
        nets, cohort = trained(layers=2, seeds=seeds, mode=mode, **changes)
        for name, changed in moved(nets, cohort).items():
            if not name.endswith("linear.bias"):  # at 0, and dead before batch norm
                assert changed is not name.startswith(("blocks.0.", "blocks.1.")), name

    def test_running_statistics_follow_the_batches_where_asked(self):
        nets, cohort = trained(layers=2, hold=False)
        state = moved(nets, cohort)
        assert state["blocks.0.norm.running_mean"] and not state["blocks.0.norm.weight"]

    def test_a_frozen_part_is_one_function_in_training_and_evaluation(self):
        nets, _ = trained(0, layers=3)
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(4))
        network = nets[0]
        assert torch.equal(network.train()(x), network.eval()(x))
        free = trained(0, layers=0)[0][0]
        assert not torch.allclose(free.train()(x), free.eval()(x))

    def test_what_is_frozen_is_no_part_of_the_clipped_norm(self):
        """The twin trains a net of torch by itself, with torch's own clipping over the trained parameters."""
        nets, cohort = trained(3, layers=2, norm="none", seeds=(0,), clip_norm=0.1)
        plain = copy.deepcopy(nets[0])
        generator = torch.Generator().manual_seed(1)
        own = [p for p in plain.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(own, lr=0.1)
        for _ in range(3):
            x, y = torch.randn(8, 12, generator=generator), torch.randint(0, 5, (8,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            norm = nn.utils.clip_grad_norm_(own, 0.1)
            assert norm > 0.11  # or nothing is clipped
            optimizer.step()
        for name, t in cohort.run_state(0)[0].items():
            assert torch.allclose(t, plain.get_parameter(name), atol=2e-7), name

    def test_the_cohorts_size_changes_nothing(self):
        _, three = trained(layers=1, seeds=(0, 1, 2), lr_factors={"body": 0.1})
        _, one = trained(layers=1, seeds=(2,), lr_factors={"body": 0.1})
        for name, t in one.run_state(0)[0].items():
            assert torch.equal(t, three.run_state(2)[0][name]), name


class TestFactors:
    @pytest.mark.parametrize(
        "optimizer", ["sgd", {"name": "sgd", "momentum": 0.9}, "adam", "adamw", "rmsprop"]
    )
    def test_a_factor_is_a_multiple_of_the_learning_rate_of_its_part(self, optimizer):
        """From the same weights one update at lr × 0.5 moves the body as lr_factors.body = 0.5 does."""
        nets, half = trained(1, norm="none", lr=0.1, optimizer=optimizer, lr_factors={"body": 0.5})
        _, small = trained(1, norm="none", lr=0.05, optimizer=optimizer)
        _, whole = trained(1, norm="none", lr=0.1, optimizer=optimizer)
        for name, t in half.run_state(0)[0].items():
            same, other = (whole, small) if name.startswith("head") else (small, whole)
            assert torch.equal(t, same.run_state(0)[0][name]), name
            assert not torch.equal(t, other.run_state(0)[0][name]), name
        assert any(moved(nets, half).values())

    def test_tenth(self):
        nets, cohort = trained(1, norm="none", lr_factors={"body": 0.1})
        _, whole = trained(1, norm="none")
        for name, t in cohort.run_state(0)[0].items():
            step = whole.run_state(0)[0][name] - nets[0].get_parameter(name)
            factor = 1.0 if name.startswith("head") else 0.1
            expected = nets[0].get_parameter(name) + factor * step
            assert torch.allclose(t, expected, atol=3e-8, rtol=1e-6), name

    def test_state_survives_a_checkpoint(self):
        options = {"optimizer": "adam", "lr_factors": {"body": 0.1}}
        _, cohort = trained(2, layers=1, **options)
        checkpoint = cohort.checkpoint(1, 2)
        slots = checkpoint.slots
        assert checkpoint.updates == 2.0
        names = {name for name in cohort.parameters if not name.startswith("blocks.0.")}
        assert {slot: set(found) for slot, found in slots.items()} == dict.fromkeys(slots, names)
        assert (
            math.isfinite(float(slots["mean"]["head.weight"].norm())) and slots["mean"]["head.weight"].any()
        )


def theirs_of(name):
    """Return torchvision's net with weights, statistics and biases that are all distinct."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.1)
    return theirs


@pytest.mark.parametrize(
    ("name", "given", "norm", "weights"),
    [
        ("resnet18", "resnet18", "batch", "ResNet18_Weights"),
        ("resnet50", "resnet50", "batch", "ResNet50_Weights"),
        ("mobilenet_v2", "mobilenet_v2", "batch", "MobileNet_V2_Weights"),
        pytest.param("vgg11", "vgg11_bn", "batch", "VGG11_BN_Weights", marks=pytest.mark.slow),
        pytest.param("vgg11", "vgg11", "none", "VGG11_Weights", marks=pytest.mark.slow),
    ],
)
def test_torchvisions_weights_give_torchvisions_logits(name, given, norm, weights):
    theirs = theirs_of(given)
    activation = "relu6" if name == "mobilenet_v2" else "relu"
    model = model_of("torchvision", model=name, norm=norm, activation=activation)
    with torch.random.fork_rng():
        ours = FAMILIES["torchvision"].build(model, SampleShape((3, 32, 32), 5)).eval()
    state = adapted(theirs.state_dict(), model, weights)
    found = plan_transfer(ours, {key: tuple(t.shape) for key, t in state.items()}, pretrained())
    assert not found.drawn
    assert all(key.endswith("num_batches_tracked") for key in found.skipped)
    load_pretrained([ours], [WeightSource("elsewhere", "", "", _packed("elsewhere", state))], pretrained())
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
        assert torch.allclose(ours(x), expected, atol=1e-5 * float(expected.abs().max()))


def test_norms_without_running_statistics_do_the_same_held_or_not():
    network = net(norm="layer")
    freeze(network, 2, hold_norms=True)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(4))
    assert torch.equal(network.train()(x), network.eval()(x))
