"""Internal covariate shift against Santurkar et al.'s definition, written with torch's own modules.

The twin is in float64 and takes the weights of the same cohort before and after the update; it
computes every gradient again. float32 rounds a gradient by about 1e-6 of itself, and its change, a tenth
of it or more, by 1e-5: the tolerance is 1e-4. Each neighbouring definition is off by more than 1e-2.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cohorts import CLASSES, CPU, DIM, Ear, bundle, nets, train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from initbench.data.batches import Batches
from initbench.probing.covariate_shift import gradient_shift, input_drift
from initbench.train.events import Advanced, TrainingEvent
from initbench.train.loop import Training, TrainingSetup

EVERY, STEPS, WIDTH, DEPTH, BATCH = 3, 8, 16, 4, 32
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 0.2, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "clipped": {"optimizer": "sgd", "lr": 2.0, "clip_norm": 0.5},
}


def config_of(make_config: Any, norm: Any = "none", every: int | None = EVERY, **train: Any) -> Any:
    return make_config(
        model={"depth": DEPTH, "width": WIDTH, "activation": "tanh", "norm": norm},
        init={"scheme": "kaiming_normal"},
        train={"steps": STEPS, "batch_size": BATCH, "lr": 0.2, **train},
        probe={"batch": 64, "when": [], "covariate_shift": every},
    )


class Watcher(Ear):
    """Keeps what is measured, and a copy of all parameters before each update and after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Tensor]] = []
        self.training: Training | None = None

    def keep(self) -> None:
        assert self.training is not None
        cohort = self.training._cohort
        self.states.append({name: p.detach().clone() for name, p in cohort.parameters.items()})

    def receive(self, event: TrainingEvent) -> None:
        super().receive(event)
        if isinstance(event, Advanced):
            self.keep()


def watched(config: Any, seeds: list[int]) -> Watcher:
    ear = Watcher()
    setup = TrainingSetup(
        networks=nets(config, seeds), seeds=seeds, config=config, mode="vmap", data=bundle(), device=CPU
    )
    training = Training(setup, ear.receive)
    ear.training = training
    ear.keep()
    training.run()
    return ear


def twin(norm: str) -> nn.Sequential:
    """The net in torch's modules: linear, norm and tanh, DEPTH − 1 times, and the head."""
    layers: list[nn.Module] = []
    for i in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH if i else DIM, WIDTH)]
        layers += [nn.BatchNorm1d(WIDTH)] if norm == "batch" else []
        layers += [nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)).double()


def filled(norm: str, state: dict[str, Tensor], run: int) -> nn.Sequential:
    net = twin(norm)
    for own, theirs in zip(net.parameters(), state.values(), strict=True):
        own.data.copy_(theirs[run])
    return net


