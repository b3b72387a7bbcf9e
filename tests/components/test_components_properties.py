"""The checks of `initbench.testing` on every built-in entry, and on entries that do not have the property."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from initbench.components.activation import ACTIVATIONS, Activation
from initbench.components.init_scheme import INITS, Scheme
from initbench.components.norm import NORMS, Norm
from initbench.components.optimizer import OPTIMIZERS, Optimizer
from initbench.components.schedule import SCHEDULES, Schedule
from initbench.registry import Options, Registry, RegistryEntry
from initbench.testing.check import Check, run_check
from initbench.testing.entries import all_entries, entry_checks

BUILT_IN = [
    pytest.param(check, id=f"{registry.kind}-{entry.name}-{check.title}")
    for registry, entry in all_entries()
    for check in entry_checks(registry, entry)
]
FILES = {
    "cifar10",
    "cifar100",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "huggingface",
    "npz",
    "idx",
    "images",
    "table",
    "tokens",
    "custom",
}
"""Data sets that need files, so that their contents are not examined here."""


@pytest.mark.parametrize("check", BUILT_IN)
def test_a_built_in_entry_has_the_property(check: Check, request: pytest.FixtureRequest) -> None:
    result = run_check(check)
    is_of_files = any(f"data set-{name}-" in request.node.name for name in FILES)
    assert result.state == "ok" or (result.state == "skipped" and is_of_files), result.reason


def test_every_kind_is_examined() -> None:
    counts = Counter(
        registry.kind for registry, entry in all_entries() for _ in entry_checks(registry, entry)
    )
    assert (
        min(counts[kind] for kind in ("init scheme", "activation", "norm", "optimizer", "schedule")) > 20 - 8
    )
    assert {"model family", "data set", "executor", "lint code"} <= set(counts)


def failed(registry: Registry, entry: RegistryEntry) -> set[str]:
    """Return the titles of the checks that fail for an entry, which is not registered."""
    return {result.title for result in results(registry, entry) if result.state == "FAILED"}


def results(registry: Registry, entry: RegistryEntry) -> Iterator:
    return (
        run_check(check) for check in entry_checks(registry, entry) if check.title != "survives a config file"
    )


TEXTS = {"name": "mine", "summary": "A summary.", "source": "-"}


def normal(weight, *, fan_in, generator, **_):
    weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)


def variance(*, fan_in, **_):
    return 2.0 / fan_in


def uniform(weight, *, fan_in, generator, **_):
    bound = (6.0 / fan_in) ** 0.5
    weight.uniform_(-bound, bound, generator=generator)


def off_center(weight, **arguments):
    normal(weight, **arguments)
    weight += 0.1 * weight.std()


def halved(weight, **arguments):
    normal(weight, **arguments)
    weight *= 0.95


def global_generator(weight, *, fan_in, **_):
    weight.normal_(0.0, (2.0 / fan_in) ** 0.5)


def first_row(weight, **arguments):
    normal(weight[:1], **arguments)


SCHEMES = {
    "as declared": ({"fill": normal, "variance": variance}, ()),
    "another variance": ({"fill": halved, "variance": variance}, ("mean and variance", "distribution")),
    "another mean": ({"fill": off_center, "variance": variance}, ("mean and variance", "distribution")),
    "another distribution": ({"fill": uniform, "variance": variance}, ("distribution",)),
    "the global generator": ({"fill": global_generator}, ("fills",)),
    "one row": ({"fill": first_row}, ("fills",)),
    "no randomness": ({"fill": lambda weight, **_: weight.zero_()}, ("fills",)),
    "a raised exception": ({"fill": lambda weight, **_: weight.nothing()}, ("fills",)),
    "no calibration": ({"fill": normal, "calibrate": print}, ("needs",)),
    "a bad summary": ({"fill": normal, "summary": "two\nlines"}, ("summary",)),
    "no source": ({"fill": normal, "source": ""}, ("source",)),
}


@pytest.mark.parametrize(("fields", "titles"), SCHEMES.values(), ids=SCHEMES)
def test_a_scheme_fails_the_checks_of_what_it_lacks(
    fields: dict, titles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = Scheme(**{**TEXTS, **fields})
    monkeypatch.setitem(INITS._entries, scheme.name, scheme)
    found = failed(INITS, scheme)
    assert bool(found) == bool(titles)
    assert all(any(title in one for title in titles) for one in found), found


class Scaled(nn.Module):
    def forward(self, x):
        return x / x.shape[-1]


class InPlace(nn.Module):
    def forward(self, x):
        return x.tanh_() if not x.requires_grad else x.tanh()


def slope(_options, x):
    return 1 - x.tanh() ** 2


TANH = {
    "build": lambda _options, _features: nn.Tanh(),
    "derivative": slope,
    "bounded": True,
    "saturates": True,
}
TANH |= {"histogram_range": (-1.0, 1.0)}
CLIPPED = {"build": lambda _o, _f: nn.Hardtanh(), "derivative": lambda _o, x: (x.abs() < 1).to(x.dtype)}
WRONG_ACTIVATIONS = {
    "as declared": (TANH, ()),
    "a wrong slope": ({**TANH, "derivative": lambda _o, x: 1 - x.tanh()}, ("derivative",)),
    "not bounded": ({**TANH, "bounded": False}, ("bounded",)),
    "no saturation": ({**TANH, "saturates": False}, ("saturates",)),
    "a kink that is not there": ({**TANH, "kinks": (0.5,)}, ("kinks",)),
    "kinks that are not declared": ({**TANH, **CLIPPED}, ("kinks",)),
    "a narrow histogram": ({**TANH, "histogram_range": (-0.5, 0.5)}, ("histogram",)),
    "another value in a map": (
        {**TANH, "build": lambda _o, _f: Scaled()},
        ("positions", "derivative", "bounded", "kinks"),
    ),
    "a changed input": (
        {**TANH, "build": lambda _o, _f: InPlace()},
        ("keeps its input", "positions", "moments"),
    ),
}


@pytest.mark.parametrize(("fields", "titles"), WRONG_ACTIVATIONS.values(), ids=WRONG_ACTIVATIONS)
def test_an_activation_fails_the_checks_of_what_it_lacks(fields: dict, titles: tuple[str, ...]) -> None:
    found = failed(ACTIVATIONS, Activation(**{**TEXTS, **fields}))
    assert bool(found) == bool(titles)
    assert not titles or any(titles[0] in one for one in found), found


class Centered(nn.Module):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)


class Counting(nn.Module):
    """A state that is shared by all layers of a stack, so that each layer changes those after it."""

    calls = 0

    def forward(self, x):
        Counting.calls += 1
        return x + Counting.calls


NORM = {
    "build": lambda _features, _options: Centered(),
    "axes": ("C",),
    "problem": lambda shape, _options: ("", "needs two features") if shape[0] < 2 else None,
}
WRONG_NORMS = {
    "as declared": (NORM, ()),
    "other axes": ({**NORM, "axes": ("N",)}, ("axes",)),
    "a shared state": ({"build": lambda _f, _o: Counting(), "axes": ()}, ("stacked",)),
    "constant outputs": ({"build": lambda _f, _o: nn.Threshold(1e9, 0.0), "axes": ()}, ("builds",)),
    "a module and weights": ({**NORM, "acts_on": "weights"}, ("inserts no module",)),
    "a scale": ({"acts_on": "weights", "axes": (), "scale_free": True}, ("scale_free",)),
}


@pytest.mark.parametrize(("fields", "titles"), WRONG_NORMS.values(), ids=WRONG_NORMS)
def test_a_norm_fails_the_checks_of_what_it_lacks(fields: dict, titles: tuple[str, ...]) -> None:
    found = failed(NORMS, Norm(**{**TEXTS, **fields}))
    assert bool(found) == bool(titles)
    assert not titles or any(titles[0] in one for one in found), found


def plain(parameters, gradients, _state, _options, *, lr, weight_decay):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter -= lr * (gradient + weight_decay * parameter)


def coupled(parameters, gradients, _state, _options, *, lr, weight_decay):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter -= lr * (gradient / gradient.norm() + weight_decay * parameter)


def without_decay(parameters, gradients, state, options, *, lr, weight_decay):
    plain(parameters, gradients, state, options, lr=lr, weight_decay=0.0)


WRONG_OPTIMIZERS = {
    "as declared": (plain, ""),
    "a norm of the whole stack": (coupled, "stack"),
    "no weight decay": (without_decay, "weight_decay"),
}


@pytest.mark.parametrize(("update", "title"), WRONG_OPTIMIZERS.values(), ids=WRONG_OPTIMIZERS)
def test_an_optimizer_fails_the_checks_of_what_it_lacks(update, title: str) -> None:
    found = failed(OPTIMIZERS, Optimizer(**TEXTS, update=update))
    assert len(found) == bool(title)
    assert all(title in one for one in found)


@pytest.mark.parametrize("factor", [-0.5, float("nan")])
def test_a_schedule_has_a_finite_factor(factor: float) -> None:
    assert failed(SCHEDULES, Schedule(**TEXTS, factor=lambda _options, _progress: 1.0)) == set()
    assert len(failed(SCHEDULES, Schedule(**TEXTS, factor=lambda _options, _progress: factor))) == 1


class Sized(Options):
    size: int
    """A size."""
    other: int = 1


def test_options_need_a_description_and_entries_without_defaults_are_skipped() -> None:
    entry = Scheme(**TEXTS, fill=normal, options=Sized)
    states = {result.title: result.state for result in map(run_check, entry_checks(INITS, entry))}
    assert states["options have descriptions"] == "FAILED"
    assert states["survives a config file"] == "skipped"
    assert len(states) == 4


def test_checks_use_one_thread_count() -> None:
    before = torch.get_num_threads()
    failed(ACTIVATIONS, ACTIVATIONS["relu"])
    assert torch.get_num_threads() == before
