"""Data of a function of the user: what it may return, what identifies it, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from initbench.components.target import TargetKind
from initbench.data.dataset import DATASETS, DataSource, LocatedDataset
from initbench.errors import DataError, UsageError
from initbench.user_functions import UserFunction

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
IMAGES = RNG.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)


def source_of(function: Callable[..., Any], tmp_path) -> DataSource:
    return DataSource(root=tmp_path, function=UserFunction("--data-from", "mine:make", function))


def locate(function: Callable[..., Any], tmp_path, **options: Any) -> LocatedDataset:
    entry = DATASETS["custom"]
    return entry.locate(entry.options(name="custom", **options), source_of(function, tmp_path))


class Samples:
    """A map-style data set of images and labels."""

    def __init__(self, convert: Callable[[np.ndarray], Any] = lambda x: x) -> None:
        self.convert = convert

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.convert(IMAGES[index]), int(Y[index])


def tensors(x: np.ndarray = X, y: np.ndarray = Y) -> TensorDataset:
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


RETURNED = {
    "a pair": lambda: (X, Y),
    "tensors": lambda: (torch.from_numpy(X), torch.from_numpy(Y)),
    "a list": lambda: [X, Y],
    "a data set": tensors,
    "parts": lambda: (tensors(X[:20], Y[:20]), tensors(X[20:26], Y[20:26]), tensors(X[26:], Y[26:])),
    "pairs": lambda: ((X[:24], Y[:24]), (X[24:], Y[24:])),
    "a dictionary": lambda: {"x_train": X[:24], "y_train": Y[:24], "x_test": X[24:], "y_test": Y[24:]},
}


@pytest.mark.parametrize("kind", RETURNED)
def test_a_function_may_return(kind, tmp_path):
    raw = locate(RETURNED[kind], tmp_path).load()
    assert raw.classes == 3
    rows = {tuple(x.tolist()): int(y) for x, y in zip(X, Y, strict=True)}
    parts = [(raw.x_train, raw.y_train), (raw.x_test, raw.y_test)]
    parts += [] if raw.x_val is None else [(raw.x_val, raw.y_val)]
    for x, y in parts:
        for sample, label in zip(x, y, strict=True):
            assert rows.pop(tuple(sample.tolist())) == label
    assert not rows
    assert (raw.x_val is not None) == (kind == "parts")
    if kind == "parts":
        assert torch.equal(raw.x_test, torch.from_numpy(X[20:26]))


@pytest.mark.parametrize(
    "convert",
    [lambda x: x, Image.fromarray, lambda x: torch.from_numpy(x).permute(2, 0, 1)],
    ids=["array", "image", "tensor"],
)
def test_images_of_every_library_are_the_same(convert, tmp_path):
    raw = locate(lambda: (Samples(convert), Samples(convert)), tmp_path).load()
    assert torch.equal(raw.x_train, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    batch = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    pair = locate(lambda: ((batch, Y), (batch, Y)), tmp_path).load()
    assert torch.equal(pair.x_train, raw.x_train)


def test_targets_may_be_of_other_kinds(tmp_path):
    raw = locate(lambda: (X, X[:, 0]), tmp_path, target_kind="real").load()
    assert raw.target is TargetKind.REAL
    ids = RNG.integers(0, 9, (30, 8))
    raw = locate(lambda: (ids[:, :-1], ids[:, 1:]), tmp_path, target_kind="sequence", vocabulary=9).load()
    assert (raw.vocabulary, raw.x_train.dtype) == (9, torch.int64)


def test_the_contents_identify_the_data(tmp_path):
    first = locate(lambda: (X, Y), tmp_path).fingerprint
    assert locate(tensors, tmp_path).fingerprint == first
    assert locate(lambda scale: (X * scale, Y), tmp_path, options={"scale": 2.0}).fingerprint != first
    assert locate(lambda: (X, (Y + 1) % 3), tmp_path).fingerprint != first
    assert locate(lambda: (X, Y), tmp_path, test_fraction=0.5).fingerprint != first


def test_the_function_is_called_once_and_not_by_workers(tmp_path):
    calls = []

    def make(scale: float = 1.0) -> tuple:
        calls.append(scale)
        return X * scale, Y

    source, entry = source_of(make, tmp_path), DATASETS["custom"]
    options = [entry.options(name="custom", options=given) for given in ({}, {"scale": 3.0}, {})]
    located = [entry.locate(each, source) for each in options]
    assert calls == [1.0, 3.0]
    assert located[0] is located[2]
    again = pickle.loads(pickle.dumps(located[1])).load()
    assert torch.equal(again.x_train, located[1].load().x_train)
    assert calls == [1.0, 3.0]


class Ragged(Samples):
    def __getitem__(self, index: int) -> tuple[Any, int]:
        return IMAGES[index, : 5 + index % 2], 0


class NoPairs(Samples):
    def __getitem__(self, index: int) -> Any:
        return IMAGES[index]


def exits() -> None:
    raise SystemExit(3)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda: None, "the train part is of type NoneType"),
    "four": (lambda: (tensors(),) * 4, "it returned 4 values"),
    "key": (lambda: {"x": X}, "returned the key 'x'; it must return a pair"),
    "half": (lambda: {"x_train": X, "y_train": Y, "y_test": Y}, "a dictionary without x_test"),
    "ragged": (Ragged, "sample 1 of the train part has the shape (6, 5, 3), the first one (5, 5, 3)"),
    "no pairs": (NoPairs, "sample 0 of the train part is not a pair"),
    "empty": (lambda: [[], []], "the train part has no samples"),
    "lengths": (lambda: (X, Y[:9]), "x_train and y_train must have the same length, found 30 and 9"),
    "not finite": (lambda: (X * np.nan, Y), "x_train must be finite in float32, found 120 values"),
    "text": (lambda: (X, np.array(["a"] * 30)), "y_train must contain integers"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_other_values_are_refused(fault, tmp_path):
    function, message = REFUSED[fault]
    with pytest.raises(DataError) as caught:
        locate(function, tmp_path)
    assert str(caught.value).startswith("--data-from mine:make")
    assert message in str(caught.value)


def test_a_function_that_fails_is_named(tmp_path):
    faults = {"ZeroDivisionError: division by zero": lambda: 1 / 0, "it exits the process": exits}
    for message, function in faults.items():
        with pytest.raises(UsageError, match=r"--data-from mine:make could not return data:") as caught:
            locate(function, tmp_path)
        assert message in str(caught.value)
    with pytest.raises(UsageError, match=r"data\.options\.nois: .*; did you mean 'noise'"):
        locate(lambda noise=1: (X, Y), tmp_path, options={"nois": 1})
    with pytest.raises(UsageError, match=r"requires the argument path: set data\.options\.path"):
        locate(lambda path: (X, Y), tmp_path)
    entry = DATASETS["custom"]
    with pytest.raises(UsageError, match="--data-from MODULE:FUNCTION"):
        entry.locate(entry.options(name="custom"), DataSource(root=tmp_path))
