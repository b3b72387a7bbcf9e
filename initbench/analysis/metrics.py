"""The metrics that runs are compared by. A metric is one number of a run, or None.

A metric belongs to one of two views, activation statistics or convergence. A missing number is None; it is
never filled in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from initbench.analysis.run_summary import RunSummary
from initbench.store.scores import MAIN_SCORES, SCORES, TOP_K
from initbench.store.summary_file import TRAIN

Value = Callable[[RunSummary, float | None], float | None]
"""Function of a run and the target accuracy that returns the metric, or None if the run has no value."""
View = Literal["activation", "convergence"]
Form = Literal["number", "percent", "loss", "count", "seconds"]

_PLACES: dict[str, Callable[[int], int]] = {
    "first": lambda _: 0,
    "middle": lambda layers: math.ceil(layers / 2) - 1,
    "last": lambda _: -1,
}
WHERE = tuple(_PLACES)
"""Names of the hidden layers 1, ⌈L/2⌉ and L."""


@dataclass(frozen=True)
class Metric:
    """A metric: one column of a comparison."""

    name: str
    meaning: str
    view: View
    value: Value
    form: Form = "number"
    better: Literal["higher", "lower"] | None = None
    log: bool = False
    """Whether its mean is geometric; its spread, interval and differences are then those of logarithms."""
    censored: bool = False
    """Whether a missing value makes the mean meaningless (steps to a target that some runs never reach)."""
    is_optional: bool = False
    """Whether documents leave the metric out if no run has a value of it."""
    has_shared_measurement: bool = False
    """Whether the runs of a cohort share one measurement, so their spread is not a spread over seeds."""


def _final_value(name: str) -> Value:
    return lambda run, _target: run.final.get(name) if run.is_finished else None


def _best_value(key: str) -> Value:
    def value(run: RunSummary, _target: float | None) -> float | None:
        scores = [score for _, score in run.curve(key)]
        numbers = [number for number in scores if number is not None and not math.isnan(number)]
        return max(numbers, default=None) if run.is_finished else None

    return value


def steps_to(run: RunSummary, target: float | None) -> float | None:
    """Return the first evaluated step with a validation accuracy, or R², of at least `target`.

    The result is None without a target, or if no evaluation reaches it.
    """
    if target is None:
        return None
    curve = run.curve(run.main_score)
    return next((step for step, score in curve if score is not None and score >= target), None)


def _seconds_to(run: RunSummary, target: float | None) -> float | None:
    steps = steps_to(run, target)
    if steps is None or run.seconds is None or not run.steps:
        return None
    return run.seconds * steps / run.steps


def _pretraining_value(what: str) -> Value:
    return lambda run, _target: run.pretraining.get(what)


def _total_seconds_to(run: RunSummary, target: float | None) -> float | None:
    seconds = _seconds_to(run, target)
    return None if seconds is None else seconds + run.pretraining.get("seconds", 0.0)


def _total_samples_to(run: RunSummary, target: float | None) -> float | None:
    steps = steps_to(run, target)
    if steps is None or run.batch_size is None:
        return None
    return steps * run.batch_size + run.pretraining.get("samples", 0.0)


def _area_under_curve(run: RunSummary, _target: float | None) -> float | None:
    """Return the mean validation accuracy, or R², over the budget, by the trapezoid rule."""
    points = run.curve(run.main_score)
    if not run.is_finished or len(points) < 2 or any(accuracy is None for _, accuracy in points):
        return None
    numbers = [(float(step or 0.0), float(accuracy or 0.0)) for step, accuracy in points]
    area = math.fsum((b - a) * (y + z) / 2.0 for (a, y), (b, z) in pairwise(numbers))
    return area / (numbers[-1][0] - numbers[0][0])


def _layer_value(statistic: str, moment: str, where: str) -> Value:
    index_in = _PLACES[where]

    def value(run: RunSummary, _target: float | None) -> float | None:
        hidden = run.hidden(moment)
        if not hidden or not run.is_complete:
            return None
        return hidden[index_in(len(hidden))][statistic]

    return value


def _initial_value(name: str) -> Value:
    return lambda run, _target: run.begin.get(name) if run.is_complete else None


def _first_evaluation_value(column: int) -> Value:
    """Return a metric that reads a column of the evaluation before the first update."""

    def value(run: RunSummary, _target: float | None) -> float | None:
        number = next((entry[column] for entry in run.evaluations if entry[0] == 0.0), None)
        return number if run.is_complete else None

    return value


def _mean_shift(statistic: str) -> Value:
    """Return a metric that averages a statistic over all hidden layers except the first.

    The input of the first hidden layer is the data, so no layer below it can shift.
    """

    def value(run: RunSummary, _target: float | None) -> float | None:
        values = [layer[statistic] for layer in run.hidden(TRAIN)[1:]]
        numbers = [number for number in values if number is not None]
        return math.fsum(numbers) / len(numbers) if numbers and run.is_complete else None

    return value


def _gradient_ratio(moment: str) -> Value:
    def value(run: RunSummary, _target: float | None) -> float | None:
        hidden = run.hidden(moment)
        if not hidden or not run.is_complete:
            return None
        first, last = hidden[0]["delta_q"], hidden[-1]["delta_q"]
        return None if first is None or not last else first / last

    return value


_STATISTICS: dict[str, tuple[str, Form]] = {
    "act_std": ("standard deviation of the activations", "number"),
    "act_mean": ("mean of the activations", "number"),
    "zero_fraction": ("share of activations that are exactly 0", "percent"),
    "dead_fraction": ("share of units that are 0 on the whole probe batch", "percent"),
    "saturated_fraction": ("share of activations on the flat part of a bounded activation", "percent"),
    "effective_rank": ("exp of the entropy of the covariance's eigenvalues", "number"),
}


_SHIFTS = {
    "gradient_shift": (
        "gradient_shift",
        "‖G′ − G‖/‖G‖, G′ being the gradient once the layers below have been updated",
    ),
    "gradient_shift_cosine": ("gradient_shift_cosine", "cosine of G and G′"),
    "input_drift": ("input_mean_drift", "drift of the inputs' means in standard deviations"),
}
_NORM_KINDS = {
    "_batch": "with each batch's own statistics",
    "_population": "with recomputed population statistics",
}


def _norm_metrics() -> Iterator[Metric]:
    """Yield the metrics of nets with batch norm: evaluations with batch and with population statistics.

    The other metrics are evaluated with running statistics.
    """
    for kind, how in _NORM_KINDS.items():
        for moment, when, read in (
            ("init", "at init", _initial_value),
            ("final", "after the last step", _final_value),
        ):
            accuracy, loss, words = f"val_accuracy{kind}", f"val_loss{kind}", f"{when}, {how}"
            meaning = f"validation accuracy {words}"
            name = f"{moment}_{accuracy}"
            yield Metric(name, meaning, "convergence", read(accuracy), "percent", "higher")
            meaning = f"validation loss {words}"
            yield Metric(f"{moment}_{loss}", meaning, "convergence", read(loss), "loss", "lower")


def _activation_metrics() -> Iterator[Metric]:
    moments = {"init": "at init", "end": "at the end"}
    for moment, when in moments.items():
        for statistic, (meaning, form) in _STATISTICS.items():
            for where in WHERE:
                name = f"{statistic}_{moment}_{where}"
                words = f"{meaning}, {when}, {where} hidden layer"
                yield Metric(name, words, "activation", _layer_value(statistic, moment, where), form)
        ratio = f"E[δ²] of the first hidden layer over that of the last, {when}"
        yield Metric(f"grad_ratio_{moment}", ratio, "activation", _gradient_ratio(moment), log=True)
    for name, (statistic, meaning) in _SHIFTS.items():
        words = f"{meaning}, mean over hidden layers except the first and over the measured updates"
        yield Metric(name, words, "activation", _mean_shift(statistic))


_CONVERGENCE = (
    Metric(
        "best_val_accuracy",
        "best validation accuracy",
        "convergence",
        _best_value("val_accuracy"),
        "percent",
        "higher",
    ),
    Metric(
        "final_val_accuracy",
        "validation accuracy after the last step",
        "convergence",
        _final_value("val_accuracy"),
        "percent",
        "higher",
    ),
    Metric(
        "test_accuracy", "test accuracy", "convergence", _final_value("test_accuracy"), "percent", "higher"
    ),
    Metric(
        "init_train_loss", "training loss at init", "convergence", _first_evaluation_value(1), "loss", "lower"
    ),
    Metric(
        "init_val_loss", "validation loss at init", "convergence", _first_evaluation_value(2), "loss", "lower"
    ),
    Metric(
        "init_val_accuracy",
        "validation accuracy at init",
        "convergence",
        _first_evaluation_value(3),
        "percent",
        "higher",
    ),
    Metric(
        "final_train_loss",
        "training loss after the last step",
        "convergence",
        _final_value("train_loss"),
        "loss",
        "lower",
    ),
    Metric(
        "final_val_loss",
        "validation loss after the last step",
        "convergence",
        _final_value("val_loss"),
        "loss",
        "lower",
    ),
    Metric(
        "steps_to_target",
        "updates to the target accuracy",
        "convergence",
        steps_to,
        "count",
        "lower",
        censored=True,
    ),
    Metric(
        "seconds_to_target",
        "training seconds to the target accuracy",
        "convergence",
        _seconds_to,
        "seconds",
        "lower",
        censored=True,
        has_shared_measurement=True,
    ),
    Metric(
        "pretrain_seconds",
        "seconds of layer-wise pre-training",
        "convergence",
        _pretraining_value("seconds"),
        "seconds",
        "lower",
        has_shared_measurement=True,
    ),
    Metric(
        "pretrain_samples",
        "training samples of layer-wise pre-training, over all layers",
        "convergence",
        _pretraining_value("samples"),
        "count",
        "lower",
    ),
    Metric(
        "total_seconds_to_target",
        "seconds to the target accuracy, including pre-training",
        "convergence",
        _total_seconds_to,
        "seconds",
        "lower",
        censored=True,
        has_shared_measurement=True,
    ),
    Metric(
        "total_samples_to_target",
        "training samples to the target accuracy, including pre-training",
        "convergence",
        _total_samples_to,
        "count",
        "lower",
        censored=True,
    ),
    Metric(
        "area_under_curve",
        "mean validation accuracy over the budget",
        "convergence",
        _area_under_curve,
        "percent",
        "higher",
    ),
)


def _score_metrics() -> Iterator[Metric]:
    """Yield the metrics of targets other than one of at most ten classes a sample."""
    for score in SCORES:
        if score.name == "accuracy":  # in _CONVERGENCE
            continue
        val, test, shape = f"val_{score.name}", f"test_{score.name}", (score.form, score.better)
        if score.name in MAIN_SCORES:
            meaning = f"best {score.meaning} on the validation split"
            best = _best_value(val)
            yield Metric(f"best_{val}", meaning, "convergence", best, *shape, is_optional=True)
        meaning = f"{score.meaning}, on the validation split after the last step"
        yield Metric(f"final_{val}", meaning, "convergence", _final_value(val), *shape, is_optional=True)
        meaning = f"{score.meaning}, on the test split"
        yield Metric(test, meaning, "convergence", _final_value(test), *shape, is_optional=True)
    loss = _final_value("test_loss")
    yield Metric("test_loss", "test loss", "convergence", loss, "loss", "lower", is_optional=True)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*_activation_metrics(), *_CONVERGENCE, *_norm_metrics(), *_score_metrics())
}

HEADINGS = {
    "best_val_accuracy": "best val %",
    "final_val_accuracy": "final val %",
    "test_accuracy": "test %",
    "final_val_accuracy_batch": "val %, batch statistics",
    "final_val_accuracy_population": "val %, population statistics",
    "best_val_r2": "best val R²",
    "final_val_r2": "final val R²",
    "test_r2": "test R²",
    "test_mse": "test mse",
    "test_loss": "test loss",
    "test_perplexity": "test perplexity",
    **{f"test_top{k}_accuracy": f"test top-{k} %" for k in TOP_K},
    "test_mean_iou": "test mean IoU %",
    "test_iou": "test IoU %",
    "test_f1": "test F1 %",
    "final_train_loss": "train loss",
    "final_val_loss": "val loss",
    "area_under_curve": "area under curve %",
    "pretrain_seconds": "pre-training s",
    "pretrain_samples": "pre-training samples",
    "grad_ratio_init": "E[δ²] first/last",
    "grad_ratio_end": "E[δ²] first/last, end",
}
"""Headings of columns that differ from the name of the metric."""
_SPELLINGS = {
    "final_val_accuracy": ("val %", "val acc", "val accuracy", "final val acc", "validation accuracy"),
    "best_val_accuracy": ("best val acc", "best accuracy"),
    "test_accuracy": ("test acc", "final test accuracy"),
    "final_val_loss": ("validation loss",),
    "final_train_loss": ("training loss",),
    "area_under_curve": ("auc",),
}
"""Accepted alternative names, each of a single metric."""


def resolve_metric_name(name: str) -> str | None:
    """Return the metric with this name, table heading or alternative name; None if there is none.

    Case, spaces and punctuation do not matter; `steps to 86.7 %` is the heading of steps_to_target.
    """
    return (
        name if name in METRICS else _names_by_spelling().get(_normalise_name(_GOAL.sub("to target", name)))
    )


_GOAL = re.compile(r"\bto\s+\d+(?:\.\d+)?\s*%?\s*$")


def _normalise_name(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


@cache
def _names_by_spelling() -> dict[str, str]:
    spellings = {_normalise_name(name): name for name in METRICS}
    for table in (HEADINGS, *({name: other} for name, others in _SPELLINGS.items() for other in others)):
        for name, heading in table.items():
            spellings.setdefault(_normalise_name(heading), name)
    return spellings
