"""Data set types: the registry entry and its options, the located data set, and its tensors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from initbench.components.target import SampleShape, TargetKind
from initbench.data.sampling_order import ORDER_PATTERN
from initbench.errors import DataError
from initbench.registry import MAX_COUNT, Options, Registry, RegistryEntry, Section
from initbench.user_functions import UserFunction

# At least 2: on the CPU, torch 2.14 interpolates incorrectly to a width of 1 with antialiasing.
_Pixels = Annotated[int, Field(ge=2, le=4096)]
_Shift = Annotated[int, Field(ge=-4096, le=4096)]


class AugmentOptions(Section):
    """Random changes of the training images, drawn again at every step."""

    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    crop: int = Field(default=0, ge=0, le=4096)
    """Pad each image with this many black pixels on every side and crop it at a random position."""


class ShiftOptions(Section):
    """Changes of the validation and test samples, relative to the training samples."""

    brightness: float = 0.0
    """Added to every value."""
    translate: _Shift | Annotated[list[_Shift], Field(min_length=2, max_length=2)] = 0
    """Pixels by which images are moved, [down, right] or one number for both; uncovered pixels are black."""
    noise: float = Field(default=0.0, ge=0.0)
    """Standard deviation of normal noise added to every value."""

    @property
    def down_right(self) -> tuple[int, int]:
        """Pixels by which images are moved down, and to the right."""
        return _pair(self.translate)


class DataOptions(Options):
    """Options that every data set shares; a data set's own options extend them."""

    name: str = ""
    """Name of the data set."""
    val_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the training set kept for validation, chosen with a fixed seed.

    `digits` has its own split."""
    normalize: Literal["global", "per_feature", "none"] = "global"
    """Subtract the mean and divide by the standard deviation of the training split.

    `global` uses one mean and standard deviation for all values, `per_feature` one for each feature."""
    whiten: Literal["none", "pca", "zca"] = "none"
    """Decorrelate the features and scale each direction to variance 1, by a map fitted on the training split.

    `zca` keeps the shape of a sample. `pca` turns it into a list of features, sorted by decreasing variance,
    so it cannot be used with nets for images. Whitening follows `normalize`: after `global` and `none` the
    result is the same, after `per_feature` the correlations are whitened. Validation and test samples are
    transformed by the map of the training split."""
    whiten_eps: float = Field(default=0.01, ge=0.0)
    """Regularisation: added to each eigenvalue of the covariance, as a share of the mean eigenvalue.

    Directions with a much smaller variance contain mostly noise and stay small instead of being scaled up to
    variance 1. Constant directions become 0."""
    classes: Annotated[list[Annotated[int, Field(ge=0, lt=1_000_000)]], Field(min_length=2)] | None = None
    """Labels to keep, at least two; they become classes 0, 1, … in the order listed. Null keeps all."""
    resize: _Pixels | Annotated[list[_Pixels], Field(min_length=2, max_length=2)] | None = None
    """Size of the images, [height, width] or one number for both; null keeps the original size.

    Bilinear interpolation with antialiasing."""
    labelled: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Number of training samples that keep their labels, the same for every run; null for all.

    Each class keeps its share of them, and at least one. Batches, epochs, probes and the training loss use
    only these samples. The other samples are available without labels for `init.scheme: autoencoder`.
    Normalisation and whitening are fitted on all of them."""
    label_noise: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training labels that are replaced by a random other class, the same for every run."""
    order: Annotated[str, Field(json_schema_extra={"pattern": ORDER_PATTERN})] = "shuffled"
    """Order of the training samples in an epoch: `shuffled`, `sorted` or `blocks(k)`.

    `sorted` goes class by class, each class shuffled. `blocks(k)` cuts that order into blocks of k samples
    and shuffles the blocks: `blocks(1)` is equivalent to `shuffled`, and a k of at least the size of the
    training split is equivalent to `sorted`. The order is drawn again for each seed and epoch. Samples at the
    end of an epoch that do not fill a batch are dropped; with `sorted` they belong to the last class."""
    shift: ShiftOptions | None = None
    """Changes of the validation and test samples only: `translate`, then `brightness`, then `noise`.

    `brightness` is added to every value and `noise` is the standard deviation of normal noise, both in
    units of the values before normalisation, where 0 is black and 1 is white; values are not clipped.
    `translate` moves images by pixels, [down, right] or one number for both. Null for none."""
    augment: AugmentOptions | None = None
    """Random changes of the training images: `flip` (true or false) and `crop` (pixels); null for none.

    `flip` mirrors an image with probability 1/2; `crop` pads it with this many black pixels on every side
    and crops it at a random position. Evaluations and probes use the unchanged images."""
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
        problem = "moves pixels, and cannot be combined with "
        if self.whiten != "none":
            problem += f"data.whiten={self.whiten}, which depends on their positions: use data.whiten=none"
        else:
            problem += (
                "data.normalize=per_feature, which depends on their positions: use data.normalize=global"
            )
        raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "augment"})


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Settings for finding and downloading data sets."""

    root: Path
    """Folder laid out as torchvision expects a data root."""
    offline: bool = False
    """Never touch the network."""
    notify: Callable[[str], None] = lambda _message: None
    """Callback for one-sentence messages to the user (a fallback, a download)."""
    reach_seconds: float = 10.0
    """Maximum time spent on finding a mirror that answers."""
    recheck: bool = False
    """Compute every checksum again instead of using cached ones of unchanged files."""
    unavailable: dict[str, UnavailableError] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """Errors of unavailable data sets, by name and own options; these are not searched or reported again."""
    function: UserFunction | None = None
    """Function of `--data-from` that returns the data of `data.name=custom`; None if there is none."""
    returned: dict[str, LocatedDataset] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Data that the function has returned, by its options; it is called once for equal options."""


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A data set as loaded, before splitting and normalisation.

    x_*: (N, C, H, W) or (N, D), uint8 or float32, or token ids (N, T) int64; y_*: see TargetKind.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int = 0
    """Number of classes, whose indices are 0 … classes-1; 0 if the targets are not class indices."""
    target: TargetKind = TargetKind.CLASSES
    """Kind of y."""
    vocabulary: int | None = None
    """Number of token ids, if the inputs are token ids 0 … vocabulary-1."""
    class_names: tuple[str, ...] | None = None
    """Name of each class, if the data have names."""
    x_val: Tensor | None = None
    y_val: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LocatedDataset:
    """A data set whose files are found and identified, but whose tensors are not loaded yet."""

    name: str
    fingerprint: str
    """Hash of the contents, or of the recipe of a generated set; part of the run id."""
    load: Callable[[], RawData]
    """Function that reads the tensors; raises DataError for invalid contents. It can be pickled."""
    files: tuple[Path, ...] = ()
    """Files it is read from; empty for a generated set."""
    function: str = ""
    """Function of the user that returned it, `package.module:function`; empty for other sets."""


class UnavailableError(DataError):
    """Error for a data set that is neither on disk nor downloadable; `fallback` applies only to this error.

    Args:
        missing: Clause that says what is missing.
        tried: One entry per location that was tried, with the reason why it failed.
        remedies: Actions that the user can take, the best first.
    """

    def __init__(self, missing: str, *, tried: Sequence[str], remedies: Sequence[str]) -> None:
        self.missing = missing
        self.tried = tuple(tried)
        self.remedies = tuple(remedies)
        lines = [
            missing,
            *(f"  tried {line}" for line in tried),
            "possible solutions:",
            *(f"  {line}" for line in remedies),
        ]
        super().__init__("\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Dataset(RegistryEntry):
    """A registry entry; its `options` extend DataOptions.

    `form(options)` returns the form of the samples of the published set, or None if it is known only from
    its file.

    `locate(options, source)` finds the set, or downloads it unless `source.offline`, and computes its
    fingerprint. It raises UnavailableError if the set is neither on disk nor downloadable, and plain
    DataError if a file fails verification.
    """

    options: type[DataOptions] = DataOptions
    locate: Callable[[Any, DataSource], LocatedDataset]
    form: Callable[[Any], SampleShape | None] = lambda _options: None


def form_of(options: DataOptions) -> SampleShape | None:
    """Return the form of preprocessed samples under `options`; None if it is known only from the file."""
    form = DATASETS[options.name].form(options)
    if form is None:
        return None
    outputs = form.outputs if options.classes is None else len(options.classes)
    shape = form.shape
    if options.resize is not None and len(shape) == 3:
        shape = (shape[0], *image_size(options.resize))
    shape = (math.prod(shape),) if options.whiten == "pca" else shape
    return replace(form, shape=shape, outputs=outputs)


def image_size(resize: int | list[int]) -> tuple[int, int]:
    """Return (height, width) for a value of `data.resize`."""
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
"""Well-known data sets that are not available, for which no similar name is suggested."""
DATASETS: Registry[Dataset] = Registry("data set", "initbench.data.sets", absent=_ABSENT, group="datasets")
