"""What a data set is to the rest of initbench: an entry, where it was found, its tensors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from initbench.data.sampling_order import ORDER_PATTERN
from initbench.errors import DataError
from initbench.registry import MAX_COUNT, Options, Registry, RegistryEntry, Section

# From 2 up: on the CPU, torch 2.14 interpolates to a width of 1 with antialiasing wrongly.
_Pixels = Annotated[int, Field(ge=2, le=4096)]
_Shift = Annotated[int, Field(ge=-4096, le=4096)]


class AugmentOptions(Section):
    """Random changes of the training images, drawn anew at every step."""

    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    crop: int = Field(default=0, ge=0, le=4096)
    """Pad each image with this many black pixels on every side and cut it out again at a random place."""


class ShiftOptions(Section):
    """How the validation and test samples differ from the training samples."""

    brightness: float = 0.0
    """Added to every value."""
    translate: _Shift | Annotated[list[_Shift], Field(min_length=2, max_length=2)] = 0
    """Pixels that images are moved, [down, right] or one number for both; black comes in."""
    noise: float = Field(default=0.0, ge=0.0)
    """Standard deviation of normal noise added to every value."""

    @property
    def down_right(self) -> tuple[int, int]:
        """Pixels that images are moved down, and to the right."""
        return _pair(self.translate)


class DataOptions(Options):
    """Options that every data set shares; a data set's own options extend them."""

    name: str = ""
    """Name of the data set."""
    val_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the training set kept for validation, chosen with a fixed seed.

    `digits` brings its own split."""
    normalize: Literal["global", "per_feature", "none"] = "global"
    """Subtract the mean and divide by the standard deviation of the training split.

    One pair for all values (`global`), or one for each feature (`per_feature`)."""
    whiten: Literal["none", "pca", "zca"] = "none"
    """Decorrelate the features and give each direction variance 1, by a map fitted on the training split.

    `zca` keeps the shape of a sample. `pca` makes a list of features of it, the direction of the largest
    variance first, so it is not for nets of images. Applied to what `normalize` gives: after `global` and
    `none` the result is the same, after `per_feature` the correlations are whitened. Validation and
    test samples go through the training split's map."""
    whiten_eps: float = Field(default=0.01, ge=0.0)
    """Added to each eigenvalue of the covariance before its inverse root, as a share of their mean.

    Directions whose variance is far below it hold little but noise, and are left small instead
    of being blown up to variance 1. Constant directions become 0."""
    classes: Annotated[list[Annotated[int, Field(ge=0, lt=1_000_000)]], Field(min_length=2)] | None = None
    """Labels to keep, at least two; they become classes 0, 1, … in the order listed. Null keeps all."""
    resize: _Pixels | Annotated[list[_Pixels], Field(min_length=2, max_length=2)] | None = None
    """Size of the images, [height, width] or one number for both; null for the set's own.

    Bilinear, with antialiasing."""
    labelled: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Training samples that keep their labels, the same for every run; null for all.

    Each class keeps its share of them, and at least one. Batches, epochs, probes and the training loss
    are of these samples. The rest is there without labels, for `init.scheme: autoencoder`;
    normalisation and whitening are fitted on all of them."""
    label_noise: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training labels that are replaced, each by another class, the same for every run."""
    order: Annotated[str, Field(json_schema_extra={"pattern": ORDER_PATTERN})] = "shuffled"
    """How an epoch goes through the training samples: `shuffled`, `sorted` or `blocks(k)`.

    `sorted` goes class by class, each class shuffled. `blocks(k)` cuts that order into blocks of k samples
    and shuffles the blocks: `blocks(1)` is as good as shuffled, and k of the whole split or more is sorted.
    Drawn anew for each seed and epoch. The rest of an epoch that fills no batch is dropped, which with
    `sorted` are samples of the last class."""
    shift: ShiftOptions | None = None
    """Changes of the validation and test samples alone: `translate`, then `brightness`, then `noise`.

    `brightness` is added to every value and `noise` is the standard deviation of normal noise, both in
    units of the values before normalisation, where an image goes from black, 0, to white, 1; nothing is
    clipped. `translate` moves images by pixels, [down, right] or one number for both. Null for none."""
    augment: AugmentOptions | None = None
    """Random changes of the training images: `flip` (true or false) and `crop` (pixels); null for none.

    `flip` mirrors an image with probability 1/2; `crop` pads it with so many black pixels on every side
    and cuts it out again at a random place. Evaluations and probes see the images as they are."""
    fallback: Literal["digits"] | None = None
    """Data set to use, and say so, when this one is neither on disk nor to be fetched."""

    @field_validator("classes")
    @classmethod
    def _labels_differ(cls, labels: list[int] | None) -> list[int] | None:
        twice = next((label for label, times in Counter(labels or ()).items() if times > 1), None)
        if twice is not None:
            problem = f"lists the label {twice} twice"
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": ""})
        return labels

    @field_validator("order")
    @classmethod
    def _order_is_known(cls, order: str) -> str:
        if re.fullmatch(ORDER_PATTERN, order) is None:
            problem = (
                "must be shuffled, sorted or blocks(k), k samples in a block, as in blocks(64);"
                f" found {order!r}"
            )
            raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": ""})
        return order

    @model_validator(mode="after")
    def _moved_pixels_share_a_scale(self) -> DataOptions:
        if self.augment is None or (self.normalize != "per_feature" and self.whiten == "none"):
            return self
        problem = "moves pixels, and "
        if self.whiten != "none":
            problem += f"data.whiten={self.whiten} is fitted to where they were: use data.whiten=none with it"
        else:
            problem += (
                "data.normalize=per_feature scales each by its place: use data.normalize=global with it"
            )
        raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "augment"})


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where data may come from."""

    root: Path
    """Folder laid out as torchvision expects a data root."""
    offline: bool = False
    """Never touch the network."""
    notify: Callable[[str], None] = lambda _message: None
    """Receives one plain sentence for what a person should know (a fallback, a download)."""
    reach_seconds: float = 10.0
    """Upper bound on the time spent finding out whether any mirror answers."""
    recheck: bool = False
    """Compute every checksum anew instead of trusting those remembered for an unchanged file."""
    unavailable: dict[str, UnavailableError] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """What was looked for in vain, by its name and own options: it is not looked for, or said, again."""


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
class LocatedDataset:
    """A data set known to be usable: its identity is fixed, its tensors are not loaded yet."""

    name: str
    fingerprint: str
    """Hash of the contents (or of what generates them); enters the run id."""
    load: Callable[[], RawData]
    """Read the tensors; raises DataError when the contents are not a data set. It can be pickled."""
    files: tuple[Path, ...] = ()
    """The files it is read from; empty when it is generated."""


class UnavailableError(DataError):
    """A data set that is neither on disk nor to be had: the one fault that `fallback` answers.

    `missing` says what is not there, `tried` what was looked at and why it did not serve,
    `remedies` what a person can do, the best first.
    """

    def __init__(self, missing: str, *, tried: Sequence[str], remedies: Sequence[str]) -> None:
        self.missing = missing
        self.tried = tuple(tried)
        self.remedies = tuple(remedies)
        lines = [
            missing,
            *(f"  tried {line}" for line in tried),
            "to go on:",
            *(f"  {line}" for line in remedies),
        ]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class SampleShape:
    """What a net has to fit: the shape of one sample, (C, H, W) or (D,), and the number of classes."""

    shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Dataset(RegistryEntry):
    """A registry entry; its `options` extend DataOptions.

    `form(options)` is the set's form as published, or None where only its file tells.

    `locate(options, source)` finds the set, or fetches it unless `source.offline`, and fixes its
    identity. It raises UnavailableError when the set is neither on disk nor to be had, and plain
    DataError when something is there that cannot be trusted.
    """

    options: type[DataOptions] = DataOptions
    locate: Callable[[Any, DataSource], LocatedDataset]
    form: Callable[[Any], SampleShape | None] = lambda _options: None


def form_of(options: DataOptions) -> SampleShape | None:
    """The form that samples come in under `options`, as far as it is known before the set is looked for."""
    form = DATASETS[options.name].form(options)
    if form is None:
        return None
    classes = form.classes if options.classes is None else len(options.classes)
    shape = form.shape
    if options.resize is not None and len(shape) == 3:
        shape = (shape[0], *image_size(options.resize))
    return SampleShape((math.prod(shape),) if options.whiten == "pca" else shape, classes)


def image_size(resize: int | list[int]) -> tuple[int, int]:
    """(height, width) that `data.resize` asks for."""
    return _pair(resize)


def _pair(value: int | list[int]) -> tuple[int, int]:
    first, second = [value] * 2 if isinstance(value, int) else value
    return first, second


_ABSENT = (
    "emnist",
    "qmnist",
    "svhn",
    "stl10",
    "imagenet",
    "tiny_imagenet",
    "omniglot",
    "celeba",
    "usps",
    "iris",
    "wine",
)
"""Well-known names that nothing here stands for, so that no near name is suggested."""
DATASETS: Registry[Dataset] = Registry("data set", "initbench.data.sets", absent=_ABSENT)
