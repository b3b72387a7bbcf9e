"""The user's own images, idx files and tables: what is read, what identifies it, and what is refused."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from initbench.components.target import TargetKind
from initbench.data import array_cache
from initbench.data.dataset import DATASETS, DataSource, LocatedDataset, RawData, form_of
from initbench.data.raw_checks import check_raw_data, raw_form
from initbench.data.resizing import resize_batch
from initbench.errors import DataError


def locate(name: str, root: Path, **options: object) -> LocatedDataset:
    entry = DATASETS[name]
    return entry.locate(entry.options(name=name, **options), DataSource(root=root, offline=True))


def load(name: str, root: Path, **options: object) -> RawData:
    return locate(name, root, **options).load()


def refusal(name: str, root: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- images


def write_image(path: Path, shape: tuple[int, ...] = (6, 5, 3), *, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, label in enumerate(("cat", "dog", "eel")):
        for index in range(10):
            write_image(tmp_path / "photos" / label / f"{index}.png", seed=10 * number + index)
    return tmp_path / "photos"


def test_images_of_a_class_are_its_folder(photos):
    raw = load("images", photos.parent, path="photos")
    assert raw.x_train.shape == (24, 3, 6, 5)
    assert raw.x_test.shape == (6, 3, 6, 5)
    assert torch.bincount(raw.y_train).tolist() == [8, 8, 8]
    samples = {tuple(x.flatten().tolist()): int(y) for x, y in zip(raw.x_train, raw.y_train, strict=True)}
    samples |= {tuple(x.flatten().tolist()): int(y) for x, y in zip(raw.x_test, raw.y_test, strict=True)}
    for number, label in enumerate(("cat", "dog", "eel")):
        for path in (photos / label).iterdir():
            stored = np.asarray(Image.open(path)).transpose(2, 0, 1)
            assert samples[tuple(stored.flatten().tolist())] == number


def test_images_in_train_val_and_test_stay_there(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for label in ("2", "10"):
            for index in range(count):
                write_image(tmp_path / "photos" / part / label / "deep" / f"{index}.JPG", seed=index)
    raw = load("images", tmp_path, path="photos")
    assert [len(y) for y in (raw.y_train, raw.y_val, raw.y_test)] == [8, 4, 6]
    folders = [path.parts[-3] for path in locate("images", tmp_path, path="photos").files[:8]]
    assert folders == ["2"] * 4 + ["10"] * 4, "numbers are sorted as numbers"


def test_images_are_grey_if_all_are(photos, tmp_path):
    for path in photos.rglob("*.png"):
        write_image(path, mode="L", seed=int(path.stem))
    assert load("images", tmp_path, path="photos").x_train.shape[1] == 1
    assert load("images", tmp_path, path="photos", colour="rgb").x_train.shape[1] == 3
    write_image(photos / "cat" / "0.png")
    assert load("images", tmp_path, path="photos").x_train.shape[1] == 3
    grey = load("images", tmp_path, path="photos", colour="grey")
    assert grey.x_train.shape[1:] == (1, 6, 5)


def test_images_of_several_sizes_need_one(photos, tmp_path):
    write_image(photos / "dog" / "3.png", (9, 4, 3), seed=5)
    message = refusal("images", tmp_path, path="photos")
    assert "2 sizes (height × width): 6 × 5 (" in message
    assert f"9 × 4 ({photos / 'dog' / '3.png'})" in message
    assert "data.resize" in message
    raw = load("images", tmp_path, path="photos", resize=[4, 8])
    assert raw.x_train.shape == (24, 3, 4, 8)
    stored = torch.from_numpy(np.asarray(Image.open(photos / "dog" / "3.png")).copy()).permute(2, 0, 1)
    everything = torch.cat([raw.x_train, raw.x_test])
    assert (everything == resize_batch(stored[None], (4, 8))).flatten(1).all(1).sum() == 1


def test_images_are_identified_by_contents_and_not_by_place(photos, tmp_path):
    first = locate("images", tmp_path, path="photos").fingerprint
    photos.rename(tmp_path / "moved")
    assert locate("images", tmp_path, path="moved").fingerprint == first
    write_image(tmp_path / "moved" / "cat" / "0.png", seed=99)
    assert locate("images", tmp_path, path="moved").fingerprint != first


def test_a_changed_image_of_the_same_size_and_time_is_noticed(photos, tmp_path):
    path = photos / "cat" / "0.png"
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(path.with_suffix(".bmp"))
    path.unlink()
    bitmap = path.with_suffix(".bmp")
    first, status = locate("images", tmp_path, path="photos").fingerprint, bitmap.stat()
    content = bytearray(bitmap.read_bytes())
    content[-4] ^= 1
    bitmap.write_bytes(content)
    os.utime(bitmap, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert locate("images", tmp_path, path="photos").fingerprint != first


def test_images_are_decoded_once_and_a_damaged_cache_is_computed_again(photos, tmp_path, monkeypatch):
    located = locate("images", tmp_path, path="photos")
    first = located.load()
    (cached,) = array_cache.cache_folder().rglob("*.safetensors")
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    second = pickle.loads(pickle.dumps(located)).load()
    assert torch.equal(first.x_train, second.x_train)
    assert first.classes == second.classes == 3
    cached.write_bytes(cached.read_bytes()[:-7])
    with pytest.raises(DataError, match="cannot be read as an image"):
        located.load()


def test_the_cache_forgets_what_was_used_least_recently(monkeypatch):
    x, y = torch.zeros(4, 100), torch.zeros(4, dtype=torch.int64)
    raw = RawData(x_train=x, y_train=y, x_test=x, y_test=y, classes=2)
    monkeypatch.setattr(array_cache, "MAX_BYTES", 8_000)
    paths = [array_cache.store_data(str(number), raw) for number in range(2)]
    os.utime(paths[1], (1, 1))
    assert torch.equal(array_cache.load_stored_data(paths[0]).x_train, raw.x_train)
    paths.append(array_cache.store_data("2", raw))
    assert [path.exists() for path in paths] == [True, False, True]
    with pytest.raises(DataError, match="run the command again"):
        array_cache.load_stored_data(paths[1])


def spoil_images(photos: Path, fault: str) -> None:
    cat = photos / "cat"
    match fault:
        case "truncated":
            (cat / "4.png").write_bytes((cat / "4.png").read_bytes()[:60])
        case "no image":
            (cat / "4.png").write_text("hello")
        case "16 bits":
            Image.fromarray(np.zeros((6, 5), np.uint16)).save(cat / "4.png")
        case "one image":
            for path in list(cat.iterdir())[1:]:
                path.unlink()
        case "no images":
            for path in cat.iterdir():
                path.rename(path.with_suffix(".dat"))
        case "link":
            (cat / "link.png").symlink_to(cat / "4.png")
        case "one class":
            (photos / "cat").rename(photos.parent / "cat")
            (photos / "dog").rename(photos.parent / "dog")
        case "other part":
            write_image(photos / "train" / "cat" / "0.png")
        case "empty":
            for folder in photos.iterdir():
                folder.rename(photos.parent / folder.name)
        case "pipe":
            os.mkfifo(cat / "pipe.png")


IMAGE_FAULTS = {
    "truncated": "4.png cannot be read as an image",
    "no image": "4.png cannot be read as an image: it is damaged or of another format",
    "16 bits": "4.png has more than 8 bits per value",
    "one image": "cat contains one image: each class needs at least 2",
    "no images": "cat contains no images (.png",
    "link": "link.png is a symbolic link",
    "one class": "photos has the subfolder eel only",
    "other part": "photos has the folder train and may have val and test, but also has cat",
    "empty": "photos has no subfolders: expected one subfolder of images per class",
    "pipe": "pipe.png is not a regular file",
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_a_bad_folder_of_images_is_refused(photos, tmp_path, fault):
    spoil_images(photos, fault)
    assert IMAGE_FAULTS[fault] in refusal("images", tmp_path, path="photos")


def test_a_class_without_training_images_is_refused(tmp_path):
    for label in ("a", "b"):
        for index in range(2):
            write_image(tmp_path / "photos" / "train" / label / f"{index}.png", seed=index)
    write_image(tmp_path / "photos" / "test" / "c" / "0.png")
    assert "c: there is no class c in train" in refusal("images", tmp_path, path="photos")


# ---- idx


def write_idx(path: Path, values: np.ndarray, kind: int = 8) -> Path:
    header = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.astype({8: "u1", 13: ">f4", 12: ">i4"}[kind]).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("shape", "becomes"), [((20, 4, 3), (1, 4, 3)), ((20, 7), (7,))])
def test_idx_files_are_read_as_they_are(tmp_path, suffix, shape, becomes):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    y = np.arange(20) % 4
    options = {
        "train_images_path": str(write_idx(tmp_path / f"x{suffix}", x)),
        "train_labels_path": str(write_idx(tmp_path / f"y{suffix}", y, 12)),
    }
    raw = load("idx", tmp_path, **options, test_fraction=0.4)
    assert raw.x_train.shape == (12, *becomes)
    assert raw.x_test.shape == (8, *becomes)
    options |= {
        "test_images_path": str(write_idx(tmp_path / f"xt{suffix}", x[:8])),
        "test_labels_path": str(write_idx(tmp_path / f"yt{suffix}", y[:8])),
    }
    raw = load("idx", tmp_path, **options)
    assert np.array_equal(raw.x_train.numpy().ravel(), x.ravel())
    assert raw.y_test.tolist() == y[:8].tolist()
    floats = str(write_idx(tmp_path / f"f{suffix}", x / 255, 13))
    labels = options["train_labels_path"]
    options |= {"train_images_path": floats, "test_images_path": floats, "test_labels_path": labels}
    raw = load("idx", tmp_path, **options)
    assert raw.x_train.dtype == torch.float32


def test_idx_files_are_refused_by_name(tmp_path):
    x, y = np.zeros((20, 4, 3), np.uint8), np.arange(20) % 4
    paths = {
        "train_images_path": str(write_idx(tmp_path / "x", np.arange(240).reshape(20, 4, 3))),
        "train_labels_path": str(write_idx(tmp_path / "y", y)),
    }
    assert f"{tmp_path}/x is not an idx file" in refusal_of_content(tmp_path / "x", b"hello", paths)
    write_idx(tmp_path / "x", x)
    assert "x_train is 0 everywhere" in refusal("idx", tmp_path, **paths)
    write_idx(tmp_path / "x", x[:19])
    assert "x_train and y_train must have the same length, found 19 and 20" in refusal(
        "idx", tmp_path, **paths
    )
    with pytest.raises(DataError, match=r"data\.train_images_path"):
        load("idx", tmp_path, **paths | {"train_images_path": "nowhere"})
    with pytest.raises(ValueError, match="test_labels_path"):
        load("idx", tmp_path, **paths, test_images_path="x")


def refusal_of_content(path: Path, content: bytes, paths: dict[str, str]) -> str:
    path.write_bytes(content)
    return refusal("idx", path.parent, **paths)


# ---- table

ROWS = [(i, i / 4, ("red", "green", "blue")[i % 3], ("no", "yes")[i % 2]) for i in range(30)]


NAMES = "number,size,colour,answer"


def write_table(path: Path, rows: list[tuple] = ROWS, names: str = NAMES, **style) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, **style)
        writer.writerows([names.split(","), *rows])
    return path


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Files with the same table, one in each format."""
    columns = [list(values) for values in zip(*ROWS, strict=True)]
    pyarrow.parquet.write_table(pyarrow.table(columns, NAMES.split(",")), tmp_path / "a.parquet")
    return {
        "csv": write_table(tmp_path / "a.csv"),
        "quoted": write_table(tmp_path / "quoted.csv", quoting=csv.QUOTE_ALL),
        "tsv": write_table(tmp_path / "a.tsv", delimiter="\t"),
        "parquet": tmp_path / "a.parquet",
    }


