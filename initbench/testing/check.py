"""Checks of registry entries: a title and a function that raises AssertionError with a message."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from initbench.registry import Options, RegistryEntry
from initbench.registry_choice import options_model

EXAMPLE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "huggingface": {"path": "x"},
    "idx": {"train_images_path": "x.gz", "train_labels_path": "y.gz"},
    "images": {"path": "x"},
    "npz": {"path": "x.npz"},
    "table": {"path": "x.csv"},
    "tokens": {"path": "x.txt"},
    "pretrained": {"from": "x.safetensors"},
}
"""Values of the required options of built-in entries, by name."""


@dataclass(frozen=True)
class Check:
    """One property of one entry."""

    title: str
    run: Callable[[], None]
    """Function that raises AssertionError if the entry does not have the property."""


@dataclass(frozen=True)
class Result:
    """Outcome of a check."""

    title: str
    state: Literal["ok", "FAILED", "skipped"]
    reason: str = ""
    """Why the check failed or was skipped."""


class SkippedError(Exception):
    """The property cannot be examined; the message says why."""


def check_of(title: str, function: Callable[..., None], *arguments: Any) -> Check:
    """Return the check that calls `function` with these arguments."""
    return Check(title, partial(function, *arguments))


def expect_that(condition: bool, message: str) -> None:
    """Raise AssertionError with `message` unless the condition holds; unlike `assert`, also under -O."""
    if not condition:
        raise AssertionError(message)


def normal_draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return draws from N(0, 1)."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def run_check(check: Check) -> Result:
    """Run a check; an exception other than AssertionError is a failure too."""
    try:
        check.run()
    except SkippedError as error:
        return Result(check.title, "skipped", str(error))
    except AssertionError as error:
        return Result(check.title, "FAILED", str(error) or "AssertionError")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        return Result(check.title, "FAILED", reason)
    return Result(check.title, "ok")


def default_options(entry: RegistryEntry, tag: str = "name", **options: Any) -> Any:
    """Return the options of an entry at their defaults, except for `options`.

    Raises:
        SkippedError: If other options are required.
    """
    values = {**EXAMPLE_OPTIONS.get(entry.name, {}), **options}
    fields = entry.options.model_fields.items()
    missing = [field.alias or key for key, field in fields if field.is_required()]
    if missing := [key for key in missing if key not in values]:
        raise SkippedError(f"options without a default are not examined: {', '.join(missing)}")
    return options_model(entry, tag)(**values)


def option_variants(entry: RegistryEntry) -> Iterator[Any]:
    """Yield the default options and, if there are numbers or switches, options with all of them changed."""
    yield default_options(entry)
    fields = entry.options.model_fields
    changed: dict[str, Any] = {
        key: _other_value(field.default)
        for key, field in fields.items()
        if key not in Options.model_fields and isinstance(field.default, bool | int | float)
    }
    if changed:
        try:
            yield default_options(entry, **changed)
        except ValidationError:  # the changed values are out of range
            return


def _other_value(value: float) -> bool | int | float:
    """Return another value of an option; floats are exact in float32."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else round(8 * (0.75 * value + 0.5)) / 8
