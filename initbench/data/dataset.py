"""What a data set is to the rest of initbench: an entry, where it was found, its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from initbench.registry import Entry, Registry, Section


class DataOptions(Section):
    """Options that every data set shares; a data set's own options extend them."""

    name: str = ""
    """Name of the data set."""
    val_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the training set kept for validation, chosen with a fixed seed. `digits` brings its own split."""
    normalize: Literal["global", "per_feature", "none"] = "global"
    """Subtract the mean and divide by the standard deviation of the training split: one pair for all, or one a feature."""
    fallback: Literal["digits"] | None = None
    """Data set to use, and say so, when this one is neither on disk nor to be fetched."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where data may come from."""

    root: Path
    """Folder laid out as torchvision expects a data root."""
    offline: bool = False
    """Never touch the network."""
    notify: Callable[[str], None] = lambda _message: None
    """Receives one plain sentence for what a person should know (a fallback, a download)."""
    reach_seconds: float = 10.0
    """Upper bound on the time spent finding out whether any mirror answers."""


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A data set as loaded, before splitting and normalising.

    x_*: (N, C, H, W) or (N, D), uint8 or float32; y_*: (N,) int64, classes 0 … classes-1.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    x_val: Tensor | None = None
    y_val: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Located:
    """A data set known to be usable: its identity is fixed, its tensors are not loaded yet."""

    name: str
    fingerprint: str
    """Hash of the contents (or of what generates them); enters the run id."""
    load: Callable[[], RawData]


@dataclass(frozen=True, kw_only=True)
class Dataset(Entry):
    """A registry entry. `locate(options, source)` returns Located or raises DataError."""

    locate: Callable[[Any, Source], Located]


DATASETS: Registry[Dataset] = Registry("data set", "initbench.data.sets")