def test_a_table_is_the_same_in_every_format(files, tmp_path):
    sets = [load("table", tmp_path, path=str(path)) for path in files.values()]
    for raw in sets:
        assert torch.equal(raw.x_train, sets[0].x_train)
        assert torch.equal(raw.y_test, sets[0].y_test)
    raw = sets[0]
    assert raw.x_train.shape == (24, 5)
    rows = {row[0]: row for row in ROWS}
    for x, y in zip(torch.cat([raw.x_train, raw.x_test]), torch.cat([raw.y_train, raw.y_test]), strict=True):
        _, size, colour, answer = rows.pop(int(x[0]))
        assert x[1] == size
        assert x[2:].tolist() == [float(colour == value) for value in ("blue", "green", "red")]
        assert y == ("no", "yes").index(answer)
    assert not rows


def test_columns_of_a_table_are_chosen_by_name(files, tmp_path):
    raw = load("table", tmp_path, path=str(files["csv"]), target="colour", features=["size"])
    assert raw.x_train.shape == (24, 1)
    assert raw.classes == 3
    numbers = [(i, i % 5, i % 2) for i in range(30)]
    path = write_table(tmp_path / "n.csv", numbers, "a,code,y")
    assert load("table", tmp_path, path=str(path)).x_train.shape == (24, 2)
    assert load("table", tmp_path, path=str(path), categories=["code"]).x_train.shape == (24, 6)


