"""Shifted evaluation data, compared with arithmetic on the values before normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from initbench.errors import DataError
from tests.data.own_data import bundle, raw_of

PARTS = ("val", "test")


def images(kind: str):
    x = torch.randint(256, (400, 2, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return raw_of(x if kind == "uint8" else x / 255, torch.arange(400) % 3, 100)


def loaded(raw, part: str) -> np.ndarray:
    """The values before normalisation, black 0 and white 1."""
    x = getattr(raw, f"x_{part}").numpy().astype(np.float64)
    return x / 255 if raw.x_train.dtype == torch.uint8 else x


def statistics(raw) -> tuple[float, float]:
    train = loaded(raw, "train")
    return train.mean(), train.std()


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("normalize", ["global", "none"])
def test_brightness_is_added_before_normalisation_and_to_evaluation_data_alone(kind, normalize):
    raw = images(kind)
    plain = bundle(raw, normalize=normalize)
    made = bundle(raw, normalize=normalize, shift={"brightness": 0.3})
    assert torch.equal(made.train.x, plain.train.x)
    mean, std = statistics(raw) if normalize == "global" else (0.0, 1.0)
    for part in PARTS:
        expected = (loaded(raw, part) + 0.3 - mean) / std
        np.testing.assert_allclose(getattr(made, part).x.numpy(), expected, rtol=0, atol=1e-5)
        assert torch.equal(getattr(made, part).y, getattr(plain, part).y)


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize(
    ("given", "down", "right"), [(2, 2, 2), ([1, -3], 1, -3), ([-5, 4], -5, 4), ([0, 1], 0, 1)]
)
def test_translate_moves_down_and_right_and_lets_black_in(kind, given, down, right):
    raw = images(kind)
    made = bundle(raw, normalize="none", shift={"translate": given})
    assert torch.equal(made.train.x, bundle(raw, normalize="none").train.x)
    for part in PARTS:
        x = loaded(raw, part)
        expected = np.zeros_like(x)
        for row in range(6):
            for column in range(5):
                if 0 <= row - down < 6 and 0 <= column - right < 5:
                    expected[:, :, row, column] = x[:, :, row - down, column - right]
        np.testing.assert_allclose(getattr(made, part).x.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_noise_is_normal_with_the_given_deviation_and_the_same_every_time(kind):
    raw = images(kind)
    plain = bundle(raw, normalize="none")
    made, again = (bundle(raw, normalize="none", shift={"noise": 0.2}) for _ in range(2))
    added = {part: (getattr(made, part).x - getattr(plain, part).x).flatten().double() for part in PARTS}
    for part, noise in added.items():
        assert torch.equal(getattr(made, part).x, getattr(again, part).x)
        # n values: the mean is off by σ/√n, the deviation by σ/√2n, a fourth moment of 3σ⁴ by σ⁴·√(96/n).
        n = len(noise)
        assert abs(noise.mean()) < 5 * 0.2 / n**0.5
        assert abs(noise.std() - 0.2) < 5 * 0.2 / (2 * n) ** 0.5
        assert abs((noise / 0.2).pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert abs(torch.corrcoef(torch.stack(list(added.values())))[0, 1]) < 5 / n**0.5


def test_images_are_moved_then_brightened_then_noisy():
    raw = images("float")
    made = bundle(raw, normalize="none", shift={"brightness": 0.5, "translate": [5, 0], "noise": 0.1})
    noise = bundle(raw, normalize="none", shift={"noise": 0.1}).val.x - bundle(raw, normalize="none").val.x
    # Five rows of six are black now, and brightened like the rest.
    assert torch.allclose(made.val.x[:, :, :5], 0.5 + noise[:, :, :5], atol=1e-6)
    assert torch.allclose(made.val.x[:, :, 5], raw.x_val[:, :, 0] + 0.5 + noise[:, :, 5], atol=1e-6)


def test_an_empty_shift_changes_nothing():
    raw = images("uint8")
    plain, made = bundle(raw), bundle(raw, shift={})
    assert all(torch.equal(getattr(plain, part).x, getattr(made, part).x) for part in PARTS)


def test_features_can_be_shifted_but_not_moved():
    raw = raw_of(torch.randn(100, 4), torch.arange(100) % 2, 20)
    bundle(raw, shift={"brightness": 1.0, "noise": 0.1})
    with pytest.raises(DataError, match=r"data\.shift\.translate is for images"):
        bundle(raw, shift={"translate": 1})


@pytest.mark.parametrize("given", [6, [6, 0], [0, -5]])
def test_images_moved_out_of_sight(given):
    with pytest.raises(DataError, match=r"data\.shift\.translate=.* 6 × 5 pixels out of view"):
        bundle(images("uint8"), shift={"translate": given})
