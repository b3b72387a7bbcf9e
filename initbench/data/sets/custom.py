"""Data of a function of the user: `--data-from package.module:function`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from initbench.data.array_cache import contents_digest, load_stored_data, store_data
from initbench.data.dataset import DATASETS, Dataset, DataSource, LocatedDataset, RawData
from initbench.data.user_arrays import ArrayForm, array_form, raw_data
from initbench.data.user_files import ArrayOptions
from initbench.errors import DataError, UsageError, reporting_user_code
from initbench.plugins import isolated_arguments
from initbench.torch_defaults import user_defaults
from initbench.user_functions import UserFunction

_RECIPE = "custom/1"
_PARTS = ("train", "test", "val")
_KEYS = tuple(f"{axis}_{part}" for part in _PARTS for axis in "xy")
_RETURNED = (
    "return a pair (x, y) or a map-style data set, or a tuple of two or three of them for training, test and"
    f" validation, or a dictionary of arrays {', '.join(_KEYS)}"
)
OptionValue = bool | int | float | str | None


class CustomDataOptions(ArrayOptions):
    """Options of the data of a function."""

    options: dict[str, OptionValue | list[OptionValue]] = Field(default_factory=dict)
    """Keyword arguments of the function."""


def _locate(options: CustomDataOptions, source: DataSource) -> LocatedDataset:
    function = source.function
    if function is None:
        raise UsageError(
            "data.name=custom is a data set of your own: name the function that returns it with"
            " --data-from MODULE:FUNCTION"
        )
    form = array_form(options)
    key = repr((function.path, options.options, form))
    if key not in source.returned:
        raw = call_data_function(function, options.options, form)
        fingerprint = contents_digest(raw)
        path = store_data(f"{_RECIPE} {fingerprint}", raw)
        source.returned[key] = LocatedDataset(
            name="custom",
            fingerprint=fingerprint,
            load=partial(load_stored_data, path),
            function=function.path,
        )
    return source.returned[key]


def call_data_function(function: UserFunction, arguments: Mapping[str, Any], form: ArrayForm) -> RawData:
    """Call the user's function and return its data.

    Args:
        function: A function that returns a pair (x, y) or a map-style data set of such pairs, a tuple of two
            or three of these for training, test and validation, or a dictionary of arrays as in an .npz file.
            Images are (N, C, H, W) in tensors and (N, H, W, C) in arrays.
        arguments: Its keyword arguments.
        form: The kind of the targets.

    Raises:
        UsageError: If the function does not take the arguments, or raises an exception.
        DataError: If it returns something else, or the data are not valid.
    """
    if unknown := [name for name in arguments if not function.takes(name)]:
        raise UsageError(f"data.options.{unknown[0]}: {function.unknown_option(unknown[0])}")
    if missing := function.missing(arguments):
        raise UsageError(f"{function} requires the argument {missing[0]}: set data.options.{missing[0]}")
    error_context = reporting_user_code(f"{function} could not return data:")
    with isolated_arguments(function.path), error_context, user_defaults():
        returned = function.function(**arguments)
        arrays = dict(_arrays(returned, str(function)))
    try:
        return raw_data(arrays, form)
    except DataError as error:
        raise DataError(f"{function}: {error}") from None


def _arrays(returned: Any, subject: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of each part by their keys."""
    if isinstance(returned, Mapping):
        yield from _named_arrays(returned, subject)
        return
    is_tuple = isinstance(returned, Sequence) and not hasattr(returned, "__array__")
    parts = list(returned) if is_tuple and not _is_pair(returned) else [returned]
    if not 1 <= len(parts) <= len(_PARTS):
        raise DataError(f"{subject} must {_RETURNED}; it returned {len(parts)} values")
    for name, part in zip(_PARTS, parts, strict=False):
        x, y = part if _is_pair(part) else _stack(part, name, subject)
        yield f"x_{name}", _as_array(x)
        yield f"y_{name}", _as_array(y)


def _named_arrays(returned: Mapping[Any, Any], subject: str) -> Iterator[tuple[str, NDArray[Any]]]:
    if unknown := [key for key in returned if key not in _KEYS]:
        raise DataError(f"{subject} returned the key {unknown[0]!r}; it must {_RETURNED}")
    required = [
        key for key in _KEYS if key.endswith("train") or key[2:] in {str(name)[2:] for name in returned}
    ]
    if missing := [key for key in required if key not in returned]:
        raise DataError(f"{subject} returned a dictionary without {missing[0]}")
    yield from ((key, _as_array(value)) for key, value in returned.items())


def _is_pair(value: Any) -> bool:
    """Return whether a value is (x, y), two arrays or tensors of the same length."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_array, value))


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def _as_array(value: Any) -> NDArray[Any]:
    """Return an array; images of a tensor (N, C, H, W) become (N, H, W, C)."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).numpy()


def _stack(part: Any, name: str, subject: str) -> tuple[Any, Any]:
    """Return the samples of a map-style data set as (x, y)."""
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
        raise DataError(f"{subject} must {_RETURNED}; the {name} part is of type {type(part).__name__}")
    columns: tuple[list[Any], list[Any]] = ([], [])
    for index in range(len(part)):
        sample = part[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise DataError(f"{subject}: sample {index} of the {name} part is not a pair (x, y)")
        for column, value in zip(columns, sample, strict=True):
            array = _as_array(value[None])[0] if isinstance(value, Tensor) else np.asarray(value)
            if column and array.shape != column[0].shape:
                raise DataError(
                    f"{subject}: sample {index} of the {name} part has the shape {array.shape},"
                    f" the first one {column[0].shape}"
                )
            column.append(array)
    if not columns[0]:
        raise DataError(f"{subject}: the {name} part has no samples")
    return np.stack(columns[0]), np.stack(columns[1])


DATASETS.add(
    Dataset(
        name="custom",
        summary="Data that a function of yours returns, which --data-from names.",
        source="the user",
        formula="as the function returns them, or by test_fraction and val_fraction",
        chosen_by="--data-from MODULE:FUNCTION",
        options=CustomDataOptions,
        locate=_locate,
    )
)