def test_a_table_may_have_a_file_of_test_rows(files, tmp_path):
    test = write_table(tmp_path / "test.csv", ROWS[:6])
    raw = load("table", tmp_path, path=str(files["csv"]), test_path=str(test))
    assert len(raw.x_train) == 30
    assert torch.equal(raw.x_test, raw.x_train[:6])
    with_test = locate("table", tmp_path, path=str(files["csv"]), test_path=str(test)).fingerprint
    assert with_test != locate("table", tmp_path, path=str(files["csv"])).fingerprint
    write_table(test, [(1, 2.0, "pink", "no")])
    assert "test.csv: row 1: colour: pink does not occur in" in refusal(
        "table", tmp_path, path=str(files["csv"]), test_path=str(test)
    )


TABLE_FAULTS = {
    "empty": ("", "a.csv is empty"),
    "header only": ("a,b\n", "a.csv has no rows"),
    "one column": ("a\n1\n2\n", "a.csv has only the column 'a'"),
    "equal names": ("a,a\n1,2\n", "a.csv:1:1: two columns are called 'a'"),
    "no name": ("a,,c\n1,2,3\n", "a.csv:1:1: a column has no name"),
    "ragged": ("a,b\n1,x\n3\n", "a.csv:3: 1 values in 2 columns"),
    "missing": ("a,bb,y\n1,2,x\n\n22,,y\n", "a.csv:4:4: bb: the value is missing (found '')"),
    "missing word": ('a,b\n"1","x"\n"N/A","y"\n', "a.csv:3:1: a: the value is missing (found 'N/A')"),
    "quoted": ('a,b,c\n"x,""1""\ny",1,2\nz,nan,3\n', "a.csv:4:3: b: the value is missing (found 'nan')"),
    "after a quote": ('a,b,c\nz,4,3\n"x,""1""\ny",oops,2\n', "a.csv:4:4: b: expected a number"),
    "text": ("a,b\n1,x\n2,x\nabc,y\n", "a.csv:4:1: a: expected a number as in the first row, found 'abc'"),
    "infinite": ("a,b\n1,x\ninf,y\n", "a.csv:3:1: a: inf is not finite in float32"),
    "too large": ("a,b\n1e39,x\n", "a.csv:2:1: a: 1e39 is not finite"),
    "one class": ("a,b\n1,x\n2,x\n", "the target b is x everywhere"),
    "single": ("a,b\n1,x\n2,x\n3,y\n", "1 of 2 classes with one row (y)"),
    "texts": ("n,y\n" + "".join(f"name{i},{i % 2}\n" for i in range(30)), "n: 30 different texts in 30 rows"),
    "open quote": ('a,b\n1,"x\n', "a.csv:2: unexpected end"),
}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_a_bad_table_is_refused_with_its_place(tmp_path, fault):
    text, message = TABLE_FAULTS[fault]
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    assert message in refusal("table", tmp_path, path=str(path))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\n1,Küche\n".encode("latin-1"))
    assert "a.csv: not UTF-8 in or after line 1: invalid" in refusal("table", tmp_path, path=str(path))
    path.rename(tmp_path / "a.xls")
    assert "its name must end in .csv" in refusal("table", tmp_path, path=str(tmp_path / "a.xls"))


