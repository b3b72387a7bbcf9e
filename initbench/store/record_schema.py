"""What run.json and the lines of a run must hold for those who read them, checked once, on reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from initbench.store.strict_json import parse_number_or_none

Check = Callable[[Any, str], Iterator[str]]
"""Takes a value and the path to it, and says of each thing wrong where it is."""


_MAX_FLOAT = 1.7e308
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
            if inner is is_number and type(value.get(key)) is float:
                continue
            if inner is is_natural and type(number := value.get(key)) is int and 0 <= number <= _MAX_COUNT:
                continue
            if inner is _is_share and type(number := value.get(key)) is float and 0.0 <= number <= 1.0:
                continue
            position = f"{path}.{key}" if path else key
            if key in value:
                yield from inner(value[key], position)
            else:
                yield f"{position} is missing"

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


def nullable(inner: Check) -> Check:
    """Null, or such a value."""

    def check(value: Any, path: str) -> Iterator[str]:
        if value is not None:
            yield from inner(value, path)

    return check


def is_number(value: Any, path: str) -> Iterator[str]:
    """A number as `strictjson` writes it, or null."""
    try:
        parse_number_or_none(value)
    except ValueError:
        yield f"{path} is no number"


def _is_number_list(value: Any, path: str) -> Iterator[str]:
    """A list of finite numbers; a run has thousands of them, so they are not looked at one by one."""
    kinds = set(map(type, value)) if isinstance(value, list) else {None}
    if not kinds <= {int, float} or (
        int in kinds and not -_MAX_COUNT < min(value) <= max(value) < _MAX_COUNT
    ):
        yield f"{path} is no list of numbers"


def is_finite(value: Any, path: str) -> Iterator[str]:
    """A number that is finite."""
    if type(value) not in (int, float) or not -_MAX_FLOAT <= value <= _MAX_FLOAT:
        yield f"{path} is no finite number"


def is_text(value: Any, path: str) -> Iterator[str]:
    """Text."""
    if not isinstance(value, str):
        yield f"{path} is no text"


def is_integer(value: Any, path: str) -> Iterator[str]:
    """A whole number that other programs read as one."""
    if type(value) is not int or abs(value) > _MAX_COUNT:
        yield f"{path} is no whole number"


def is_natural(value: Any, path: str) -> Iterator[str]:
    """A whole number that is not below 0."""
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        yield f"{path} is no whole number of 0 or more"


def is_one_of(*values: str) -> Check:
    """One of these texts."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Whether it is none of them."""
        if value not in values:
            yield f"{path} is none of {', '.join(values)}"

    return check


def is_nonempty_list(item: Check) -> Check:
    """A list of at least one such item."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong with the list or its items."""
        if value == []:
            yield f"{path} is empty"
        else:
            yield from is_list(item)(value, path)

    return check


def satisfies_both(first: Check, second: Check) -> Check:
    """What satisfies two checks."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong by the one or, where nothing is, by the other."""
        wrong = False
        for problem in first(value, path):
            wrong = True
            yield problem
        if not wrong:
            yield from second(value, path)

    return check


def is_table(item: Check) -> Check:
    """A mapping of any keys to such items."""

    def check(value: Any, path: str) -> Iterator[str]:
        """What is wrong with the mapping or its items."""
        if not isinstance(value, dict):
            yield f"{path or 'the whole'} is no mapping"
            return
        for key, inner in value.items():
            yield from item(inner, f"{path}.{key}" if path else key)

    return check


def _is_bool(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} is neither true nor false"


def _is_scalar(value: Any, path: str) -> Iterator[str]:
    """What no other value is in."""
    if isinstance(value, dict | list):
        yield f"{path} is neither a name nor a number"


def _is_pixel_offset(value: Any, path: str) -> Iterator[str]:
    """Pixels: one number for both directions, or two."""
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or any(type(pixels) is not int for pixels in pair):
        yield f"{path} is neither a number of pixels nor two"


def _is_gain(value: Any, path: str) -> Iterator[str]:
    """A finite number, or `auto`."""
    if value != "auto":
        yield from is_finite(value, path)


def _is_component(value: Any, path: str) -> Iterator[str]:
    """A component: its name, or a mapping with its name and options."""
    if not isinstance(value, str):
        yield from is_mapping(name=is_text)(value, path)


