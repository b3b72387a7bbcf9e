"""Few labels and wrong labels: which, how many, and that the rest is as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.config.loading import load_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.labels import corrupt_labels, split_labelled
from initbench.errors import ConfigError, DataError
from tests.data.own_data import bundle, raw_of

SAMPLES, HELD_OUT, CLASSES = 1000, 60, 5


def raw():
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES + 2 * HELD_OUT, 4, generator=stream) * 3 + 1
    return raw_of(x, torch.arange(len(x)) % CLASSES, HELD_OUT)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=7).filter(any), st.data())
@settings(deadline=None, max_examples=150)
def test_each_class_keeps_its_share_and_at_least_one(sizes, data):
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    present = sum(size > 0 for size in sizes)
    count = data.draw(st.integers(present, len(y)))
    kept, rest = split_labelled(y, count)
    assert len(kept) == count
    assert torch.cat([kept, rest]).sort().values.tolist() == list(range(len(y)))
    found = torch.bincount(y[kept], minlength=len(sizes)).tolist()
    for number, size in zip(found, sizes, strict=True):
        share = size * count / len(y)
        assert number >= min(size, 1)
        assert number <= max(1, share + 1)
        if all(other == 0 or other * count >= len(y) for other in sizes):
            assert abs(number - share) < 1 + 1e-9


def test_labelled_samples_are_chosen_at_random_and_the_same_for_all():
    y = torch.zeros(1000, dtype=torch.int64)
    kept, _ = split_labelled(y, 500)
    assert torch.equal(kept, split_labelled(y, 500)[0])
    # Half of 1,000 in the first half: hypergeometric, standard deviation √(1000)/4.
    assert abs(int((kept < 500).sum()) - 250) < 5 * 1000**0.5 / 4


def test_the_rest_stays_without_labels_and_counts_for_the_normalisation():
    whole, made = bundle(raw()), bundle(raw(), labelled=50)
    assert (len(made.train), made.unlabelled.shape) == (50, (950, 4))
    assert torch.bincount(made.train.y).tolist() == [10] * CLASSES
    assert whole.unlabelled is None
    assert whole.pretraining_x is whole.train.x
    joined = made.pretraining_x
    assert torch.equal(joined[:50], made.train.x)
    assert torch.equal(joined.sort(0).values, whole.train.x.sort(0).values)
    for part in ("val", "test"):
        assert torch.equal(getattr(made, part).x, getattr(whole, part).x)
    known = {tuple(x.tolist()): int(y) for x, y in zip(whole.train.x, whole.train.y, strict=True)}
    assert all(known[tuple(x.tolist())] == int(y) for x, y in zip(made.train.x, made.train.y, strict=True))


def test_whitening_sees_the_unlabelled_too():
    whole, made = bundle(raw(), whiten="zca"), bundle(raw(), whiten="zca", labelled=50)
    assert torch.equal(made.val.x, whole.val.x)


def test_every_label_kept_leaves_nothing_unlabelled():
    made, whole = bundle(raw(), labelled=SAMPLES), bundle(raw())
    assert made.unlabelled is None
    assert torch.equal(made.train.x, whole.train.x)


@pytest.mark.parametrize("count", [CLASSES - 1, SAMPLES + 1])
def test_numbers_of_labels_that_cannot_be(count):
    with pytest.raises(DataError, match=r"data\.labelled must be from 5, .* to 1,000.* found"):
        bundle(raw(), labelled=count)


def test_too_few_labels_are_refused_when_the_config_is_read():
    few = ["name=a", "data.name=digits", "data.labelled=9"]
    load_overrides([*few, "data.classes=[1, 2]"], ExperimentConfig)
    with pytest.raises(ConfigError, match=r"data\.labelled.*9 labels are too few for 10 classes"):
        load_overrides(few, ExperimentConfig)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
def test_label_noise_replaces_that_share_of_the_training_labels_alone(share):
    plain, made = bundle(raw()), bundle(raw(), label_noise=share)
    changed = int((plain.train.y != made.train.y).sum())
    assert changed == made.mislabelled == round(share * SAMPLES)
    assert torch.equal(plain.train.x, made.train.x)
    for part in ("val", "test"):
        assert torch.equal(getattr(plain, part).y, getattr(made, part).y)


def test_wrong_labels_are_any_other_class_equally_often():
    y = torch.arange(20_000) % CLASSES
    wrong = corrupt_labels(y, CLASSES, 0.5)
    away = torch.bincount((wrong - y)[wrong != y] % CLASSES, minlength=CLASSES).double()
    assert away[0] == 0
    # 10,000 draws over four classes: each 2,500, standard deviation √(10,000 · ¼ · ¾) = 43.
    assert (away[1:] - 2500).abs().max() < 5 * 43
    by_class = torch.bincount(y[wrong != y], minlength=CLASSES).double()
    # 2,000 of each class, hypergeometric: standard deviation below √(10,000 · ⅕ · ⅘) = 40.
    assert (by_class - 2000).abs().max() < 5 * 40


def test_more_noise_adds_to_less():
    y = torch.arange(500) % CLASSES
    little, much = corrupt_labels(y, CLASSES, 0.1), corrupt_labels(y, CLASSES, 0.4)
    assert torch.equal(much[little != y], little[little != y])


def test_noise_is_a_share_of_the_labels_that_were_kept():
    made = bundle(raw(), labelled=50, label_noise=0.2)
    clean = bundle(raw(), labelled=50)
    assert made.mislabelled == 10
    assert torch.equal(made.train.x, clean.train.x)


def test_one_class_has_no_wrong_label():
    with pytest.raises(DataError, match="at least two classes"):
        corrupt_labels(torch.zeros(5, dtype=torch.int64), 1, 0.5)