def test_unknown_columns_are_refused_with_the_nearest(files, tmp_path):
    path = str(files["csv"])
    message = refusal("table", tmp_path, path=path, target="colours")
    assert "unknown column 'colours'; did you mean 'colour'?" in message
    assert "data.features lists the target" in refusal("table", tmp_path, path=path, features=["answer"])
    assert "data.categories lists 'x'" in refusal("table", tmp_path, path=path, categories=["x"])


def test_a_bad_parquet_file_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in refusal("table", tmp_path, path=str(path))
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, None, 2.0], "b": ["x", "y", "x"]}), path)
    assert "row 2: a: the value is missing" in refusal("table", tmp_path, path=str(path))
    pyarrow.parquet.write_table(pyarrow.table({"a": [[1.0], [2.0]], "b": ["x", "y"]}), path)
    assert "a has values of type list" in refusal("table", tmp_path, path=str(path))


def test_a_target_with_fractions_is_a_regression(tmp_path):
    rows = [(i, i / 8, i) for i in range(30)]
    path = str(write_table(tmp_path / "r.csv", rows, "a,b,c"))
    raw = load("table", tmp_path, path=path, target="b")
    assert raw.target is TargetKind.REAL
    assert raw.y_train.dtype == torch.float32
    assert torch.equal(raw.y_train * 8, raw.x_train[:, 0])
    assert load("table", tmp_path, path=path, target_kind="real").target is TargetKind.REAL
    assert "30 of 30 classes with one row" in refusal("table", tmp_path, path=path)
    texts = str(write_table(tmp_path / "a.csv"))
    assert "the target answer has texts" in refusal("table", tmp_path, path=texts, target_kind="real")