_BY_NORMS = {
    f"val_{what}_{kind}": is_number for what in ("loss", "accuracy") for kind in ("batch", "population")
}
"""What is evaluated with other statistics of batch norm than the running ones."""
_PRETRAINED_LAYER = is_mapping(layer=is_integer, loss_start=is_number, loss_end=is_number)
_PRETRAINING = is_mapping(
    layers=is_list(_PRETRAINED_LAYER), seconds=is_finite, samples=is_natural, steps=is_natural
)
_TRANSFER = is_mapping(
    source=is_text,
    taken=is_list(is_text),
    drawn=is_table(is_text),
    skipped=is_table(is_text),
    frozen=is_list(is_text),
)
_SHIFT = optional_keys(
    is_mapping(),
    translate=nullable(_is_pixel_offset),
    brightness=nullable(is_finite),
    noise=nullable(is_finite),
)
_DATA = optional_keys(
    is_mapping(),
    shift=nullable(_SHIFT),
    name=is_text,
    fallback=nullable(is_text),
    labelled=nullable(is_finite),
    label_noise=nullable(is_finite),
    whiten=nullable(is_text),
    normalize=nullable(is_text),
    order=nullable(is_text),
    classes=nullable(is_list(_is_scalar)),
)
_MODEL = optional_keys(
    is_mapping(family=is_text, activation=_is_component, norm=_is_component),
    depth=nullable(is_natural),
    width=nullable(is_natural),
    model=nullable(is_text),
)
_INIT = optional_keys(is_mapping(scheme=_is_component), gain=nullable(_is_gain))
_TRAIN = optional_keys(
    is_mapping(),
    steps=nullable(is_natural),
    epochs=nullable(is_finite),
    batch_size=nullable(is_natural),
    optimizer=_is_component,
    lr=nullable(is_finite),
    schedule=_is_component,
    eval_every=nullable(is_natural),
    precision=nullable(is_text),
)
_CONFIG = optional_keys(
    is_mapping(model=_MODEL, init=_INIT),
    name=is_text,
    notes=nullable(is_text),
    data=_DATA,
    train=_TRAIN,
    probe=is_mapping(),
)
_RECORD = is_mapping(
    experiment=is_text,
    arm=is_text,
    seed=is_natural,
    dataset=is_text,
    dataset_requested=is_text,
    device=is_text,
    config=_CONFIG,
    final=nullable(
        satisfies_both(is_mapping(val_accuracy=is_number, test_accuracy=is_number), is_table(is_number))
    ),
    diverged=nullable(is_mapping(step=is_natural, layer=nullable(is_integer))),
    diagnosis=nullable(is_list(is_mapping(code=is_text, message=is_text))),
)
_KEYS_OF_ENDED_RUNS = ("final", "diverged", "diagnosis")
"""What run.json need not hold before the run has ended."""
_RUN_JSON = optional_keys(
    _RECORD,
    created=nullable(is_text),
    finished=nullable(is_text),
    error=nullable(is_text),
    steps=nullable(is_natural),
    cohort=nullable(is_natural),
    parameters=nullable(is_natural),
    threads=nullable(is_natural),
    precision=nullable(is_text),
    samples=nullable(is_table(is_number)),
    timings=nullable(is_table(is_number)),
    machine=nullable(optional_keys(is_mapping(), processor=nullable(is_text))),
    identity=nullable(
        optional_keys(is_mapping(), data=nullable(optional_keys(is_mapping(), fingerprint=nullable(is_text))))
    ),
    pretraining=nullable(_PRETRAINING),
    transfer=nullable(_TRANSFER),
    versions=nullable(is_mapping()),
    git=nullable(is_mapping()),
)


def find_defect(record: Mapping[str, Any]) -> str | None:
    """The first thing that run.json lacks, or None when it can be read."""
    return next(_RUN_JSON({**dict.fromkeys(_KEYS_OF_ENDED_RUNS), **record}, ""), None)


EVALUATION_LINE = optional_keys(
    is_mapping(step=is_integer, train_loss=is_number, val_loss=is_number, val_accuracy=is_number), **_BY_NORMS
)
"""A line of metrics.jsonl."""


def _has_matching_bins(value: Any, path: str) -> Iterator[str]:
    """A histogram with an edge more than it has counts."""
    if len(value["edges"]) != len(value["counts"]) + 1:
        yield f"{path}.edges is not one longer than its counts"


def _is_share(value: Any, path: str) -> Iterator[str]:
    """A number from 0 to 1, or NaN where nothing is finite."""
    if value != "NaN" and not (type(value) in (int, float) and 0 <= value <= 1):
        yield f"{path} is no share"


_HISTOGRAM = satisfies_both(
    is_mapping(
        edges=_is_number_list, counts=_is_number_list, below=is_natural, above=is_natural, nan=is_natural
    ),
    _has_matching_bins,
)
_ACTIVATION = is_mapping(
    std=is_number,
    zero_fraction=_is_share,
    dead_fraction=is_number,
    saturated_fraction=is_number,
    histogram=_HISTOGRAM,
)
_RUNNING_STATISTICS = is_mapping(running_mean_gap=is_number, running_var_ratio=is_number)
_LAYER = optional_keys(
    is_mapping(
        index=is_integer,
        pre=is_mapping(q=is_number),
        act=nullable(_ACTIVATION),
        grad=is_mapping(pre_q=is_number),
    ),
    batch_norm=_RUNNING_STATISTICS,
)
SNAPSHOT_LINE = optional_keys(is_mapping(when=is_text, layers=is_list(_LAYER)), step=is_integer)
"""A line of layers.jsonl."""
_SHIFTED_LAYER = is_mapping(
    index=is_integer,
    hidden=_is_bool,
    input_mean_drift=is_number,
    input_std_drift=is_number,
    input_mean_from_init=is_number,
    input_std_from_init=is_number,
    gradient_norm=is_number,
    gradient_shift=is_number,
    gradient_shift_cosine=is_number,
)
SHIFT_LINE = is_mapping(step=is_integer, layers=is_list(_SHIFTED_LAYER))
"""A line of shift.jsonl."""


def layer_signature(line: Mapping[str, Any]) -> tuple[tuple[Any, ...], ...]:
    """What lines about the layers of one net, or of nets that differ in their seed alone, have in common."""
    return tuple(
        (layer["index"], layer.get("hidden"), _bin_count(layer.get("act"))) for layer in line["layers"]
    )


def _bin_count(activation: Mapping[str, Any] | None) -> int:
    return len(activation["histogram"]["counts"]) if activation else 0
