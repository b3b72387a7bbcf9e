"""Arrays of the user's own that cannot be meant, and torchvision's unpacked files."""

import gzip
import hashlib

import numpy as np
import pytest

from initbench.data.dataset import DATASETS, DataSource
from initbench.data.sets import torchvision_sets
from initbench.data.sets.npz import NpzOptions
from initbench.errors import DataError
from tests.data.test_data_sets import load_npz, write_npz

RNG = np.random.default_rng(1)
FEATURES = {"x_train": RNG.normal(size=(40, 6)), "x_test": RNG.normal(size=(8, 6))}
LABELS = {"y_train": np.arange(40) % 4, "y_test": np.arange(8) % 4}


def images(shape, **changes):
    return {"x_train": RNG.normal(size=(40, *shape)), "x_test": RNG.normal(size=(8, *shape)), **changes}


REFUSED = {
    "float labels": ({"y_train": np.arange(40) % 4 * 1.0}, r"float64: save y\.astype\(int\)"),
    "regression": ({"y_train": RNG.normal(size=40)}, "set data.target_kind=real"),
    "bool labels": ({"y_train": np.arange(40) % 2 == 0}, r"save y\.astype\(int\)"),
    "text labels": ({"y_train": np.array(["a", "b"] * 20)}, "return_inverse"),
    "column labels": ({"y_train": (np.arange(40) % 4)[:, None]}, r"save y\.ravel\(\)"),
    "one-hot labels": ({"y_train": np.eye(4, dtype=int)[np.arange(40) % 4]}, r"save y\.argmax\(axis=1\)"),
    "negative labels": ({"y_train": np.arange(40) % 4 - 1}, "found -1 … 2"),
    "from one": (
        {"y_train": np.arange(40) % 4 + 1, "y_test": np.arange(8) % 4 + 1},
        "count from 0: save y - 1",
    ),
    "gap": (
        {"y_train": np.arange(40) % 4 * 2, "y_test": np.arange(8) % 4 * 2},
        r"3 of 7 classes \(1, 3, 5\)",
    ),
    "only in test": ({"y_test": np.arange(8)}, "cannot be learned"),
    "a class each": ({"y_train": np.arange(40), "y_test": np.arange(8)}, "40 different labels among 40"),
    "nearly a class each": ({"y_train": np.arange(40) // 2 * 2 % 39, "y_test": np.arange(8)}, "class|labels"),
    "constant": ({"x_train": np.full((40, 6), 0.5)}, "x_train is 0.5 everywhere"),
    "one sample": ({"x_train": np.tile(RNG.normal(size=6), (40, 1))}, "40 times the same sample"),
    "black images": (images((8, 8), x_train=np.zeros((40, 8, 8))), "x_train is 0 everywhere"),
    "channels first": (images((3, 8, 8)), r"channels last.*save x\.transpose\(0, 2, 3, 1\)"),
    "maps first": (images((16, 8, 8)), r"channels last.*save x\.transpose\(0, 2, 3, 1\)"),
    "integer pixels": (
        {"x_train": RNG.integers(0, 256, (40, 8, 8))},
        r"in 0 … 255: save x\.astype\('uint8'\)",
    ),
    "tokens": ({"x_train": RNG.integers(0, 50_000, (40, 6))}, "set data.vocabulary if they are token ids"),
    "bool inputs": ({"x_train": RNG.normal(size=(40, 6)) > 0}, r"save x\.astype\('float32'\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_with_the_way_out(tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        load_npz(write_npz(tmp_path / "a.npz", **{**FEATURES, **LABELS, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        images((8, 8)),
        images((8, 8, 3)),
        images((8, 6, 16)),
        images((3, 8, 3)),
        {"y_test": np.zeros(8, dtype=int)},
        {"x_train": np.where(np.arange(6) > 2, FEATURES["x_train"], 0.0)},
    ],
)
def test_what_can_be_meant_is_read(tmp_path, changes):
    raw = load_npz(write_npz(tmp_path / "a.npz", **{**FEATURES, **LABELS, **changes}))
    assert raw.classes == 4


def test_chosen_classes_may_leave_gaps(tmp_path):
    path = write_npz(
        tmp_path / "a.npz", **FEATURES, y_train=np.arange(40) % 4 * 2, y_test=np.arange(8) % 4 * 2
    )
    options = NpzOptions(name="npz", path=str(path), classes=[0, 4])
    assert DATASETS["npz"].locate(options, DataSource(root=tmp_path)).load().classes == 7


@pytest.fixture
def published(monkeypatch, idx_files):
    """The small files of the fixture stand for what torchvision publishes, packed and not."""
    for class_name in torchvision_sets.MD5:
        packed = tuple(hashlib.md5(idx_files[file]).hexdigest() for file in torchvision_sets._FILES)
        monkeypatch.setitem(torchvision_sets.MD5, class_name, packed)
    bare = tuple(
        hashlib.md5(gzip.decompress(idx_files[file])).hexdigest() for file in torchvision_sets._FILES
    )
    for class_name in torchvision_sets.UNPACKED_MD5:
        monkeypatch.setitem(torchvision_sets.UNPACKED_MD5, class_name, bare)


@pytest.mark.parametrize(
    ("name", "class_name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
@pytest.mark.parametrize("packed_files", [0, 2])
def test_the_unpacked_files_that_torchvision_reads_are_read(
    tmp_path, idx_files, published, name, class_name, packed_files
):
    folders = {"bare": tmp_path / "bare", "packed": tmp_path / "packed"}
    for kind, root in folders.items():
        raw = root / class_name / "raw"
        raw.mkdir(parents=True)
        for number, (file, content) in enumerate(idx_files.items()):
            if kind == "packed" or number < packed_files:
                (raw / file).write_bytes(content)
            if kind == "bare":
                (raw / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    options = DATASETS[name].options(name=name)
    bare, packed = (
        DATASETS[name].locate(options, DataSource(root=root, offline=True)) for root in folders.values()
    )
    assert (bare.load().x_train == packed.load().x_train).all()
    assert (bare.fingerprint == packed.fingerprint) == (name != "kmnist")


def test_an_unpacked_file_that_was_changed_is_refused(tmp_path, idx_files, published):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file, content in idx_files.items():
        (raw / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="is not the published file"):
        DATASETS["mnist"].locate(
            DATASETS["mnist"].options(name="mnist"), DataSource(root=tmp_path, offline=True)
        )
