"""Every lint code on a net that has the mistake, and on the same net without it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import initbench
from initbench import apply_init
from initbench.diagnostics.lint_report import LintReport, lint_nets
from initbench.diagnostics.net_source import ModuleNets
from initbench.errors import UsageError
from initbench.linting.rule import LINT_RULES
from initbench.models.init_weights import InitOptions
from initbench.probing.model_inputs import as_inputs


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def linted(
    make: Callable[[], nn.Module], *shape: int, declared: InitOptions | None = None, seeds: int = 2
) -> LintReport:
    modules = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        modules.append(make())
    return lint_nets(
        ModuleNets(modules, as_inputs(noise(16, *shape)), "net", range(seeds), declared=declared)
    )


def codes(found: LintReport) -> set[str]:
    return {finding.code for finding in found.findings}


def layers(found: LintReport, code: str) -> list[str]:
    return [layer for finding in found.findings if finding.code == code for layer in finding.message.layers]


def mlp(*, norm: type[nn.Module] | None = None, bias: bool = True, width: int = 64) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inputs in (20, width, width):
        parts.append(nn.Linear(inputs, width, bias=bias))
        parts += [norm(width)] if norm is not None else []
        parts.append(nn.ReLU())
    return nn.Sequential(*parts, nn.Linear(width, 5))


def drawn(make: Callable[[], nn.Module], scheme: str = "kaiming_normal") -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        module = make()
        seed = int(torch.randint(1 << 30, ()))
        apply_init(module, scheme, seed=seed)
        return module

    return made


def test_a_net_that_is_drawn_well_has_nothing() -> None:
    assert linted(drawn(mlp), 20).findings == []


def test_the_whole_registry_is_reached_from_here() -> None:
    files = Path(__file__).parent.glob("test_lint*.py")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [check.name for check in LINT_RULES if f'"{check.name}"' not in source] == []


def test_variance_is_held_against_what_was_declared() -> None:
    def init(scheme: str) -> InitOptions:
        return InitOptions.model_validate({"scheme": {"name": scheme}})

    assert codes(linted(drawn(mlp), 20, declared=init("kaiming_normal"))) == set()
    for neighbour in ("lecun_normal", "xavier_normal", "torch_default", "kaiming_misprint"):
        assert layers(linted(drawn(mlp), 20, declared=init(neighbour)), "variance")

    def rescaled() -> nn.Module:
        module = drawn(mlp)()
        with torch.no_grad():
            module[2].weight.mul_(1.15)
        return module

    assert layers(linted(rescaled, 20, declared=init("kaiming_normal")), "variance") == ["2"]


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_fans_of_torch_that_leave_out_groups_and_strides(mode: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 20, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * 16 * 16, 5),
        )

    def by_torch() -> nn.Module:
        module = make()
        for layer in module:
            if hasattr(layer, "weight"):
                nn.init.kaiming_normal_(layer.weight, mode=mode)
        return module

    found = layers(linted(by_torch, 3, 8, 8), "fans")
    assert found == {"fan_in": [], "fan_out": ["2", "4"]}[mode], "fans swapped are those of the other mode"
    assert layers(linted(drawn(make), 3, 8, 8), "fans") == []


def test_torch_default_is_told_from_any_draw() -> None:
    assert layers(linted(mlp, 20), "torch_default") == ["0", "2", "4", "6"]
    for scheme in ("kaiming_normal", "lecun_uniform", "xavier_uniform", "kaiming_uniform"):
        assert "torch_default" not in codes(linted(drawn(mlp, scheme), 20))
    assert "torch_default" not in codes(linted(lambda: mlp(norm=nn.BatchNorm1d), 20))


def test_torch_default_is_a_warning_only_where_it_costs_signal() -> None:
    def deep() -> nn.Sequential:
        return nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.ReLU())))

    for make, size, level in ((mlp, 20, "note"), (deep, 64, "warning")):
        findings = linted(make, size).findings
        assert [finding.level for finding in findings if finding.code == "torch_default"] == [level]


def test_untouched_finds_what_weights_init_missed() -> None:
    def weights_init(module: nn.Module) -> None:
        if type(module).__name__.find("linear") != -1:  # the article's lower-case name: it is 'Linear'
            nn.init.kaiming_normal_(module.weight)

    def with_conv() -> nn.Module:
        module = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 64), nn.ReLU(), nn.Linear(64, 5)
        )
        nn.init.kaiming_normal_(module[0].weight)
        return module.apply(weights_init)

    assert layers(linted(with_conv, 1, 8, 8), "untouched") == ["3", "5"]
    assert "untouched" not in codes(linted(drawn(mlp), 20))


def test_a_head_alone_may_stay_as_torch_made_it() -> None:
    def make() -> nn.Module:
        module = mlp()
        for place in (0, 2, 4):
            nn.init.kaiming_normal_(module[place].weight)
        return module

    assert codes(linted(make, 20)) == set()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_scale_cancelled_by_a_norm_behind(norm: type[nn.Module]) -> None:
    found = linted(drawn(lambda: mlp(norm=norm)), 20)
    assert layers(found, "scale_cancelled") == ["0", "3", "6"]


def test_dead_bias_is_one_before_batch_norm() -> None:
    batch = linted(drawn(lambda: mlp(norm=nn.BatchNorm1d)), 20)
    assert layers(batch, "dead_bias") == ["0", "3", "6"]
    assert "dead_bias" not in codes(linted(drawn(lambda: mlp(norm=nn.LayerNorm)), 20))
    assert "dead_bias" not in codes(linted(drawn(lambda: mlp(norm=nn.BatchNorm1d, bias=False)), 20))
    module = mlp(norm=nn.BatchNorm1d)
    module(noise(16, 20)).square().mean().backward()
    assert float(module[0].bias.grad.abs().max()) < 1e-6 < float(module[0].weight.grad.abs().max())


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, torch.nn.utils.weight_norm], ids=["parametrization", "hook"]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_before_init_loses_the_init(wrap: Callable[[nn.Module], nn.Module]) -> None:
    def after() -> nn.Module:
        module = mlp()
        for place in (0, 2, 4, 6):
            nn.init.kaiming_normal_(module[place].weight)
        module[2] = wrap(module[2])
        return module

    def before() -> nn.Module:
        module = mlp()
        module[2] = wrap(module[2])
        for place in (0, 2, 4, 6):
            nn.init.kaiming_normal_(module[place].weight.data)
        return module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert layers(linted(before, 20, seeds=1), "weight_norm_before_init") == ["2"]
        assert "weight_norm_before_init" not in codes(linted(after, 20, seeds=1))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_duplicated_units_are_counted(value: float) -> None:
    def constant() -> nn.Module:
        module = drawn(mlp)()
        for parameter in module[2].parameters():
            nn.init.constant_(parameter, value)
        return module

    def two_alike() -> nn.Module:
        module = drawn(mlp)()
        with torch.no_grad():
            module[2].weight[7] = module[2].weight[3]
            module[4].weight[:, 7] = module[4].weight[:, 3]
        return module

    def two_told_apart() -> nn.Module:
        module = two_alike()
        with torch.no_grad():
            module[4].weight[:, 7] += 0.1
        return module

    (found,) = [f for f in linted(two_alike, 20).findings if f.code == "duplicated_units"]
    assert found.message.layers == ("2",)
    assert "1 of 64 units" in found.message.sentence
    assert "duplicated_units" not in codes(linted(two_told_apart, 20)), "their gradients differ"
    if value == 0.0:
        assert "2" in layers(linted(constant, 20), "duplicated_units")


def test_unused_parameters_are_named() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.old_head = mlp(), nn.Linear(64, 1000)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    assert layers(linted(drawn(Spare), 20), "unused") == ["old_head.weight"]


class Residual(nn.Module):
    """Blocks of x + branch(x), with or without what keeps them small."""

    def __init__(self, blocks: int, scale: float = 1.0) -> None:
        super().__init__()
        self.stem, self.scale = nn.Linear(20, 32), scale
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(blocks)
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + self.scale * branch(x)
        return self.head(x)


def test_residual_scale_is_missing_where_the_stream_doubles() -> None:
    assert layers(linted(drawn(lambda: Residual(12)), 20), "residual_scale")
    small = 1.0 / math.sqrt(2 * 12)
    assert "residual_scale" not in codes(linted(drawn(lambda: Residual(12, small)), 20))


def test_head_scale_is_told_by_the_loss() -> None:
    def loud() -> nn.Module:
        module = drawn(mlp)()
        with torch.no_grad():
            module[6].weight.mul_(5.0)
        return module

    assert layers(linted(loud, 20), "head_scale") == ["6"]
    assert "head_scale" not in codes(linted(drawn(mlp), 20))


class TwoHeads(nn.Module):
    """A trunk with heads "first" and "second", that of `middle` used before the trunk's last layer."""

    def __init__(self, closed: tuple[str, ...], *, middle: str = "", joined: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 5), nn.Linear(32, 3)  # before the trunk
        self.start, self.own = nn.Linear(20, 32), nn.ModuleDict({name: nn.Linear(32, 32) for name in HEADS})
        self.middle, self.joined = middle, joined
        for name in closed:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, outputs = self.start(x).relu(), {}
        for name in sorted(HEADS, key=lambda name: name != self.middle):
            own = x if self.joined else self.own[name](x).relu().view(len(x), 2, 16).flatten(1)
            outputs[name] = getattr(self, name)(own)
        return outputs


