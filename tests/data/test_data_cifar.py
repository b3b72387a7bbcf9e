"""CIFAR from small archives in the published format; a pickle never runs, however malicious it is."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import CLASSES, Cifar, batch, cifar10, cifar100, images, python2

from initbench.data.dataset import DATASETS, DataSource, LocatedDataset, RawData, UnavailableError
from initbench.data.locate import resolve_dataset
from initbench.data.safe_unpickle import unpickle
from initbench.errors import DataError
from initbench.registry_choice import default_choice


@pytest.fixture(params=[cifar10, cifar100], ids=lambda make: make.__name__)
def cifar(request: pytest.FixtureRequest) -> Cifar:
    return request.param()


@pytest.fixture
def offline(source: DataSource) -> DataSource:
    source.root.mkdir()
    return replace(source, offline=True)


def locate(cifar: Cifar, source: DataSource) -> LocatedDataset:
    return resolve_dataset(default_choice(DATASETS, cifar.name), source).located


def unpack(cifar: Cifar, root: Path, **changes: bytes) -> Path:
    folder = root / cifar.folder
    folder.mkdir(parents=True)
    for name, content in {**cifar.files, **changes}.items():
        (folder / name).write_bytes(content)
    return folder


def in_archive(
    cifar: Cifar, source: DataSource, monkeypatch: pytest.MonkeyPatch, **changes: bytes | None
) -> RawData:
    """Load an archive with changed members whose own checksum is right."""
    tar = cifar.archive(**changes)
    cifar.publish(monkeypatch, tar)
    (source.root / cifar.packed).write_bytes(tar)
    return locate(cifar, source).load()


def check_contents(cifar: Cifar, raw: RawData) -> None:
    """Pixel for pixel and label for label what was put in: channels first, then rows, as published."""
    train = (
        np.vstack([images(12, seed) for seed in range(1, 6)]) if cifar.name == "cifar10" else images(60, 1)
    )
    assert np.array_equal(raw.x_train.numpy(), train.reshape(60, 3, 32, 32))
    assert np.array_equal(raw.x_test.numpy(), images(10, 6).reshape(10, 3, 32, 32))
    seeds = range(1, 6) if cifar.name == "cifar10" else [1]
    labels = [(number + seed) % CLASSES for seed in seeds for number in range(60 // len(seeds))]
    assert raw.y_train.tolist() == labels
    assert raw.y_test.tolist() == [(number + 6) % CLASSES for number in range(10)]
    assert (raw.classes, raw.x_train.dtype, raw.y_train.dtype) == (CLASSES, torch.uint8, torch.int64)


def test_the_files_are_of_the_published_format(cifar):
    """Protocol 2, byte strings and NumPy 1's names: what Python 2 wrote."""
    content = cifar.files["test_batch" if cifar.name == "cifar10" else "test"]
    assert content.startswith(b"\x80\x02")
    assert b"numpy.core.multiarray\n_reconstruct" in content
    assert b"_codecs" not in content
    assert b"data" in pickle.loads(content, encoding="bytes")


def test_archive_and_folder_are_the_same_set(cifar, offline, monkeypatch):
    check_contents(cifar, in_archive(cifar, offline, monkeypatch))
    from_archive = locate(cifar, offline)
    assert from_archive.files == (offline.root / cifar.packed,)
    assert sorted(path.name for path in offline.root.iterdir()) == [cifar.packed], "nothing was unpacked"
    folder = unpack(cifar, offline.root)
    (offline.root / cifar.packed).unlink()
    from_folder = locate(cifar, offline)
    check_contents(cifar, from_folder.load())
    assert {path.parent for path in from_folder.files} == {folder}
    assert from_folder.fingerprint == from_archive.fingerprint


def test_fetched_from_the_mirror_and_kept_packed(cifar, source, mirror, monkeypatch):
    tar = cifar.archive()
    mirror.files = {cifar.packed: tar}
    cifar.publish(monkeypatch, tar, mirror.url)
    check_contents(cifar, locate(cifar, source).load())
    assert mirror.served == [cifar.packed]
    assert (source.root / cifar.packed).read_bytes() == tar
    locate(cifar, replace(source, offline=True))


def test_an_incomplete_folder_gives_way_to_the_archive(cifar, offline, monkeypatch):
    (unpack(cifar, offline.root) / list(cifar.files)[1]).unlink()
    check_contents(cifar, in_archive(cifar, offline, monkeypatch))


def test_absent_says_how_to_go_on(cifar, offline, monkeypatch, notes):
    cifar.publish(monkeypatch, cifar.archive())
    with pytest.raises(UnavailableError) as caught:
        locate(cifar, offline)
    message = str(caught.value)
    for part in (cifar.packed, cifar.folder, "data.name=digits", "data.name=npz", "initbench data fetch"):
        assert part in message
    assert str(offline.root / cifar.folder) in message
    assert not notes


def test_it_falls_back_only_when_told_to(cifar, offline, monkeypatch, notes):
    cifar.publish(monkeypatch, cifar.archive())
    options = default_choice(DATASETS, cifar.name)
    assert options.fallback is None
    resolved = resolve_dataset(options.model_copy(update={"fallback": "digits"}), offline)
    assert (resolved.requested, resolved.located.name) == (cifar.name, "digits")
    assert len(notes) == 1


# ---- what is not what was published


