"""What run.json and the lines of a run must hold for those who read them, checked once, on reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from initbench.store.strictjson import number_or_none

Check = Callable[[Any, str], Iterator[str]]
"""Takes a value and the path to it, and says of each thing wrong where it is."""


def mapping(**keys: Check) -> Check:
    """A mapping that has at least these keys."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is missing, and what is wrong with what is there."""
        if not isinstance(value, dict):
            yield f"{path or 'the whole'} is no mapping"
            return
        for key, inner in keys.items():
            if inner is numeric and type(value.get(key)) is float:
                continue  # it is most of what there is, and a generator for each takes a third of the time
            place = f"{path}.{key}" if path else key
            if key in value:
                yield from inner(value[key], place)
            else:
                yield f"{place} is missing"

    return check


def with_maybe(inner: Check, **keys: Check) -> Check:
    """What `inner` asks for, and these keys where they are there at all."""

    def check(value: Any, path: str) -> Iterator[str]:
        yield from inner(value, path)
        if isinstance(value, dict):
            for key in keys.keys() & value.keys():
                yield from keys[key](value[key], f"{path}.{key}")

    return check


def listing(item: Check) -> Check:
    """A list of such items."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for i, inner in enumerate(value):
            yield from item(inner, f"{path}[{i}]")

    return check


def optional(inner: Check) -> Check:
    """Null, or such a value."""

    def check(value: Any, path: str) -> Iterator[str]:
        if value is not None:
            yield from inner(value, path)

    return check


def numeric(value: Any, path: str) -> Iterator[str]:
    """A number as `strictjson` writes it, or null."""
    try:
        number_or_none(value)
    except ValueError:
        yield f"{path} is no number"


def _numbers(value: Any, path: str) -> Iterator[str]:
    """A list of finite numbers; a run has thousands of them, so they are not looked at one by one."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        yield f"{path} is no list of numbers"


def _is_a(kind: type, words: str) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, kind) or isinstance(value, bool):
            yield f"{path} is no {words}"

    return check


_text, _count = _is_a(str, "text"), _is_a(int, "whole number")


def _truth(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} is neither true nor false"


def _choice(value: Any, path: str) -> Iterator[str]:
    """A component: its name, or a mapping with its name and options."""
    if not isinstance(value, str):
        yield from mapping(name=_text)(value, path)


_BY_NORMS = {
    f"val_{what}_{kind}": numeric for what in ("loss", "accuracy") for kind in ("batch", "population")
}
"""What is evaluated with other statistics of batch norm than the running ones."""
_PRETRAINED_LAYER = mapping(layer=_count, loss_start=numeric, loss_end=numeric)
_PRETRAINING = mapping(layers=listing(_PRETRAINED_LAYER), seconds=numeric, samples=_count, steps=_count)
_RECORD = mapping(
    experiment=_text,
    arm=_text,
    seed=_count,
    dataset=_text,
    dataset_requested=_text,
    device=_text,
    config=mapping(
        model=mapping(family=_text, activation=_choice, norm=_choice), init=mapping(scheme=_choice)
    ),
    final=optional(with_maybe(mapping(val_accuracy=numeric, test_accuracy=numeric), **_BY_NORMS)),
    diverged=optional(mapping(step=_count, layer=optional(_count))),
    diagnosis=optional(listing(mapping(code=_text, message=_text))),
)
_LATER = ("final", "diverged", "diagnosis")
"""What run.json need not hold before the run has ended."""


def defect(record: Mapping[str, Any]) -> str | None:
    """The first thing that run.json lacks, or None when it can be read."""
    whole = with_maybe(_RECORD, pretraining=_PRETRAINING)
    return next(whole({**dict.fromkeys(_LATER), **record}, ""), None)


EVALUATION = with_maybe(
    mapping(step=_count, train_loss=numeric, val_loss=numeric, val_accuracy=numeric), **_BY_NORMS
)
"""A line of metrics.jsonl."""
_HISTOGRAM = mapping(edges=_numbers, counts=_numbers, below=numeric, above=numeric, nan=numeric)
_ACTIVATION = mapping(
    std=numeric,
    zero_fraction=numeric,
    dead_fraction=numeric,
    saturated_fraction=numeric,
    histogram=_HISTOGRAM,
)
_RUNNING = mapping(running_mean_gap=numeric, running_var_ratio=numeric)
_LAYER = with_maybe(
    mapping(index=_count, pre=mapping(q=numeric), act=optional(_ACTIVATION), grad=mapping(pre_q=numeric)),
    batch_norm=_RUNNING,
)
SNAPSHOT = mapping(when=_text, layers=listing(_LAYER))
"""A line of layers.jsonl."""
_SHIFTED_LAYER = mapping(
    index=_count,
    hidden=_truth,
    input_mean_drift=numeric,
    input_std_drift=numeric,
    input_mean_from_init=numeric,
    input_std_from_init=numeric,
    gradient_norm=numeric,
    gradient_shift=numeric,
    gradient_shift_cosine=numeric,
)
SHIFTED = mapping(step=_count, layers=listing(_SHIFTED_LAYER))
"""A line of shift.jsonl."""
