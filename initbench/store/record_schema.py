"""What run.json and the lines of a run must hold for those who read them, checked once, on reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from initbench.store.strict_json import number_or_none

Check = Callable[[Any, str], Iterator[str]]
"""Takes a value and the path to it, and says of each thing wrong where it is."""


_HUGE = 1.7e308
_MAX_COUNT = 2**63 - 1


def is_mapping(**keys: Check) -> Check:
    """A mapping that has at least these keys."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is missing, and what is wrong with what is there."""
        if not isinstance(value, dict):
            yield f"{path or 'the whole'} is no mapping"
            return
        for key, inner in keys.items():
            # Numbers are most of what there is, and a generator for each takes a third of the time.
            if inner is numeric and type(value.get(key)) is float:
                continue
            if inner is natural and type(number := value.get(key)) is int and 0 <= number <= _MAX_COUNT:
                continue
            if inner is _share and type(number := value.get(key)) is float and 0.0 <= number <= 1.0:
                continue
            place = f"{path}.{key}" if path else key
            if key in value:
                yield from inner(value[key], place)
            else:
                yield f"{place} is missing"

    return check


def optional_keys(inner: Check, **keys: Check) -> Check:
    """What `inner` asks for, and these keys where they are there at all."""

    def check(value: Any, path: str) -> Iterator[str]:
        yield from inner(value, path)
        if isinstance(value, dict):
            for key in keys.keys() & value.keys():
                yield from keys[key](value[key], f"{path}.{key}" if path else key)

    return check


def is_list(item: Check) -> Check:
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
    kinds = set(map(type, value)) if isinstance(value, list) else {None}
    if not kinds <= {int, float} or (
        int in kinds and not -_MAX_COUNT < min(value) <= max(value) < _MAX_COUNT
    ):
        yield f"{path} is no list of numbers"


def finite(value: Any, path: str) -> Iterator[str]:
    """A number that is finite."""
    if type(value) not in (int, float) or not -_HUGE <= value <= _HUGE:
        yield f"{path} is no finite number"


def text(value: Any, path: str) -> Iterator[str]:
    """Text."""
    if not isinstance(value, str):
        yield f"{path} is no text"


def count(value: Any, path: str) -> Iterator[str]:
    """A whole number that other programs read as one."""
    if type(value) is not int or abs(value) > _MAX_COUNT:
        yield f"{path} is no whole number"


def natural(value: Any, path: str) -> Iterator[str]:
    """A whole number that is not below 0."""
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        yield f"{path} is no whole number of 0 or more"


def choice(*values: str) -> Check:
    """One of these texts."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Whether it is none of them."""
        if value not in values:
            yield f"{path} is none of {', '.join(values)}"

    return check


def some(item: Check) -> Check:
    """A list of at least one such item."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong with the list or its items."""
        if value == []:
            yield f"{path} is empty"
        else:
            yield from is_list(item)(value, path)

    return check


def both(one: Check, other: Check) -> Check:
    """What satisfies two checks."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong by the one or, where nothing is, by the other."""
        wrong = False
        for problem in one(value, path):
            wrong = True
            yield problem
        if not wrong:
            yield from other(value, path)

    return check


def table(item: Check) -> Check:
    """A mapping of any keys to such items."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong with the mapping or its items."""
        if not isinstance(value, dict):
            yield f"{path or 'the whole'} is no mapping"
            return
        for key, inner in value.items():
            yield from item(inner, f"{path}.{key}" if path else key)

    return check


def _truth(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} is neither true nor false"


def _scalar(value: Any, path: str) -> Iterator[str]:
    """What no other value is in."""
    if isinstance(value, dict | list):
        yield f"{path} is neither a name nor a number"


def _offset(value: Any, path: str) -> Iterator[str]:
    """Pixels: one number for both directions, or two."""
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or any(type(pixels) is not int for pixels in pair):
        yield f"{path} is neither a number of pixels nor two"


def _gain(value: Any, path: str) -> Iterator[str]:
    """A finite number, or `auto`."""
    if value != "auto":
        yield from finite(value, path)


def _component(value: Any, path: str) -> Iterator[str]:
    """A component: its name, or a mapping with its name and options."""
    if not isinstance(value, str):
        yield from is_mapping(name=text)(value, path)


