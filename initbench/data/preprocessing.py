"""Preprocessing of a located data set to training tensors: split, scaled, normalised and whitened.

Targets are never changed: real values are not standardised.

Legend: N samples, C channels, H × W pixels, D features, T positions of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from initbench.components.target import SampleShape, TargetKind
from initbench.data.augment import Augment
from initbench.data.dataset import DataOptions, RawData, ShiftOptions, image_size
from initbench.data.distribution_shift import apply_shift
from initbench.data.labels import corrupt_labels, select_classes, split_labelled
from initbench.data.locate import ResolvedDataset
from initbench.data.raw_checks import check_applicable, check_raw_data, raw_form
from initbench.data.resizing import resize_images
from initbench.data.sampling_order import SHUFFLED, Order, order_of
from initbench.data.split import random_split, stratified_split
from initbench.data.whiten import fit_whitening
from initbench.errors import DataError
from initbench.machine import require_memory
from initbench.rng import stream_generator

_SPLIT_SEED = 0
MAX_WHITENED = 8192
"""Maximum number of features that can be whitened: the cost grows with its third power."""
_CHUNK_VALUES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a data set.

    x: (N, C, H, W) or (N, D) float32, or token ids (N, T) int64; y: (N,) int64 for class labels, see
    TargetKind for others.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples at `index` (…), as x (…, *sample) and y (…, *target)."""
        # Four times as fast as self.x[index] for a matrix of indices.
        flat = index.reshape(-1)
        x, y = self.x.index_select(0, flat), self.y.index_select(0, flat)
        return x.view(*index.shape, *self.x.shape[1:]), y.view(*index.shape, *self.y.shape[1:])


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A data set in memory on its device, split and normalised."""

    train: Split
    val: Split
    test: Split
    form: SampleShape
    """Form of the inputs and targets of one sample."""
    name: str
    """Name of the data set used."""
    requested: str
    """Name of the data set that the config requests; differs from `name` after a fallback."""
    fingerprint: str
    labels: tuple[int, ...] | None = None
    """Original label of each class if `data.classes` selects some, else None."""
    class_names: tuple[str, ...] | None = None
    """Name of each class, if the data have names."""
    augment: Augment | None = None
    """Augmentation of the training batches, or None."""
    unlabelled: Tensor | None = None
    """Training samples without labels, (N, *input_shape); None if all samples are labelled."""
    mislabelled: int = 0
    """Number of training samples whose label was made wrong by `data.label_noise`."""
    order: Order = SHUFFLED
    """Order of the training samples in an epoch."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input of one sample: (C, H, W), (D,) or, for token ids, (T,)."""
        return self.form.shape

    @property
    def target(self) -> TargetKind:
        """Kind of the targets."""
        return self.form.target

    @property
    def classes(self) -> int:
        """Number of classes; 0 if the targets are not class indices."""
        return self.form.outputs if self.target.is_class_index else 0

    @property
    def pretraining_x(self) -> Tensor:
        """Inputs of all training samples, the labelled ones first: (N, *input_shape)."""
        return self.train.x if self.unlabelled is None else torch.cat([self.train.x, self.unlabelled])


def preprocess(resolved: ResolvedDataset, options: DataOptions, device: torch.device | str) -> PreparedData:
    """Load the data set, select classes, resize, split, normalise and whiten it, and move it to `device`.

    uint8 values are scaled to [0, 1]; then x ← (x − mean) / std with the mean and standard deviation of the
    training split (`options.normalize`), followed by whitening (`options.whiten`). Both are fitted before
    labels are dropped and evaluation data are shifted. Raises DataError if the set cannot be read, is too
    small to split, or does not support an option.
    """
    raw = resolved.located.load()
    check_raw_data(raw)
    check_applicable(options, raw, resolved.located.name)
    if options.classes is not None:
        raw = select_classes(raw, options.classes)
    _check_size(raw, options)
    if options.resize is not None:
        raw = resize_images(raw, image_size(options.resize))
    loaded, targets = zip(*_split(raw, options.val_fraction), strict=True)
    inputs, shift, scale = _prepare_inputs(loaded, options)
    whole, val, test = (Split(x=x.to(device), y=y.to(device)) for x, y in zip(inputs, targets, strict=True))
    train, unlabelled = _drop_labels(whole, options.labelled)
    noisy = corrupt_labels(train.y.cpu(), raw.classes, options.label_noise)
    wrong = int((noisy != train.y.cpu()).sum())
    train = Split(x=train.x, y=noisy.to(device))
    return PreparedData(
        train=train,
        val=val,
        test=test,
        form=replace(raw_form(raw), shape=tuple(train.x.shape[1:])),
        name=resolved.located.name,
        requested=resolved.requested,
        fingerprint=resolved.located.fingerprint,
        labels=None if options.classes is None else tuple(options.classes),
        class_names=raw.class_names,
        augment=_augment(options, train.x, shift, scale),
        unlabelled=unlabelled,
        mislabelled=wrong,
        order=order_of(options.order, noisy),
    )


