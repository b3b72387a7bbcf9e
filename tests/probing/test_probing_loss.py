"""The loss of a probe and its chance: which axis holds the classes, and which losses are cross-entropies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench
from initbench.errors import UsageError
from initbench.probing.loss import loss_of


def labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(0))


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("output", "y", "loss", "chance"),
    [
        ((6, 5), labels(5, 6), lambda o, y: F.cross_entropy(o, y), 5),
        ((6, 7, 50), labels(50, 6, 7), lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten()), 50),
        ((6, 50, 7), labels(50, 6, 7), lambda o, y: F.cross_entropy(o, y), 50),
        ((6, 4, 8, 9), labels(4, 6, 8, 9), lambda o, y: F.cross_entropy(o, y), 4),
        ((6, 4, 3, 8, 9), labels(4, 6, 3, 8, 9), lambda o, y: F.cross_entropy(o, y), 4),
        ((6,), labels(2, 6), lambda o, y: F.binary_cross_entropy_with_logits(o, y.float()), 2),
        ((6, 1), labels(2, 6), lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.float()), 2),
        ((6, 1), labels(2, 6, 1).float(), F.binary_cross_entropy_with_logits, 2),
        ((6, 3), labels(2, 6, 3).float(), F.binary_cross_entropy_with_logits, 2),
        (
            (6, 1, 8, 8),
            labels(2, 6, 8, 8),
            lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.float()),
            2,
        ),
        ((6, 5), torch.softmax(logits(6, 5), 1), F.cross_entropy, 5),
    ],
)
def test_labels_choose_the_loss(
    output: tuple[int, ...], y: Tensor, loss: Callable[..., Tensor], chance: int
) -> None:
    values = logits(*output)
    made, given = loss_of(values, y, None), loss_of(values, y, loss)
    assert made.value == pytest.approx(given.value, rel=1e-5)
    assert made.chance == pytest.approx(math.log(chance))
    assert given.chance == pytest.approx(math.log(chance), rel=1e-4)
    assert made.takes_logits
    assert given.takes_logits


def test_labels_of_which_some_are_ignored() -> None:
    y = labels(5, 6, 4)
    y[:, 0] = -100
    assert loss_of(logits(6, 4, 5), y, None).chance == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("loss", "chance"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), math.log(5)),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4, 5])), math.log(5)),
        (lambda o, y: F.nll_loss(F.log_softmax(o, 1), y), math.log(5)),
        (lambda o, y: -(F.softmax(o, 1)[range(6), y] + 1e-12).log().mean(), math.log(5)),
        (lambda o, y: F.mse_loss(o, F.one_hot(y, 5).float()), None),
        (lambda o, y: F.multi_margin_loss(o, y), None),
        (lambda o, y: o.sum() / o.std(), None),
    ],
)
def test_a_loss_is_a_cross_entropy_by_what_it_gives(
    loss: Callable[..., Tensor], chance: float | None
) -> None:
    found = loss_of(logits(6, 5), labels(5, 6), loss).chance
    assert found == (None if chance is None else pytest.approx(chance, rel=1e-4))


def test_outputs_that_are_probabilities_or_their_logarithms() -> None:
    y = labels(5, 6)
    for output, loss in (
        (F.log_softmax(logits(6, 5), 1), F.nll_loss),
        (F.softmax(logits(6, 5), 1), lambda p, target: F.nll_loss(p.log(), target)),
    ):
        found = loss_of(output, y, loss)
        assert found.chance == pytest.approx(math.log(5), rel=1e-4)
        assert not found.takes_logits
    sigmoid = loss_of(torch.sigmoid(logits(6, 1)), labels(2, 6, 1).float(), F.binary_cross_entropy)
    assert sigmoid.chance == pytest.approx(math.log(2))


def test_a_chance_that_is_given_counts() -> None:
    assert loss_of(logits(6, 5), None, lambda o: o.square().mean(), chance=0.5).chance == 0.5
    wide = nn.Linear(8, 5)
    nn.init.normal_(wide.weight, 0.0, 5.0)
    x = torch.randn(64, 8)
    for chance, expected in ((0.1, True), (1e6, False), (None, False)):
        found = initbench.probe(wide, x, lambda o: o.square().mean(), chance=chance).findings
        assert ("head_scale" in [f.code for f in found]) is expected


@pytest.mark.parametrize(
    ("output", "y"),
    [
        ((6, 5), labels(5, 7)),
        ((6, 5), labels(9, 6) + 5),
        ((6, 7, 50), labels(50, 6)),
        ((6, 4, 8, 8), labels(4, 6)),
        ((6, 1), labels(9, 6) + 2),
        ((6, 5), torch.rand(6)),
        ((6, 4, 8, 8), torch.rand(6, 4, 8, 9)),
        ((6, 5), torch.full((6,), -100)),
    ],
)
def test_labels_that_have_no_place_are_refused(output: tuple[int, ...], y: Tensor) -> None:
    with pytest.raises(UsageError, match="or pass `loss`"):
        loss_of(logits(*output), y, None)


@pytest.mark.parametrize(
    ("x", "output", "words"),
    [
        ((6, 20), (6, 5), "cross-entropy, 5 random classes"),
        ((6, 9, 20), (6, 9, 50), "cross-entropy, 50 random classes"),
        ((6, 20, 9), (6, 50, 9), "cross-entropy, 50 random classes"),
        ((6, 3, 8, 8), (6, 4, 8, 8), "cross-entropy, 4 random classes"),
        ((6, 3, 8, 8), (6, 3, 8, 8), "mean square to N(0, 1) noise"),
        ((6, 100), (6, 3, 8, 8), "mean square to N(0, 1) noise"),
        ((6, 20), (6, 1), "mean square to N(0, 1) noise"),
        ((6, 20), (6,), "mean square to N(0, 1) noise"),
    ],
)
def test_without_labels_the_shape_decides(x: tuple[int, ...], output: tuple[int, ...], words: str) -> None:
    assert loss_of(logits(*output), None, None, x=logits(*x)).words == words


class Gpt(nn.Module):
    """Six pre-norm blocks whose embedding, N(0, std²), is the head as well."""

    def __init__(self, std: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(65, 64)
        nn.init.normal_(self.table.weight, 0.0, std)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(64, 2, 128, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(6)
        )
        self.norm = nn.LayerNorm(64)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.table(tokens)
        for block in self.blocks:
            h = block(h)
        return self.norm(h) @ self.table.weight.T


def test_a_language_model_with_a_large_tied_embedding_is_not_healthy() -> None:
    tokens, targets = labels(65, 4, 16), labels(65, 16, 4).T
    large, small = Gpt(1.0), Gpt(0.02)
    for batch in (tokens, (tokens, targets)):
        found = initbench.probe(large, batch)
        assert not found.healthy
        assert "head_scale" in [f.code for f in found.findings]
        assert "embedding that is the head" in found.findings[0].message
        assert "head_scale" in [f.code for f in initbench.lint(large, batch).findings]
        assert "head_scale" not in [f.code for f in initbench.probe(small, batch).findings]


class Outputs(nn.Module):
    """Logits, a value and a table of the input, returned in some way; the parts are in the order given."""

    def __init__(self, pack: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.logits, self.value = nn.Linear(8, 16), nn.Linear(16, 5), nn.Linear(16, 1)
        self.pack = [pack]

    def forward(self, x: Tensor) -> Any:
        hidden = torch.tanh(self.body(x))
        return self.pack[0](self.logits(hidden), self.value(hidden), x)


class Pair(NamedTuple):
    logits: Tensor
    value: Tensor


@dataclass(frozen=True)
class Answer:
    value: Tensor
    logits: Tensor


class Loose:
    def __init__(self, logits: Tensor, value: Tensor) -> None:
        self.logits, self.value, self.itself = logits, value, self


def both(logits: Tensor, value: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y) + value.square().mean()


RETURNED: dict[str, tuple[Callable[..., Any], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "tuple": (lambda a, b, x: (a, b), lambda o, y: both(*o, y), lambda o, y: F.cross_entropy(o[0], y)),
    "list": (lambda a, b, x: [a, b], lambda o, y: both(*o, y), lambda o, y: F.cross_entropy(o[0], y)),
    "dict": (
        lambda a, b, x: {"value": b, "logits": a},
        lambda o, y: both(o["logits"], o["value"], y),
        lambda o, y: F.cross_entropy(o["logits"], y),
    ),
    "nested": (
        lambda a, b, x: ({"heads": [a, b]}, x),
        lambda o, y: both(*o[0]["heads"], y),
        lambda o, y: F.cross_entropy(o[0]["heads"][0], y),
    ),
    **{
        name: (make, lambda o, y: both(o.logits, o.value, y), lambda o, y: F.cross_entropy(o.logits, y))
        for name, make in (
            ("named tuple", lambda a, b, x: Pair(a, b)),
            ("dataclass", lambda a, b, x: Answer(b, a)),
            ("object", lambda a, b, x: Loose(a, b)),
        )
    },
}


@pytest.mark.parametrize("name", RETURNED)
def test_a_loss_gets_what_the_module_returned(name: str) -> None:
    pack, of_both, of_logits = RETURNED[name]
    net, x, y = Outputs(pack), logits(16, 8), labels(5, 16)
    expected = both(*net(x)[:2], y) if name in ("tuple", "list") else of_both(net(x), y)
    shown = initbench.probe(net, (x, y), of_both)
    assert shown.survey.loss_value == pytest.approx(float(expected), rel=1e-5)
    assert shown.survey.loss_at_chance is None
    assert "no_gradient" not in [finding.code for finding in initbench.lint(net, (x, y), of_both).findings]
    for one in (of_logits, F.cross_entropy):  # of a part of what was returned; of the main output
        shown = initbench.probe(net, (x, y), one)
        assert shown.survey.loss_value == pytest.approx(float(of_logits(net(x), y)), rel=1e-5)
        assert shown.survey.loss_at_chance == pytest.approx(math.log(5), rel=1e-5)


def test_a_loss_without_labels_gets_what_the_module_returned() -> None:
    def divergence(output: tuple[Tensor, Tensor]) -> Tensor:
        mu, _ = output
        return mu.square().mean()

    net, x = Outputs(lambda a, b, x: (a, b)), logits(16, 8)
    shown = initbench.probe(net, x, divergence)
    assert shown.survey.loss_value == pytest.approx(float(net(x)[0].square().mean()), rel=1e-5)


def test_a_complex_output_is_given_as_it_is() -> None:
    net, x = Outputs(lambda a, b, x: torch.complex(a, a)), logits(16, 8)
    shown = initbench.probe(net, x, lambda o: (o * o.conj()).real.mean())
    assert shown.survey.loss_value == pytest.approx(float(2 * net(x).real.square().mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda o: o["missing"].mean(), r"accepts neither what the module returns, a dict \(KeyError"),
        (lambda o: 1.0, r"a dict \(it does not return a single number\), nor its main output alone"),
        (lambda o: o, "nor its main output alone"),
    ],
)
def test_a_loss_that_takes_no_output_is_refused_in_one_sentence(loss: Callable[..., Any], words: str) -> None:
    net = Outputs(lambda a, b, x: {"logits": a, "value": b})
    with pytest.raises(UsageError, match=words) as caught:
        initbench.probe(net, logits(16, 8), loss)
    assert "\n" not in str(caught.value)