HEADS = ("first", "second")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: nn.Sequential(mlp()[:6], nn.Linear(64, 5)), [], id="drawn"),
        pytest.param(lambda: nn.Sequential(mlp()[:6], closed_layer(64)), ["1"], id="one head"),
        pytest.param(lambda: TwoHeads(("first",)), ["first"], id="one of two"),
        pytest.param(lambda: TwoHeads(("second",)), ["second"], id="the other"),
        pytest.param(lambda: TwoHeads(("first",), middle="first"), ["first"], id="used in the middle"),
        pytest.param(
            lambda: TwoHeads(("second",), middle="second"), ["second"], id="the other in the middle"
        ),
        pytest.param(lambda: TwoHeads(HEADS), ["first", "second"], id="both"),
        pytest.param(lambda: TwoHeads(HEADS, joined=True), ["first", "second"], id="both on one trunk"),
        pytest.param(lambda: TwoHeads(("first",), joined=True), [], id="the trunk has another way"),
        pytest.param(lambda: TwoHeads(()), [], id="neither"),
    ],
)
def test_zero_head_lets_no_gradient_through(make: Callable[[], nn.Module], expected: list[str]) -> None:
    assert layers(linted(make, 20), "zero_head") == expected


def closed_layer(width: int) -> nn.Linear:
    layer = nn.Linear(width, 5)
    nn.init.zeros_(layer.weight)
    return layer


