"""Shards: every run in one of them, the same on every machine, and alike in cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initbench.config.study import Study, Sweep, SweepConfig, Variant
from initbench.errors import UsageError
from initbench.runner.batching import program_key
from initbench.runner.cost_model import measurement_cost, training_cost
from initbench.study.sharding import Shard, select_shard

Make = Callable[..., Any]
CONFIG = SweepConfig(kind="sweep", name="s", base={})


@pytest.fixture
def sweep_of(make_config: Make) -> Callable[[random.Random], tuple[Sweep, dict[str, float]]]:
    """A sweep with a few points of random cost and random seeds."""

    def made(draw: random.Random, tuned: int = 0) -> tuple[Sweep, dict[str, float]]:
        points, costs = [], {}
        for i in range(draw.randint(1, 8)):
            label = f"p{i}"
            config = make_config(name=f"s.{label}", seeds=draw.randint(1, 9))
            candidates = [config.model_copy(update={"name": f"s.{label}.tune"})] * tuned
            points.append(Variant(label, config, {"model.depth": i}, tuple(candidates)))
            costs[f"s.{label}"] = costs[f"s.{label}.tune"] = draw.choice([1.0, 2.0, 50.0])
        return Study(CONFIG, tuple(points)), costs

    return made


def runs(sweep: Sweep) -> list[tuple[str, int]]:
    return [(point.label, seed) for point in sweep.variants for seed in point.config.seed_list]


@pytest.mark.parametrize("seed", range(40))
def test_shards_are_disjoint_complete_and_balanced(sweep_of: Make, seed: int):
    draw = random.Random(seed)
    sweep, costs = sweep_of(draw)
    count = draw.randint(1, 12)
    shards = [select_shard(sweep, Shard(i, count), lambda c: costs[c.name]) for i in range(1, count + 1)]
    together = [run for shard in shards for run in runs(shard)]
    assert sorted(together) == sorted(runs(sweep)) and len(set(together)) == len(together)
    loads = [sum(costs[f"s.{label}"] for label, _ in runs(shard)) for shard in shards]
    most = max(costs[f"s.{label}"] for label, _ in runs(sweep))
    assert all(abs(load - sum(loads) / count) <= most + 1e-9 for load in loads)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_points_does_not_matter(sweep_of: Make, seed: int):
    draw = random.Random(seed)
    sweep, costs = sweep_of(draw)
    other = sweep.part(tuple(draw.sample(sweep.variants, len(sweep.variants))))
    for i in (1, 2, 3):
        one, two = (select_shard(which, Shard(i, 3), lambda c: costs[c.name]) for which in (sweep, other))
        assert sorted(runs(one)) == sorted(runs(two))


@pytest.mark.parametrize("seed", range(10))
def test_a_tuned_point_is_never_cut(sweep_of: Make, seed: int):
    sweep, costs = sweep_of(random.Random(seed), tuned=2)
    found = [p for i in (1, 2, 3) for p in select_shard(sweep, Shard(i, 3), lambda c: costs[c.name]).variants]
    assert sorted(found, key=lambda point: point.label) == list(sweep.variants)


def test_seeds_of_a_point_stay_together_where_they_can(make_config: Make):
    points = [Variant(f"p{i}", make_config(name=f"s.p{i}", seeds=4)) for i in range(4)]
    for i in range(4):
        (found,) = select_shard(Study(CONFIG, tuple(points)), Shard(i + 1, 4), lambda _: 1.0).variants
        assert found.config.seed_list == (0, 1, 2, 3)


def test_runs_of_one_cohort_stay_together_where_they_can(make_config: Make):
    """Points that differ in their init alone are trained as one, whatever they are called."""
    points = [
        Variant(
            f"{scheme}_lr{lr}",
            make_config(name=scheme, seeds=2, init={"scheme": scheme}, train={"lr": lr}),
        )
        for scheme in ("lsuv", "orthogonal")
        for lr in (0.1, 0.2)
    ]
    for i in (1, 2):
        found = select_shard(Study(CONFIG, tuple(points)), Shard(i, 2), lambda _: 1.0).variants
        assert len({program_key(point.config) for point in found}) == 1 and len(found) == 2


def test_what_costs_more_costs_more(make_config: Make):
    base = training_cost(make_config())
    assert training_cost(make_config(train={"steps": 40})) == 2 * base
    assert training_cost(make_config(model={"depth": 6})) > 1.5 * base
    assert training_cost(make_config(model={"width": 512})) > 3 * base
    cnn = {"family": "cnn", "depth": 4, "width": 8, "stages": 1}
    assert training_cost(make_config(model=cnn, data={"resize": 16})) > 1.5 * training_cost(
        make_config(model=cnn)
    )


@pytest.mark.parametrize(
    "model",
    [
        {"family": "mlp", "depth": 3},
        {"family": "cnn", "depth": 4, "width": 8, "stages": 1},
        {"family": "resnet"},
        {"family": "torchvision", "model": "resnet18"},
        {"family": "torchvision", "model": "vgg11"},
    ],
    ids=str,
)
def test_data_of_unknown_form_count_as_small_images(make_config: Make, model: dict[str, Any]):
    known, unknown = ({"name": "cifar10"}, {"name": "npz", "path": "some.npz"})
    config = make_config(model=model, data=known)
    assert training_cost(config) == training_cost(make_config(model=model, data=unknown)) > 1e6


def test_dense_work_is_counted_exactly(make_config: Make):
    config = make_config(model={"depth": 2, "width": 10}, train={"steps": 7, "batch_size": 5})
    assert training_cost(config) == 7 * (3 * 5 * (64 * 10 + 10 * 10) + 2 * 2_000_000)


@pytest.mark.parametrize("text", ["2", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/2/3", ""])
def test_a_shard_is_one_of_several(text: str):
    with pytest.raises(UsageError, match="--shard 2/8"):
        Shard.parse(text)
    assert Shard.parse("2/8") == Shard(2, 8)


def test_evaluations_and_probes_are_reckoned_too(make_config: Make):
    data: Any = SimpleNamespace(train=range(300), val=range(70), test=range(50))
    train = {"steps": 20, "batch_size": 32, "eval_every": 10}
    evaluated, probed = (3 * (300 + 70) + 50) / 3, 2.5 * 64
    for when, probes in ((["init"], 2.7), (["train", "end"], 3.7), (["init", "train", "end"], 6.4), ([], 0)):
        config = make_config(train=train, probe={"when": when})
        assert measurement_cost(config, data, 20) == pytest.approx((evaluated + probes * probed) / 32)
