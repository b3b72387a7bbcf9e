"""Every data set keeps the common contract; digits, gaussian and npz each keep their own."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import cifar10, cifar100
from PIL import Image
from pydantic import ValidationError

from initbench.data.dataset import DATASETS, Dataset, DataSource, LocatedDataset, RawData, UnavailableError
from initbench.data.raw_checks import check_raw_data
from initbench.data.sets import digits
from initbench.data.sets.npz import NpzOptions
from initbench.data.sets.torchvision_sets import MD5, published_archive
from initbench.errors import DataError
from initbench.registry_choice import default_choice
from initbench.user_functions import UserFunction
from tests.processes import run_forked


def write_npz(path: Path, **changes: object) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def locate_npz(path: Path | str, root: Path = Path("/nowhere")) -> LocatedDataset:
    return DATASETS["npz"].locate(NpzOptions(name="npz", path=str(path)), DataSource(root=root))


def load_npz(path: Path) -> RawData:
    return locate_npz(path).load()


@pytest.fixture(params=DATASETS, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Dataset:
    return request.param


@pytest.fixture
def located(entry: Dataset, tmp_path, idx_files, checksums, monkeypatch, put_on_disk) -> LocatedDataset:
    """The entry found in a data root made for it."""
    for class_name in MD5:
        monkeypatch.setitem(MD5, class_name, tuple(checksums.values()))
        put_on_disk(tmp_path, idx_files, f"{class_name}/raw")
    for cifar in (cifar10(), cifar100()):
        cifar.publish(monkeypatch, b"")
        put_on_disk(tmp_path, cifar.files, cifar.folder)
    source = DataSource(root=tmp_path, offline=True, function=UserFunction("--data-from", "a:b", two_classes))
    return entry.locate(entry.options(name=entry.name, **write_user_files(entry.name, tmp_path)), source)


def two_classes() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(24.0).reshape(12, 2), np.arange(12) % 2


def write_user_files(name: str, root: Path) -> dict[str, str]:
    """Write the files of a set of the user's own, and return the options that name them."""
    match name:
        case "npz":
            return {"path": str(write_npz(root / "own.npz"))}
        case "idx":
            for file, content in {
                "x": bytes([0, 0, 8, 2, 0, 0, 0, 9, 0, 0, 0, 1]),
                "y": bytes([0, 0, 8, 1, 0, 0, 0, 9]),
            }.items():
                (root / file).write_bytes(
                    content + bytes(range(9)) if file == "x" else content + bytes([0, 1, 2] * 3)
                )
            return {"train_images_path": str(root / "x"), "train_labels_path": str(root / "y")}
        case "images":
            for label, number in itertools.product("ab", range(3)):
                (root / "own" / label).mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 5), (number, 0, 9)).save(root / "own" / label / f"{number}.png")
            return {"path": str(root / "own")}
        case "table":
            (root / "own.csv").write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
            return {"path": str(root / "own.csv")}
        case "huggingface":
            pytest.importorskip("datasets")
            (root / "own").mkdir()
            (root / "own" / "train.csv").write_text(
                "a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(20))
            )
            return {"path": str(root / "own")}
        case "tokens":
            (root / "own.txt").write_text("to be or not to be, that is the question\n" * 9)
            return {"path": str(root / "own.txt"), "block": 8}
    return {}


def test_contract_of_every_set(entry, located):
    raw = located.load()
    assert located.name == entry.name
    assert len(located.fingerprint) == 64
    check_raw_data(raw)
    assert raw.x_train.dtype in (torch.uint8, torch.float32) or raw.vocabulary is not None
    assert raw.class_names is None or len(raw.class_names) == raw.classes


def test_every_set_loads_in_another_process_and_alike(located):
    again = pickle.loads(pickle.dumps(located))
    assert again.fingerprint == located.fingerprint
    assert torch.equal(again.load().x_train, located.load().x_train)


def test_every_set_says_what_it_is(entry):
    assert entry.summary.endswith(".")
    assert entry.source
    assert entry.formula
    for name, field in entry.options.model_fields.items():
        assert field.description, name


def test_checksums_are_torchvisions():
    from torchvision import datasets

    for class_name in MD5:
        known = dict(getattr(datasets, class_name).resources)
        assert published_archive("mnist", class_name).checksums == known


