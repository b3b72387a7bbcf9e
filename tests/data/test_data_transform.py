"""data.classes and data.resize against slow twins, and their place before the split and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.data import resizing
from initbench.data.dataset import DataOptions, LocatedDataset, RawData
from initbench.data.labels import select_classes
from initbench.data.locate import ResolvedDataset
from initbench.data.preprocessing import PreparedData, preprocess
from initbench.data.resizing import resize_images
from initbench.errors import ConfigError, DataError


def raw_images(count: int = 40, labels: int = 5, *, val: bool = False) -> RawData:
    """Sample n carries its number in its first pixel; its label is n mod `labels`."""
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 2, 6, 5), generator=stream, dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(count)
    y = torch.arange(count) % labels
    test = slice(0, count // 2)
    return RawData(
        x_train=x,
        y_train=y,
        x_test=x[test],
        y_test=y[test],
        classes=labels,
        x_val=x.flip(0) if val else None,
        y_val=y.flip(0) if val else None,
    )


def bundle(raw: RawData, **options: Any) -> PreparedData:
    located = LocatedDataset(name="own", fingerprint="f", load=lambda: raw)
    return preprocess(
        ResolvedDataset(requested="own", located=located), DataOptions.model_validate(options), "cpu"
    )


# ---- classes


def kept_by_loops(x: Tensor, y: Tensor, labels: list[int]) -> tuple[list[int], list[int]]:
    """Numbers of the samples kept and their new labels."""
    numbers, new = [], []
    for image, label in zip(x, y.tolist(), strict=True):
        for position, wanted in enumerate(labels):
            if label == wanted:
                numbers.append(int(image[0, 0, 0]))
                new.append(position)
    return numbers, new


@given(st.lists(st.integers(0, 4), min_size=2, unique=True), st.booleans())
@settings(deadline=None, max_examples=40)
def test_classes_are_chosen_and_relabelled_in_the_listed_order(labels, val):
    raw = raw_images(val=val)
    made = select_classes(raw, labels)
    assert made.classes == len(labels)
    for part in ("train", "test", "val") if val else ("train", "test"):
        x, y = getattr(made, f"x_{part}"), getattr(made, f"y_{part}")
        numbers, new = kept_by_loops(getattr(raw, f"x_{part}"), getattr(raw, f"y_{part}"), labels)
        assert x[:, 0, 0, 0].tolist() == numbers
        assert y.tolist() == new
        assert y.dtype == torch.int64
    assert (made.x_val is None) == (not val)


def test_bundle_knows_the_labels_it_was_made_of():
    made = bundle(raw_images(), classes=[4, 1, 2])
    assert (made.classes, made.labels) == (3, (4, 1, 2))
    assert set(made.train.y.tolist()) == set(made.test.y.tolist()) == {0, 1, 2}
    assert bundle(raw_images()).labels is None


def test_the_split_is_made_of_the_classes_chosen():
    made = bundle(raw_images(100), classes=[0, 3], val_fraction=0.2)
    assert (len(made.train), len(made.val)) == (32, 8)
    assert torch.bincount(made.val.y).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 5], r"lists 5, .* its labels are 0 … 4"), ([7, 1, 9], "lists 7, 9, .* no training sample")],
)
def test_labels_that_are_not_there(labels, message):
    with pytest.raises(DataError, match=rf"data\.classes {message}"):
        bundle(raw_images(), classes=labels)


def test_labels_without_a_sample_to_measure_by():
    raw = raw_images()
    few = RawData(
        x_train=raw.x_train, y_train=raw.y_train, x_test=raw.x_test[:1], y_test=raw.y_test[:1], classes=5
    )
    with pytest.raises(DataError, match=r"data\.classes=\[3, 4\] leaves no test sample"):
        bundle(few, classes=[3, 4])


# ---- resize


def triangle(before: int, after: int) -> np.ndarray:
    """(after, before) weights of bilinear interpolation; a triangle as wide as the scale when it shrinks."""
    scale = before / after
    wide = max(scale, 1.0)
    weights = np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * scale
        for j in range(before):
            weights[i, j] = max(0.0, 1.0 - abs(j + 0.5 - centre) / wide)
    return weights / weights.sum(axis=1, keepdims=True)


def resized_by_formula(x: Tensor, height: int, width: int) -> np.ndarray:
    rows, columns = triangle(x.shape[2], height), triangle(x.shape[3], width)
    return np.einsum("ih,nchw,jw->ncij", rows, x.double().numpy(), columns)


sides = st.integers(2, 13)


@given(sides, sides, st.booleans())
@settings(deadline=None, max_examples=40)
def test_resize_is_bilinear_with_antialiasing(height, width, whole):
    raw = raw_images()
    x = raw.x_train if whole else raw.x_train / 255
    raw = RawData(x_train=x, y_train=raw.y_train, x_test=x[:7], y_test=raw.y_test[:7], classes=5, x_val=x[:3])
    made = resize_images(raw, (height, width))
    for part, count in (("train", 40), ("test", 7), ("val", 3)):
        found = getattr(made, f"x_{part}")
        expected = resized_by_formula(x[:count], height, width)
        assert found.shape == (count, 2, height, width)
        assert found.dtype == x.dtype
        # Rounding to uint8 moves a value by 1/2 at most; float32 sums of 255 are off by 1e-4 at most.
        assert np.abs(found.double().numpy() - expected).max() <= (0.5 + 1e-4 if whole else 1e-5)


@pytest.mark.parametrize("size", [(3, 4), (12, 9), (6, 10)])
def test_resize_is_what_pillow_does(size):
    raw = raw_images()
    found = resize_images(raw, size).x_train[:, 0]
    for image, made in zip(raw.x_train[:, 0], found, strict=True):
        pillow = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        # Pillow rounds to uint8 after each of its two passes, so it may be 1 off.
        assert (torch.from_numpy(np.array(pillow)).int() - made.int()).abs().max() <= 1


def test_resize_to_the_same_size_changes_nothing():
    raw = raw_images()
    assert resize_images(raw, (6, 5)).x_train is raw.x_train


def test_chunks_do_not_show(monkeypatch):
    raw = raw_images()
    whole = resize_images(raw, (9, 3)).x_train
    monkeypatch.setattr(resizing, "_CHUNK_VALUES", 200)
    assert torch.equal(resize_images(raw, (9, 3)).x_train, whole)


@pytest.mark.parametrize(("option", "size"), [(4, (4, 4)), ([3, 7], (3, 7))])
@pytest.mark.parametrize("normalize", ["global", "per_feature"])
def test_normalisation_is_of_the_resized_training_split(option, size, normalize):
    made = bundle(raw_images(), resize=option, normalize=normalize, classes=[0, 2])
    assert made.input_shape == (2, *size)
    assert made.val.x.shape[1:] == made.test.x.shape[1:] == made.input_shape
    axes = 0 if normalize == "per_feature" else None
    x = made.train.x.double().numpy()
    # Values of 255 normalised in float32: each is off by 1e-5 at most, and so is their mean.
    assert np.abs(x.mean(axis=axes)).max() < 1e-5
    assert np.abs(x.std(axis=axes) - 1).max() < 1e-5


def test_features_cannot_be_resized():
    x = torch.rand(20, 7)
    raw = RawData(x_train=x, y_train=torch.arange(20) % 2, x_test=x, y_test=torch.arange(20) % 2, classes=2)
    with pytest.raises(
        DataError, match=r"data\.resize is for images, but a sample of own is a list of 7 feat"
    ):
        bundle(raw, resize=4)
    assert bundle(raw, classes=[1, 0]).classes == 2


# ---- in a config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.classes=[3]", "data.classes: must have at least 2 values, has 1"),
        ("data.classes=[3,5,3]", "data.classes: lists the label 3 twice"),
        ("data.classes=[-1,2]", "data.classes.0"),
        ("data.resize=1", "data.resize: must be at least 2"),
        ("data.resize=[4,1]", "data.resize.1: must be at least 2"),
        ("data.resize=[4,4,4]", "data.resize: must have at most 2 values, has 3"),
        ("data.resize=true", "data.resize: must be a whole number or a list, not true"),
        ("data.augment.flipp=true", "data.augment.flipp"),
    ],
)
def test_faults_name_the_key(tmp_path, override, message):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ndata: {name: digits}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override], ExperimentConfig)
    assert message in str(caught.value)


def test_options_are_read_from_the_command_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ndata: {name: digits}\n", encoding="utf-8")
    overrides = [
        "data.classes=[3,5,7]",
        "data.resize=[12,10]",
        "data.augment.flip=true",
        "data.augment.crop=2",
    ]
    data = load_config(path, overrides, ExperimentConfig).data
    assert (data.classes, data.resize) == ([3, 5, 7], [12, 10])
    assert data.augment is not None
    assert (data.augment.flip, data.augment.crop) == (True, 2)
