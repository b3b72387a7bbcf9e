"""LSTM, GRU and RNN: the pass written out is torch's own, and what is wrong with them is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initbench
from initbench.probing.module_probe import probe_module
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
    assert found.seen_parameters == sorted(name for name, p in layer.named_parameters() if p.ndim > 1)


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
    assert shown.survey.coverage.measured == 3
    assert "healthy" in str(shown)
    assert initbench.lint(Sequence(kind), torch.randn(64, 30, 8)).findings == []


@pytest.mark.parametrize("kind", ALL)
def test_gates_that_let_nothing_back_are_named(kind: str) -> None:
    torch.manual_seed(0)
    shown = initbench.probe(Sequence(kind, spoilt=True), torch.randn(64, 30, 8))
    (finding,) = [finding for finding in shown.findings if finding.code == "vanishing_backward"]
    assert finding.layer == 2
    assert "layer.weight_hh" in finding.message
    assert "a step back. Try recurrent weights drawn orthogonal" in finding.message
    assert "(checked: " in finding.message  # no factor where only one step has any gradient
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
    examined = probe_module(net, x, y)
    nn.functional.cross_entropy(net(x), y).backward()
    norm = float(net.layer.weight_hh_l0.grad.norm())
    (record,) = [record for record in examined.records if record["name"] == "layer.weight_hh_l0"]
    assert record["grad"]["pre_q"] > 0.0
    assert len(record["steps"]["delta"]) == 5
    assert norm > 0.0


class Cells(nn.Module):
    """Cells one above the other."""

    def __init__(self, kind: str, layers: int) -> None:
        super().__init__()
        cells = [getattr(nn, kind)(8 if place == 0 else 32, 32) for place in range(layers)]
        self.cells, self.head = nn.ModuleList(cells), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        states: list[object] = [None] * len(self.cells)
        for step in x.unbind(1):
            for place, cell in enumerate(self.cells):
                states[place] = cell(step, states[place])
                state = states[place]
                step = state[0] if isinstance(state, tuple) else state  # type: ignore[assignment]
        return self.head(step)  # type: ignore[no-any-return]


class Between(nn.Module):
    """Layers of one kind each, recurrent ones between linear ones with relu."""

    def __init__(self, kind: str, layers: int, *, parallel: bool = False) -> None:
        super().__init__()
        widths = [8] + [32] * (layers - 1)
        self.linear = nn.ModuleList(nn.Linear(8 if parallel else width, 32) for width in widths)
        self.recurrent = nn.ModuleList(getattr(nn, kind)(32, 32, batch_first=True) for _ in widths)
        self.head, self.parallel = nn.Linear(32 * layers if parallel else 32, 10), parallel

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for linear, recurrent in zip(self.linear, self.recurrent, strict=True):
            outputs.append(recurrent(linear(x if self.parallel else outputs[-1]).relu())[0])
        last = torch.cat(outputs[1:], -1) if self.parallel else outputs[-1]
        return self.head(last[:, -1])  # type: ignore[no-any-return]


def stack(kind: str, layers: int, factor: float = 1.0, **options: bool) -> nn.Module:
    """Return a net of stacked recurrent layers, their input weights times `factor`."""
    net = Sequence(kind, layers=layers)
    if options:
        net.layer = getattr(nn, kind)(8, 32, num_layers=layers, batch_first=True, **options)
        net.head = nn.Linear(64, 10)
    with torch.no_grad():
        for name, parameter in net.layer.named_parameters():
            parameter.mul_(factor if "weight_ih" in name else 1.0)
    return net


BOTH = ["vanishing_forward", "vanishing_backward"]


@pytest.mark.parametrize(
    ("make", "codes", "layers"),
    [
        pytest.param(lambda: stack("LSTM", 8), BOTH, [*range(1, 16, 2)], id="LSTM"),
        pytest.param(lambda: stack("LSTM", 8, bidirectional=True), BOTH, [*range(1, 30, 4)], id="both ways"),
        pytest.param(lambda: stack("GRU", 6, 0.03), BOTH, [*range(1, 12, 2)], id="GRU"),
        pytest.param(lambda: stack("RNN", 6, 0.03), BOTH, [*range(1, 12, 2)], id="RNN"),
        pytest.param(lambda: Cells("LSTMCell", 8), BOTH, [*range(1, 16, 2)], id="LSTMCell"),
        pytest.param(lambda: Cells("GRUCell", 3), [], [1, 3, 5], id="GRUCell"),
        pytest.param(lambda: Between("LSTM", 5), BOTH, [1, 2, 4, 5, 7, 8, 10, 11, 13, 14], id="between"),
        pytest.param(lambda: Between("LSTM", 2), [], [1, 2, 4, 5], id="few between"),
        pytest.param(lambda: Between("LSTM", 5, parallel=True), [], [1, 4, 7, 10, 13], id="side by side"),
    ],
)
def test_recurrent_layers_take_part_in_slopes_over_layers(
    make: Callable[[], nn.Module], codes: list[str], layers: list[int]
) -> None:
    torch.manual_seed(0)
    net, x = make(), torch.randn(32, 8, 8)
    shown = initbench.probe(net, x)
    assert [finding.code for finding in shown.findings] == codes
    hidden = [record["index"] for record in probe_module(net, x).records if record["is_hidden"]]
    assert hidden == layers
    for finding in shown.findings:
        assert "a layer (layers" in finding.message
        assert "recurrent weights drawn orthogonal" in finding.message
        assert "(checked: " in finding.message


@pytest.mark.parametrize(
    ("kind", "weight", "bias", "words"),
    [
        ("LSTM", 5.0, None, ("of the gates' inputs", "cell gate", "its weights or their inputs")),
        ("LSTM", None, 20.0, ("forget 100 %", "input gate has mean 40", "its bias is too large")),
        ("GRU", 5.0, None, ("(reset 8", "new gate", "its weights or their inputs are too large")),
        ("GRUCell", None, -20.0, ("(reset 100 %", "has mean -40", "its bias is too large")),
        ("RNN", 5.0, None, ("of the inputs of the state's activation", "standard deviation 2")),
    ],
)
def test_saturated_gates_are_named_with_advice_that_cures(
    kind: str, weight: float | None, bias: float | None, words: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    net = Sequence(kind)
    for name, parameter in net.layer.named_parameters():
        if "weight" in name and weight is not None:
            nn.init.normal_(parameter, 0.0, weight)
        elif "bias" in name and bias is not None:
            nn.init.constant_(parameter, bias)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    found = initbench.probe(net, torch.randn(32, 8, 8)).findings
    (finding,) = [finding for finding in found if finding.code == "saturated"]
    for part in (*words, "recurrent weights drawn orthogonal", "% → "):
        assert part in finding.message
    assert all(torch.equal(parameter, before[name]) for name, parameter in net.named_parameters())


def test_without_a_cure_none_is_advised() -> None:
    torch.manual_seed(0)
    net = Sequence("LSTM")
    for parameter in net.layer.parameters():
        nn.init.normal_(parameter, 0.0, 5.0)
    net.layer = nn.utils.parametrizations.weight_norm(net.layer, "weight_hh_l0")
    (finding,) = [f for f in initbench.probe(net, torch.randn(32, 8, 8)).findings if f.code == "saturated"]
    assert "Try" not in finding.message


class WrittenOut(nn.Module):
    """A GRU as users write it; its first state is constant, so that the first products are too."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.from_input = nn.ModuleList(nn.Linear(8, width) for _ in range(3))
        self.from_state = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.head.in_features)
        for v in x.unbind(1):
            update, reset = (torch.sigmoid(self.from_input[k](v) + self.from_state[k](h)) for k in (0, 1))
            new = torch.tanh(self.from_input[2](v) + reset * self.from_state[2](h))
            h = (1 - update) * new + update * h
        return self.head(h)


def test_a_bias_that_is_multiplied_by_a_gate_is_no_weight_that_was_not_seen() -> None:
    torch.manual_seed(0)
    shown = initbench.probe(WrittenOut(), torch.randn(12, 5, 8))
    assert (shown.survey.coverage.measured, shown.survey.coverage.weights) == (7, 7)
    assert shown.healthy
