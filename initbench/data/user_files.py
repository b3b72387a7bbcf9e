"""Paths and options of the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from initbench.data.dataset import DataOptions, UnavailableError
from initbench.errors import DataError
from initbench.paths import expand_user, file_kind
from initbench.registry import MAX_COUNT


def find_user_path(name: str, root: Path, what: str, *, key: str = "data.path", kind: str = "file") -> Path:
    """Return the first of `name` and `root / name` that exists; symbolic links of the user are followed.

    Args:
        name: Value of the config key `key`; relative to the current folder or the data root.
        root: The data root.
        what: The thing that is searched, for messages, such as "the npz data set".
        key: Key of the config.
        kind: "file" or "folder".

    Raises:
        UnavailableError: If neither exists as a file or folder, as `kind` requires.
        DataError: If the path cannot be used.
    """
    relative = expand_user(name)
    candidates = list(dict.fromkeys((relative.absolute(), root / relative)))
    try:
        kinds = [file_kind(path) for path in candidates]
    except OSError as error:
        raise DataError(f"{key} {name[:200]!r} cannot be used: {error.strerror}") from None
    for path, actual in zip(candidates, kinds, strict=True):
        if actual == kind:
            return path
    raise UnavailableError(
        f"{what} {name!r} is not on disk",
        tried=[f"{path}: {_problem(actual, kind)}" for path, actual in zip(candidates, kinds, strict=True)],
        remedies=[f"set {key} to the {kind}, relative to the config, the current folder or --data-dir"],
    )


def _problem(actual: str, expected: str) -> str:
    return "does not exist" if actual == "missing" else f"not a {expected}"


class HeldOutOptions(DataOptions):
    """Options of the user's own data that may come without a test part."""

    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the samples kept for testing, chosen with a fixed seed, if there is no test part of their own.

    The classes have the same shares in both parts."""


class ArrayOptions(HeldOutOptions):
    """Options of the user's own arrays."""

    target_kind: Literal["classes", "real", "labels", "sequence", "dense"] = "classes"
    """Kind of the targets y of N samples.

    `classes`: one class number a sample, integers (N,). `real`: numbers for regression, (N,) or (N, D).
    `labels`: independent labels or masks of 0 and 1, (N, D), (N, H, W) or (N, H, W, C). `sequence`: one class
    number a position, integers (N, T). `dense`: one class number a pixel, integers (N, H, W)."""
    vocabulary: int | None = Field(default=None, ge=2, le=MAX_COUNT)
    """Number of token ids, if the inputs are token ids, integers (N, T) from 0; null for other inputs."""