def test_a_net_without_weights_is_refused() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(20))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    with pytest.raises(UsageError, match="no weight layer was seen"):
        linted(Scale, 20)


def test_false_alarms_are_rare() -> None:
    """Five standard errors over 60 nets of four layers each: one alarm would already be odd."""
    for seed in range(60):
        torch.manual_seed(seed)
        scheme = ("kaiming_normal", "xavier_uniform", "lecun_normal", "orthogonal")[seed % 4]
        assert codes(linted(drawn(mlp, scheme), 20, seeds=1)) == set(), (seed, scheme)


def test_attention_that_nobody_drew_is_no_half_initialised_net() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(20, 32)
            self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
            self.head = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(self.first(x)[:, None]).mean(1))

    assert "untouched" not in codes(linted(Attending, 20))


def test_fans_are_not_told_from_one_layer_or_behind_a_norm() -> None:
    def make() -> nn.Module:
        module = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 64, 5),
        )
        for place in (0, 3):
            nn.init.kaiming_normal_(module[place].weight, mode="fan_out")
        return module

    assert "fans" not in codes(linted(make, 3, 8, 8))


def test_what_is_not_finite_is_no_loud_head() -> None:
    def broken() -> nn.Module:
        module = drawn(mlp)()
        with torch.no_grad():
            module[2].weight[0, 0] = torch.nan
        return module

    assert "head_scale" not in codes(linted(broken, 20))


