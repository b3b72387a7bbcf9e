"""Advice of `lint`, printed as a call or as a change of a config, cures when it is applied verbatim."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import initbench as package
from initbench.linting.rule import LINT_RULES

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
CALL = re.compile(r"initbench\.(apply_init\(module, .*?\)) \(checked")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.relu(self.first(x)))


def stack(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def copied() -> nn.Module:
    net = stack(16, 32, 32, 32, 5)
    package.apply_init(net)
    net[4] = copy.deepcopy(net[2])
    return net


def repeated() -> nn.Module:
    net = stack(16, 32, 5)
    package.apply_init(net)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
        net[2].weight[:, 1] = net[2].weight[:, 0]
    return net


def weight_normed() -> nn.Module:
    net = stack(16, 64, 64, 5)
    package.apply_init(net)
    net[2] = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    return net


def residual() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), *(Block(32) for _ in range(16)), nn.Linear(32, 5))
    package.apply_init(net)
    return net


def sure() -> nn.Module:
    net = stack(16, 32, 5)
    package.apply_init(net)
    with torch.no_grad():
        net[2].weight.mul_(20.0)
    return net


MODULES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "identical_layers": (copied, X),
    "duplicated_units": (repeated, X),
    "torch_default": (lambda: stack(16, 64, 64, 5), X),
    "weight_norm_before_init": (weight_normed, X),
    "residual_scale": (residual, X),
    "head_scale": (sure, X),
    "input_scale": (lambda: package.apply_init(net := stack(16, 64, 5)) and net, 255.0 * X.abs()),
}
CONFIGS = {
    "duplicated_units": ["init.scheme=zeros"],
    "residual_scale": ["model.family=resnet_mlp", "model.depth=26"],
    "head_scale": ["init.head={name: normal, std: 9.0}"],
}
"""By code, what makes a config show it."""
WITHOUT_A_CHANGE = {
    "activation_on_logits", "dead_bias", "fans", "frozen", "no_gradient", "norm_scale", "not_finite",
    "samples_alike", "scale_cancelled", "unseen", "untouched", "unused", "variance", "zero_head",
}  # fmt: skip
"""Codes of which the user's code is the cause, or that need nothing; `fans` has a test of its own."""


def test_the_tables_hold_every_code() -> None:
    assert MODULES.keys() | WITHOUT_A_CHANGE == set(LINT_RULES.names())


@pytest.mark.parametrize("code", MODULES)
def test_advice_on_a_module_cures(code: str) -> None:
    make, x = MODULES[code]
    found = {finding.code: finding for finding in package.lint(make(), x).findings}[code]
    assert found.advice
    assert found.fix.startswith("Try ")
    for call in CALL.findall(found.fix):
        module = make()
        eval(call, {"apply_init": package.apply_init, "module": module})
        assert code not in [finding.code for finding in package.lint(module, x).findings]
    for advice in found.advice:
        if advice.change in ("input=global", "input=per_feature"):
            axis = None if advice.change == "input=global" else 0
            scaled = (x - x.mean(axis, keepdim=True)) / x.std(axis, keepdim=True)
            assert code not in [finding.code for finding in package.lint(make(), scaled).findings]
        if advice.change in ("head=zeros", "head=small"):
            module = make()
            with torch.no_grad():
                module[2].weight.mul_(0.0 if advice.change == "head=zeros" else 0.1)
            assert code not in [finding.code for finding in package.lint(module, x).findings]
        if advice.change.startswith("residual="):
            module = make()
            with torch.no_grad():
                for block in module[1:-1]:
                    block.last.weight.mul_(0.0 if advice.change == "residual=zero" else 1 / math.sqrt(16))
            assert code not in [finding.code for finding in package.lint(module, x).findings]


@pytest.mark.parametrize("code", CONFIGS)
def test_advice_on_a_config_cures(initbench: Any, tmp_path: Path, code: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "name: net\ndata: {name: gaussian, dim: 32, samples: 300}\n"
        "model: {family: mlp, depth: 4, width: 32}\ntrain: {steps: 1, batch_size: 32}\n"
    )
    said = initbench("lint", path, *CONFIGS[code], "--json")
    found = {finding["code"]: finding for finding in json.loads(said.out)["findings"]}[code]
    assert found["advice"]
    for advice in found["advice"]:
        assert f"{advice['text']} (checked" in found["fix"]
        again = initbench("lint", path, *CONFIGS[code], *advice["change"].split(), "--json")
        assert code not in [finding["code"] for finding in json.loads(again.out)["findings"]]
