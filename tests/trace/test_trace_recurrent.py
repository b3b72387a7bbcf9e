"""LSTM, GRU and RNN: the pass written out is torch's own, and what is wrong with them is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initbench
from initbench.probing.own import examine
from initbench.trace.tracer import Tracer


class Silent:
    """An observer that looks at nothing."""

    def __getattr__(self, _name: str) -> object:
        return lambda *_arguments: None


KINDS = {
    "LSTM": {},
    "GRU": {},
    "RNN": {},
    "relu": {"nonlinearity": "relu", "bias": False},
    "projected": {"proj_size": 3, "num_layers": 2},
    "both ways": {"bidirectional": True, "num_layers": 3, "batch_first": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_written_out_pass_is_torchs(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    cls = {"relu": nn.RNN, "projected": nn.LSTM, "both ways": nn.GRU}.get(kind) or getattr(nn, kind)
    layer = cls(4, 5, **KINDS[kind])
    x: Tensor | nn.utils.rnn.PackedSequence = torch.randn(6, 7, 4)
    if packed:
        lengths = (
            torch.tensor([7, 2, 5, 5, 1, 3]) if layer.batch_first else torch.tensor([6, 1, 4, 4, 2, 3, 6])
        )
        x = nn.utils.rnn.pack_padded_sequence(
            torch.randn(6, 7, 4), lengths, batch_first=layer.batch_first, enforce_sorted=False
        )
    expected, states = layer(x)
    tracer = Tracer({id(p): name for name, p in layer.named_parameters()}, Silent())  # type: ignore[arg-type]
    data = x.data if packed else x
    tracer.start([data], len(data))
    with tracer:
        output, last = layer(x)
    if packed:
        expected, output = expected.data, output.data
    assert torch.allclose(output, expected, atol=1e-6)
    for one, other in zip(last, states, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    found = tracer.finish(dict(layer.named_parameters()))
    assert found.seen == sorted(name for name, p in layer.named_parameters() if p.ndim > 1)


class Sequence(nn.Module):
    def __init__(self, kind: str, spoilt: bool = False, layers: int = 1) -> None:
        super().__init__()
        is_cell = kind.endswith("Cell")
        self.layer = getattr(nn, kind)(
            8, 32, **({} if is_cell else {"batch_first": True, "num_layers": layers})
        )
        self.head = nn.Linear(32, 10)
        if spoilt:
            for name, parameter in self.layer.named_parameters():
                if "bias" in name:
                    nn.init.constant_(parameter, -5.0)
                else:
                    nn.init.normal_(parameter, 0.0, 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.layer, nn.RNNCellBase):
            return self.head(self.layer(x)[0][:, -1])  # type: ignore[no-any-return]
        state: tuple[Tensor, Tensor] | Tensor = x.new_zeros(len(x), 32)
        if isinstance(self.layer, nn.LSTMCell):
            state = (state, state)
        for step in x.unbind(1):
            state = self.layer(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)  # type: ignore[no-any-return]


ALL = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]


@pytest.mark.parametrize("kind", ALL)
def test_torchs_defaults_are_seen_and_healthy(kind: str) -> None:
    torch.manual_seed(0)
    shown = initbench.probe(Sequence(kind), torch.randn(64, 30, 8))
    assert shown.healthy
    assert shown.survey.coverage.seen == 3
    assert "healthy" in str(shown)
    assert initbench.lint(Sequence(kind), torch.randn(64, 30, 8)).findings == []


@pytest.mark.parametrize("kind", ALL)
def test_gates_that_let_nothing_back_are_named(kind: str) -> None:
    torch.manual_seed(0)
    shown = initbench.probe(Sequence(kind, spoilt=True), torch.randn(64, 30, 8))
    (finding,) = [finding for finding in shown.findings if finding.code == "vanishing_backward"]
    assert finding.layer == 2
    assert "layer.weight_hh" in finding.message
    assert "a step back" in finding.message
    assert "healthy" not in str(shown)


def test_a_state_that_grows_explodes() -> None:
    torch.manual_seed(0)
    net = Sequence("RNN")
    net.layer = nn.RNN(8, 32, nonlinearity="relu", batch_first=True)
    nn.init.orthogonal_(net.layer.weight_hh_l0, 3.0)
    codes = [finding.code for finding in initbench.probe(net, torch.randn(64, 30, 8)).findings]
    assert codes == ["exploding_forward", "exploding_backward"]


def test_stacked_layers_are_healthy_as_torch_draws_them() -> None:
    for kind in ("LSTM", "GRU", "RNN"):
        torch.manual_seed(0)
        assert initbench.probe(Sequence(kind, layers=4), torch.randn(64, 30, 8)).healthy


def test_gradients_of_steps_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    net, x, y = Sequence("LSTM"), torch.randn(16, 5, 8), torch.randint(10, (16,))
    examined = examine(net, x, y)
    nn.functional.cross_entropy(net(x), y).backward()
    norm = float(net.layer.weight_hh_l0.grad.norm())
    (record,) = [record for record in examined.records if record["name"] == "layer.weight_hh_l0"]
    assert record["grad"]["pre_q"] > 0.0
    assert len(record["steps"]["delta"]) == 5
    assert norm > 0.0