def test_a_set_on_disk_is_read_without_torchvision(tmp_path, idx_files, checksums, put_on_disk):
    put_on_disk(tmp_path, idx_files)
    script = f"""
import sys
from pathlib import Path
from initbench.registry_choice import default_choice
from initbench.data.dataset import DATASETS, DataSource
from initbench.data.sets.torchvision_sets import MD5
MD5["MNIST"] = {tuple(checksums.values())}
source = DataSource(root=Path({str(tmp_path)!r}), offline=True)
raw = DATASETS["mnist"].locate(default_choice(DATASETS, "mnist"), source).load()
assert raw.x_train.shape[1:] == (1, 28, 28)
assert "torchvision" not in sys.modules
"""
    done = run_forked(tmp_path, source=script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes([0, 0, 8, 0]),
        bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]),
        bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2]),
        bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
        bytes([0, 0, 8, 3, 0, 0]),
    ],
    ids=["empty", "no axes", "cut off", "too long", "floats", "cut header"],
)
def test_what_is_no_idx_file_is_an_error(content, tmp_path, idx_files, monkeypatch, put_on_disk):
    files = {**idx_files, "t10k-labels-idx1-ubyte.gz": gzip.compress(content)}
    folder = put_on_disk(tmp_path, files)
    monkeypatch.setitem(MD5, "MNIST", tuple(hashlib.md5(part).hexdigest() for part in files.values()))
    located = DATASETS["mnist"].locate(
        default_choice(DATASETS, "mnist"), DataSource(root=tmp_path, offline=True)
    )
    with pytest.raises(DataError, match="is not an idx file") as caught:
        located.load()
    assert str(folder / "t10k-labels-idx1-ubyte.gz") in str(caught.value)


def load_digits() -> RawData:
    return (
        DATASETS["digits"]
        .locate(default_choice(DATASETS, "digits"), DataSource(root=Path("/nowhere")))
        .load()
    )


def test_digits_csv_equals_load_digits():
    csv = digits.bundled_csv()
    assert csv is not None
    assert np.array_equal(digits.read_scans(csv), digits.read_scans(None))


def test_digits_split_is_a_partition_of_the_scans():
    raw = load_digits()
    assert (len(raw.y_train), len(raw.y_val), len(raw.y_test)) == (1077, 360, 360)
    pixels = torch.cat([raw.x_train, raw.x_val, raw.x_test]).flatten(1) * 16
    labels = torch.cat([raw.y_train, raw.y_val, raw.y_test])
    together = torch.cat([pixels, labels[:, None]], dim=1).numpy().astype(np.uint8)
    expected = digits.read_scans(None)
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected))


def test_digits_split_is_stratified():
    raw = load_digits()
    counts = [torch.bincount(y, minlength=10) for y in (raw.y_train, raw.y_val, raw.y_test)]
    whole = sum(counts)
    for count, size in zip(counts, (1077, 360, 360), strict=True):
        assert (count - whole * size / 1797).abs().max() <= 2


def test_digits_split_never_changes():
    # Published numbers rest on this split: a change of it is a change of the data set.
    raw = load_digits()
    assert raw.y_test[:12].tolist() == [1, 6, 8, 9, 1, 2, 6, 7, 8, 3, 8, 9]
    ink = (raw.x_test * 16).long().sum(dim=(1, 2, 3))
    assert int((ink * torch.arange(360)).sum()) == 20133515


def gaussian(**changes: int) -> LocatedDataset:
    options = default_choice(DATASETS, "gaussian").model_copy(update=changes)
    return DATASETS["gaussian"].locate(options, DataSource(root=Path("/nowhere"), offline=True))


def test_gaussian_is_standard_normal_with_labels_that_say_nothing():
    raw = gaussian(dim=20, samples=5000, num_classes=4).load()
    assert raw.x_train.shape == (5000, 20)
    assert raw.x_test.shape == (1000, 20)
    # Five standard errors of the mean and of the variance of 100,000 draws.
    assert raw.x_train.mean().item() == pytest.approx(0, abs=5 * 100_000**-0.5)
    assert raw.x_train.var().item() == pytest.approx(1, abs=5 * (2 / 100_000) ** 0.5)
    assert torch.bincount(raw.y_train).sub(1250).abs().max() < 5 * (5000 * 3 / 16) ** 0.5
    assert not torch.equal(raw.x_train[:1000], raw.x_test)


def test_gaussian_identity_is_its_options():
    prints = {
        gaussian(**changes).fingerprint for changes in ({}, {"dim": 3}, {"samples": 7}, {"num_classes": 3})
    }
    assert len(prints) == 4
    assert gaussian().fingerprint in prints


def test_gaussian_options_are_checked():
    for wrong in ({"dim": 0}, {"num_classes": 1}, {"samples": 1}):
        with pytest.raises(ValidationError):
            DATASETS["gaussian"].options(**wrong)


# ---- npz