_BY_NORMS = {
    f"val_{what}_{kind}": numeric for what in ("loss", "accuracy") for kind in ("batch", "population")
}
"""What is evaluated with other statistics of batch norm than the running ones."""
_PRETRAINED_LAYER = is_mapping(layer=count, loss_start=numeric, loss_end=numeric)
_PRETRAINING = is_mapping(layers=is_list(_PRETRAINED_LAYER), seconds=finite, samples=natural, steps=natural)
_TRANSFER = is_mapping(
    source=text, taken=is_list(text), drawn=table(text), skipped=table(text), frozen=is_list(text)
)
_SHIFT = optional_keys(
    is_mapping(), translate=optional(_offset), brightness=optional(finite), noise=optional(finite)
)
_DATA = optional_keys(
    is_mapping(),
    shift=optional(_SHIFT),
    name=text,
    fallback=optional(text),
    labelled=optional(finite),
    label_noise=optional(finite),
    whiten=optional(text),
    normalize=optional(text),
    order=optional(text),
    classes=optional(is_list(_scalar)),
)
_MODEL = optional_keys(
    is_mapping(family=text, activation=_component, norm=_component),
    depth=optional(natural),
    width=optional(natural),
    model=optional(text),
)
_INIT = optional_keys(is_mapping(scheme=_component), gain=optional(_gain))
_TRAIN = optional_keys(
    is_mapping(),
    steps=optional(natural),
    epochs=optional(finite),
    batch_size=optional(natural),
    optimizer=_component,
    lr=optional(finite),
    schedule=_component,
    eval_every=optional(natural),
    precision=optional(text),
)
_CONFIG = optional_keys(
    is_mapping(model=_MODEL, init=_INIT),
    name=text,
    notes=optional(text),
    data=_DATA,
    train=_TRAIN,
    probe=is_mapping(),
)
_RECORD = is_mapping(
    experiment=text,
    arm=text,
    seed=natural,
    dataset=text,
    dataset_requested=text,
    device=text,
    config=_CONFIG,
    final=optional(both(is_mapping(val_accuracy=numeric, test_accuracy=numeric), table(numeric))),
    diverged=optional(is_mapping(step=natural, layer=optional(count))),
    diagnosis=optional(is_list(is_mapping(code=text, message=text))),
)
_LATER = ("final", "diverged", "diagnosis")
"""What run.json need not hold before the run has ended."""
_WHOLE = optional_keys(
    _RECORD,
    created=optional(text),
    finished=optional(text),
    error=optional(text),
    steps=optional(natural),
    cohort=optional(natural),
    parameters=optional(natural),
    threads=optional(natural),
    precision=optional(text),
    samples=optional(table(numeric)),
    timings=optional(table(numeric)),
    machine=optional(optional_keys(is_mapping(), processor=optional(text))),
    identity=optional(
        optional_keys(is_mapping(), data=optional(optional_keys(is_mapping(), fingerprint=optional(text))))
    ),
    pretraining=optional(_PRETRAINING),
    transfer=optional(_TRANSFER),
    versions=optional(is_mapping()),
    git=optional(is_mapping()),
)


def find_defect(record: Mapping[str, Any]) -> str | None:
    """The first thing that run.json lacks, or None when it can be read."""
    return next(_WHOLE({**dict.fromkeys(_LATER), **record}, ""), None)


EVALUATION = optional_keys(
    is_mapping(step=count, train_loss=numeric, val_loss=numeric, val_accuracy=numeric), **_BY_NORMS
)
"""A line of metrics.jsonl."""


def _bins(value: Any, path: str) -> Iterator[str]:
    """A histogram with an edge more than it has counts."""
    if len(value["edges"]) != len(value["counts"]) + 1:
        yield f"{path}.edges is not one longer than its counts"


def _share(value: Any, path: str) -> Iterator[str]:
    """A number from 0 to 1, or NaN where nothing is finite."""
    if value != "NaN" and not (type(value) in (int, float) and 0 <= value <= 1):
        yield f"{path} is no share"


_HISTOGRAM = both(
    is_mapping(edges=_numbers, counts=_numbers, below=natural, above=natural, nan=natural), _bins
)
_ACTIVATION = is_mapping(
    std=numeric,
    zero_fraction=_share,
    dead_fraction=numeric,
    saturated_fraction=numeric,
    histogram=_HISTOGRAM,
)
_RUNNING = is_mapping(running_mean_gap=numeric, running_var_ratio=numeric)
_LAYER = optional_keys(
    is_mapping(
        index=count, pre=is_mapping(q=numeric), act=optional(_ACTIVATION), grad=is_mapping(pre_q=numeric)
    ),
    batch_norm=_RUNNING,
)
SNAPSHOT = optional_keys(is_mapping(when=text, layers=is_list(_LAYER)), step=count)
"""A line of layers.jsonl."""
_SHIFTED_LAYER = is_mapping(
    index=count,
    hidden=_truth,
    input_mean_drift=numeric,
    input_std_drift=numeric,
    input_mean_from_init=numeric,
    input_std_from_init=numeric,
    gradient_norm=numeric,
    gradient_shift=numeric,
    gradient_shift_cosine=numeric,
)
SHIFTED = is_mapping(step=count, layers=is_list(_SHIFTED_LAYER))
"""A line of shift.jsonl."""


def layers_of(line: Mapping[str, Any]) -> tuple[tuple[Any, ...], ...]:
    """What lines about the layers of one net, or of nets that differ in their seed alone, have in common."""
    return tuple(
        (layer["index"], layer.get("hidden"), _bins_of(layer.get("act"))) for layer in line["layers"]
    )


def _bins_of(activation: Mapping[str, Any] | None) -> int:
    return len(activation["histogram"]["counts"]) if activation else 0