def _prepare_inputs(loaded: Sequence[Tensor], options: DataOptions) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return train, validation and test inputs, and the (shift, scale) of their normalisation.

    Token ids are returned as they are.
    """
    if loaded[0].dtype == torch.int64:
        return list(loaded), torch.tensor(0.0), torch.tensor(1.0)
    shift, scale = _normalisation(loaded[0], options.normalize)
    shifted = _shift_evaluation_data(loaded, options.shift)
    return _whiten([_normalise(x, shift, scale) for x in shifted], options), shift, scale


def renormalise(data: PreparedData, normalize: Literal["global", "per_feature"]) -> PreparedData:
    """Return the data with the training inputs normalised again, by their current mean and deviation."""
    shift, scale = _normalisation(data.pretraining_x, normalize)
    return replace(data, train=replace(data.train, x=_normalise(data.train.x, shift, scale)))


def _shift_evaluation_data(inputs: Sequence[Tensor], shift: ShiftOptions | None) -> list[Tensor]:
    """Return train, validation and test inputs, the last two changed by `data.shift`."""
    train, val, test = inputs
    if shift is None:
        return [train, val, test]
    return [train, apply_shift(val, shift, "val"), apply_shift(test, shift, "test")]


def _whiten(inputs: list[Tensor], options: DataOptions) -> list[Tensor]:
    """Return train, validation and test inputs after whitening, which is fitted on the training inputs."""
    if options.whiten == "none":
        return inputs
    whitening = fit_whitening(inputs[0], options.whiten, options.whiten_eps)
    return [whitening(x) for x in inputs]


def _drop_labels(whole: Split, count: int | None) -> tuple[Split, Tensor | None]:
    """Return the labelled part of the training split, and the inputs of the unlabelled part or None."""
    if count is None:
        return whole, None
    labelled, unlabelled = (part.to(whole.x.device) for part in split_labelled(whole.y.cpu(), count))
    x, y = whole.take(labelled)
    return Split(x=x, y=y), whole.x[unlabelled] if len(unlabelled) else None


def _check_size(raw: RawData, options: DataOptions) -> None:
    """Raise an error if resizing or whitening would exceed the available memory or MAX_WHITENED features."""
    samples = sum(len(x) for x in (raw.x_train, raw.x_val, raw.x_test) if x is not None)
    shape = tuple(raw.x_train.shape[1:])
    if options.resize is not None:
        height, width = image_size(options.resize)
        shape = (shape[0], height, width)
    features = math.prod(shape)
    size = " × ".join(f"{axis:,}" for axis in shape)
    purpose = f"the data set, {samples:,} samples of {size} in float32,"
    require_memory(4.0 * samples * features, purpose, "choose a smaller data.resize, or a smaller set")
    if options.whiten == "none":
        return
    if features > MAX_WHITENED:
        raise DataError(
            f"data.whiten={options.whiten} is for at most {MAX_WHITENED:,} features, but a sample has"
            f" {features:,}: use data.whiten=none or a smaller data.resize"
        )
    require_memory(32.0 * features**2, f"data.whiten={options.whiten}", "use data.whiten=none")


def _augment(options: DataOptions, x: Tensor, shift: Tensor, scale: Tensor) -> Augment | None:
    augment = options.augment
    if augment is None or not (augment.flip or augment.crop):
        return None
    smallest = min(x.shape[2:])
    if augment.crop >= smallest:
        raise DataError(
            f"data.augment.crop must be less than the images' shorter side, {smallest} pixels;"
            f" found {augment.crop}"
        )
    # As torchvision's RandomCrop(padding) before Normalize: the padding is 0, then normalised.
    black = _normalise(torch.zeros(()), shift, scale).item()
    return Augment(flip=augment.flip, crop=augment.crop, black=black)


def _split(raw: RawData, val_fraction: float) -> list[tuple[Tensor, Tensor]]:
    """Return train, validation and test as (x, y), with values as loaded."""
    test = (raw.x_test, raw.y_test)
    if raw.x_val is not None and raw.y_val is not None:
        return [(raw.x_train, raw.y_train), (raw.x_val, raw.y_val), test]
    samples = len(raw.y_train)
    val_samples = max(1, round(samples * val_fraction))
    if val_samples >= samples:
        raise DataError(
            f"{samples} training samples cannot be split with data.val_fraction={val_fraction:g}:"
            f" {val_samples} for validation leave none to train on"
        )
    stream = stream_generator(_SPLIT_SEED, "data", "validation")
    sizes = [samples - val_samples, val_samples]
    if raw.target is TargetKind.CLASSES:
        parts = stratified_split(raw.y_train, sizes, stream)
    else:
        parts = random_split(samples, sizes, stream)
    return [*((raw.x_train[part], raw.y_train[part]) for part in parts), test]


def _normalisation(x: Tensor, normalize: Literal["global", "per_feature", "none"]) -> tuple[Tensor, Tensor]:
    """Return float32 (shift, scale) such that (x − shift) / scale is the requested normalisation.

    Both apply to the values as stored: for uint8 the scaling to [0, 1] cancels out. A constant feature has
    scale infinity, so that it becomes 0 in every set.
    """
    if normalize == "none":
        return torch.tensor(0.0), torch.tensor(255.0 if x.dtype == torch.uint8 else 1.0)
    per_feature = normalize == "per_feature"
    mean, std = mean_and_std(x, per_feature=per_feature)
    scale = std.float()
    scale[scale == 0] = torch.inf
    shape = x.shape[1:] if per_feature else ()
    return mean.float().view(shape), scale.view(shape)


def mean_and_std(x: Tensor, *, per_feature: bool) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation of x (N, …) in float64.

    Shapes: (D,) with D the product of a sample's shape if `per_feature`, else (1,). Chunks are merged by the
    pairwise formula (Chan, Golub and LeVeque 1979), so no float64 copy of the whole set is made. The first
    value is subtracted beforehand, so that a constant has a standard deviation of exactly 0. Bytes are
    counted instead, which is exact and takes a quarter of the time.
    """
    if x.dtype == torch.uint8 and not per_feature:
        return _mean_and_std_of_bytes(x)
    flat = x.flatten(1)
    dims = [0] if per_feature else [0, 1]
    origin = flat[0].double() if per_feature else flat[0, :1].double()
    count, mean, squares = 0, torch.zeros_like(origin), torch.zeros_like(origin)
    for chunk in torch.split(flat, max(1, _CHUNK_VALUES // flat.shape[1])):
        values = chunk.double().sub_(origin)
        variance, centre = torch.var_mean(values, dim=dims, correction=0)
        added = len(chunk)
        gap = centre - mean
        squares += variance * added + gap.square() * (count * added / (count + added))
        mean += gap * (added / (count + added))
        count += added
    return mean + origin, (squares / count).sqrt()


def _mean_and_std_of_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation (1,) of uint8 values from their counts."""
    values = torch.arange(256, dtype=torch.float64)
    share = torch.bincount(x.flatten(), minlength=256).double() / x.numel()
    mean = (share * values).sum()
    return mean.view(1), (share * (values - mean).square()).sum().sqrt().view(1)


def _normalise(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x.to(torch.float32, copy=True).sub_(shift).div_(scale)