class Bomb:
    """Creates a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)


@pytest.fixture
def bomb(tmp_path: Path) -> bytes:
    """It does go off elsewhere; the file it makes is gone again."""
    path = tmp_path / "ran"
    content = pickle.dumps({"data": Bomb(path)}, protocol=2)
    pickle.loads(content)
    path.unlink()
    return content


def first_of(cifar: Cifar) -> str:
    return "data_batch_1" if cifar.name == "cifar10" else "train"


def test_wrong_hash_is_refused_before_unpickling(cifar, offline, monkeypatch, bomb, tmp_path):
    """In each form: the whole archive's checksum, a member's, and a file's."""
    monkeypatch.setattr("initbench.data.sets.cifar.unpickle", lambda *_: pytest.fail("it was read"))
    good = cifar.archive()
    cifar.publish(monkeypatch, good)
    (offline.root / cifar.packed).write_bytes(cifar.archive(**{first_of(cifar): bomb}))
    with pytest.raises(DataError, match="is not the published file"):
        locate(cifar, offline)
    monkeypatch.setattr(cifar, "files", {first_of(cifar): cifar.files[first_of(cifar)], **cifar.files})
    with pytest.raises(DataError, match=rf"{first_of(cifar)} is not the published file: expected md5"):
        in_archive(cifar, offline, monkeypatch, **{first_of(cifar): bomb})
    (offline.root / cifar.packed).unlink()
    unpack(cifar, offline.root, **{first_of(cifar): bomb})
    with pytest.raises(DataError, match=rf"{first_of(cifar)} is not the published file"):
        locate(cifar, offline)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_changes_after_it_was_found_is_not_read(cifar, offline, monkeypatch, bomb, tmp_path):
    cifar.publish(monkeypatch, cifar.archive())
    folder = unpack(cifar, offline.root)
    located = locate(cifar, offline)
    (folder / first_of(cifar)).write_bytes(bomb)
    with pytest.raises(DataError, match="is not the published file"):
        located.load()
    assert not (tmp_path / "ran").exists()


def test_a_malicious_pickle_with_the_right_hash_is_refused(cifar, offline, monkeypatch, bomb, tmp_path):
    monkeypatch.setitem(cifar.files, first_of(cifar), bomb)
    with pytest.raises(DataError, match=r"is rejected: its pickle refers to \S+\.getattr,") as caught:
        in_archive(cifar, offline, monkeypatch)
    assert first_of(cifar) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 1e-4, 0.1, 0.5, 0.9])
def test_truncated_archive(cifar, offline, monkeypatch, share):
    whole = cifar.archive()
    tar = whole[: int(share * len(whole))]
    cifar.publish(monkeypatch, tar)
    (offline.root / cifar.packed).write_bytes(tar)
    with pytest.raises(DataError, match=f"{cifar.packed}.* cannot be read as a .tar.gz archive|lacks"):
        locate(cifar, offline).load()


def test_missing_member(cifar, offline, monkeypatch):
    with pytest.raises(DataError, match=f"{cifar.packed} lacks {first_of(cifar)}"):
        in_archive(cifar, offline, monkeypatch, **{first_of(cifar): None})


COUNT = 12
CHANGES: dict[str, tuple[dict[bytes, object], str]] = {
    "no data": ({b"data": None}, "data must be a uint8 array"),
    "float data": ({b"data": np.zeros((COUNT, 3072))}, "data must be a uint8 array"),
    "another shape": ({b"data": np.zeros((COUNT, 3071), np.uint8)}, r"of the shape \(N, 3072\)"),
    "too few labels": ({b"labels": [0] * (COUNT - 1)}, f"labels must be {COUNT} whole numbers"),
    "label too large": ({b"labels": [CLASSES] * COUNT}, f"from 0 to {CLASSES - 1}"),
    "text labels": ({b"labels": [b"cat"] * COUNT}, "whole numbers"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_contents_are_checked(change, offline, monkeypatch):
    cifar = cifar10()
    changed, message = CHANGES[change]
    content = python2({**batch("x", COUNT, 1, fine=False), **changed})
    monkeypatch.setitem(cifar.files, "data_batch_1", content)
    with pytest.raises(DataError, match=f"data_batch_1.*{message}"):
        in_archive(cifar, offline, monkeypatch)


def test_missing_key(offline, monkeypatch):
    cifar = cifar10()
    monkeypatch.setitem(cifar.files, "test_batch", python2({b"data": images(3, 0)}))
    with pytest.raises(DataError, match="test_batch lacks labels or fine_labels, holds data"):
        in_archive(cifar, offline, monkeypatch)


# ---- the reader of pickles


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out_as_they_went_in(name, order):
    array = np.asarray(np.arange(600, dtype=np.uint8).reshape(20, 30), order=order)
    content = python2({b"a": array, b"n": [1, -2, 2**40], b"f": 0.5, b"none": None, b"yes": True})
    content = content.replace(b"numpy.core.multiarray", name.encode())
    value = unpickle(content, "it")
    assert np.array_equal(value["a"], array)
    assert {key: value[key] for key in ("n", "f", "none", "yes")} == {
        "n": [1, -2, 2**40],
        "f": 0.5,
        "none": None,
        "yes": True,
    }


REFUSED = {
    "builtin": lambda: pickle.dumps({"a": eval}),
    "function of numpy": lambda: pickle.dumps({"a": np.load}),
    "container class": lambda: pickle.dumps(OrderedDict(a=1)),
    "os": lambda: b"cos\nsystem\n(S'true'\ntR.",
    "attribute of an allowed class": lambda: b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    "extension": lambda: b"\x80\x02\x82\x01.",
    "outside object": lambda: b"P7\n.",
    "cut": lambda: cifar10().files["test_batch"][:-40],
    "empty": lambda: b"",
    "no pickle": lambda: b"<html>not found</html>",
    "no dict": lambda: pickle.dumps([1, 2]),
    "keys that are no text": lambda: pickle.dumps({1: 2}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused(case):
    with pytest.raises(DataError, match=r"^the file (is rejected|cannot be read|does not contain)"):
        unpickle(REFUSED[case](), "the file")
