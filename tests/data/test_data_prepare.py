"""Splitting and normalisation, compared with plain NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.data.dataset import RawData
from initbench.data.preprocessing import mean_and_std
from initbench.data.split import stratified_split
from initbench.errors import DataError
from tests.data.own_data import bundle


def raw_uint8(train: int = 100, shape: tuple[int, ...] = (3, 4, 5)) -> RawData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (train, *shape), generator=generator, dtype=torch.uint8)
    return RawData(
        x_train=x,
        y_train=torch.arange(train) % 7,
        x_test=x[:30].clone(),
        y_test=torch.arange(30) % 7,
        classes=7,
    )


def numbered(train: int) -> RawData:
    """Sample n is the number n, so that a split can be read back."""
    x = torch.arange(train, dtype=torch.float32)[:, None]
    y = torch.arange(train) % 3
    return RawData(x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


def test_bundle_describes_itself():
    made = bundle(raw_uint8())
    assert (made.classes, made.input_shape) == (7, (3, 4, 5))
    assert (made.name, made.requested, made.fingerprint) == ("own", "asked", "f")
    assert made.train.x.dtype == torch.float32
    assert made.train.y.dtype == torch.int64
    assert (len(made.train), len(made.val), len(made.test)) == (90, 10, 30)


def test_none_only_scales_uint8():
    raw = raw_uint8()
    assert torch.equal(bundle(raw, normalize="none").test.x, raw.x_test.float() / 255)
    features = numbered(50)
    assert torch.equal(bundle(features, normalize="none").test.x, features.x_test)


@pytest.mark.parametrize(("normalize", "axes"), [("global", None), ("per_feature", 0)])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_normalisation_is_fitted_on_the_training_split_alone(normalize, axes, kind):
    raw = raw_uint8()
    if kind == "float":
        x = raw.x_train.float().mul(3.0).add(1000.0)
        raw = RawData(x_train=x, y_train=raw.y_train, x_test=x[:30] - 500, y_test=raw.y_test, classes=7)
    plain, made = bundle(raw, normalize="none"), bundle(raw, normalize=normalize)
    train = plain.train.x.numpy().astype(np.float64)
    mean, std = train.mean(axis=axes), train.std(axis=axes)
    for part in ("train", "val", "test"):
        expected = (getattr(plain, part).x.numpy().astype(np.float64) - mean) / std
        # float32: at 1000 with std 200 the mean is off by 6e-5 at most, 3e-7 of a standard deviation.
        np.testing.assert_allclose(getattr(made, part).x.numpy(), expected, rtol=1e-5, atol=1e-5)
    everything = raw.x_train.numpy().astype(np.float64)
    assert not np.allclose(mean, everything.mean(axis=axes) / (255 if kind == "uint8" else 1), rtol=1e-4)


def test_loading_leaves_the_source_tensors_alone():
    raw = numbered(50)
    before = raw.x_test.clone()
    bundle(raw)
    assert torch.equal(raw.x_test, before)


@pytest.mark.parametrize("value", [0.1, 1e30, -7.3, 0.0])
def test_constant_features_become_zero(value):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 3, generator=generator)
    x[:, 1] = value
    x_test = torch.randn(30, 3, generator=generator)
    y = torch.arange(20_000) % 2
    raw = RawData(x_train=x, y_train=y, x_test=x_test, y_test=y[:30], classes=2)
    made = bundle(raw, normalize="per_feature")
    for split in (made.train, made.val, made.test):
        assert (split.x[:, 1] == 0).all()
        assert split.x.isfinite().all()
    assert made.train.x[:, 0].std().item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("normalize", ["global", "per_feature"])
def test_a_set_of_one_value_becomes_zero(normalize):
    x = torch.full((50, 700), 0.1)
    y = torch.arange(50) % 2
    made = bundle(RawData(x_train=x, y_train=y, x_test=x, y_test=y, classes=2), normalize=normalize)
    assert (made.train.x == 0).all()


@pytest.mark.parametrize("per_feature", [True, False])
def test_moments_are_accurate_over_many_chunks_and_a_large_offset(per_feature):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300_000, 3, generator=generator) + torch.tensor([0.0, 1e4, -1e4])
    x[0] = 1e5  # the value everything is shifted by may be an outlier
    axes = 0 if per_feature else None
    mean, std = mean_and_std(x, per_feature=per_feature)
    wide = x.numpy().astype(np.longdouble)
    # A running sum of 300,000 terms of 1e5 in float64, at worst, is off by 1e-11 of a term.
    np.testing.assert_allclose(mean.numpy().squeeze(), wide.mean(axis=axes).astype(float), rtol=0, atol=1e-9)
    np.testing.assert_allclose(std.numpy().squeeze(), wide.std(axis=axes).astype(float), rtol=1e-9)


@given(train=st.integers(2, 200), fraction=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=50)
def test_split_is_disjoint_exhaustive_and_repeatable(train, fraction):
    kept = max(1, round(train * fraction))
    if kept >= train:
        with pytest.raises(DataError, match="val_fraction"):
            bundle(numbered(train), val_fraction=fraction)
        return
    made, again = (bundle(numbered(train), val_fraction=fraction, normalize="none") for _ in range(2))
    assert len(made.val) == kept
    numbers = torch.cat([made.train.x, made.val.x]).flatten()
    assert numbers.sort().values.tolist() == list(range(train))
    assert torch.equal(made.train.y, made.train.x.flatten().long() % 3)
    assert torch.equal(made.val.x, again.val.x)


def test_split_of_a_set_with_its_own_validation_part_is_kept():
    raw = numbered(50)
    own = RawData(
        x_train=raw.x_train,
        y_train=raw.y_train,
        x_test=raw.x_test,
        y_test=raw.y_test,
        classes=3,
        x_val=raw.x_train[:7] + 100,
        y_val=raw.y_train[:7],
    )
    made = bundle(own, normalize="none", val_fraction=0.5)
    assert len(made.train) == 50
    assert torch.equal(made.val.x, own.x_val)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), data=st.data())
@settings(deadline=None, max_examples=100)
def test_stratified_parts(counts, data):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    total = len(labels)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=2)))
    sizes = [cuts[0], cuts[1] - cuts[0], total - cuts[1]]
    parts = stratified_split(labels, sizes, torch.Generator().manual_seed(3))
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).sort().values.tolist() == list(range(total))
    for part, size in zip(parts, sizes, strict=True):
        found = torch.bincount(labels[part], minlength=len(counts))
        expected = torch.tensor(counts) * size / total
        a_cut = 0.5 + len(counts) * torch.tensor(counts) / (2 * total)
        assert ((found - expected).abs() <= 2 * a_cut + 1e-9).all()


def test_stratified_parts_are_shuffled():
    labels = torch.zeros(1000, dtype=torch.int64)
    first, _ = stratified_split(labels, [500, 500], torch.Generator().manual_seed(0))
    other, _ = stratified_split(labels, [500, 500], torch.Generator().manual_seed(1))
    # Half of an independent draw is expected to be shared; five standard deviations around it.
    shared = len(set(first.tolist()) & set(other.tolist()))
    assert abs(shared - 250) < 5 * 1000**0.5 / 4
    assert abs(int((first < 500).sum()) - 250) < 5 * 1000**0.5 / 4
