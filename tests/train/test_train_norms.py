"""Batch norm by running, batch and population statistics, against torch's own modules in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cohorts import CLASSES, CPU, DIM, bundle, nets, train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from initbench.components.norms.standard import BatchNorm, BatchNormOptions
from initbench.components.target import SampleShape
from initbench.data.preprocessing import Split
from initbench.models.build import build
from initbench.probing.running_statistics import running_stat_gap
from initbench.rng import stream_generator
from initbench.train import batchnorm_evaluation as norms_module
from initbench.train.batchnorm_evaluation import evaluate_norms
from initbench.train.cohort import Cohort

WIDTH, DEPTH = 16, 3
KEYS = ["val_loss_batch", "val_accuracy_batch", "val_loss_population", "val_accuracy_population"]


def config_of(make_config: Any, norm: Any = "batch", **train: Any) -> Any:
    return make_config(
        model={"depth": DEPTH, "width": WIDTH, "norm": norm},
        train={"steps": 5, "batch_size": 32, "lr": 0.1, **train},
        probe={"batch": 64},
    )


def twin(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH if i else DIM, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)).double().requires_grad_(False)
    for own, theirs in zip(net.parameters(), parameters.values(), strict=True):
        own.data.copy_(theirs)
    kept = [b for name, b in net.named_buffers() if not name.endswith("num_batches_tracked")]
    for own, theirs in zip(kept, buffers.values(), strict=True):
        own.copy_(theirs)
    return net


def scores(logits: Tensor, y: Tensor) -> list[float]:
    return [float(cross_entropy(logits, y)), float((logits.argmax(1) == y).double().mean())]


def test_both_kinds_against_a_plain_net(make_config: Any) -> None:
    """float32 rounds a loss of size 1 by about 1e-6; ten other statistics change it by more than 1e-2."""
    data, size = bundle(val=70), 32
    ear = train(config_of(make_config, batch_size=size), [4], data=data)
    outcome, last = ear.outcomes[0], ear.entries[0][-1]
    sample = data.train.x.double()

    net = twin(outcome.parameters, outcome.buffers).train()
    order = torch.randperm(70, generator=stream_generator(0, "evaluation_batches"))
    logits = torch.empty(70, CLASSES, dtype=torch.float64)
    for start in (0, 32, 64):
        rows = order[torch.arange(start, start + size) % 70]
        known = min(size, 70 - start)
        logits[rows[:known]] = net(data.val.x.double()[rows])[:known]
    assert [last[key] for key in KEYS[:2]] == pytest.approx(scores(logits, data.val.y), abs=1e-5)

    net = twin(outcome.parameters, outcome.buffers).eval()
    running = scores(net(data.val.x.double()), data.val.y)
    assert [last["val_loss"], last["val_accuracy"]] == pytest.approx(running, abs=1e-5)
    h = sample
    for module in net:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.copy_(h.mean(0))
            module.running_var.copy_(h.var(0))
        h = module(h)
    found = scores(net(data.val.x.double()), data.val.y)
    assert [last[key] for key in KEYS[2:]] == pytest.approx(found, abs=1e-5)
    assert min(abs(found[0] - running[0]), abs(last["val_loss_batch"] - found[0])) > 1e-3
    assert outcome.final is not None and {key: outcome.final[key] for key in KEYS} == {
        k: last[k] for k in KEYS
    }


def test_they_are_evaluated_at_both_ends_of_nets_with_running_statistics_alone(make_config: Any) -> None:
    entries = train(config_of(make_config), [0]).entries[0]
    assert [("val_loss_batch" in entry) for entry in entries] == [True, *[False] * (len(entries) - 2), True]
    for norm in ("none", "group", "layer"):
        ear = train(config_of(make_config, norm), [0])
        assert not any(key in entry for entry in ear.entries[0] for key in KEYS)


@pytest.mark.parametrize("norm", ["batch", {"name": "ghost_batch", "ghost_size": 8}, "batch_renorm"])
def test_they_change_nothing_and_depend_on_no_cohort(make_config: Any, norm: Any, monkeypatch: Any) -> None:
    config = config_of(make_config, norm)
    together, alone = train(config, [0, 1, 2]), train(config, [1])
    assert together.entries[1] == alone.entries[0]
    monkeypatch.setattr("initbench.train.loop.evaluate_norms", lambda cohort, *_: [{}] * cohort.size)
    without = train(config, [0, 1, 2])
    for run in range(3):
        for with_them, plain in zip(together.entries[run], without.entries[run], strict=True):
            assert {key: value for key, value in with_them.items() if key not in KEYS} == plain
        for tensors in ("parameters", "buffers"):
            ours, theirs = (getattr(ear.outcomes[run], tensors) for ear in (together, without))
            assert all(torch.equal(t, theirs[name]) for name, t in ours.items())


@pytest.mark.parametrize("norm", ["batch", {"name": "batch", "affine": False, "momentum": 1.0}, "group"])
@pytest.mark.parametrize("batch_size", [2, 512])
def test_batches_of_two_and_of_512(make_config: Any, norm: Any, batch_size: int) -> None:
    ear = train(config_of(make_config, norm, batch_size=batch_size), [0, 1], data=bundle(train=600))
    for run in range(2):
        final = ear.outcomes[run].final
        assert final is not None and torch.tensor(list(final.values())).isfinite().all()
        gaps = [
            layer.get("batch_norm") for snapshot in ear.snapshots[run] for layer in snapshot["layers"][:-1]
        ]
        assert all(gaps) if norm != "group" else not any(gaps)


def test_at_most_so_many_batches(make_config: Any, monkeypatch: Any) -> None:
    config = config_of(make_config)
    cohort = Cohort(nets(config, [0]), config.train, "vmap", CPU)
    data = bundle(val=70)
    monkeypatch.setattr(norms_module, "MAX_BATCHES", 5)
    order = torch.randperm(70, generator=stream_generator(0, "evaluation_batches"))[:10]
    part = Split(x=data.val.x[order], y=data.val.y[order])
    found = evaluate_norms(cohort, data.train, data.val, 2)[0]
    monkeypatch.setattr(torch, "randperm", lambda samples, generator: torch.arange(samples))
    assert found["val_loss_batch"] == evaluate_norms(cohort, data.train, part, 2)[0]["val_loss_batch"]


def test_a_cnn_has_its_population_recomputed(make_config: Any) -> None:
    """After it, every norm's input over the sample has the mean and variance that the norm holds."""
    config = make_config(
        model={"family": "cnn", "depth": 3, "width": 4, "stages": 1, "norm": "batch"},
        train={"batch_size": 8, "steps": 1},
    )
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 2.0
    net = build(config.model, config.init, form=SampleShape((1, 8, 8), 10), seed=0, batch=x[:8])
    cohort = Cohort([net], config.train, "single", CPU)
    buffers = norms_module._population(cohort, Split(x=x, y=torch.zeros(40, dtype=torch.int64)))
    inputs: dict[str, Tensor] = {}
    norms = {name: m for name, m in cohort.skeleton.named_modules() if isinstance(m, BatchNorm)}
    for name, module in norms.items():
        module.register_forward_pre_hook(lambda _m, args, name=name: inputs.update({name: args[0]}))
    cohort.skeleton.eval()
    with torch.no_grad():
        cohort.statistics(x, torch.zeros(40, dtype=torch.int64), buffers, 40)
    assert len(norms) == 2
    for name, seen in inputs.items():
        assert torch.allclose(buffers[f"{name}.running_mean"][0], seen.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(
            buffers[f"{name}.running_var"][0], seen.transpose(0, 1).flatten(1).var(1), rtol=1e-4
        )
    assert all(bool((cohort.buffers[f"{name}.running_mean"] == 0).all()) for name in norms)


def test_the_gap_by_hand() -> None:
    norm = BatchNorm(2, BatchNormOptions(eps=1.0))
    norm.running_mean.copy_(torch.tensor([1.0, 5.0]))
    norm.running_var.copy_(torch.tensor([7.0, 1.0]))
    x = torch.tensor([[-1.0, 2.0], [0.0, 2.0], [1.0, 2.0]])  # means 0 and 2, unbiased variances 1 and 0
    found = running_stat_gap(norm, x)
    assert found["running_mean_gap"] == pytest.approx(((1 / 2 + 9 / 1) / 2) ** 0.5)
    assert found["running_var_ratio"] == pytest.approx((8 / 2 * 2 / 1) ** 0.5)


def test_a_momentum_of_one_leaves_the_last_batch_and_the_gap_says_so(make_config: Any) -> None:
    norm = {"name": "batch", "momentum": 1.0}
    config = config_of(make_config, norm, batch_size=300, steps=1, lr=0.0)
    config = config.model_copy(update={"probe": config.probe.model_copy(update={"batch": 300})})
    snapshots = train(config, [0]).snapshots[0]
    assert snapshots[0]["layers"][0]["batch_norm"]["running_mean_gap"] > 0.05
    for layer in snapshots[-1]["layers"][:-1]:
        assert layer["batch_norm"]["running_mean_gap"] == pytest.approx(0.0, abs=1e-5)
        assert layer["batch_norm"]["running_var_ratio"] == pytest.approx(1.0, abs=1e-4)
