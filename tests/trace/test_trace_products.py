"""A product with a weight counts as a layer however it is written, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench
from initbench.probing.module_probe import ModuleProbe, probe_module

Product = Callable[[Tensor, Tensor], Tensor]

# Of x (B, 6) with a weight (in 6, out 8), and with one (out 8, in 6).
IN_OUT: dict[str, Product] = {
    "@": lambda x, w: x @ w,
    "matmul": torch.matmul,
    "linalg.matmul": torch.linalg.matmul,
    "mm": torch.mm,
    "with a leading axis": lambda x, w: F.linear(x[None, None], w.T)[0, 0],
    "addmm": lambda x, w: torch.addmm(x.new_zeros(8), x, w),
    "left": lambda x, w: (w.T @ x.T).T,
    "scaled": lambda x, w: 0.5 * x @ (2.0 * w),
    "einsum": lambda x, w: torch.einsum("bi,io->bo", x, w),
    "einsum with an ellipsis": lambda x, w: torch.einsum("...i,io->...o", x, w),
    "einsum without an arrow": lambda x, w: torch.einsum("bi,io", x, w),
    "einsum, the weight first": lambda x, w: torch.einsum("io,bi->bo", w, x),
    "tensordot": lambda x, w: torch.tensordot(x, w, dims=1),
    "tensordot of axes": lambda x, w: torch.tensordot(x, w, dims=([1], [0])),
    "bmm": lambda x, w: torch.bmm(x[:, None], w.expand(len(x), 6, 8))[:, 0],
    "bmm of copies": lambda x, w: torch.bmm(x[:, None], w.repeat(len(x), 1, 1))[:, 0],
    "baddbmm": lambda x, w: torch.baddbmm(x.new_zeros(1), x[None], w[None])[0],
    "sum": lambda x, w: (x[:, :, None] * w).sum(1),
    "multi_dot": lambda x, w: torch.linalg.multi_dot([x, w]),
    "conv_tbc": lambda x, w: torch.conv_tbc(x[None], w[None], x.new_zeros(8))[0],
}
OUT_IN: dict[str, Product] = {
    "linear": F.linear,
    "@ transposed": lambda x, w: x @ w.T,
    "einsum out first": lambda x, w: torch.einsum("bi,oi->bo", x, w),
    "inner": torch.inner,
    "mv": lambda x, w: torch.stack([torch.mv(w, row) for row in x]),
    "vecdot": lambda x, w: torch.linalg.vecdot(x[:, None], w),
    "sum of out first": lambda x, w: (x[:, None] * w).sum(-1),
    "conv1d": lambda x, w: F.conv1d(x[:, :, None], w[:, :, None])[:, :, 0],
}


class Written(nn.Module):
    def __init__(self, product: Product, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(weight), nn.Linear(8, 3)
        self.product = [product]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.product[0](x, self.weight)))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)


def passed(product: Product, weight: Tensor) -> ModuleProbe:
    torch.manual_seed(1)
    return probe_module(Written(product, weight), *batch())


@pytest.mark.parametrize(
    ("product", "is_out_in"),
    [
        *(pytest.param(product, False, id=name) for name, product in IN_OUT.items()),
        *(pytest.param(product, True, id=name) for name, product in OUT_IN.items() if name != "mv"),
    ],
)
def test_a_product_shows_what_a_linear_layer_does(product: Product, is_out_in: bool) -> None:
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    expected = passed(F.linear, weight)
    shown = passed(product, weight if is_out_in else weight.T.contiguous())
    for one, other in zip(shown.records, expected.records, strict=True):
        assert one["pre"]["q"] == pytest.approx(other["pre"]["q"], rel=1e-4)
        assert one["pre"]["signal"] == pytest.approx(other["pre"]["signal"], rel=1e-4)
        assert one["grad"]["pre_q"] == pytest.approx(other["grad"]["pre_q"], rel=1e-4)
    use, linear = shown.trace.uses[0], expected.trace.uses[0]
    assert (use.fan_in, use.fan_out, use.units) == (6, 8, 8)
    scale = float((use.rows[0, 0] / linear.rows[0, 0]).detach())  # 2 where the weight was doubled
    assert torch.allclose(use.rows, scale * linear.rows)
    assert shown.trace.unseen == {}
    assert use.was_constant == linear.was_constant
    assert shown.coverage.is_complete
    assert use.activation is not None
    assert use.activation.label == "tanh"


@pytest.mark.parametrize(
    "product",
    [
        OUT_IN["mv"],
        lambda x, w: torch.stack([F.linear(row, w) for row in x]),
        lambda x, w: torch.cat([row[None] @ w.T for row in x]),
    ],
    ids=["mv", "linear", "@"],
)
def test_a_net_that_takes_one_sample_at_a_time_is_not_healthy(product: Product) -> None:
    weight = 1e-4 * torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(1)
    shown = initbench.probe(Written(product, weight), batch()[0])
    coverage = shown.survey.coverage
    assert (coverage.measured, coverage.weights) == (1, 2)
    assert not shown.healthy
    assert "one sample at a time" in coverage.verdict
    assert [finding.code for finding in shown.findings] == []  # no variance over samples, so none is lost


Several = Callable[[Tensor, Tensor, Tensor], Tensor]

# Of x (B, 6) with weights (6, 8) and (8, 3).
SEVERAL: dict[str, Several] = {
    "einsum": lambda x, v, w: torch.einsum("bi,ij,jk->bk", x, v, w),
    "einsum, the weights first": lambda x, v, w: torch.einsum("jk,ij,bi->bk", w, v, x),
    "einsum with an ellipsis": lambda x, v, w: torch.einsum("...i,ij,jk->...k", x, v, w),
    "einsum without an arrow": lambda x, v, w: torch.einsum("ai,ij,jk", x, v, w),
    "einsum of lists": lambda x, v, w: torch.einsum(x, [0, 1], v, [1, 2], w, [2, 3], [0, 3]),
    "einsum with a scale": lambda x, v, w: torch.einsum("bi,ij,j,jk->bk", x, v, torch.ones(8), w),
    "einsum over a lone axis": lambda x, v, w: torch.einsum(
        "bi,ijz,jk->bk", x, 0.5 * v[:, :, None].expand(6, 8, 2), w
    ),
    "multi_dot": lambda x, v, w: torch.linalg.multi_dot([x, v, w]),
    "multi_dot, the weights first": lambda x, v, w: torch.linalg.multi_dot([w.T, v.T, x.T]).T,
    "multi_dot, the weights around": lambda x, v, w: (
        torch.linalg.multi_dot([w.T, (x @ v).T, torch.eye(16)]).T
    ),
}


class Factored(nn.Module):
    def __init__(self, product: Several) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.v, self.w = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 3))
        self.product = [product]

    def forward(self, x: Tensor) -> Tensor:
        return self.product[0](x, self.v, self.w)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_product_with_several_weights_is_a_layer_for_each(name: str) -> None:
    x, y = batch()
    expected = probe_module(Factored(lambda x, v, w: (x @ v) @ w), x, y)
    net = Factored(SEVERAL[name])
    shown = probe_module(net, x, y)
    assert [(use.name, use.fan_in, use.fan_out) for use in shown.trace.uses] == [("v", 6, 8), ("w", 8, 3)]
    for one, other in zip(shown.records, expected.records, strict=True):
        assert one["pre"]["q"] == pytest.approx(other["pre"]["q"], rel=1e-4)
        assert one["grad"]["pre_q"] == pytest.approx(other["grad"]["pre_q"], rel=1e-4)
        assert one["is_hidden"] == other["is_hidden"]
    assert shown.loss.value == pytest.approx(float(F.cross_entropy(net(x), y).detach()), rel=1e-5)
    assert shown.coverage.is_complete


def test_a_convolution_over_time_first_is_a_convolution() -> None:
    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.weight, self.bias = nn.Parameter(torch.randn(3, 6, 8)), nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.conv_tbc(x.permute(1, 0, 2), self.weight, self.bias, 1).permute(1, 0, 2)

    x = torch.randn(4, 5, 6)
    (use,) = probe_module(Convolution(), x).trace.uses
    assert (use.fan_in, use.fan_out, use.units, use.parts) == (18, 24, 8, ("weight",))
    assert use.output_shape == (4, 8, 5)
    assert use.bias is not None


def test_what_two_inputs_and_a_weight_make_is_bilinear() -> None:
    class Pairs(nn.Module):
        def __init__(self, equation: str) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.weight, self.equation = nn.Parameter(torch.randn(6, 6, 4)), equation

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum(self.equation, x, x.tanh(), self.weight)

    (use,) = probe_module(Pairs("bi,bj,ijo->bo"), batch()[0]).trace.uses
    assert (use.fan_in, use.fan_out, use.units) == (36, 4, 4)
    (attention,) = probe_module(Pairs("bqi,bkj,ijh->bhqk"), torch.randn(4, 5, 6)).trace.uses
    assert (attention.fan_in, attention.units) == (6, 24)


def test_the_gradient_of_a_repeated_weight_is_summed() -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    sizes = []
    for name in ("@", "bmm"):
        torch.manual_seed(1)
        net = Written(IN_OUT[name], weight)
        x, y = batch()
        F.cross_entropy(net(x), y).backward()
        assert net.weight.grad is not None
        sizes.append(float(net.weight.grad.norm()))
        use = probe_module(net, x, y).trace.uses[0]
        gradient = torch.ones_like(use.factor)
        copies = use.factor.numel() // weight.numel()
        assert torch.equal(use.gradient_rows(gradient), torch.full((8, 6), float(copies)))
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_heads_of_attention_are_units_and_stacked_nets_groups() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(12, 3, 4))
            self.out = nn.Parameter(torch.randn(3, 4, 5))
            self.stacked = nn.Parameter(torch.randn(2, 5, 7))

        def forward(self, x: Tensor) -> Tensor:
            h = torch.einsum("btd,dhk->bthk", x, self.query)
            h = torch.einsum("bthk,hkd->btd", h, self.out).mean(1)
            return torch.bmm(h.expand(2, *h.shape), self.stacked).sum(0)

    uses = probe_module(Heads(), torch.randn(4, 6, 12)).trace.uses
    assert [(use.fan_in, use.fan_out, use.units) for use in uses] == [(12, 12, 12), (12, 5, 5), (5, 7, 14)]
    assert [tuple(use.rows.shape) for use in uses] == [(12, 12), (5, 12), (14, 5)]


def test_a_bilinear_layer_sums_over_pairs_of_inputs() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = nn.Bilinear(6, 6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.pairs(x, x)

    (use,) = probe_module(Pairs(), batch()[0]).trace.uses
    assert (use.fan_in, use.fan_out, use.units, use.name) == (36, 4, 4, "pairs")


def test_a_product_of_inputs_and_a_gain_are_no_layers() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
            self.gain = nn.Parameter(torch.ones(6, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            h = self.project(x)
            h = torch.softmax(h @ h.mT, -1) @ h
            return self.head((h.mT[..., None] * self.gain).sum(-1).mT.mean(1))

    found = probe_module(Attention(), torch.randn(4, 5, 6))
    assert [use.name for use in found.trace.uses] == ["project", "head"]
    assert found.coverage.is_complete
    assert [use.leads_on for use in found.trace.uses] == [False, False]
