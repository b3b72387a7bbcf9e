"""Losses and scores against scikit-learn, NumPy and plain loops, stacked and alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

import initbench
from initbench.components.loss import LOSSES, fitting_losses, outputs_fit
from initbench.components.target import SampleShape, TargetKind
from initbench.config.schema import ExperimentConfig, TopK, TrainOptions
from initbench.data.preprocessing import Split
from initbench.errors import ConfigError
from initbench.models.build import build
from initbench.store.scores import TOP_K
from initbench.train.cohort import EVALUATION_CHUNK, Cohort, evaluation_chunk
from initbench.train.scores import scores_of

CPU = torch.device("cpu")
DIM, N = 6, EVALUATION_CHUNK + 77


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def indices(classes: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def zero_one(*shape: int, seed: int = 1) -> Tensor:
    return (drawn(*shape, seed=seed) > 0.3).float()


# name: (loss, options, outputs, targets, an independent computation in NumPy)
def log_softmax(z: np.ndarray, axis: int) -> np.ndarray:
    z = z - z.max(axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis, keepdims=True))


def cross_entropies(z: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    picked = np.take_along_axis(log_softmax(z.astype(np.float64), axis), np.expand_dims(y, axis), axis)
    return -picked.reshape(len(y), -1).mean(1)


def hubers(z: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    distance = np.abs(z.astype(np.float64) - y)
    each = np.where(distance < delta, distance**2 / 2.0, delta * (distance - delta / 2.0))
    return each.reshape(len(y), -1).mean(1)


def binary(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = 1.0 / (1.0 + np.exp(-z.astype(np.float64)))
    return -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).reshape(len(y), -1).mean(1)


CASES: dict[str, tuple[str, dict[str, Any], Tensor, Tensor, Any]] = {
    "classes": ("cross_entropy", {}, drawn(9, 5), indices(5, 9), lambda z, y: cross_entropies(z, y, 1)),
    "sequence": (
        "cross_entropy", {}, drawn(9, 4, 5), indices(5, 9, 4), lambda z, y: cross_entropies(z, y, 2)
    ),
    "dense": (
        "cross_entropy", {}, drawn(9, 5, 3, 4), indices(5, 9, 3, 4), lambda z, y: cross_entropies(z, y, 1)
    ),
    "mse": ("mse", {}, drawn(9, 3), drawn(9, 3, seed=2), lambda z, y: ((z - y) ** 2).mean(1)),
    "mse of one": ("mse", {}, drawn(9, 1), drawn(9, seed=2), lambda z, y: (z[:, 0] - y) ** 2),
    "huber": (
        "huber", {"delta": 0.7}, 2.0 * drawn(9, 3), drawn(9, 3, seed=2), lambda z, y: hubers(z, y, 0.7)
    ),
    "bce": ("bce", {}, drawn(9, 3), zero_one(9, 3), binary),
    "bce of masks": (
        "bce", {}, drawn(9, 1, 4, 5), zero_one(9, 4, 5), lambda z, y: binary(z[:, 0], y)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_loss_is_what_numpy_computes(case: str) -> None:
    name, options, outputs, targets, expected = CASES[case]
    loss = LOSSES[name]
    chosen = TrainOptions.model_validate({"loss": {"name": name, **options}, "steps": 1}).loss
    wanted = expected(outputs.numpy(), targets.numpy())
    assert loss.per_sample is not None
    each = loss.per_sample(outputs, targets, chosen)
    assert each.shape == (9,)
    assert each.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert float(loss.mean(outputs, targets, chosen)) == pytest.approx(wanted.mean(), rel=1e-5)


def test_kinds_of_targets_have_the_losses_that_fit() -> None:
    assert {kind.value: fitting_losses(kind) for kind in TargetKind} == {
        "classes": ["cross_entropy"],
        "sequence": ["cross_entropy"],
        "dense": ["cross_entropy"],
        "real": ["mse", "huber"],
        "labels": ["bce"],
    }


@pytest.mark.parametrize(
    ("outputs", "targets", "fits"),
    [
        ((4, 3), indices(3, 4), True),
        ((4, 5, 3), indices(3, 4, 5), True),
        ((4, 3, 5), indices(3, 4, 5), False),
        ((4, 3, 5, 6), indices(3, 4, 5, 6), True),
        ((4, 1), drawn(4), True),
        ((4, 2), drawn(4), False),
        ((4, 1, 5, 6), drawn(4, 5, 6), True),
        ((4, 3), indices(3, 4, 5), False),
    ],
)
def test_shapes_of_outputs(outputs: tuple[int, ...], targets: Tensor, fits: bool) -> None:
    assert outputs_fit(torch.zeros(outputs), targets) is fits


def the_scores(
    form: SampleShape, outputs: Tensor, targets: Tensor, top_k: Sequence[int] | None = None
) -> dict[str, float]:
    """Scores of all samples at once."""
    values = {}
    for score in scores_of(form, top_k):
        means = score.statistics(outputs, targets).double().reshape(len(targets), -1).mean(0)
        values[score.name] = score.value(means.tolist(), targets)
    return values


def test_scores_of_classes() -> None:
    outputs, y = drawn(200, 12), indices(12, 200)
    scores = the_scores(SampleShape((1,), 12), outputs, y)
    assert scores == {
        "accuracy": pytest.approx(sklearn_metrics.accuracy_score(y, outputs.argmax(1))),
        "top5_accuracy": pytest.approx(sklearn_metrics.top_k_accuracy_score(y, outputs, k=5)),
    }
    assert list(the_scores(SampleShape((1,), 10), drawn(20, 10), indices(10, 20))) == ["accuracy"]


@pytest.mark.parametrize("k", TOP_K)
def test_top_k_accuracies(k: int) -> None:
    outputs, y = drawn(200, 30), indices(30, 200)
    expected = pytest.approx(sklearn_metrics.top_k_accuracy_score(y, outputs, k=k))
    name = f"top{k}_accuracy"
    assert the_scores(SampleShape((1,), 30), outputs, y, [k])[name] == expected
    assert the_scores(SampleShape((1,), 30), outputs, y, [])["accuracy"] < expected.expected
    positions = SampleShape((1,), 30, TargetKind.SEQUENCE, (4,))
    assert the_scores(positions, outputs.reshape(50, 4, 30), y.reshape(50, 4), [k])[name] == expected
    pixels = SampleShape((1,), 30, TargetKind.DENSE, (2, 2))
    maps = outputs.reshape(50, 2, 2, 30).permute(0, 3, 1, 2)
    assert the_scores(pixels, maps, y.reshape(50, 2, 2), [k])[name] == expected
    broken = outputs.clone()
    broken[0, 0] = torch.nan
    assert math.isnan(the_scores(SampleShape((1,), 30), broken, y, [k])[name])


def test_the_config_chooses_top_k_accuracies(make_config: Callable[..., Any], tmp_path: Path) -> None:
    assert get_args(TopK) == TOP_K
    config = make_config(train={"steps": 4, "top_k": [3, 2, 3]}, seeds=1)
    assert config.train.top_k == [2, 3]
    (run,) = initbench.run(config, runs_dir=tmp_path, device="cpu")
    assert run.final is not None
    accuracies = [run.final[f"test_{name}"] for name in ("accuracy", "top2_accuracy", "top3_accuracy")]
    assert 0.0 < accuracies[0] < accuracies[1] < accuracies[2] < 1.0
    (record,) = initbench.compare("tiny", runs_dir=tmp_path).as_data()["tables"][0]["rows"]
    assert record["metrics"]["test_top3_accuracy"]["mean"] == accuracies[2]
    assert "test_top5_accuracy" not in record["metrics"]
    assert "test top-3 %" in str(initbench.compare("tiny", runs_dir=tmp_path))
    with pytest.raises(ConfigError, match=r"train\.top_k: all predictions are in the top 10 of 10 classes"):
        initbench.run(config, train__top_k=[10], runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"train\.top_k"):
        initbench.run(config, train__top_k=[4], runs_dir=tmp_path)


def test_scores_of_sequences() -> None:
    outputs, y = drawn(20, 7, 5), indices(5, 20, 7)
    flat = outputs.reshape(-1, 5), y.reshape(-1)
    probabilities = flat[0].double().softmax(1)
    scores = the_scores(SampleShape((7,), 5, TargetKind.SEQUENCE, (7,)), outputs, y)
    assert scores == {
        "accuracy": pytest.approx(sklearn_metrics.accuracy_score(flat[1], flat[0].argmax(1))),
        "perplexity": pytest.approx(math.exp(sklearn_metrics.log_loss(flat[1], probabilities)), rel=1e-5),
    }


def test_scores_of_dense_maps() -> None:
    outputs, y = drawn(8, 4, 5, 6), indices(4, 8, 5, 6)
    predicted = outputs.argmax(1).flatten()
    scores = the_scores(SampleShape((3, 5, 6), 4, TargetKind.DENSE, (5, 6)), outputs, y)
    assert scores == {
        "accuracy": pytest.approx(sklearn_metrics.accuracy_score(y.flatten(), predicted)),
        "mean_iou": pytest.approx(sklearn_metrics.jaccard_score(y.flatten(), predicted, average="macro")),
    }


@pytest.mark.parametrize("shape", [(), (3,)])
def test_scores_of_real_values(shape: tuple[int, ...]) -> None:
    y = drawn(60, *shape, seed=3)
    outputs = (y + 0.5 * drawn(60, *shape)).reshape(60, -1)
    scores = the_scores(SampleShape((1,), 3, TargetKind.REAL, shape), outputs, y)
    assert scores == {
        "r2": pytest.approx(sklearn_metrics.r2_score(y.reshape(60, -1), outputs)),
        "mse": pytest.approx(sklearn_metrics.mean_squared_error(y.reshape(60, -1), outputs)),
    }


def test_r2_of_images_pools_their_pixels() -> None:
    y = drawn(30, 4, 5, seed=3)
    outputs = (y + 0.5 * drawn(30, 4, 5))[:, None]
    scores = the_scores(SampleShape((1,), 1, TargetKind.REAL, (4, 5)), outputs, y)
    weighted = sklearn_metrics.r2_score(y.flatten(1), outputs.flatten(1), multioutput="variance_weighted")
    assert scores["r2"] == pytest.approx(weighted)


@pytest.mark.parametrize("shape", [(4,), (5, 6)])
def test_scores_of_labels_and_masks(shape: tuple[int, ...]) -> None:
    y = zero_one(40, *shape)
    outputs = drawn(40, *shape)
    actual, predicted = y.flatten().long(), (outputs.flatten() > 0).long()
    scores = the_scores(SampleShape((1,), 4, TargetKind.LABELS, shape), outputs, y)
    wanted = {
        "accuracy": pytest.approx(sklearn_metrics.accuracy_score(actual, predicted)),
        "f1": pytest.approx(sklearn_metrics.f1_score(actual, predicted)),
    }
    if len(shape) == 2:
        wanted["iou"] = pytest.approx(sklearn_metrics.jaccard_score(actual, predicted))
    assert scores == wanted


@pytest.mark.parametrize(
    "form",
    [
        SampleShape((1,), 12),
        SampleShape((1,), 3, TargetKind.REAL, (3,)),
        SampleShape((1,), 3, TargetKind.LABELS, (3,)),
        SampleShape((3,), 4, TargetKind.SEQUENCE, (3,)),
        SampleShape((1,), 4, TargetKind.DENSE, (3, 3)),
    ],
)
def test_outputs_that_are_not_finite_have_no_scores(form: SampleShape) -> None:
    positions = form.target_shape if form.target.is_class_index else ()
    shape = (5, *positions, form.outputs) if len(positions) < 2 else (5, form.outputs, *positions)
    y = indices(2, 5, *form.target_shape)
    outputs = drawn(*shape)
    outputs[2] = torch.nan
    values = the_scores(form, outputs, y if form.target.is_class_index else y.float())
    assert all(map(math.isnan, values.values())), values


REGRESSION = {"train": {"loss": "mse", "lr": 0.05, "batch_size": 16}}
TASKS: dict[str, tuple[dict[str, Any], TargetKind, Tensor]] = {
    "mse": ({"loss": "mse"}, TargetKind.REAL, drawn(N, 2, seed=5)),
    "mse of one": ({"loss": "mse"}, TargetKind.REAL, drawn(N, seed=5)),
    "huber": ({"loss": {"name": "huber", "delta": 0.5}}, TargetKind.REAL, drawn(N, 2, seed=5)),
    "bce": ({"loss": "bce"}, TargetKind.LABELS, zero_one(N, 3, seed=5)),
    "classes": ({"label_smoothing": 0.1}, TargetKind.CLASSES, indices(12, N)),
}


def the_cohort(train: dict[str, Any], form: SampleShape, seeds: list[int]) -> Cohort:
    config = ExperimentConfig.model_validate(
        {
            "name": "own",
            "data": {"name": "npz", "path": "x.npz"},
            "model": {"family": "mlp", "depth": 2, "width": 8, "norm": "batch"},
            "train": {"batch_size": 16, "steps": 3, "optimizer": {"name": "sgd", "momentum": 0.9}, **train},
        }
    )
    made = [
        build(config.model, config.init, form=SampleShape((DIM,), form.outputs), seed=s, batch=drawn(8, DIM))
        for s in seeds
    ]
    return Cohort(made, config.train, "vmap", CPU, form)


@pytest.mark.parametrize("task", TASKS)
def test_stacked_runs_have_the_numbers_of_single_ones(task: str) -> None:
    train, kind, y = TASKS[task]
    form = SampleShape((DIM,), kind.outputs(y.shape[1:], 12), kind, tuple(y.shape[1:]))
    split = Split(x=drawn(N, DIM, seed=9), y=y)
    three = the_cohort(train, form, [0, 1, 2])
    ones = [the_cohort(train, form, [seed]) for seed in range(3)]
    for step in range(3):
        rows = torch.arange(16) + 16 * step
        x, targets = (torch.stack([part[rows + k] for k in range(3)]) for part in (split.x, split.y))
        losses = three.gradients(x, targets)
        three.update(0.05)
        for k, one in enumerate(ones):
            assert torch.equal(one.gradients(x[k : k + 1], targets[k : k + 1])[0], losses[k])
            one.update(0.05)
    together = three.evaluate(split.x, split.y)
    for k, one in enumerate(ones):
        assert all(torch.equal(p[k], one.parameters[name][0]) for name, p in three.parameters.items())
        alone = one.evaluate(split.x, split.y)
        assert {name: values[k] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }
    assert set(together) == {"loss", *(score.name for score in scores_of(form))}


@pytest.mark.parametrize("task", TASKS)
def test_evaluations_in_chunks_are_those_of_the_whole_split(task: str) -> None:
    train, kind, y = TASKS[task]
    form = SampleShape((DIM,), kind.outputs(y.shape[1:], 12), kind, tuple(y.shape[1:]))
    cohort, x = the_cohort(train, form, [4]), drawn(N, DIM, seed=9)
    values = cohort.evaluate(x, y)
    parameters, buffers = cohort.run_state(0)
    with torch.no_grad():
        outputs = cohort.forward(parameters, buffers, x)
    for name, value in the_scores(form, outputs, y).items():
        assert values[name][0] == pytest.approx(value, rel=1e-5), name
    loss = LOSSES[cohort.options.loss.name]
    assert values["loss"][0] == pytest.approx(float(loss.mean(outputs, y, cohort.options.loss)), rel=1e-5)


def test_nets_with_outputs_for_positions_are_evaluated_in_smaller_chunks() -> None:
    assert evaluation_chunk(SampleShape((784,), 10)) == EVALUATION_CHUNK
    assert evaluation_chunk(SampleShape((1024,), 50_257, TargetKind.SEQUENCE, (1024,))) == 1
    assert evaluation_chunk(SampleShape((64,), 65, TargetKind.SEQUENCE, (64,))) == EVALUATION_CHUNK
    assert evaluation_chunk(SampleShape((3, 256, 256), 1, TargetKind.LABELS, (256, 256))) == 256
