"""The search of `initbench bisect`, on runs whose results follow a rule instead of training."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.config.loading import load_mapping
from initbench.config.schema import ExperimentConfig
from initbench.config.study import SkippedVariant, Variant
from initbench.errors import UsageError
from initbench.render.bisection import bisection_document, verdict_lines
from initbench.study import bisection
from initbench.study.bisection import (
    Bisection,
    Outcome,
    PointState,
    SearchLimits,
    bisection_metric,
    first_points,
    make_study,
    run_score,
)
from initbench.study.config_lattice import HEALTHY, SICK, ConfigLattice, find_changes
from initbench.study.run_study import StudyResult, VariantResult
from tests.analysis.stored_runs import stored

SEEDS = 5
KEYS = ["train.lr", "train.weight_decay", "train.clip_norm", "train.warmup_steps"]
MORE_KEYS = [*KEYS, "model.depth", "model.width", "init.gain", "data.val_fraction"]
VALUES = {
    "train.lr": 0.5,
    "train.weight_decay": 0.1,
    "train.clip_norm": 1.0,
    "train.warmup_steps": 7,
    "model.depth": 9,
    "model.width": 32,
    "init.gain": 3.0,
    "data.val_fraction": 0.2,
}
Rule = Callable[[set[str]], bool | None]
"""Function that returns whether a config with these keys of the sick one is sick; None if it is between."""


def experiment(*overrides: str, **keys: Any) -> ExperimentConfig:
    data = {
        "kind": "experiment",
        "name": "x",
        "data": {"name": "digits"},
        "model": {"family": "mlp"},
        **keys,
    }
    return load_mapping(data, overrides, ExperimentConfig)


def lattice(keys: list[str]) -> ConfigLattice:
    sick = experiment(*(f"{key}={VALUES[key]}" for key in keys), name="y")
    return ConfigLattice(experiment(), sick, range(SEEDS))


class Laboratory:
    """Runs whose accuracy follows a rule, in place of training and the store."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rule: Rule, *, noise: float = 0.02, diverges: bool = False
    ) -> None:
        self.rule, self.noise, self.diverges = rule, noise, diverges
        self.trained: list[str] = []
        self.lost = 0
        monkeypatch.setattr(bisection, "run_study", self.train)
        monkeypatch.setattr(bisection, "load_stored_study", self.load)

    def train(self, study: Any, *_: object) -> None:
        self.trained += [variant.label for variant in study.variants]

    def load(self, study: Any, *_: object) -> StudyResult[Any]:
        summaries: dict[str, RunSummary] = {}
        results = []
        for variant in study.variants:
            runs = [self.run(variant, seed) for seed in range(SEEDS)]
            ids = tuple(run.run_id for run in runs)
            summaries |= {run.run_id: run for run in runs[: len(runs) - self.lost]}
            results.append(VariantResult(variant, variant.config, ids))
        return StudyResult(study, tuple(results), summaries, None)  # type: ignore[arg-type]

    def run(self, variant: Variant, seed: int) -> RunSummary:
        verdict = self.rule(set(variant.keys))
        mean = 0.5 if verdict is None else 0.15 if verdict else 0.85
        value = random.Random(f"{variant.label} {seed}").gauss(mean, self.noise)
        status = "diverged" if verdict and self.diverges else "finished"
        return stored(variant.label, seed, test=value, status=status)

    def search(self, keys: list[str], max_runs: int = 1000) -> Bisection:
        limits = SearchLimits(None, max_runs)
        found = bisection.bisect(lattice(keys), None, None, limits, lambda _: None)  # type: ignore[arg-type]
        bisection_document(found)
        return found


