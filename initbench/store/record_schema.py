"""Schema of run.json and of the lines of a run, checked once when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from initbench.store.scores import MAIN_SCORES
from initbench.store.strict_json import parse_number_or_none

Check = Callable[[Any, str], Iterator[str]]
"""A function that takes a value and its path, and yields one message, with the path, for each defect."""


_MAX_FLOAT = 1.7e308
_MAX_COUNT = 2**63 - 1


def is_mapping(**keys: Check) -> Check:
    """Return a check for a mapping that has at least these keys."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Yield each missing key and each defect of a value."""
        if not isinstance(value, dict):
            yield f"{path or 'the top level'} is not a mapping"
            return
        for key, inner in keys.items():
            # Most values are numbers, and a generator for each takes a third of the time.
            if inner is is_number and type(value.get(key)) is float:
                continue
            if inner is is_natural and type(number := value.get(key)) is int and 0 <= number <= _MAX_COUNT:
                continue
            if inner is _is_number_list and _are_numbers(value.get(key)):
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
    """Return a check that runs `inner`, and checks these keys if they are present."""

    def check(value: Any, path: str) -> Iterator[str]:
        yield from inner(value, path)
        if isinstance(value, dict):
            for key in keys.keys() & value.keys():
                yield from keys[key](value[key], f"{path}.{key}" if path else key)

    return check


def is_list(item: Check) -> Check:
    """Return a check for a list whose items pass `item`."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} is not a list"
            return
        for i, inner in enumerate(value):
            yield from item(inner, f"{path}[{i}]")

    return check


def nullable(inner: Check) -> Check:
    """Return a check for null or a value that passes `inner`."""

    def check(value: Any, path: str) -> Iterator[str]:
        if value is not None:
            yield from inner(value, path)

    return check


def is_number(value: Any, path: str) -> Iterator[str]:
    """Check that the value is null or a number as `strict_json` writes it."""
    try:
        parse_number_or_none(value)
    except ValueError:
        yield f"{path} is not a number"


def _is_number_list(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a list of finite numbers."""
    if not _are_numbers(value):
        yield f"{path} is not a list of numbers"


def _are_numbers(value: Any) -> bool:
    """Return whether the value is a list of finite numbers.

    A run has thousands of them, so the types are compared as a set and integers by minimum and maximum.
    """
    kinds = set(map(type, value)) if isinstance(value, list) else {None}
    return kinds <= {int, float} and (int not in kinds or -_MAX_COUNT < min(value) <= max(value) < _MAX_COUNT)