def weight_gradients(net: nn.Sequential, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return, for each linear layer, the gradient of its weight and bias in one vector."""
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    return [torch.cat([layer.weight.grad.flatten(), layer.bias.grad]) for layer in linear]


def moved(before: nn.Sequential, after: nn.Sequential, layer: int, *, itself: bool = False) -> nn.Sequential:
    """`before`, with everything in front of linear layer `layer` (from 0) as in `after`."""
    net, seen = copy.deepcopy(before), -1
    for i, module in enumerate(after):
        seen += isinstance(module, nn.Linear)
        if seen < layer + itself:
            net[i] = copy.deepcopy(module)
    return net


def defined(norm: str, states: list[dict[str, Tensor]], run: int, seed: int, step: int, **kind: bool) -> Any:
    """[(‖G′ − G‖/‖G‖, cosine)] of all layers for update `step`, from 0."""
    data = bundle()
    x, y = data.train.take(Batches(len(data.train), BATCH, [seed]).indices(step)[0])
    before, after = (filled(norm, states[i], run) for i in (step, step + 1))
    found = []
    for layer, g in enumerate(weight_gradients(before, x.double(), y)):
        other = weight_gradients(moved(before, after, layer, **kind), x.double(), y)[layer]
        found += [float((other - g).norm() / g.norm()), float(torch.cosine_similarity(other, g, dim=0))]
    return found


def reported(entry: dict[str, Any]) -> list[float]:
    return [layer[key] for layer in entry["layers"] for key in ("gradient_shift", "gradient_shift_cosine")]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_gradient_form_is_the_definition(make_config: Any, norm: str, optimizer: str) -> None:
    ear = watched(config_of(make_config, norm, **OPTIMIZERS[optimizer]), [5, 6])
    for run, seed in ((0, 5), (1, 6)):
        assert [entry["step"] for entry in ear.shifts[run]] == [1, 4, 7]
        for entry in ear.shifts[run]:
            expected = defined(norm, ear.states, run, seed, entry["step"] - 1)
            assert reported(entry) == pytest.approx(expected, rel=1e-4, abs=1e-6)
            wrong = defined(norm, ear.states, run, seed, entry["step"] - 1, itself=True)
            assert wrong != pytest.approx(expected, rel=1e-2)
        assert ear.shifts[run][0]["layers"][2]["gradient_shift"] > 1e-3


@pytest.mark.parametrize("norm", ["none", "batch", "batch_renorm", "weight", "spectral"])
def test_layers_that_do_not_move_change_no_gradient(make_config: Any, norm: str) -> None:
    ear = watched(config_of(make_config, norm, lr=0.0), [0, 1])
    for entries in ear.shifts.values():
        for entry in entries:
            assert reported(entry) == [0.0, 1.0] * DEPTH
            layers = entry["layers"][1:]
            drifts = {layer[key] for layer in layers for key in layer if key.startswith("input_")}
            if norm not in ("batch_renorm", "spectral"):  # their buffers change their output
                assert drifts == ({None} if entry["step"] == 1 else {0.0})


def test_drift_is_measured_from_the_inputs_on_the_probe_batch(make_config: Any) -> None:
    ear = watched(config_of(make_config), [3])
    net_inputs = []
    data = bundle()
    training = ear.training
    assert training is not None
    x = training._probe_batch.x.double()
    for step in (0, 3, 6):
        h, inputs = x, []
        for module in filled("none", ear.states[step], 0).requires_grad_(False):
            if isinstance(module, nn.Linear):
                inputs.append((h.mean(0), h.std(0, correction=0)))
            h = module(h)
        net_inputs.append(inputs)
    assert len(x) == 64 and len(data.train) == 300
    for entry, former, now in zip(ear.shifts[0][1:], net_inputs, net_inputs[1:], strict=False):
        for layer, (mean, std), (mean_now, std_now) in zip(entry["layers"], former, now, strict=True):
            assert layer["input_mean_drift"] == pytest.approx(
                float((mean_now - mean).norm() / std.norm()), rel=1e-4, abs=1e-7
            )
            assert layer["input_std_drift"] == pytest.approx(
                float((std_now - std).norm() / std.norm()), rel=1e-4, abs=1e-7
            )
    last = ear.shifts[0][-1]["layers"][2]
    (mean, std), (mean_now, std_now) = net_inputs[0][2], net_inputs[2][2]
    assert last["input_mean_from_init"] == pytest.approx(
        float((mean_now - mean).norm() / std.norm()), rel=1e-4
    )
    assert last["input_std_from_init"] == pytest.approx(float((std_now - std).norm() / std.norm()), rel=1e-4)


def test_drift_and_gradients_by_hand() -> None:
    def moments(mean: list[float], std: list[float]) -> dict[str, Tensor]:
        return {"mean.1": torch.tensor(mean, dtype=torch.float64), "std.1": torch.tensor(std).double()}

    before, now = moments([0.0, 1.0], [3.0, 4.0]), moments([3.0, 5.0], [3.0, 3.0])
    assert input_drift(before, now, 1) == (1.0, 0.2)
    assert input_drift(moments([1.0, 1.0], [0.0, 0.0]), now, 1) == (None, None)
    g = [torch.tensor([[3.0]]), torch.tensor([4.0])]
    assert gradient_shift(g, [torch.tensor([[4.0]]), torch.tensor([-3.0])]) == pytest.approx(
        (5.0, 2**0.5, 0.0)
    )
    assert gradient_shift(g, [0 * part for part in g]) == (5.0, 1.0, None)
    assert gradient_shift([0 * part for part in g], g) == (0.0, None, None)
    tiny = [part * 1e-30 for part in g]
    assert gradient_shift(tiny, tiny)[1:] == (0.0, 1.0)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_measuring_changes_no_number_and_no_run_depends_on_its_cohort(make_config: Any, norm: str) -> None:
    plain = train(config_of(make_config, norm, every=None), [0, 1, 2])
    together = watched(config_of(make_config, norm), [0, 1, 2])
    alone = watched(config_of(make_config, norm), [1])
    for run in range(3):
        assert plain.entries[run] == together.entries[run]
        for name, p in plain.outcomes[run].parameters.items():
            assert torch.equal(p, together.outcomes[run].parameters[name])
    assert alone.shifts[0] == together.shifts[1]
