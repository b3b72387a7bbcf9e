"""A probed module is left exactly as it was found; what cannot be probed is refused in words."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from initbench.errors import UsageError
from initbench.probing.module_probe import probe_module


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything that a pass could change: values, identities, modes, hooks, attributes."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "values": {name: t.detach().clone() for name, t in tensors.items()},
        "identities": {name: id(t) for name, t in tensors.items()},
        "gradients": {name: t.grad for name, t in module.named_parameters()},
        "asked": {name: t.requires_grad for name, t in module.named_parameters()},
        "modes": {name: m.training for name, m in module.named_modules()},
        "attributes": {name: set(vars(m)) for name, m in module.named_modules()},
        "hooks": {
            name: (list(m._forward_hooks.items()), list(m._forward_pre_hooks.items()), id(m._forward_hooks))
            for name, m in module.named_modules()
        },
    }


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.pop("values").items():
        assert torch.equal(value, after["values"][name]), name
    after.pop("values")
    assert before == after


NETS = {
    "resnet18": (3, 32, 32),
    "squeezenet1_1": (3, 32, 32),
    "mobilenet_v3_small": (3, 32, 32),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_nets_of_torchvision_are_as_they_were(name: str, training: bool) -> None:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(num_classes=5).train(training)
    next(net.parameters()).requires_grad_(requires_grad=False)
    before = state_of(net)
    found = probe_module(net, noise(2, *NETS[name]))
    same(before, state_of(net))
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(found.trace.uses) == len(layers)
    assert found.trace.unseen == {}
    names = {name for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert {use.name for use in found.trace.uses} == names


def test_a_vision_transformer_is_as_it_was() -> None:
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)
    before = state_of(net)
    found = probe_module(net, noise(2, 3, 32, 32))
    same(before, state_of(net))
    assert [use.name for use in found.trace.uses if "layer_1" in use.name] == [
        f"encoder.layers.encoder_layer_1.{part}"
        for part in ("self_attention.in_proj_weight", "self_attention.out_proj", "mlp.0", "mlp.3")
    ]
    assert not found.trace.unseen, "a token that is joined to the input is not the weight of a layer"


class Meddling(nn.Module):
    """Changes all it can while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.calls, self.seen, self.extra, self.last = 0, [1], {"a": 1}, torch.zeros(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(2)
        self.extra["b"] = 2
        self.last.add_(1.0)
        self.fresh = x
        self.layer.weight.data.mul_(0.5)
        self.drop.p = 0.9
        random.random()
        np.random.rand()
        return self.head(self.drop(torch.relu(self.norm(self.layer(x)))))


def test_what_a_forward_meddles_with_is_put_back() -> None:
    net = Meddling()
    handle = net.layer.register_forward_hook(lambda *_: None)
    before, seen, extra = state_of(net), net.seen, net.extra
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    probe_module(net, noise(8, 6))
    same(before, state_of(net))
    assert (net.calls, net.drop.p) == (0, 0.5)
    assert net.seen is seen and seen == [1]
    assert net.extra is extra and extra == {"a": 1}
    assert torch.equal(net.last, torch.zeros(3))
    assert states[0] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(states[2], torch.get_rng_state())
    handle.remove()
    assert not net.layer._forward_hooks, "the handle still finds its hooks"


def test_the_same_module_gives_the_same_numbers_twice() -> None:
    net = Meddling()
    first, second = probe_module(net, noise(8, 6)), probe_module(copy.deepcopy(net), noise(8, 6))
    assert first.records == second.records
    assert first.loss.value == second.loss.value


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.count = nn.Linear(6, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        raise ValueError(f"no idea what to do with {x.shape[1]} features")


def test_a_forward_that_raises_is_told_of_and_leaves_the_module_as_it_was() -> None:
    net = Broken()
    before = state_of(net)
    with pytest.raises(UsageError, match=r"batch of shape \(4, 6\): ValueError: no idea what to do with 6"):
        probe_module(net, noise(4, 6))
    same(before, state_of(net))
    assert net.count == 0


class Rounded(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class Refusing(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        output.register_hook(self.refuse)
        return output

    @staticmethod
    def refuse(_gradient: Tensor) -> None:
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LazyLinear(3), "a lazy module has no shapes yet"),
        (nn.ReLU(), "no parameters"),
        (nn.Linear(5, 3), r"cannot take a batch of shape \(4, 6\)"),
        (nn.Linear(6, 3, device="meta"), "the module is on the device meta"),
        (Rounded(), "without a tensor of real numbers"),
        (Refusing(), "the loss or its backward pass fails: ValueError: not today"),
    ],
)
def test_what_cannot_be_probed_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        probe_module(module, noise(4, 6))


def test_labels_and_losses_that_do_not_fit_are_refused() -> None:
    net = nn.Linear(6, 3)
    with pytest.raises(UsageError, match="integers from 0 to 2"):
        probe_module(net, noise(4, 6), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(UsageError, match="single number"):
        probe_module(net, noise(4, 6), None, lambda output: output)


def test_other_outputs_get_a_loss_that_is_named() -> None:
    found = probe_module(nn.Conv2d(3, 3, 3, padding=1), noise(4, 3, 8, 8))
    assert found.loss.words == "mean square to N(0, 1) noise"
    assert found.loss.chance is None
    with_loss = probe_module(
        nn.Conv2d(3, 4, 3), noise(4, 3, 8, 8), None, lambda output: output.square().mean()
    )
    assert with_loss.loss.words == "the loss given"
