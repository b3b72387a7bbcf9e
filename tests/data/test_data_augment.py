"""Augmentation against its slow twin: every variant of an image, built by loops over its pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from initbench.components.target import SampleShape
from initbench.data.augment import Augment
from initbench.data.dataset import DataOptions, DataSource, LocatedDataset, RawData
from initbench.data.locate import ResolvedDataset, resolve_dataset
from initbench.data.preprocessing import PreparedData, preprocess
from initbench.errors import DataError
from initbench.models.build import build
from initbench.train.cohort import Cohort
from initbench.train.loop import Training, TrainingSetup

RARE = 1e-6
"""Chance of a right implementation to fail a test of its distribution (draws are seeded: it does not)."""


def variant(image: Tensor, crop: int, top: int, left: int, mirrored: bool, black: float) -> Tensor:
    """Return an image (C, H, W) padded, cropped at (top, left) and mirrored, computed pixel by pixel."""
    channels, height, width = image.shape
    made = torch.empty_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                column = width - 1 - j if mirrored else j
                y, x = i + top - crop, column + left - crop
                inside = 0 <= y < height and 0 <= x < width
                made[c, i, j] = image[c, y, x] if inside else black
    return made


def variants(image: Tensor, crop: int, flip: bool, black: float) -> list[Tensor]:
    places = range(2 * crop + 1)
    return [
        variant(image, crop, top, left, mirrored, black)
        for mirrored in ([False, True] if flip else [False])
        for top in places
        for left in places
    ]


def batches(runs: int, batch: int, shape: tuple[int, ...] = (2, 5, 4)) -> Tensor:
    stream = torch.Generator().manual_seed(1)
    return torch.randn(runs, batch, *shape, generator=stream)


@given(st.integers(0, 3), st.booleans(), st.integers(0, 9), st.integers(0, 9), st.floats(-3, 3, width=32))
@settings(deadline=None, max_examples=15)
def test_each_image_becomes_one_of_its_own_variants(crop, flip, seed, step, black):
    x = batches(2, 3)
    made = Augment(flip=flip, crop=crop, black=black)(x, [seed, seed + 1], step)
    assert made.shape == x.shape
    for before, after in zip(x.flatten(0, 1), made.flatten(0, 1), strict=True):
        possible = variants(before, crop, flip, black)
        assert sum(torch.equal(after, one) for one in possible) == 1


def which(made: Tensor, possible: list[Tensor]) -> int:
    return next(number for number, one in enumerate(possible) if torch.equal(made, one))


CROP, BATCH, STEPS = 1, 3, 5000


@pytest.fixture(scope="module")
def drawn() -> list[list[int]]:
    """For each step the numbers (0 … 17) of the variants that a batch of equal images became."""
    image = batches(1, 1, (1, 3, 3))[0, 0]
    possible = variants(image, CROP, True, 0.0)
    x = image.expand(1, BATCH, -1, -1, -1)
    augment = Augment(flip=True, crop=CROP, black=0.0)
    return [[which(one, possible) for one in augment(x, [0], step)[0]] for step in range(STEPS)]


def assert_uniform(numbers: list[int], kinds: int) -> None:
    counts = torch.bincount(torch.tensor(numbers), minlength=kinds)
    assert len(counts) == kinds
    assert chisquare(counts.numpy()).pvalue > RARE


def test_all_variants_are_equally_likely(drawn):
    assert_uniform([number for step in drawn for number in step], 18)


def test_images_of_a_batch_are_changed_independently(drawn):
    assert_uniform([first * 18 + second for first, second, _ in drawn], 18**2)


def test_steps_are_independent(drawn):
    flat = [step[0] for step in drawn]
    assert_uniform([now * 18 + then for now, then in zip(flat[::2], flat[1::2], strict=True)], 18**2)


def test_seeds_are_independent():
    image = batches(1, 1, (1, 3, 3))[0, 0]
    possible = variants(image, 0, True, 0.0)
    x = image.expand(2, 1, -1, -1, -1)
    augment = Augment(flip=True, crop=0, black=0.0)
    pairs = [[which(one[0], possible) for one in augment(x, [3, 4], step)] for step in range(400)]
    assert_uniform([first * 2 + second for first, second in pairs], 4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_a_run_sees_the_same_whatever_its_cohort(seeds, step):
    augment = Augment(flip=True, crop=2, black=-0.5)
    x = batches(len(seeds), 8)
    together = augment(x, seeds, step)
    for k, seed in enumerate(seeds):
        assert torch.equal(together[k], augment(x[k : k + 1], [seed], step)[0])


def test_any_step_can_be_asked_for_and_the_input_stays():
    augment = Augment(flip=True, crop=2, black=-0.5)
    x = batches(3, 8)
    before = x.clone()
    first = [augment(x, [0, 1, 2], step) for step in range(5)]
    again = [augment(x, [0, 1, 2], step) for step in reversed(range(5))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0][0], augment(x, [1, 1, 2], 0)[0])
    assert torch.equal(x, before)


def test_other_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    Augment(flip=True, crop=1, black=0.0)(batches(1, 2), [0], 0)
    assert torch.equal(torch.get_rng_state(), state)


# ---- in a bundle


def own(x: Tensor, **options: Any) -> PreparedData:
    y = torch.arange(len(x)) % 3
    raw = RawData(x_train=x, y_train=y, x_test=x, y_test=y, classes=3)
    located = LocatedDataset(name="own", fingerprint="f", load=lambda: raw)
    return preprocess(
        ResolvedDataset(requested="own", located=located), DataOptions.model_validate(options), "cpu"
    )


@pytest.mark.parametrize("normalize", ["global", "none"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_padding_is_black_as_if_it_were_normalised_afterwards(normalize, dtype):
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(256, (60, 1, 4, 4), generator=stream).to(dtype)
    plain = own(x, normalize=normalize)
    made = own(x, normalize=normalize, augment={"crop": 3})
    assert made.augment is not None
    assert int(x.min()) == 0, "some pixels are black: what they have become is what padding must be"
    assert made.augment.black == plain.test.x[x == 0].unique().item()
    assert torch.equal(made.train.x, plain.train.x), "the split itself is not augmented"


@pytest.mark.parametrize("augment", [None, {}, {"flip": False, "crop": 0}])
def test_nothing_to_do_is_no_augmentation(augment):
    assert own(torch.rand(30, 1, 4, 4), augment=augment).augment is None


def test_crop_that_could_show_nothing_is_refused():
    own(torch.rand(30, 1, 4, 6), augment={"crop": 3})
    with pytest.raises(DataError, match=r"data\.augment\.crop must be less than .* 4 pixels; found 4"):
        own(torch.rand(30, 1, 4, 6), augment={"crop": 4})
    with pytest.raises(DataError, match=r"shorter side, 3 pixels; found 3"):
        own(torch.rand(30, 1, 4, 6), augment={"crop": 3}, resize=3)


def test_features_are_refused():
    with pytest.raises(DataError, match=r"data\.augment is for images, but a sample of own is .* 5 features"):
        own(torch.rand(30, 5), augment={"flip": True})


def test_per_feature_normalisation_is_refused_by_the_config(make_config):
    with pytest.raises(ValueError, match=r"cannot be combined with data\.normalize=per_feature"):
        make_config(data={"augment": {"crop": 1}, "normalize": "per_feature"})
    with pytest.raises(ValueError, match="crop"):
        make_config(data={"augment": {"crop": -1}})


# ---- in training


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The inputs of every update."""
    inputs: list[Tensor] = []
    gradients = Cohort.gradients
    monkeypatch.setattr(Cohort, "gradients", lambda self, x, y: inputs.append(x) or gradients(self, x, y))
    return inputs


