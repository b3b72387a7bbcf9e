"""A run's numbers do not depend on the other runs of its cohort or on the number of threads, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from cohorts import CLASSES, CPU, DIM, OPTIMIZERS, Ear, bundle, nets, same, separable, train
from slices import each_once_fast, pairwise_fast
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.config.schema import ExperimentConfig
from initbench.models.families.mlp import stacking
from initbench.models.network import Network
from initbench.registry_choice import default_choice
from initbench.runner.run_identity import training_mode
from initbench.train import loop
from initbench.train.cohort import Cohort, clip_per_run
from initbench.train.matmul_precision import true_fp32
from initbench.train.thread_tuner import MAX_THREADS, products_agree

GROUPS = {100: 10, 37: 1}
FITTING = [entry.name for entry in NORMS if entry.problem((16,), default_choice(NORMS, entry.name)) is None]


def config_of(make_config: Any, norm: str, optimizer: str, width: int, **more: Any) -> ExperimentConfig:
    chosen: Any = norm
    if norm == "group":
        chosen = {"name": norm, "num_groups": GROUPS.get(width, 4)}
    if norm == "ghost_batch":
        chosen = {"name": norm, "ghost_size": more.get("batch_size", 50) // 2}
    config: ExperimentConfig = make_config(
        model={"depth": 4, "width": width, "norm": chosen},
        train={"steps": 8, "batch_size": 50, "eval_every": 5, **OPTIMIZERS[optimizer], **more},
    )
    return config


@pytest.mark.parametrize(
    ("optimizer", "norm", "width"),
    pairwise_fast(list(OPTIMIZERS), ["none", "batch", "layer", "group"], [100, 37]),
)
def test_the_size_of_the_cohort_changes_no_bit(
    make_config: Any, norm: str, optimizer: str, width: int
) -> None:
    assert_size_changes_nothing(config_of(make_config, norm, optimizer, width))


@pytest.mark.parametrize(
    ("norm", "shape", "optimizer"),
    each_once_fast(FITTING, [(100, 50), (37, 50), (36, 64)], ["momentum", "adam"]),
)
def test_nor_does_it_with_any_norm_where_runs_are_stacked(
    make_config: Any, norm: str, shape: tuple[int, int], optimizer: str
) -> None:
    width, batch_size = shape
    config = config_of(make_config, norm, optimizer, width, steps=10, batch_size=batch_size)
    stacked = training_mode(config, CPU) == "vmap"
    assert stacked == (width == 36 or NORMS[norm].rounds_alike)
    if stacked:
        assert_size_changes_nothing(config)


@pytest.mark.parametrize(("width", "batch_size"), [(13, 64), (26, 32), (103, 8)])
def test_nor_does_it_in_narrow_nets_or_small_batches(make_config: Any, width: int, batch_size: int) -> None:
    """Just above 4,096 multiplications in the head, the smallest product; nets below are not stacked."""
    config = config_of(make_config, "none", "momentum", width, batch_size=batch_size)
    assert stacking(config.model, batch_size, DIM, CLASSES) == "vmap"
    assert_size_changes_nothing(config)
    narrower = config_of(make_config, "none", "momentum", width - 1, batch_size=batch_size)
    assert stacking(narrower.model, batch_size, DIM, CLASSES) == "single"


@pytest.mark.parametrize("batch", [7, 300])
def test_nor_does_it_where_what_is_measured_fills_no_vectors(make_config: Any, batch: int) -> None:
    """gelu rounds what is left over otherwise: of 300 samples of a population, and of 7 of a probe."""
    config = make_config(
        model={"depth": 4, "width": 36, "norm": "batch", "activation": "gelu"},
        train={"steps": 8, "batch_size": 64, "eval_every": 4, **OPTIMIZERS["momentum"]},
        probe={"batch": batch, "covariate_shift": 2},
    )
    assert training_mode(config, CPU) == "vmap"
    assert_size_changes_nothing(config)


@pytest.mark.parametrize("norm", FITTING)
def test_ten_steps_with_any_norm_stay_finite_and_move_every_parameter(make_config: Any, norm: str) -> None:
    config = config_of(make_config, norm, "adam", 36, batch_size=64, steps=10)
    (before,), ear = nets(config, [0]), train(config, [0])
    assert ear.outcomes[0].diverged is None
    for name, parameter in before.named_parameters():
        after = ear.outcomes[0].parameters[name]
        assert bool(after.isfinite().all())
        assert not torch.equal(after, parameter), name


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(
    "more",
    [
        {"clip_norm": 0.3},
        {"label_smoothing": 0.1, "weight_decay": 0.02},
        {"warmup_steps": 3, "schedule": "cosine", "clip_norm": 1.0, "weight_decay": 0.02},
    ],
)
def test_nor_does_it_with_clipping_smoothing_and_decay(make_config: Any, norm: str, more: Any) -> None:
    assert_size_changes_nothing(config_of(make_config, norm, "momentum", 100, **more))


@pytest.mark.parametrize(("activation", "shape"), each_once_fast(ACTIVATIONS.names(), [(36, 64), (37, 50)]))
def test_nor_does_it_with_any_activation_where_runs_are_stacked(
    make_config: Any, activation: str, shape: tuple[int, int]
) -> None:
    width, batch_size = shape
    config = config_of(make_config, "layer", "adam", width, batch_size=batch_size)
    model = config.model.model_dump() | {"activation": activation, "norm_placement": "after_activation"}
    config = make_config(model=model, train=config.train.model_dump())
    stacked = training_mode(config, CPU) == "vmap"
    assert stacked == (width == 36 or ACTIVATIONS[activation].rounds_alike)
    if stacked:
        assert_size_changes_nothing(config)


def assert_size_changes_nothing(config: ExperimentConfig) -> None:
    eight = train(config, range(8))
    for seeds in ([0], [7], [3, 4], [5, 6, 7]):
        fewer = train(config, seeds)
        for k, seed in enumerate(seeds):
            assert same(fewer.outcomes[k].parameters, eight.outcomes[seed].parameters), (seeds, seed)
            assert same(fewer.outcomes[k].buffers, eight.outcomes[seed].buffers)
            assert fewer.outcomes[k].final == eight.outcomes[seed].final
            assert fewer.entries[k] == eight.entries[seed]
            # Spelt out, every bit of a number shows, and NaN is like NaN.
            assert repr(fewer.snapshots[k]) == repr(eight.snapshots[seed])
            assert repr(fewer.shifts.get(k)) == repr(eight.shifts.get(seed))
    assert not same(eight.outcomes[0].parameters, eight.outcomes[1].parameters)


THREADS_AGREE = pytest.mark.skipif(
    not products_agree(), reason="this processor's matrix products depend on the threads; one is used"
)


@THREADS_AGREE
@pytest.mark.parametrize(("norm", "runs"), each_once_fast(FITTING, [1, 3]))
def test_one_and_two_threads_agree(make_config: Any, norm: str, runs: int) -> None:
    """With tensors large enough for torch to split them (it does from 32,768 entries)."""
    config = config_of(make_config, norm, "momentum", 128, batch_size=256)
    assert_threads_agree(config, runs)


@THREADS_AGREE
@pytest.mark.parametrize("runs", [3, 5, 9])
@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "selu"])
def test_so_do_all_threads_that_are_ever_used(make_config: Any, activation: str, runs: int) -> None:
    """Five shares of 128 × 128 are cut in three by four threads, none of them a whole number of vectors."""
    model = {"depth": 3, "width": 128, "activation": activation}
    assert_threads_agree(make_config(model=model, train={"batch_size": 128}), runs)


def assert_threads_agree(config: ExperimentConfig, runs: int) -> None:
    batch = config.train.batch_size
    split = separable(batch * runs)
    x, y = split.x.view(runs, batch, DIM), split.y.view(runs, batch)
    states = []
    before = torch.get_num_threads()
    try:
        for threads in range(1, MAX_THREADS + 1):
            torch.set_num_threads(threads)
            cohort = Cohort(nets(config, range(runs)), config.train, "vmap", CPU)
            with true_fp32(CPU):
                for _ in range(8):
                    cohort.gradients(x, y)
                    cohort.update(0.02)
                scores = cohort.evaluate(split.x, split.y)
            states.append(({**cohort.parameters, **cohort.buffers}, scores))
    finally:
        torch.set_num_threads(before)
    assert len(states) > 1
    for state, scores in states[1:]:
        assert same(states[0][0], state)
        assert states[0][1] == scores


def test_a_training_with_two_threads_gives_the_numbers_of_one(make_config: Any) -> None:
    config = config_of(make_config, "batch", "momentum", 100)
    before = torch.get_num_threads()
    one, two = (train(config, [0, 1], threads=threads) for threads in (1, 2))
    assert torch.get_num_threads() == before
    for k in range(2):
        assert same(one.outcomes[k].parameters, two.outcomes[k].parameters)
        assert one.entries[k] == two.entries[k]


def scaled(networks: Sequence[Network], which: int, factor: float) -> list[Network]:
    """Return the nets, with all weights of one of them multiplied by `factor`."""
    with torch.no_grad():
        for layer in networks[which].weight_layers():
            layer.module.get_parameter("weight").mul_(factor)
    return list(networks)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_run_that_explodes_leaves_its_neighbours_alone(make_config: Any, lost: int) -> None:
    config = make_config(
        model={"depth": 6, "width": 24},
        train={"steps": 30, "batch_size": 50, "eval_every": 6, **OPTIMIZERS["momentum"]},
    )
    seeds = [4, 5, 6]
    ear = train(config, seeds, networks=scaled(nets(config, seeds), lost, 60.0))
    alone = train(config, [seeds[lost]], networks=scaled(nets(config, [seeds[lost]]), 0, 60.0))
    assert_alone(ear, config, seeds, lost)
    assert ear.outcomes[lost].diverged == alone.outcomes[0].diverged
    assert ear.entries[lost] == alone.entries[0]


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adam", "adamw", "rmsprop_momentum"])
def test_the_state_of_the_others_stays_theirs(make_config: Any, optimizer: str, norm: str, lost: int) -> None:
    """Optimizer slots, buffers, gradients and the order of the batches are cut at the same places."""
    config = config_of(make_config, norm, optimizer, 37, steps=30, eval_every=6, clip_norm=0.5)
    seeds = [4, 5, 6]
    ear = train(config, seeds, poison=(lost, 10))
    diverged = ear.outcomes[lost].diverged
    assert diverged is not None
    assert (diverged.step, diverged.layer) == (10, 2)
    assert_alone(ear, config, seeds, lost)


def assert_alone(ear: Ear, config: ExperimentConfig, seeds: list[int], lost: int) -> None:
    """Assert that all runs but `lost` equal, bit for bit, those of a cohort without it."""
    others = [k for k in range(len(seeds)) if k != lost]
    without = train(config, [seeds[k] for k in others])
    diverged = ear.outcomes[lost].diverged
    assert diverged is not None
    assert ear.outcomes[lost].final is None
    assert 0 < diverged.step < 30, "in the middle, or this test says little"
    assert [k for _, k in ear.steps] == [3] * diverged.step + [2] * (30 - diverged.step)
    for position, k in enumerate(others):
        assert ear.outcomes[k].diverged is None
        assert ear.outcomes[k].final == without.outcomes[position].final
        assert same(ear.outcomes[k].parameters, without.outcomes[position].parameters)
        assert same(ear.outcomes[k].buffers, without.outcomes[position].buffers)
        assert ear.entries[k] == without.entries[position]
        assert ear.snapshots[k] == without.snapshots[position]


@pytest.mark.parametrize("updates_per_check", [2, 4, 16])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw", "rmsprop_momentum"])
@pytest.mark.parametrize("factor", [1.0, 60.0])
def test_losses_that_are_checked_late_change_nothing(
    make_config: Any, optimizer: str, factor: float, updates_per_check: int
) -> None:
    """A run with weights that are 60 times as large diverges in the middle, between two checks."""
    config = make_config(
        model={"depth": 6, "width": 24, "norm": "none" if factor > 1.0 else "batch"},
        train={"steps": 30, "batch_size": 50, "eval_every": 7, **OPTIMIZERS[optimizer]},
    )
    seeds = [4, 5, 6]
    at_once, late = (
        train(config, seeds, networks=scaled(nets(config, seeds), 1, factor), updates_per_check=n)
        for n in (1, updates_per_check)
    )
    assert late.steps == at_once.steps
    assert repr(late.entries) == repr(at_once.entries)
    assert repr(late.snapshots) == repr(at_once.snapshots)  # with values that are not numbers
    for run in range(3):
        assert late.outcomes[run].diverged == at_once.outcomes[run].diverged
        assert same(late.outcomes[run].parameters, at_once.outcomes[run].parameters)
        assert same(late.outcomes[run].buffers, at_once.outcomes[run].buffers)


def test_updates_without_a_check_do_not_wait_for_values(make_config: Any, monkeypatch: Any) -> None:
    """Reading a loss waits for a GPU; within a block, nothing reads one."""
    config = make_config(
        model={"depth": 3, "width": 8}, train={"steps": 8, "batch_size": 50, "eval_every": 8}
    )
    reads = []

    class Counted(Cohort):
        def gradients(self, x: Any, y: Any) -> Any:
            reads.append("update")
            return super().gradients(x, y)

    monkeypatch.setattr(loop, "Cohort", Counted)
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append("read") or original(tensor))
    train(config, [0, 1], updates_per_check=4)
    first = reads.index("update")
    assert reads[first : first + 10] == [*["update"] * 4, "read", *["update"] * 4, "read"]


def test_the_weights_of_a_diverged_run_are_those_before_the_lost_update(make_config: Any) -> None:
    """The loss of step n is not a number: n updates were made, and the state is theirs."""
    config = make_config(
        model={"depth": 6, "width": 24}, train={"steps": 30, "batch_size": 50, **OPTIMIZERS["momentum"]}
    )
    ear = train(config, [4], networks=scaled(nets(config, [4]), 0, 60.0))
    diverged = ear.outcomes[0].diverged
    assert diverged is not None
    assert ear.steps[-1] == (diverged.step, 1)
    last = ear.snapshots[0][-1]
    assert (last["when"], last["step"]) == ("end", diverged.step)
    weights = ear.outcomes[0].parameters
    bad = [name for name, w in weights.items() if not torch.isfinite(w).all()]
    first = min(int(name.split(".")[1]) + 1 for name in bad) if bad else diverged.layer
    assert diverged.layer == first


@pytest.mark.parametrize(
    ("name", "layer"), [("blocks.0.linear.weight", 1), ("blocks.1.linear.bias", 2), ("head.bias", 4)]
)
def test_the_first_layer_to_go_is_named(make_config: Any, name: str, layer: int) -> None:
    config = make_config(model={"depth": 4, "width": 8, "activation": "linear"})
    networks = nets(config, [0, 1])
    with torch.no_grad():
        networks[1].get_parameter(name).fill_(float("inf"))
    ear = train(config, [0, 1], networks=networks)
    diverged = ear.outcomes[1].diverged
    assert diverged is not None
    assert (diverged.step, diverged.layer) == (0, layer)
    assert ear.outcomes[0].diverged is None


def test_a_loss_lost_by_the_last_update_is_a_divergence_too(make_config: Any) -> None:
    config = make_config(model={"depth": 3, "width": 8}, train={"steps": 1, "batch_size": 50, "lr": 1e38})
    ear = train(config, [0])
    outcome = ear.outcomes[0]
    assert outcome.final is None
    assert outcome.diverged is not None
    assert outcome.diverged.step == 1
    assert ear.steps == [(1, 1)]


def test_all_runs_may_diverge(make_config: Any) -> None:
    config = make_config(
        model={"depth": 6, "width": 24}, train={"steps": 30, "batch_size": 50, **OPTIMIZERS["momentum"]}
    )
    networks = scaled(scaled(nets(config, [0, 1]), 0, 60.0), 1, 90.0)
    ear = train(config, [0, 1], networks=networks)
    assert sorted(ear.outcomes) == [0, 1]
    assert all(outcome.final is None for outcome in ear.outcomes.values())
    assert len(ear.steps) < 30


@pytest.mark.parametrize("limit", [1e-3, 0.7, 1.0, 50.0])
def test_each_run_is_clipped_as_torch_clips_it(limit: float) -> None:
    stream = torch.Generator().manual_seed(0)
    shapes, scales = [(4, 3), (4,), (2, 4, 1, 1)], torch.tensor([1e-4, 0.2, 1.0, 1e3])
    gradients = [
        torch.randn(4, *shape, generator=stream) * scales.view(-1, *[1] * len(shape)) for shape in shapes
    ]
    clipped = clip_per_run(gradients, limit)
    changed = []
    for run in range(4):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[run].clone()
        nn.utils.clip_grad_norm_(parameters, limit)
        for ours, parameter in zip(clipped, parameters, strict=True):
            torch.testing.assert_close(ours[run], parameter.grad, rtol=1e-6, atol=0)
        changed.append(not torch.equal(clipped[0][run], gradients[0][run]))
    assert changed[-1]
    assert not changed[0] or limit < 0.01, "a small gradient is left as it is"


def test_every_batch_of_a_cohort_is_its_own(make_config: Any) -> None:
    """Two runs of the same weights on different batches: each gets the gradient of its own batch."""
    config = config_of(make_config, "none", "sgd", 37)
    network = nets(config, [0])[0]
    cohort = Cohort([network, network], config.train, "vmap", CPU)
    data = bundle()
    x, y = data.train.take(torch.arange(100).view(2, 50))
    losses = cohort.gradients(x, y)
    for k in range(2):
        network.zero_grad()
        loss = nn.functional.cross_entropy(network(x[k]), y[k])
        loss.backward()
        assert losses[k].item() == pytest.approx(loss.item(), rel=1e-6)
        for name, parameter in network.named_parameters():
            stacked = cohort.parameters[name].grad
            assert isinstance(stacked, Tensor)
            torch.testing.assert_close(stacked[k], parameter.grad, rtol=1e-4, atol=1e-7)
