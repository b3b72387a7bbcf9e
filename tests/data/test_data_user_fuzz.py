"""The user's own files with changed bytes: they are read, or refused with a clear error."""

from __future__ import annotations

import gzip
import io
import random
import struct
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from initbench.data.dataset import DATASETS, DataSource, RawData
from initbench.data.raw_checks import check_raw_data
from initbench.errors import InitbenchError

SECONDS = 10.0
RNG = np.random.default_rng(0)
Folder = Mapping[str, bytes]
"""Content of each file by its path."""


def image_bytes(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def images(kind: str) -> Folder:
    return {
        f"photos/{label}/{n}.{kind}": image_bytes(kind.upper()) for label in ("cat", "dog") for n in range(3)
    }


def idx_bytes(values: np.ndarray[Any, Any]) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype("u1").tobytes()


def archive(save: Callable[..., None] = np.savez) -> bytes:
    file = io.BytesIO()
    save(file, x_train=RNG.normal(size=(40, 3)), y_train=np.arange(40) % 3)
    return file.getvalue()


def table_of_arrow() -> bytes:
    file = io.BytesIO()
    columns = {"a": RNG.normal(size=40), "b": ["x", "y"] * 20, "c": list(range(40)), "answer": [0, 1] * 20}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


CSV = "a,b,c,answer\n" + "".join(
    f'{n / 7},{"xy"[n % 2]},"{n % 4}",{"no" if n % 3 else "yes"}\n' for n in range(40)
)
PIXELS, LABELS = RNG.integers(0, 256, (40, 4, 4)), np.arange(40) % 4
IDX = {"train_images_path": "x", "train_labels_path": "y"}
CASES: dict[str, tuple[str, dict[str, object], Folder]] = {
    "npz": ("npz", {"path": "d.npz"}, {"d.npz": archive()}),
    "npz, compressed": ("npz", {"path": "d.npz"}, {"d.npz": archive(np.savez_compressed)}),
    "csv": ("table", {"path": "d.csv"}, {"d.csv": CSV.encode()}),
    "tsv": ("table", {"path": "d.tsv", "categories": ["c"]}, {"d.tsv": CSV.replace(",", "\t").encode()}),
    "parquet": ("table", {"path": "d.parquet"}, {"d.parquet": table_of_arrow()}),
    "characters": (
        "tokens",
        {"path": "d.txt", "level": "char", "block": 8},
        {"d.txt": "é stormy night".encode() * 40},
    ),
    "bytes": ("tokens", {"path": "d.txt", "level": "byte", "block": 8}, {"d.txt": b"a stormy night" * 40}),
    "ids": (
        "tokens",
        {"path": "d.bin", "block": 8},
        {"d.bin": (np.arange(600) % 50).astype("<u2").tobytes()},
    ),
    "idx": ("idx", dict(IDX), {"x": idx_bytes(PIXELS), "y": idx_bytes(LABELS)}),
    "idx, packed": (
        "idx",
        {key: f"{name}.gz" for key, name in IDX.items()},
        {
            "x.gz": gzip.compress(idx_bytes(PIXELS), mtime=0),
            "y.gz": gzip.compress(idx_bytes(LABELS), mtime=0),
        },
    ),
    **{
        kind: ("images", {"path": "photos", "resize": 4}, images(kind))
        for kind in ("png", "jpeg", "gif", "bmp")
    },
}


def ids_of_numpy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(600) % 50)
    return file.getvalue()


CASES["ids of NumPy"] = ("tokens", {"path": "d.npy", "block": 8}, {"d.npy": ids_of_numpy()})


def load(name: str, options: Mapping[str, object], folder: Folder, root: Path) -> RawData:
    for path, content in folder.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    entry = DATASETS[name]
    located = entry.locate(entry.options(name=name, **options), DataSource(root=root, offline=True))
    raw = located.load()
    check_raw_data(raw)
    return raw


def mutated(draw: random.Random, content: bytes) -> bytes:
    """The content with some bytes changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = (
            draw.randrange(max(1, len(data)))
            if draw.random() < 0.6
            else draw.randrange(min(64, len(data)) or 1)
        )
        match draw.randrange(6):
            case 0:
                data[at : at + 1] = draw.randbytes(1)
            case 1:
                data[at : at + 4] = draw.choice(
                    (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
                )
            case 2:
                del data[at : at + draw.randint(1, 60)]
            case 3:
                data[at:at] = data[at : at + draw.randint(1, 60)]
            case 4:
                data[at:at] = draw.choice(
                    (b",", b"\n", b'"', b"\0", b"nan", b"-1", b"1e999", b"9" * 30, b"\xef\xbb\xbf")
                )
            case 5 if draw.random() < 0.3:
                del data[at:]
    return bytes(data)


def check_case(name: str, folder: Folder, root: Path) -> bool:
    """Load a folder, and return whether it is read; a refusal must be one line in plain text."""
    kind, options, _ = CASES[name]
    started = time.monotonic()
    try:
        load(kind, options, folder, root)
    except InitbenchError as error:
        assert error.exit_code in (2, 3)
        assert str(error).strip()
        assert "Traceback" not in str(error)
        is_read = False
    else:
        is_read = True
    assert time.monotonic() - started < SECONDS
    return is_read


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_the_unchanged_files_are_read(name: str, tmp_path: Path) -> None:
    assert check_case(name, CASES[name][2], tmp_path)


def fuzz(name: str, root: Path, count: int, seed: int) -> None:
    draw, refused = random.Random(seed), 0
    for number in range(count):
        folder = dict(CASES[name][2])
        for path in draw.sample(sorted(folder), draw.randint(1, len(folder))):
            folder[path] = mutated(draw, folder[path])
        refused += not check_case(name, folder, root / f"{number % 7}")
    assert refused > count // 20 or CASES[name][0] == "tokens", "the changes must matter"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, 40, seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_many_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, 1000, seed=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(name: str, tmp_path: Path, content: bytes) -> None:
    check_case(name, dict.fromkeys(CASES[name][2], content), tmp_path)


MEMBERS = st.dictionaries(
    st.sampled_from(["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "x_val.npy", "other"]),
    st.binary(max_size=80) | st.sampled_from([ids_of_numpy(), ids_of_numpy()[:100], b"\x93NUMPY\x01\x00"]),
    max_size=5,
)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(members=MEMBERS)
def test_any_members_of_an_archive_are_refused_or_read(tmp_path: Path, members: dict[str, bytes]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    check_case("npz", {"d.npz": file.getvalue()}, tmp_path)


TEXT = st.text(alphabet=st.sampled_from(list("abc,\n\r\t\"' 019.-eé\0;#")), max_size=120)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["csv", "tsv", "characters"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(text=TEXT)
def test_any_text_is_refused_or_read(name: str, tmp_path: Path, text: str) -> None:
    check_case(name, dict.fromkeys(CASES[name][2], text.encode()), tmp_path)
