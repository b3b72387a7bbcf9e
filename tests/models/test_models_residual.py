"""Residual branches: what they hold, and the edits that schemes for residual nets make."""

import copy
import math

import pytest
import torch
from family_nets import CIFAR, DIGITS, SMALL, images, net
from torch import nn
from torch.func import functional_call

from initbench.config.schema import TrainOptions
from initbench.models.residual_blocks import PadShortcut, Scale, Shift
from initbench.train.cohort import Cohort

FAMILIES = ("resnet", "resnet_mlp", "torchvision")
SHAPES = {family: SMALL[family][1] for family in FAMILIES}
BLOCKS = {"resnet": 3, "resnet_mlp": 2, "torchvision": 8}


def blocks_of(network):
    return [branch.scale_slot.owner for branch in network.branches()]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_branches_hold_their_weights_and_closing_norm(family, norm):
    network = net(family, norm=norm)
    branches = network.branches()
    assert len(branches) == BLOCKS[family]
    layers = [layer.module for layer in network.weight_layers()]
    places = [[layers.index(module) for module in branch.weights] for branch in branches]
    assert places == [sorted(place) for place in places]
    assert all(len(place) == 2 for place in places)
    assert sorted(i for place in places for i in place) == [i for place in places for i in place]
    for branch, block in zip(branches, blocks_of(network), strict=True):
        assert (branch.last_norm is None) == (norm == "none")
        assert norm == "none" or branch.last_norm is block.layers[-1].norm


