"""Data sets that Hugging Face's datasets reads from a folder, without a network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from initbench.components.target import TargetKind
from initbench.data.dataset import DATASETS, DataSource, LocatedDataset, RawData, UnavailableError
from initbench.errors import DataError, MissingExtraError

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=40), np.arange(40)
IMAGES = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
ANSWERS = ["yes" if n % 3 else "no" for n in range(40)]


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package, without the network and with a cache of its own."""
    before = dict(os.environ)
    os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path_factory.mktemp("hf")))
    yield pytest.importorskip("datasets")
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def table(datasets: Any) -> Any:
    return datasets.Dataset.from_dict({"a": A.tolist(), "b": B.tolist(), "label": ANSWERS})


@pytest.fixture
def photos(datasets: Any) -> Any:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "eel", "fox"])}
    columns = {"image": [Image.fromarray(image) for image in IMAGES], "label": [n % 4 for n in range(40)]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def locate(root: Path, path: str = "mine", **options: object) -> LocatedDataset:
    entry = DATASETS["huggingface"]
    return entry.locate(
        entry.options(name="huggingface", path=path, **options), DataSource(root=root, offline=True)
    )


def load(root: Path, **options: object) -> RawData:
    return locate(root, **options).load()


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    return str(caught.value)


def write(part: Any, kind: str, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "jsonl":
        part.to_json(path)
    else:
        getattr(part, f"to_{kind}")(path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_files_of_a_folder_are_read_by_split(kind: str, table: Any, tmp_path: Path) -> None:
    write(table.select(range(30)), kind, tmp_path / "mine" / f"train-0.{kind}")
    write(table.select(range(30, 40)), kind, tmp_path / "mine" / f"test.{kind}")
    raw = load(tmp_path)
    assert (len(raw.x_train), len(raw.x_test), raw.classes, raw.class_names) == (30, 10, 2, ("no", "yes"))
    expected = torch.from_numpy(np.stack([A, B], axis=1).astype(np.float32))
    assert torch.allclose(raw.x_train, expected[:30], rtol=1e-6)
    assert torch.allclose(raw.x_test, expected[30:], rtol=1e-6)
    assert raw.y_train.tolist() == [int(answer == "yes") for answer in ANSWERS[:30]]


def test_a_saved_data_set_of_images(datasets: Any, photos: Any, tmp_path: Path) -> None:
    parts = {"train": photos.select(range(24)), "validation": photos.select(range(24, 32))}
    datasets.DatasetDict({**parts, "test": photos.select(range(32, 40))}).save_to_disk(tmp_path / "mine")
    raw = load(tmp_path)
    assert raw.class_names == ("cat", "dog", "eel", "fox")
    assert torch.equal(raw.x_train[:, 0], torch.from_numpy(IMAGES[:24]))
    assert raw.x_val is not None
    assert torch.equal(raw.x_val[:, 0], torch.from_numpy(IMAGES[24:32]))
    assert torch.equal(raw.x_test[:, 0], torch.from_numpy(IMAGES[32:]))
    assert raw.y_test.tolist() == [n % 4 for n in range(32, 40)]


def test_columns_and_kinds_of_targets(datasets: Any, table: Any, tmp_path: Path) -> None:
    table.save_to_disk(tmp_path / "mine")
    raw = load(tmp_path, inputs=["b"], target_column="a", target_kind="real", test_fraction=0.25)
    assert (raw.target, raw.x_train.shape, len(raw.x_test)) == (TargetKind.REAL, (30, 1), 10)
    ids = RNG.integers(0, 9, (40, 5))
    tokens = datasets.Dataset.from_dict({"ids": ids[:, :-1].tolist(), "label": ids[:, 1:].tolist()})
    tokens.save_to_disk(tmp_path / "tokens")
    raw = load(tmp_path, path="tokens", target_kind="sequence", vocabulary=9)
    assert (raw.x_train.dtype, raw.x_train.shape[1], raw.vocabulary) == (torch.int64, 4, 9)


def test_the_contents_identify_the_data(table: Any, tmp_path: Path) -> None:
    for name, part in (("mine", table), ("moved", table), ("other", table.select(range(39)))):
        (tmp_path / name).mkdir()
        part.to_parquet(tmp_path / name / "train.parquet")
    first = locate(tmp_path).fingerprint
    assert locate(tmp_path, path="moved").fingerprint == first
    assert locate(tmp_path, path="other").fingerprint != first


def test_what_cannot_be_read_is_refused(datasets: Any, table: Any, tmp_path: Path) -> None:
    table.save_to_disk(tmp_path / "mine")
    assert "there is no column 'answer' (data.target_column); it has a, b, label" in refusal(
        tmp_path, target_column="answer"
    )
    assert "there is no column 'c'; the data set has a, b, label" in refusal(tmp_path, inputs=["c"])
    ragged = datasets.Dataset.from_dict({"x": [[1.0], [1.0, 2.0]] * 9, "label": [0, 1] * 9})
    ragged.save_to_disk(tmp_path / "ragged")
    assert "'x' must be numbers, texts or lists of the same length" in refusal(tmp_path, path="ragged")
    missing = datasets.Dataset.from_dict({"x": [1.0, None] * 9, "label": [0, 1] * 9})
    missing.save_to_disk(tmp_path / "missing")
    assert "column 'x' has missing values" in refusal(tmp_path, path="missing")
    (tmp_path / "empty").mkdir()
    assert "must contain Parquet, JSON, CSV or Arrow files of one kind" in refusal(tmp_path, path="empty")
    for name in ("train.parquet", "train.json", "train.csv", "train.arrow"):
        folder = tmp_path / f"broken_{name}"
        folder.mkdir()
        (folder / name).write_bytes(b"\x00\xff{[PAR1\n" * 5)
        assert "Traceback" not in refusal(tmp_path, path=folder.name)


def test_the_hub_is_not_asked_offline(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        locate(tmp_path, path="someone/something")
    assert "the data set 'someone/something' cannot be loaded" in str(caught.value)


def test_without_the_package_the_extra_is_named(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.save_to_disk(tmp_path / "mine")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'initbench\[hf\]'"):
        load(tmp_path)
