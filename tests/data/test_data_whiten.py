"""Whitening, compared with NumPy's singular values and with the definition of whiteness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from initbench.config.loading import load_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataOptions
from initbench.data.whiten import fit_whitening
from initbench.errors import ConfigError
from tests.data.own_data import bundle, raw_of

N, HELD_OUT = 4000, 500


def correlated(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Features with standard deviations from 1 to 0.01, mixed, on an offset."""
    stream = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape))
    mix, _ = torch.linalg.qr(torch.randn(size, size, generator=stream))
    x = torch.randn(N + 2 * HELD_OUT, size, generator=stream) * torch.logspace(0, -2, size)
    return (x @ mix + 3.0).view(-1, *shape)


def raw(shape: tuple[int, ...] = (2, 3, 3), seed: int = 0):
    x = correlated(shape, seed)
    return raw_of(x, torch.arange(len(x)) % 3, HELD_OUT)


def covariance(x: torch.Tensor) -> np.ndarray:
    return np.cov(x.flatten(1).double().numpy(), rowvar=False, bias=True)


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_the_training_split_becomes_white_and_no_other(kind):
    made = bundle(raw(), whiten=kind, whiten_eps=0.0)
    # The map is fitted on this split, so only the rounding of x to float32 remains: 3e-7 relative to
    # directions with a standard deviation of 0.01.
    assert np.abs(covariance(made.train.x) - np.eye(18)).max() < 1e-3
    assert made.train.x.flatten(1).mean(0).abs().max() < 1e-3
    # A covariance entry of 500 white samples has a standard error of 1/√500 off the diagonal.
    off = covariance(made.val.x) - np.eye(18)
    assert 0.5 / HELD_OUT**0.5 < np.sqrt((off**2).mean()) < 2 / HELD_OUT**0.5


@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_eps_is_added_to_the_eigenvalues_relative_to_their_mean(eps):
    plain, made = bundle(raw()), bundle(raw(), whiten="pca", whiten_eps=eps)
    values = np.linalg.eigvalsh(covariance(plain.train.x))[::-1]
    found = covariance(made.train.x)
    assert np.abs(found - np.diag(values / (values + eps * values.mean()))).max() < 1e-4
    assert found[-1, -1] < 0.1 < 0.9 < found[0, 0]


def test_pca_lists_directions_by_falling_variance_with_fixed_signs():
    x = bundle(raw()).train.x
    whitening = fit_whitening(x, "pca", 0.0)
    assert whitening(x).shape == (N, 18)
    features = x.flatten(1).double().numpy()
    _, values, directions = np.linalg.svd(features - features.mean(0), full_matrices=False)
    expected = directions.T / values * N**0.5
    expected *= np.sign(expected[np.abs(expected).argmax(0), np.arange(18)])
    np.testing.assert_allclose(whitening.matrix.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_zca_is_the_symmetric_whitening_and_keeps_the_shape():
    x = bundle(raw()).train.x
    whitening = fit_whitening(x, "zca", 0.0)
    assert whitening(x).shape == x.shape
    matrix = whitening.matrix
    assert torch.allclose(matrix, matrix.mT, rtol=0, atol=1e-9 * float(matrix.abs().max()))
    assert np.linalg.eigvalsh(matrix.numpy()).min() > 0


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_validation_and_test_go_through_the_map_of_the_training_split(kind):
    plain, made = bundle(raw()), bundle(raw(), whiten=kind)
    whitening = fit_whitening(plain.train.x, kind, 0.01)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(made, part).x, whitening(getattr(plain, part).x))
    own = fit_whitening(plain.val.x, kind, 0.01)
    assert not torch.allclose(made.val.x, own(plain.val.x), atol=0.05)


def test_the_map_is_applied_as_written_over_many_chunks(monkeypatch):
    x = bundle(raw()).train.x
    whole = fit_whitening(x, "zca", 0.01)
    monkeypatch.setattr("initbench.data.whiten._CHUNK_VALUES", 18 * 7)
    cut = fit_whitening(x, "zca", 0.01)
    assert torch.allclose(whole.matrix, cut.matrix, rtol=1e-9, atol=1e-9)
    assert torch.allclose(whole(x), cut(x), rtol=1e-5, atol=1e-5)


def test_global_normalisation_changes_nothing_and_per_feature_whitens_correlations():
    features = raw((6,))
    scaled = {name: bundle(features, whiten="zca", normalize=name).train.x for name in ("none", "global")}
    assert torch.allclose(scaled["none"], scaled["global"], rtol=0, atol=2e-4)
    own = bundle(features, whiten="zca", normalize="per_feature", whiten_eps=0.0)
    plain = bundle(features, normalize="per_feature").train.x.double()
    correlations = np.corrcoef(plain.numpy(), rowvar=False)
    values, vectors = np.linalg.eigh(correlations)
    expected = (plain.numpy() - plain.numpy().mean(0)) @ (vectors / np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(own.train.x.numpy(), expected, rtol=0, atol=2e-3)
    assert not torch.allclose(own.train.x, scaled["global"], atol=0.1)


@pytest.mark.parametrize("eps", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_constant_and_dependent_features_give_finite_numbers(kind, eps):
    x = torch.randint(256, (300, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:250, :, 0] = 0  # a row that only evaluation data fill
    x[:, :, 1] = x[:, :, 2]
    made = bundle(raw_of(x, torch.arange(300) % 3, 25), whiten=kind, whiten_eps=eps)
    for part in (made.train, made.val, made.test):
        assert part.x.isfinite().all()
        assert part.x.abs().max() < 20
    values = np.linalg.eigvalsh(covariance(made.train.x))
    assert (values > 0.5).sum() == 8  # 16 pixels less four constant ones, less four that are copies
    assert np.abs(values[:8]).max() < 1e-6
    if kind == "zca":
        assert made.val.x[:, :, 0].abs().max() < 1e-5


def test_a_set_of_one_value_becomes_zero():
    x = torch.full((60, 7), 0.1)
    assert (bundle(raw_of(x, torch.arange(60) % 2, 10), whiten="zca").test.x == 0).all()


def test_threads_change_nothing():
    x = torch.randn(3000, 200, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            whitening = fit_whitening(x, "zca", 0.01)
            found.append((whitening.matrix, whitening(x)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_augmentation_is_refused():
    with pytest.raises(ValidationError, match=r"cannot be combined with data\.whiten=zca"):
        DataOptions(whiten="zca", augment={"flip": True})
    with pytest.raises(ValidationError, match="normalize=per_feature"):
        DataOptions(normalize="per_feature", augment={"flip": True})


def config(family: str, whiten: str) -> ExperimentConfig:
    overrides = ["name=a", "data.name=digits", f"data.whiten={whiten}", f"model.family={family}"]
    return load_overrides(overrides, ExperimentConfig)


def test_pca_is_refused_for_nets_of_images_when_the_config_is_read():
    for family, whiten in (("mlp", "pca"), ("mlp", "zca"), ("cnn", "zca")):
        config(family, whiten)
    for family in ("cnn", "resnet"):
        with pytest.raises(ConfigError, match=r"(?s)model\.family.*64 features.*data\.whiten=pca"):
            config(family, "pca")