def test_a_norm_behind_the_activation_closes_no_branch():
    assert all(
        branch.last_norm is None
        for branch in net("resnet", norm="batch", norm_placement="after_activation").branches()
    )


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_nets_without_shortcuts_have_no_branches(family):
    assert net(family).branches() == []


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_scaled_by_zero_leaves_the_shortcut(family, norm):
    """relu of what relu put out is the same: a block of one width is the identity."""
    network, seen = net(family, norm=norm).eval(), []
    plain = blocks_of(network)
    for block in plain:
        block.register_forward_hook(lambda m, x, y: seen.append((m.shortcut(x[0]).relu(), y)))
    x = images(SHAPES[family])
    network(x)
    assert not any(torch.equal(one, two) for one, two in seen), "branches add something"
    for branch in network.branches():
        branch.insert_scale(0.0)
    seen.clear()
    network(x)
    assert len(seen) == BLOCKS[family]
    assert all(torch.equal(one, two) for one, two in seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_multiplies_what_the_branch_adds(family):
    network = net(family, norm="none").double().eval()
    block, x = blocks_of(network)[0], []
    block.register_forward_pre_hook(lambda _m, inputs: x.append(inputs[0]))
    network(images(SHAPES[family]).double())
    before = block.shortcut(x[0])
    added = block.layers[1](block.layers[0](x[0]))
    network.branches()[0].insert_scale(0.25)
    network.double()
    assert torch.allclose(block(x[0]), torch.relu(before + 0.25 * added), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_shifts_change_nothing_at_first_and_stand_before_weights_and_activations(family):
    network = net(family, norm="none").double().eval()
    x = images(SHAPES[family]).double()
    before = network(x)
    names = [layer.name for layer in network.weight_layers()]
    for branch in network.branches():
        branch.insert_shifts()
    network.double()
    assert torch.equal(network(x), before)
    assert [layer.name for layer in network.weight_layers()] == names
    block, inputs = blocks_of(network)[0], []
    shifts = [module for module in block.modules() if isinstance(module, Shift)]
    assert len(shifts) == 4, "before two weights and two activations"
    first, second, third, last = (slot.owner.get_submodule(slot.name) for slot in shift_slots(network))
    for value, shift in zip((0.1, 0.2, 0.3, 0.4), (first, second, third, last), strict=True):
        nn.init.constant_(shift.shift, value)
    block.register_forward_pre_hook(lambda _m, given: inputs.append(given[0]))
    y = []
    block.register_forward_hook(lambda _m, _x, output: y.append(output))
    network(x)
    one, two = (layer.op for layer in block.layers)
    h = two(torch.relu(one(inputs[0] + 0.1) + 0.2) + 0.3)
    assert torch.allclose(y[0], torch.relu(block.shortcut(inputs[0]) + h + 0.4), rtol=1e-12, atol=1e-12)


def shift_slots(network):
    return network.branches()[0].shift_slots


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_are_parameters_with_stable_names(family):
    network = net(family)
    before = [name for name, _ in network.named_parameters()]
    for branch in network.branches():
        branch.insert_scale(0.5)
        branch.insert_shifts()
    named = dict(network.named_parameters())
    assert [name for name in named if name in before] == before, "no other name or order changed"
    added = [name for name in named if name not in before]
    assert len(added) == 5 * BLOCKS[family]
    scales = [name for name in added if name.endswith(".scale.scale")]
    assert len(scales) == BLOCKS[family]
    assert all(bool((named[name] == (0.5 if name in scales else 0.0)).all()) for name in added)
    twin, x = copy.deepcopy(network).eval(), images(SHAPES[family])
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(functional_call(twin, dict(network.state_dict()), (x,)), network.eval()(x))


@pytest.mark.parametrize("family", ["resnet_mlp", "resnet"])
def test_edited_runs_train_stacked_as_they_do_alone(family):
    """Two clipped steps; for resnet_mlp, which trains stacked, bit for bit with a cohort of another size."""

    def edited(seed):
        network = net(family, seed=seed)
        for branch in network.branches():
            branch.insert_scale(0.5)
            branch.insert_shifts()
        return network

    options = TrainOptions(clip_norm=0.1)
    x = torch.stack([images(DIGITS, 16, seed) for seed in range(3)])
    y = torch.arange(16).remainder(10).expand(3, 16)
    three = Cohort([edited(seed) for seed in range(3)], options, "vmap", torch.device("cpu"))
    one = Cohort([edited(2)], options, "vmap", torch.device("cpu"))
    for _ in range(2):
        three.gradients(x, y)
        one.gradients(x[2:], y[2:])
        three.update(0.1)
        one.update(0.1)
    for name, p in one.run_state(0)[0].items():
        other = three.run_state(2)[0][name]
        assert torch.allclose(p, other, rtol=1e-4, atol=1e-6), name
        assert family != "resnet_mlp" or torch.equal(p, other), name
    scales = [p for name, p in one.run_state(0)[0].items() if name.endswith("scale.scale")]
    assert any(float(p.detach()) != 0.5 for p in scales), "the scales are trained"


def test_option_a_takes_every_other_pixel_and_adds_channels_of_zeros():
    x = images((3, 5, 4))
    y = PadShortcut(2, 2)(x)
    assert y.shape == (8, 5, 3, 2)
    assert torch.equal(y[:, :3], x[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert bool((y[:, 3:] == 0).all())


def test_scale_and_shift_have_an_axis_so_that_stacking_keeps_the_runs_apart():
    assert Scale(2.0).scale.shape == Shift().shift.shape == (1,)


class TestCounts:
    """Numbers of parameters, from the papers' tables or from another implementation."""

    @pytest.mark.parametrize(
        ("depth", "expected"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
    )
    def test_option_a(self, depth, expected):
        """The counts of the common implementation of He et al.'s nets for CIFAR-10 (0.27 M … 1.7 M)."""
        network = net("resnet", CIFAR, depth=depth, width=16, norm="batch")
        assert sum(p.numel() for p in network.parameters()) == expected

    def test_option_b_adds_two_projections_with_norm(self):
        network = net("resnet", CIFAR, depth=20, width=16, norm="batch", shortcut="projection")
        added = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
        assert sum(p.numel() for p in network.parameters()) == 269_722 + added

    @pytest.mark.parametrize("depth", [8, 20])
    def test_depth_counts_weight_layers_without_projections(self, depth):
        plain = net("resnet", depth=depth).weight_layers()
        projected = net("resnet", depth=depth, shortcut="projection").weight_layers()
        assert len(plain) == depth
        assert len(projected) == depth + 2
        assert sum(layer.activation is None for layer in projected) == 3, "two shortcuts and the head"

    @pytest.mark.parametrize(("depth", "block_depth"), [(6, 2), (8, 3), (5, 1)])
    def test_depth_of_the_fully_connected_form(self, depth, block_depth):
        network = net("resnet_mlp", depth=depth, block_depth=block_depth)
        assert len(network.weight_layers()) == depth
        inputs = math.prod(DIGITS)
        expected = inputs * 16 + 16 + (depth - 2) * (16 * 16 + 16) + 16 * 10 + 10
        assert sum(p.numel() for p in network.parameters()) == expected
