"""`initbench.probe` and `initbench.lint` in Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initbench
from initbench.errors import UsageError


def net() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(12):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def batch() -> Tensor:
    return torch.randn(32, 64, generator=torch.Generator().manual_seed(0))


def test_the_names_are_functions_even_after_the_packages_are_loaded() -> None:
    import initbench.linting.rule
    import initbench.probing.module_probe

    assert callable(initbench.probe)
    assert callable(initbench.lint)
    assert not hasattr(initbench, "nothing_of_that_name")


def test_a_probe_finds_what_an_init_cures() -> None:
    module = net()
    before = initbench.probe(module, batch())
    assert [finding.code for finding in before.findings] == ["vanishing_forward", "vanishing_backward"]
    assert not before.healthy
    initbench.apply_init(module, "kaiming_normal")
    after = initbench.probe(module, (batch(), torch.arange(32) % 10))
    assert after.healthy
    assert after.as_data()["loss"]["name"] == "cross-entropy"
    printed = str(before)
    assert "linear, relu" in printed
    assert "vanishing_forward" in printed
    assert after.as_data()["schema"] == "initbench.probe/1"


def test_lint_holds_a_module_against_a_scheme() -> None:
    module = net()
    assert [found.code for found in initbench.lint(module, batch()).findings] == ["torch_default"]
    initbench.apply_init(module, "kaiming_normal")
    assert initbench.lint(module, batch(), scheme="kaiming_normal").findings == []
    wrong = initbench.lint(module, batch(), scheme="lecun_normal")
    assert {found.code for found in wrong.findings} == {"variance"}
    assert "warning variance" in str(wrong)
    with pytest.raises(UsageError, match="did you mean 'kaiming_normal'"):
        initbench.lint(module, batch(), scheme="kaiming_norml")


@pytest.mark.parametrize("wrong", [torch.randn(8), torch.randn(1, 64), [1, 2]])
def test_what_is_no_batch_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"^the batch (must be a tensor|holds no tensor)"):
        initbench.probe(net(), wrong)  # type: ignore[arg-type]


def test_a_loss_of_ones_own() -> None:
    found = initbench.probe(net(), batch(), lambda output: output.square().mean())
    assert found.as_data()["loss"] == {
        "name": "the loss given",
        "value": pytest.approx(found.survey.loss_value),
        "at_chance": None,
    }


class Odd(nn.Module):
    """An activation that nothing is known of."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.0 * x)


def test_an_unknown_activation_is_diagnosed_without_advice_that_needs_it() -> None:
    torch.manual_seed(0)
    layers = [part for _ in range(14) for part in (nn.Linear(64, 64), Odd())]
    found = initbench.probe(nn.Sequential(*layers, nn.Linear(64, 10)), batch())
    assert "vanishing_forward" in {finding.code for finding in found.findings}
    assert "batch norm before the activation" in found.findings[0].message


@pytest.mark.parametrize("bias", [-3.0, -1.0])
def test_relu_nets_whose_biases_leave_nothing_have_a_diagnosis(bias: float) -> None:
    module = net()
    initbench.apply_init(module, "kaiming_normal", bias=bias)
    assert not initbench.probe(module, batch()).healthy


def test_a_symmetric_module_is_told_what_to_call() -> None:
    module = net()
    initbench.apply_init(module, "zeros")
    (finding, *_) = initbench.probe(module, batch()).findings
    assert finding.code == "symmetric"
    assert 'initbench.apply_init(module, "kaiming_normal")' in finding.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_healthy(value: float) -> None:
    module = net()
    with torch.no_grad():
        module[4].weight[0, 0] = value
    findings = initbench.probe(module, batch()).findings
    assert [(finding.code, finding.layer) for finding in findings][:1] == [("not_finite", 3)]
