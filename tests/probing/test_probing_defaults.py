"""probe and lint under other defaults of torch, in other precisions, and on batches of other kinds."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import initbench
from initbench.cli.main import app
from initbench.errors import UsageError


def net():
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))


def make_double():
    return net().double()


def make_tokens():
    return nn.Sequential(nn.Embedding(50, 16), nn.Flatten(), nn.Linear(16 * 6, 50))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_default_dtype_may_be_any(dtype):
    torch.set_default_dtype(dtype)
    try:
        assert initbench.probe(net(), torch.randn(16, 8)).survey.layers
        assert initbench.lint(net(), torch.randn(16, 8)).linted.layers == 3
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "batch", [torch.randn(16, 8).double(), torch.randn(16, 8).numpy(), [torch.randn(16, 8), None]]
)
def test_the_batch_follows_the_module(batch):
    for module in (net(), net().double(), net().bfloat16()):
        assert len(initbench.probe(module, batch).survey.layers) == 3


@pytest.mark.parametrize(
    ("module", "batch", "said"),
    [
        (net(), {"y": torch.randn(4, 8)}, "takes no argument 'y': it takes input"),
        (net(), (torch.randn(4, 8), None, None), "has 3 entries, and forward of Sequential takes input"),
        (net().to("meta"), torch.randn(4, 8), "meta, which holds no numbers"),
    ],
)
def test_what_cannot_be_served_is_told_with_the_way_out(module, batch, said):
    for look in (initbench.probe, initbench.lint):
        with pytest.raises(UsageError, match=said):
            look(module, batch)


@pytest.mark.parametrize("command", ["probe", "lint"])
@pytest.mark.parametrize(("factory", "shape"), [("make_double", "8"), ("make_tokens", "tokens:50,6")])
def test_on_the_command_line(command, factory, shape, monkeypatch):
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    result = CliRunner().invoke(
        app, [command, "--model", f"test_probing_defaults:{factory}", "--input", shape, "seeds=1"]
    )
    assert result.exit_code == 0, result.output


def test_tokens_need_a_vocabulary_and_a_length():
    result = CliRunner().invoke(
        app, ["probe", "--model", "test_probing_defaults:make_tokens", "--input", "tokens:50"]
    )
    assert result.exit_code != 0


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 32), nn.Linear(6, 32), nn.Linear(64, 5)

    def forward(self, a, b):
        return self.head(torch.relu(torch.cat([self.a(a), self.b(b)], 1)))


X, Z, Y = torch.randn(16, 8), torch.randn(16, 6), torch.arange(16) % 5


@pytest.mark.parametrize(
    ("batch", "loss"),
    [
        ((X, Z), "cross-entropy, 5 random classes"),
        ([(X, Z), None], "cross-entropy, 5 random classes"),
        ({"b": Z.numpy(), "a": X}, "cross-entropy, 5 random classes"),
        (((X, Z), Y), "cross-entropy"),
        ((X, Z, Y), "cross-entropy"),
        ({"a": X, "b": Z, "labels": Y}, "cross-entropy"),
        (({"a": X.double(), "b": Z}, Y), "cross-entropy"),
    ],
)
def test_a_batch_of_several_inputs(batch, loss):
    for module in (TwoTowers(), TwoTowers().double(), TwoTowers().half()):
        probed = initbench.probe(module, batch)
        assert [layer.name for layer in probed.survey.layers] == ["a", "b", "head"]
        assert probed.survey.batch == "given a 8, b 6"
        assert probed.survey.loss == loss
        assert initbench.lint(module, batch).linted.layers == 3


def test_what_is_wrong_with_one_of_several_inputs_is_named():
    broken = Z.clone()
    broken[0, 0] = float("nan")
    (finding, *_) = initbench.probe(TwoTowers(), (X, broken)).findings
    assert (finding.code, "the input b" in finding.message) == ("not_finite", True)
    alike = {"a": X[:1].expand(16, 8), "b": Z[:1].expand(16, 6)}
    assert initbench.probe(TwoTowers(), alike).findings[0].code == "samples_alike"
    assert not initbench.probe(TwoTowers(), {**alike, "b": Z}).findings
    with pytest.raises(UsageError, match=r"a \(16, 8\), b \(15, 6\): RuntimeError"):
        initbench.probe(TwoTowers(), (X, Z[1:]))
    with pytest.raises(UsageError, match=r"needs 'b'; the batch holds 'a'"):
        initbench.probe(TwoTowers(), {"a": X})