def training(config: Any, seeds: list[int]) -> tuple[Training, PreparedData]:
    data = preprocess(
        resolve_dataset(config.data, DataSource(root=Path("/nowhere"), offline=True)), config.data, "cpu"
    )
    shape, classes = data.input_shape, data.classes
    nets = [
        build(config.model, config.init, form=SampleShape(shape, classes), seed=seed, batch=data.train.x[:8])
        for seed in seeds
    ]
    cpu = torch.device("cpu")
    setup = TrainingSetup(networks=nets, seeds=seeds, config=config, mode="vmap", data=data, device=cpu)
    return Training(setup, emit=lambda _event: None), data


SEEDS = [4, 0, 7]


@pytest.mark.parametrize("augment", [None, {"flip": True, "crop": 2}])
def test_updates_see_augmented_batches_and_only_they(make_config, seen, augment):
    config = make_config(data={"augment": augment}, train={"steps": 6})
    made, data = training(config, SEEDS)
    assert torch.equal(made._train_sample.x, training(make_config(), SEEDS)[0]._train_sample.x)
    assert torch.equal(made._probe_batch.x, training(make_config(), SEEDS)[0]._probe_batch.x)
    made.run()
    assert len(seen) == 6
    for step, x in enumerate(seen):
        plain, _ = data.train.take(made._batches.indices(step))
        expected = plain if data.augment is None else data.augment(plain, SEEDS, step)
        assert torch.equal(x, expected)
        assert torch.equal(x, plain) == (augment is None)


def test_a_cohort_trains_as_its_runs_would_alone(make_config, seen):
    config = make_config(data={"augment": {"flip": True, "crop": 1}}, train={"steps": 5})
    training(config, SEEDS)[0].run()
    together = torch.stack(seen)
    for k, seed in enumerate(SEEDS):
        seen.clear()
        training(config, [seed])[0].run()
        assert torch.equal(torch.stack(seen)[:, 0], together[:, k])


def test_runs_that_are_left_keep_their_own_stream(make_config, seen):
    """When one run has diverged, the others' streams follow their seeds, not their places."""
    config = make_config(data={"augment": {"flip": True, "crop": 1}}, train={"steps": 5})
    whole, data = training(config, SEEDS)
    for parameter in whole._cohort.parameters.values():
        parameter.data[0] = math.inf  # the first run diverges at its first update
    whole.run()
    assert [len(x) for x in seen] == [3, 2, 2, 2, 2]
    for step, x in list(enumerate(seen))[1:]:
        plain, _ = data.train.take(whole._batches.indices(step))
        assert data.augment is not None
        assert torch.equal(x, data.augment(plain, SEEDS[1:], step))
