"""Targets other than one class a sample: their form, their split, and the options that do not apply."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from own_data import bundle

from initbench.components.target import SampleShape, TargetKind
from initbench.data.dataset import RawData
from initbench.errors import DataError

N = 40


def raw(target: TargetKind, y: torch.Tensor, x: torch.Tensor | None = None, **more: object) -> RawData:
    """A set with N training samples and 10 test samples, which are the first ones."""
    x = torch.randn(N, 6) if x is None else x
    fields = {"x_train": x, "y_train": y, "x_test": x[:10], "y_test": y[:10], "target": target, **more}
    return RawData(**fields)


def tokens(classes: int = 7, vocabulary: int | None = 7) -> RawData:
    ids = torch.arange(N * 5).view(N, 5) % 7
    return raw(TargetKind.SEQUENCE, ids, ids, classes=classes, vocabulary=vocabulary)


def images(target: TargetKind, y: torch.Tensor, classes: int = 0) -> RawData:
    return raw(target, y, torch.rand(N, 3, 8, 8), classes=classes)


MADE = {
    "real": (raw(TargetKind.REAL, torch.randn(N)), SampleShape((6,), 1, TargetKind.REAL)),
    "reals": (raw(TargetKind.REAL, torch.randn(N, 3)), SampleShape((6,), 3, TargetKind.REAL, (3,))),
    "labels": (
        raw(TargetKind.LABELS, (torch.rand(N, 4) < 0.5).float()),
        SampleShape((6,), 4, TargetKind.LABELS, (4,)),
    ),
    "masks": (
        images(TargetKind.LABELS, (torch.rand(N, 8, 8) < 0.5).float()),
        SampleShape((3, 8, 8), 1, TargetKind.LABELS, (8, 8)),
    ),
    "dense": (
        images(TargetKind.DENSE, torch.randint(5, (N, 8, 8)), 5),
        SampleShape((3, 8, 8), 5, TargetKind.DENSE, (8, 8)),
    ),
    "tokens": (tokens(), SampleShape((5,), 7, TargetKind.SEQUENCE, (5,), vocabulary=7)),
}


@pytest.mark.parametrize("name", MADE)
def test_targets_keep_their_values_and_samples_their_targets(name):
    source, form = MADE[name]
    made = bundle(source, normalize="none", val_fraction=0.25)
    assert made.form == form
    assert made.classes == (form.outputs if name in ("dense", "tokens") else 0)
    assert (len(made.train), len(made.val), len(made.test)) == (30, 10, 10)
    rows = torch.cat([made.train.y, made.val.y]).flatten(1).tolist() if source.y_train.dim() > 1 else None
    expected = source.y_train.flatten(1).tolist() if rows is not None else None
    assert rows is None or sorted(rows) == sorted(expected)
    # Every input still belongs to its target.
    for split in (made.train, made.val):
        for x, y in zip(split.x, split.y, strict=True):
            place = (source.x_train == x.to(source.x_train.dtype)).flatten(1).all(1).nonzero()[0, 0]
            assert torch.equal(source.y_train[place], y)


@pytest.mark.parametrize("name", MADE)
def test_batches_have_the_targets_of_their_samples(name):
    made = bundle(MADE[name][0])
    index = torch.tensor([[3, 1, 2], [0, 5, 4]])
    x, y = made.train.take(index)
    assert torch.equal(y, made.train.y[index])
    assert torch.equal(x, made.train.x[index])


def test_token_ids_are_never_normalised():
    made = bundle(tokens(), normalize="global")
    assert made.train.x.dtype == torch.int64
    assert torch.equal(made.test.x, tokens().x_test)


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("real", {"label_noise": 0.1}, "label_noise"),
        ("real", {"labelled": 10}, "labelled"),
        ("labels", {"classes": [0, 1]}, "classes"),
        ("reals", {"order": "sorted"}, "order"),
        ("dense", {"order": "blocks(4)"}, "order"),
        ("tokens", {"normalize": "per_feature"}, "normalize"),
        ("tokens", {"whiten": "pca"}, "whiten"),
        ("tokens", {"shift": {"noise": 0.1}}, "shift"),
        ("masks", {"augment": {"flip": True}}, "augment"),
        ("dense", {"resize": 4}, "resize"),
        ("dense", {"shift": {"translate": 1}}, "shift.translate"),
    ],
)
def test_options_that_do_not_apply_are_refused_by_key(name, options, key):
    with pytest.raises(DataError, match=rf"^data\.{key} is for .*: remove data\.{key}") as refusal:
        bundle(MADE[name][0], **options)
    assert "\n" not in str(refusal.value)


def test_images_with_values_of_the_whole_image_can_be_augmented_and_resized():
    made = bundle(images(TargetKind.REAL, torch.randn(N)), augment={"flip": True}, resize=4)
    assert made.input_shape == (3, 4, 4)
    assert made.augment is not None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (raw(TargetKind.REAL, torch.randn(N).double()), "contains real values and must be torch.float"),
        (raw(TargetKind.REAL, torch.full((N,), torch.nan)), "y_train must be finite"),
        (raw(TargetKind.LABELS, torch.full((N, 2), 0.5)), "y_train contains labels and must be 0 or 1"),
        (raw(TargetKind.LABELS, torch.zeros(N)), r"must have the shape \(N, D\)"),
        (raw(TargetKind.SEQUENCE, torch.arange(N), classes=2), r"shape \(N, T\); found \(40,\)"),
        (raw(TargetKind.CLASSES, torch.arange(N), classes=5), "must contain classes 0 … 4, found 0 … 39"),
        (tokens(classes=6), "y_train must contain classes 0 … 5, found 0 … 6"),
        (tokens(vocabulary=6), "x_train must contain token ids 0 … 5, found 0 … 6"),
        (tokens(vocabulary=None), "token ids .* of a declared vocabulary"),
        (replace(MADE["real"][0], y_test=torch.randn(9)), "x_test and y_test must have the same length"),
        (replace(MADE["reals"][0], y_test=torch.randn(10, 2)), "x_test and y_test must have the same shapes"),
    ],
)  # fmt: skip
def test_data_that_are_not_of_the_declared_form_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        bundle(source)