def test_no_gradient_where_the_way_back_is_cut() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = drawn(mlp)(), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).detach())

    assert layers(linted(Cut, 20), "no_gradient") == ["body.0", "body.2", "body.4", "body.6"]
    assert "no_gradient" not in codes(linted(drawn(mlp), 20))


def test_weight_norm_everywhere_before_the_init() -> None:
    def make() -> nn.Module:
        module = mlp()
        for place in (0, 2, 4, 6):
            parametrizations.weight_norm(module[place])
            nn.init.kaiming_normal_(module[place].weight.data)
        return module

    assert layers(linted(make, 20), "weight_norm_before_init") == ["0", "2", "4", "6"]


class Chained(nn.Module):
    """Layers of a product that is not followed, and a head."""

    def __init__(self, layers: int, *, head: bool = True) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(20, 20) * 0.3) for _ in range(layers))
        self.first = nn.Linear(20, 20) if head else nn.Identity()
        self.head = nn.Linear(20, 5) if head else nn.Identity()
        if head:
            nn.init.orthogonal_(self.first.weight)
            nn.init.orthogonal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for weight in self.weights:
            x = torch.relu(torch.cdist(x, weight))
        return self.head(x)


@pytest.mark.parametrize(("layers", "warned"), [(1, False), (2, False), (3, True)])
def test_unseen_is_a_net_of_which_less_than_half_was_looked_at(layers: int, warned: bool) -> None:
    found = initbench.lint(Chained(layers), torch.randn(32, 20))
    assert ("unseen" in [finding.code for finding in found.findings]) is warned
    last = str(found).splitlines()[-1]
    assert f"2 of {2 + layers} weights" in last
    assert "cdist" in last
    coverage = found.as_data()["coverage"]
    assert (coverage["weights"], coverage["seen"], coverage["complete"]) == (2 + layers, 2, False)


def test_a_net_of_which_nothing_was_seen_is_not_clean() -> None:
    found = initbench.lint(Chained(3, head=False), torch.randn(32, 20))
    (finding,) = found.findings
    assert (finding.code, finding.level) == ("unseen", "warning")
    assert "Nothing could be traced" in finding.message.sentence


class Heads(nn.Module):
    def __init__(self, drawn: str, *, value_first: bool) -> None:
        super().__init__()
        self.body, self.mu, self.value = nn.Linear(8, 64), nn.Linear(64, 6), nn.Linear(64, 1)
        nn.init.orthogonal_(self.body.weight)
        for name in drawn.split():
            nn.init.orthogonal_(self.get_submodule(name).weight)
        self.value_first = value_first

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.body(x))
        if self.value_first:
            value = self.value(h)
            return {"mu": self.mu(h), "value": value}
        return {"mu": self.mu(h), "value": self.value(h)}


@pytest.mark.parametrize("value_first", [False, True])
@pytest.mark.parametrize(
    ("drawn", "untouched"), [("value", ["mu"]), ("mu", ["value"]), ("", []), ("mu value", [])]
)
def test_a_head_that_was_forgotten_is_found_wherever_it_stands(
    drawn: str, untouched: list[str], value_first: bool
) -> None:
    found = initbench.lint(Heads(drawn, value_first=value_first), torch.randn(32, 8)).findings
    assert [finding.code for finding in found] == ["untouched"] * len(untouched)
    assert [list(finding.message.layers) for finding in found] == [untouched] * len(untouched)