def test_classes_of_a_table_have_names(tmp_path):
    raw = load("table", tmp_path, path=str(write_table(tmp_path / "a.csv")))
    assert raw.class_names == ("no", "yes")
    numbers = write_table(tmp_path / "n.csv", [(i, 10 * (i % 3)) for i in range(30)], "a,y")
    assert load("table", tmp_path, path=str(numbers)).class_names == ("0", "10", "20")


# ---- tokens

TEXT = "Der Ball flog über den Zaun, und niemand sah ihn je wieder.\n" * 20


def test_characters_of_a_text_predict_the_next(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    raw = load("tokens", tmp_path, path=str(path), block=16)
    names = sorted(set(TEXT))
    assert raw.class_names == tuple(names)
    assert raw.classes == raw.vocabulary == len(names)
    x = torch.cat([raw.x_train, raw.x_val, raw.x_test]).flatten()
    y = torch.cat([raw.y_train, raw.y_val, raw.y_test]).flatten()
    assert "".join(names[i] for i in x) == TEXT[: len(x)]
    assert "".join(names[i] for i in y) == TEXT[1 : len(x) + 1]
    assert len(x) == (len(TEXT) - 1) // 16 * 16
    assert [len(part) for part in (raw.x_train, raw.x_val, raw.x_test)] == [60, 7, 7]


def test_bytes_of_a_file_predict_the_next(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    raw = load("tokens", tmp_path, path=str(path), level="byte", block=10)
    assert raw.vocabulary == 256
    content = TEXT.encode()
    x = torch.cat([raw.x_train, raw.x_val, raw.x_test]).flatten()
    assert bytes(x.tolist()) == content[: len(x)]
    options = DATASETS["tokens"].options(name="tokens", path=str(path), level="byte", block=10)
    assert form_of(options) == raw_form(raw)


@pytest.mark.parametrize("suffix", [".npy", ".bin"])
def test_token_ids_are_read_as_they_are(tmp_path, suffix):
    ids = np.random.default_rng(0).integers(0, 1000, 500).astype("<u2")
    path = tmp_path / f"a{suffix}"
    np.save(path, ids) if suffix == ".npy" else path.write_bytes(ids.tobytes())
    raw = load("tokens", tmp_path, path=str(path), block=10, vocabulary=1000)
    assert raw.x_train.flatten().tolist() == ids[: raw.x_train.numel()].tolist()
    assert raw.vocabulary == 1000
    assert load("tokens", tmp_path, path=str(path), block=10).vocabulary == ids.max() + 1
    message = refusal("tokens", tmp_path, path=str(path), block=10, vocabulary=10)
    assert "must contain token ids 0 … 9, found" in message


TOKEN_FAULTS = {
    "short": ("a.txt", b"hello", {}, "has 5 tokens, 0 blocks of data.block=64: too few"),
    "encoding": ("a.txt", b"abc\nK\xfcche" * 99, {}, "a.txt:2:2: not UTF-8"),
    "one token": ("a.txt", b"a" * 999, {}, "repeats one token"),
    "odd bytes": ("a.bin", b"a" * 999, {}, "has 999 bytes, which are not numbers of uint16"),
    "empty": ("a.bin", b"", {}, "must contain integers"),
    "no array": ("a.npy", b"hello", {}, "is not an array in NumPy's format"),
    "pickle": ("a.npy", pickle.dumps([1, 2]), {}, "is not an array in NumPy's format"),
    "huge ids": (
        "a.bin",
        b"\xff" * 800,
        {"dtype": "uint32"},
        "token ids 0 … 999,999,999, found",
    ),
    "negative": ("a.bin", b"\xff" * 800, {"dtype": "int32"}, "found -1 … -1"),
}


@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_a_bad_file_of_tokens_is_refused(tmp_path, fault):
    name, content, options, message = TOKEN_FAULTS[fault]
    (tmp_path / name).write_bytes(content)
    assert message in refusal("tokens", tmp_path, path=str(tmp_path / name), **options)


# ---- npz


def arrays_file(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_arrays_may_have_other_targets_than_classes(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    y = {
        "real": rng.normal(size=(20, 2)),
        "labels": rng.integers(0, 2, (20, 4)),
        "dense": rng.integers(0, 3, (20, 6, 5)),
    }
    for kind, targets in y.items():
        path = arrays_file(tmp_path / f"{kind}.npz", x_train=images, y_train=targets)
        raw = load("npz", tmp_path, path=path, target_kind=kind, test_fraction=0.25)
        assert raw.target == kind
        assert len(raw.x_test) == 5
        assert raw.classes == (3 if kind == "dense" else 0)
        check_raw_data(raw)
    masks = rng.integers(0, 2, (20, 6, 5, 1)).astype(bool)
    raw = load(
        "npz",
        tmp_path,
        path=arrays_file(tmp_path / "m.npz", x_train=images, y_train=masks),
        target_kind="labels",
    )
    assert raw.y_train.shape == (16, 1, 6, 5)
    ids = rng.integers(0, 50, (20, 8))
    path = arrays_file(tmp_path / "t.npz", x_train=ids[:, :-1], y_train=ids[:, 1:])
    raw = load("npz", tmp_path, path=path, target_kind="sequence", vocabulary=50)
    assert raw.x_train.dtype == torch.int64
    assert raw.classes == 50
    assert "y_train must have the shape (N,)" in refusal("npz", tmp_path, path=path, vocabulary=50)
    assert "x_train must contain token ids 0 … 39" in refusal(
        "npz", tmp_path, path=path, vocabulary=40, target_kind="sequence"
    )


def test_arrays_of_another_kind_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3))
    path = arrays_file(tmp_path / "a.npz", x_train=x, y_train=x[:, 0])
    assert "set data.target_kind=real" in refusal("npz", tmp_path, path=path)
    assert "y_train must contain integers" in refusal("npz", tmp_path, path=path, target_kind="dense")
    path = arrays_file(tmp_path / "b.npz", x_train=x, y_train=x)
    message = refusal("npz", tmp_path, path=path, target_kind="labels")
    assert "y_train contains labels and must be 0 or 1 everywhere" in message
    path = arrays_file(tmp_path / "c.npz", x_train=x, y_train=np.full(20, np.nan))
    assert "y_train must be finite" in refusal("npz", tmp_path, path=path, target_kind="real")