def test_npz_colour_images_become_channels_first(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    raw = load_npz(path)
    stored = np.load(path)["x_train"]
    assert raw.x_train.shape == (12, 3, 5, 4)
    assert raw.x_train[7, 2, 4, 1] == stored[7, 4, 1, 2]
    assert raw.classes == 3
    assert raw.x_train.dtype == torch.uint8


@pytest.mark.parametrize(("shape", "becomes"), [((5, 4), (1, 5, 4)), ((7,), (7,)), ((5, 4, 1), (1, 5, 4))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64, ">f4"])
def test_npz_grey_images_and_features(tmp_path, shape, becomes, dtype):
    x = np.arange(12 * np.prod(shape)).reshape(12, *shape).astype(dtype)
    raw = load_npz(write_npz(tmp_path / "a.npz", x_train=x, x_test=x[:6]))
    assert raw.x_train.shape == (12, *becomes)
    assert raw.x_train.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    assert np.array_equal(raw.x_train.numpy().ravel(), x.ravel())


def test_npz_path_is_relative_to_the_folder_then_the_root(tmp_path, monkeypatch):
    here, root = tmp_path / "here", tmp_path / "root"
    here.mkdir()
    root.mkdir()
    monkeypatch.chdir(here)
    write_npz(root / "a.npz")
    assert locate_npz("a.npz", root).files == (root / "a.npz",)
    write_npz(here / "a.npz", y_test=np.zeros(6, dtype=np.int8))
    assert locate_npz("a.npz", root).files == (here / "a.npz",)
    assert locate_npz("a.npz", root).fingerprint != locate_npz(root / "a.npz").fingerprint


def test_npz_that_is_absent_names_both_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnavailableError) as caught:
        locate_npz("a.npz", tmp_path / "folder")
    assert f"{tmp_path}/a.npz" in str(caught.value)
    assert f"{tmp_path}/folder/a.npz" in str(caught.value)
    assert "data.path" in str(caught.value)


IMAGE = np.zeros((12, 5, 4, 3), dtype=np.uint8)
FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "missing key": ({"y_test": None}, "lacks y_test, holds x_train, y_train, x_test"),
    "pickled": ({"x_train": np.array([{}] * 12, dtype=object)}, "x_train contains Python objects"),
    "integer images": ({"x_train": IMAGE.astype(np.int32)}, "x_train must be uint8 or float, found int32"),
    "text": ({"x_train": np.full((12, 2), "a")}, "x_train must be uint8 or float, found <U1"),
    "one axis": ({"x_train": np.zeros(12, dtype=np.uint8)}, r"found \(12,\)"),
    "five axes": ({"x_train": IMAGE[..., None]}, r"found \(12, 5, 4, 3, 1\)"),
    "no features": ({"x_train": np.zeros((12, 0), dtype=np.uint8)}, r"found \(12, 0\)"),
    "channels first": ({"x_train": np.zeros((12, 3, 32, 32), dtype=np.uint8)}, "channels last"),
    "test shape": ({"x_test": np.zeros((6, 5, 5, 3), dtype=np.uint8)}, r"\(3, 5, 4\) and \(3, 5, 5\)"),
    "test dtype": ({"x_test": np.zeros((6, 5, 4, 3))}, "both be uint8 or both float"),
    "train lengths": ({"y_train": np.arange(11) % 3}, "x_train and y_train .* found 12 and 11"),
    "test lengths": ({"y_test": np.arange(7) % 3}, "x_test and y_test .* found 6 and 7"),
    "float labels": ({"y_train": np.zeros(12)}, "y_train must contain integers, found float64"),
    "bool labels": ({"y_train": np.zeros(12, dtype=bool)}, "y_train must contain integers, found bool"),
    "column labels": ({"y_train": np.zeros((12, 1), dtype=int)}, r"y_train .* found \(12, 1\)"),
    "negative labels": ({"y_train": np.arange(12) - 1}, "found -1 … 10"),
    "absurd labels": ({"y_test": np.full(6, 2**63, dtype=np.uint64)}, "found 9223372036854775808"),
    "one class": ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "one class only"),
    "empty": ({"x_test": IMAGE[:0], "y_test": np.zeros(0, int)}, r"y_test .* found \(0,\)"),
    "not finite": (
        {"x_train": np.full((12, 2), np.nan), "x_test": np.zeros((6, 2))},
        "found 24 values that are NaN or infinite",
    ),
    "beyond float32": (
        {"x_train": np.full((12, 2), 1e300), "x_test": np.zeros((6, 2))},
        "finite in float32, found 24",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_npz_fault_says_what_was_found(tmp_path, fault):
    changes, message = FAULTS[fault]
    path = write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message) as caught:
        load_npz(path)
    assert str(path) in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGE)


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", "hello")


def zip_of_bare_names(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(key, "hello")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, single_array, zip_of_text, zip_of_bare_names, flip_a_byte])
def test_npz_that_is_no_archive_of_arrays(tmp_path, spoil: Callable[[Path], None]):
    path = write_npz(tmp_path / "a.npz")
    spoil(path)
    with pytest.raises(DataError, match=r"a\.npz"):
        load_npz(path)