def keys_of(found: Bisection, sets: list[frozenset[int]]) -> list[set[str]]:
    return [{found.lattice.changes[number].key for number in changes} for changes in sets]


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS[:2], KEYS, MORE_KEYS])
def test_one_key_is_found(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    laboratory = Laboratory(monkeypatch, lambda sick: "train.lr" in sick)
    found = laboratory.search(keys)
    assert found.outcome is Outcome.FOUND
    assert keys_of(found, found.breaking) == keys_of(found, found.curing) == [{"train.lr"}]
    count = 2 ** len(keys) if len(keys) <= 4 else 2 + 2 * len(keys)
    assert len(laboratory.trained) == len(set(laboratory.trained)) == count
    assert "train.lr" in next(verdict_lines(found)) and "makes the difference" in next(verdict_lines(found))


@pytest.mark.parametrize("keys", [KEYS, MORE_KEYS])
def test_two_keys_that_break_only_together_are_found(
    monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    pair = {"train.lr", "train.clip_norm"}
    found = Laboratory(monkeypatch, lambda sick: pair <= sick).search(keys)
    assert keys_of(found, found.breaking) == [pair]
    assert keys_of(found, found.curing) == [{"train.lr"}, {"train.clip_norm"}] or keys_of(
        found, found.curing
    ) == [{"train.clip_norm"}, {"train.lr"}]
    assert "make the healthy config sick together, and no part of them does" in next(verdict_lines(found))
    if keys is MORE_KEYS:
        assert len(found.points) == 2 + 2 * 8 + 1, "the two keys that are needed are tried at once"


def test_either_of_two_keys_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    either = {"train.lr", "train.clip_norm"}
    found = Laboratory(monkeypatch, lambda sick: bool(either & sick)).search(KEYS)
    assert keys_of(found, found.breaking) == [{"train.lr"}, {"train.clip_norm"}] or keys_of(
        found, found.breaking
    ) == [{"train.clip_norm"}, {"train.lr"}]
    assert keys_of(found, found.curing) == [either]
    assert next(verdict_lines(found)).startswith("Each of train.")


def test_three_needed_keys_of_eight_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    three = {"train.lr", "model.width", "init.gain"}
    found = Laboratory(monkeypatch, lambda sick: three <= sick).search(MORE_KEYS)
    assert keys_of(found, found.breaking) == [three]


def test_two_pairs_of_eight_keys_are_reduced_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key breaks or cures alone, so only delta debugging finds a cause."""
    pairs = [{"train.lr", "model.width"}, {"train.clip_norm", "init.gain"}]
    found = Laboratory(monkeypatch, lambda sick: any(pair <= sick for pair in pairs)).search(MORE_KEYS)
    assert found.outcome is Outcome.FOUND and len(found.breaking) == 1
    assert keys_of(found, found.breaking)[0] in pairs
    assert len(found.points) < 50


def test_a_difference_that_seeds_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = Laboratory(monkeypatch, lambda sick: "train.lr" in sick, noise=3.0)
    found = laboratory.search(MORE_KEYS)
    assert found.outcome is Outcome.NO_DIFFERENCE and len(laboratory.trained) == 2
    assert "No difference is shown" in next(verdict_lines(found))


def test_points_in_the_middle_are_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Laboratory(monkeypatch, lambda sick: None if len(sick) == 1 else len(sick) == 2).search(KEYS[1:3])
    assert found.outcome is Outcome.UNDECIDED and not found.breaking and not found.curing
    *_, last = verdict_lines(found)
    assert "more seeds may tell (--seeds): healthy + train.weight_decay=0.1; healthy + train.clip" in last


def test_diverged_runs_count_as_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Laboratory(monkeypatch, lambda sick: "train.lr" in sick, diverges=True).search(KEYS[:2])
    assert keys_of(found, found.breaking) == [{"train.lr"}]
    sick = found.judged[found.lattice.everything]
    assert sick.diverged == SEEDS and sick.scores.mean == pytest.approx(0.1)


def test_the_better_config_must_be_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="name the healthy config first"):
        Laboratory(monkeypatch, lambda sick: not sick).search(KEYS)


def test_the_number_of_runs_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = Laboratory(monkeypatch, lambda sick: "train.lr" in sick)
    found = laboratory.search(MORE_KEYS, max_runs=50)
    assert found.outcome is Outcome.UNDECIDED and len(laboratory.trained) == 2
    assert "needs 90 runs in total, more than --max-runs 50" in [*verdict_lines(found)][-1]


def test_unfinished_runs_stop_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = Laboratory(monkeypatch, lambda sick: "train.lr" in sick)
    laboratory.lost = 1
    found = laboratory.search(MORE_KEYS)
    assert len(laboratory.trained) == 2 and "run the same command again" in found.stopped


def test_effects_are_those_of_a_factorial_design(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {"train.lr", "train.weight_decay"}
    found = Laboratory(monkeypatch, lambda sick: pair <= sick).search(KEYS[:3])
    by_keys = {tuple(sorted(keys_of(found, [effect.changes])[0])): effect for effect in found.effects}
    assert len(by_keys) == 6
    scores = {point: np.array([*found._scores(point).values()]) for point in found.points}
    lr, decay = (
        next(i for i, change in enumerate(found.lattice.changes) if change.key == key)
        for key in ("train.lr", "train.weight_decay")
    )
    with_lr = np.mean([values for point, values in scores.items() if lr in point], axis=0)
    without_lr = np.mean([values for point, values in scores.items() if lr not in point], axis=0)
    effect = by_keys["train.lr",].test
    assert effect.difference == pytest.approx((with_lr - without_lr).mean())
    assert effect.p == pytest.approx(stats.ttest_1samp(with_lr - without_lr, 0.0).pvalue)
    both = [
        np.mean([v for point, v in scores.items() if (lr in point, decay in point) == signs], axis=0)
        for signs in ((True, True), (True, False), (False, True), (False, False))
    ]
    interaction = by_keys["train.lr", "train.weight_decay"].test
    assert interaction.difference == pytest.approx((both[0] - both[1] - both[2] + both[3]).mean())
    assert interaction.difference == pytest.approx(-0.7, abs=0.05)
    clip = by_keys["train.clip_norm",]
    assert clip.p is not None and clip.p > 0.05
    assert not Laboratory(monkeypatch, lambda sick: pair <= sick).search(MORE_KEYS).effects


def test_states_follow_the_test_against_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Laboratory(monkeypatch, lambda sick: "train.lr" in sick).search(KEYS[:2])
    ends = [np.array([*found._scores(point).values()]) for point in (frozenset(), found.lattice.everything)]
    for point, judged in found.judged.items():
        values = np.array([*found._scores(point).values()])
        p = stats.ttest_rel(values, (ends[0] + ends[1]) / 2.0).pvalue
        assert judged.test.p == pytest.approx(p)
        assert judged.p is not None and p <= judged.p * (1.0 + 1e-9) <= 2.0 * p * (1.0 + 1e-6)
        assert (judged.state is PointState.SICK) == (values.mean() < 0.5)


def test_metrics_that_fit() -> None:
    assert bisection_metric("test_loss").better == "lower"
    with pytest.raises(UsageError, match="did you mean 'test_accuracy'"):
        bisection_metric("test_acuracy")
    with pytest.raises(UsageError, match="choose a score or a loss"):
        bisection_metric("steps_to_target")
    diverged = stored("x", 0, accuracies=(0.125, 0.5), status="diverged")
    for name, expected in (
        ("test_accuracy", 0.125),
        ("best_val_accuracy", 0.125),
        ("final_train_loss", 0.875),
        ("final_val_loss", 0.875),
        ("test_r2", None),
    ):
        assert run_score(diverged, METRICS[name]) == expected
    assert run_score(stored("x", 0, test=0.6), METRICS["test_accuracy"]) == 0.6


def changed(healthy: ExperimentConfig, sick: ExperimentConfig) -> list[tuple[str, str]]:
    changes = find_changes(healthy.resolved(), sick.resolved())
    return [(change.text(HEALTHY), change.text(SICK)) for change in changes]


def test_a_component_is_one_change_with_its_options() -> None:
    assert changed(experiment(), experiment("model.norm=group", "init.scheme=orthogonal")) == [
        ("model.norm=none", "model.norm=group"),
        ("init.scheme=kaiming_normal", "init.scheme=orthogonal"),
    ]
    few, many = ("{name: group, num_groups: 4}", "{name: group, num_groups: 8}")
    assert changed(experiment(f"model.norm={few}"), experiment(f"model.norm={many}")) == [
        ("model.norm.num_groups=4", "model.norm.num_groups=8")
    ]


def test_keys_that_change_together() -> None:
    steps, epochs = experiment("train.steps=5"), experiment("train.epochs=2")
    assert changed(steps, epochs) == [("train.steps=5", "train.epochs=2.0")]
    found = find_changes(experiment().resolved(), experiment("model.family=resnet_mlp").resolved())
    families = [change for change in found if change.key == "model.family"]
    assert len(families) == 1 and all(key.startswith("model.") for key in families[0].healthy)


def test_keys_without_an_effect_are_no_changes() -> None:
    other = experiment("notes=n", "seeds=9", "probe.bins=4", "data.fallback=digits", name="other")
    assert changed(experiment(), other) == []
    with pytest.raises(UsageError, match="x and other are the same experiment"):
        ConfigLattice(experiment(), other, range(3))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.name=mnist", "data.name=digits and data.name=mnist"),
        ("data.classes=[1, 2]", "data.classes=null"),
    ],
)
def test_configs_of_different_tasks_are_refused(override: str, words: str) -> None:
    with pytest.raises(UsageError, match="different data") as error:
        ConfigLattice(experiment(), experiment(override), range(3))
    assert words in str(error.value)


def test_points_are_the_configs_in_between() -> None:
    found = lattice(KEYS)
    assert len(first_points(found)) == 16 and len(first_points(lattice(MORE_KEYS))) == 18
    study = make_study(found, first_points(found))
    labels = [variant.label for variant in study.variants]
    assert labels[0] == "healthy" and labels[-1] == "sick" and len(set(labels)) == 16
    assert "healthy + train.lr=0.5" in labels and "sick + train.lr=0.01" in labels
    configs = {variant.label: variant.config for variant in study.variants}
    assert configs["healthy + train.lr=0.5"].train.lr == 0.5
    assert configs["healthy + train.lr=0.5"].train.weight_decay == 0.0
    assert configs["sick + train.lr=0.01"].train.lr == 0.01
    assert configs["sick + train.lr=0.01"].train.clip_norm == 1.0
    assert {config.seed_list for config in configs.values()} == {tuple(range(SEEDS))}
    names = [config.name for config in configs.values()]
    assert names[0] == "x" and names[-1] == "y" and len(set(names)) == 16, "stored runs of the ends are used"


def test_a_point_that_cannot_be_built_is_skipped() -> None:
    sick = experiment("model.norm=cosine", "init.scheme=kaiming_normal", name="y")
    found = ConfigLattice(experiment("init.scheme=lsuv"), sick, range(2))
    number = next(i for i, change in enumerate(found.changes) if change.key == "model.norm")
    skipped = found.variant(frozenset({number}))
    assert isinstance(skipped, SkippedVariant) and skipped.label == "healthy + model.norm=cosine"
    (fault,) = skipped.faults
    assert "rescales weights" in str(fault)
    assert len(make_study(found, first_points(found)).variants) == 3