def is_finite(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a finite number."""
    if type(value) not in (int, float) or not -_MAX_FLOAT <= value <= _MAX_FLOAT:
        yield f"{path} is not a finite number"


def is_text(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a string."""
    if not isinstance(value, str):
        yield f"{path} is not a string"


def is_integer(value: Any, path: str) -> Iterator[str]:
    """Check that the value is an integer of at most 64 bits, which other programs can read too."""
    if type(value) is not int or abs(value) > _MAX_COUNT:
        yield f"{path} is not an integer"


def is_natural(value: Any, path: str) -> Iterator[str]:
    """Check that the value is an integer from 0 to 2⁶³ − 1."""
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        yield f"{path} is not an integer ≥ 0"


def is_one_of(*values: str) -> Check:
    """Return a check for one of these strings."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Yield a message if the value is not one of them."""
        if value not in values:
            yield f"{path} is not one of {', '.join(values)}"

    return check


def is_nonempty_list(item: Check) -> Check:
    """Return a check for a list of at least one item, all of which pass `item`."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Yield each defect of the list or its items."""
        if value == []:
            yield f"{path} is empty"
        else:
            yield from is_list(item)(value, path)

    return check


def satisfies_both(first: Check, second: Check) -> Check:
    """Return a check that runs `first` and, if that finds no defect, `second`."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Yield the defects that `first` finds, or else those that `second` finds."""
        wrong = False
        for problem in first(value, path):
            wrong = True
            yield problem
        if not wrong:
            yield from second(value, path)

    return check


def is_table(item: Check) -> Check:
    """Return a check for a mapping with arbitrary keys whose values pass `item`."""

    def check(value: Any, path: str) -> Iterator[str]:
        """Yield each defect of the mapping or its values."""
        if not isinstance(value, dict):
            yield f"{path or 'the top level'} is not a mapping"
            return
        for key, inner in value.items():
            yield from item(inner, f"{path}.{key}" if path else key)

    return check


def _is_bool(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} is not true or false"


def _is_scalar(value: Any, path: str) -> Iterator[str]:
    """Check that the value is neither a mapping nor a list."""
    if isinstance(value, dict | list):
        yield f"{path} is not a scalar"


def _is_pixel_offset(value: Any, path: str) -> Iterator[str]:
    """Check that the value is one number of pixels, or a list of two."""
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or any(type(pixels) is not int for pixels in pair):
        yield f"{path} is not one or two integers"


def _is_gain(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a finite number or `auto`."""
    if value != "auto":
        yield from is_finite(value, path)


def _is_component(value: Any, path: str) -> Iterator[str]:
    """Check that the value is the name of a component, or a mapping with its name and options."""
    if not isinstance(value, str):
        yield from is_mapping(name=is_text)(value, path)


def _has_test_scores(value: Any, path: str) -> Iterator[str]:
    """Check that the final values have the main score of the test split if they have that of validation."""
    for name in MAIN_SCORES:
        if f"val_{name}" in value and f"test_{name}" not in value:
            yield f"{path}.test_{name} is missing"


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
    is_mapping(family=is_text, activation=nullable(_is_component), norm=nullable(_is_component)),
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
is_config = optional_keys(
    is_mapping(model=_MODEL, init=_INIT),
    name=is_text,
    notes=nullable(is_text),
    data=_DATA,
    train=_TRAIN,
    probe=is_mapping(),
)
"""Check of the config of a run."""
_RECORD = is_mapping(
    experiment=is_text,
    arm=is_text,
    seed=is_natural,
    dataset=is_text,
    dataset_requested=is_text,
    device=is_text,
    config=is_config,
    final=nullable(satisfies_both(is_table(is_number), _has_test_scores)),
    diverged=nullable(is_mapping(step=is_natural, layer=nullable(is_integer))),
    diagnosis=nullable(is_list(is_mapping(code=is_text, message=is_text))),
)
_PLUGIN_ENTRY = is_mapping(
    kind=is_text, name=is_text, module=is_text, distribution=nullable(is_text), version=nullable(is_text)
)
_KEYS_OF_ENDED_RUNS = ("final", "diverged", "diagnosis")
"""Keys of run.json that may be missing until the run has ended."""
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
    plugins=nullable(is_list(_PLUGIN_ENTRY)),
    class_names=nullable(is_list(is_text)),
    custom_data=nullable(is_mapping(function=is_text)),
    custom_model=nullable(is_mapping(module=is_text, function=is_text, code=is_text)),
)


def find_defect(record: Mapping[str, Any]) -> str | None:
    """Return the first defect of run.json, or None if it has none."""
    return next(_RUN_JSON({**dict.fromkeys(_KEYS_OF_ENDED_RUNS), **record}, ""), None)


EVALUATION_LINE = satisfies_both(
    is_mapping(step=is_integer, train_loss=is_number, val_loss=is_number), is_table(is_number)
)
"""Check of a line of metrics.jsonl."""


def _has_matching_bins(value: Any, path: str) -> Iterator[str]:
    """Check that a histogram has one more edge than counts."""
    if len(value["edges"]) != len(value["counts"]) + 1:
        yield f"{path}.edges does not have one more item than counts"


def _is_share(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a number from 0 to 1, or "NaN" (no finite values to take a share of)."""
    if value != "NaN" and not (type(value) in (int, float) and 0 <= value <= 1):
        yield f"{path} is not a number from 0 to 1"


_HISTOGRAM = satisfies_both(
    is_mapping(
        edges=_is_number_list, counts=_is_number_list, below=is_natural, above=is_natural, nan=is_natural
    ),
    _has_matching_bins,
)


def _has_valid_span(value: Any, path: str) -> Iterator[str]:
    """Check that the span of a histogram has a lower and an upper end."""
    if len(value["span"]) != 2 or value["span"][0] > value["span"][1]:
        yield f"{path}.span is not a lower and an upper end"


_SCALED_HISTOGRAM = satisfies_both(
    is_mapping(
        span=_is_number_list, counts=_is_number_list, below=is_natural, above=is_natural, nan=is_natural
    ),
    _has_valid_span,
)
"""Histogram of a pre-activation or gradient; runs of earlier versions have none."""
_ACTIVATION = is_mapping(
    std=is_number,
    zero_fraction=_is_share,
    dead_fraction=is_number,
    saturated_fraction=is_number,
    histogram=_HISTOGRAM,
)
_PREDICTED = is_mapping(value=is_number, sd=is_number, trusted=_is_bool)
_THEORY = optional_keys(
    is_mapping(),
    q=_PREDICTED,
    act_mean=_PREDICTED,
    act_std=_PREDICTED,
    zero_fraction=_PREDICTED,
    saturated_fraction=_PREDICTED,
    grad_ratio=_PREDICTED,
    bias=is_mapping(shift=is_finite, half_width=is_finite),
)
"""Check of the predictions before the first update; runs of earlier versions have none."""
_RUNNING_STATISTICS = is_mapping(running_mean_gap=is_number, running_var_ratio=is_number)
_LAYER = optional_keys(
    is_mapping(
        index=is_integer,
        pre=optional_keys(is_mapping(q=is_number), histogram=_SCALED_HISTOGRAM),
        act=nullable(_ACTIVATION),
        grad=optional_keys(is_mapping(pre_q=is_number), histogram=_SCALED_HISTOGRAM),
    ),
    batch_norm=_RUNNING_STATISTICS,
    theory=_THEORY,
)


def _has_equal_bin_counts(value: Any, path: str) -> Iterator[str]:
    """Check that all histograms of a snapshot have the same number of bins."""
    sections = (layer[key] for layer in value["layers"] for key in ("pre", "act", "grad"))
    bins = {len(section["histogram"]["counts"]) for section in sections if section and "histogram" in section}
    if len(bins) > 1:
        yield f"{path + '.' if path else ''}layers have histograms with different numbers of bins"


SNAPSHOT_LINE = satisfies_both(
    optional_keys(is_mapping(when=is_text, layers=is_list(_LAYER)), step=is_integer), _has_equal_bin_counts
)
"""Check of a line of layers.jsonl."""
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
"""Check of a line of shift.jsonl."""


def layer_signature(line: Mapping[str, Any]) -> tuple[tuple[Any, ...], ...]:
    """Return index, hidden flag and number of histogram bins of each layer in a line.

    The signature is equal for all lines of one net, and for nets that differ only in their seed.
    """
    return tuple(
        (layer["index"], layer.get("hidden"), _bin_count(layer.get("act"))) for layer in line["layers"]
    )


def _bin_count(activation: Mapping[str, Any] | None) -> int:
    return len(activation["histogram"]["counts"]) if activation else 0
