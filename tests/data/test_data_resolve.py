"""The data set that a run uses: found on disk, downloaded, or its fallback."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from initbench.data.dataset import DATASETS, DataOptions, DataSource, UnavailableError
from initbench.data.download.checksums import cache_folder
from initbench.data.locate import data_root, resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.data.sets.torchvision_sets import MD5
from initbench.errors import DataError
from initbench.registry_choice import default_choice

# Read before the fixture that clears the environment.
REAL_ROOT = Path(os.environ.get("INITBENCH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def options(name: str, **changes: object) -> DataOptions:
    return default_choice(DATASETS, name).model_copy(update=changes)


def test_data_root_is_the_named_folder_or_the_cache(tmp_path, monkeypatch):
    assert data_root(None) == cache_folder()
    assert data_root(tmp_path / "flag") == tmp_path / "flag"
    monkeypatch.chdir(tmp_path)
    assert data_root(Path("flag")) == tmp_path / "flag"


def test_data_root_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="not a folder"):
        data_root(tmp_path / "file")


def test_mnist_from_a_mirror_end_to_end(published_mnist, source, mirror):
    chosen = options("mnist", val_fraction=0.25)
    resolved = resolve_dataset(chosen, source)
    assert resolved.located.files == tuple(
        source.root / "MNIST/raw" / name for name in published_mnist.checksums
    )
    assert resolved.requested == resolved.located.name == "mnist"
    bundle = preprocess(resolved, chosen, "cpu")
    assert bundle.train.x.shape == (30, 1, 28, 28)
    assert bundle.test.x.shape == (20, 1, 28, 28)
    assert bundle.test.y.tolist() == [number % 10 for number in range(20)]
    assert resolve_dataset(chosen, replace(source, offline=True)).located.fingerprint == bundle.fingerprint


def test_fingerprint_depends_on_the_checksums(published_mnist, source, idx_files, monkeypatch, put_on_disk):
    put_on_disk(source.root, idx_files)
    first = resolve_dataset(options("mnist"), source).located.fingerprint
    (source.root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_bytes(b"other")
    other = {**published_mnist.checksums, "t10k-labels-idx1-ubyte.gz": "795f3202b17cb6bc3d4b771d8c6c9eaf"}
    monkeypatch.setitem(MD5, "MNIST", tuple(other.values()))
    assert resolve_dataset(options("mnist"), source).located.fingerprint != first


@pytest.mark.parametrize("offline", [True, False])
def test_fallback_says_so_once_and_keeps_normalize(offline, published_mnist, source, mirror, notes):
    mirror.files.clear()
    chosen = options("mnist", fallback="digits", normalize="none")
    resolved = resolve_dataset(chosen, replace(source, offline=offline))
    assert (resolved.requested, resolved.located.name) == ("mnist", "digits")
    assert len(notes) == 1
    assert "\n" not in notes[0]
    for part in ("mnist", str(source.root), "digits is used instead", "initbench data fetch mnist"):
        assert part in notes[0]
    bundle = preprocess(resolved, chosen, "cpu")
    assert (bundle.requested, bundle.name) == ("mnist", "digits")
    assert (bundle.train.x.min(), bundle.train.x.max()) == (0.0, 1.0)


def test_many_configs_cost_one_look_and_one_message(published_mnist, source, mirror, notes):
    mirror.files.clear()
    chosen = options("mnist", fallback="digits")
    for changes in ({}, {"normalize": "none"}, {"val_fraction": 0.5}):
        resolved = resolve_dataset(chosen.model_copy(update=changes), source)
        assert (resolved.requested, resolved.located.name) == ("mnist", "digits")
    assert len(mirror.probes) == 1
    assert len(notes) == 1
    with pytest.raises(UnavailableError, match="mnist is not in"):
        resolve_dataset(options("mnist"), source)
    assert len(mirror.probes) == 1
    resolve_dataset(options("fashion_mnist", fallback="digits"), replace(source, offline=True))
    assert len(notes) == 2, "another set is another message"
    resolve_dataset(chosen, replace(source))
    assert len(mirror.probes) == 2, "a new Source has nothing to remember"


def test_a_look_in_vain_is_remembered_by_the_sets_own_options(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.npz").write_bytes(b"")
    npz = DATASETS["npz"].options
    missing, present = (npz(name="npz", path=path, fallback="digits") for path in ("a.npz", "b.npz"))
    assert resolve_dataset(missing, source).located.name == "digits"
    assert resolve_dataset(present, source).located.name == "npz"


def test_no_fallback_is_an_error(published_mnist, source, notes):
    with pytest.raises(UnavailableError) as caught:
        resolve_dataset(options("mnist"), replace(source, offline=True))
    assert caught.value.exit_code == 3
    assert not notes


def test_damaged_file_is_an_error_even_with_a_fallback(
    published_mnist, source, idx_files, notes, put_on_disk
):
    put_on_disk(source.root, {**idx_files, "train-labels-idx1-ubyte.gz": b"broken"})
    with pytest.raises(DataError, match="is not the published file"):
        resolve_dataset(options("mnist", fallback="digits"), source)
    assert not notes


@pytest.mark.skipif(not (REAL_ROOT / "MNIST" / "raw").is_dir(), reason=f"no MNIST in {REAL_ROOT}")
def test_real_mnist_when_it_is_here():
    for name, mean, std in (("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)):
        chosen = options(name, normalize="none")
        resolved = resolve_dataset(chosen, DataSource(root=REAL_ROOT, offline=True))
        bundle = preprocess(resolved, chosen, "cpu")
        assert bundle.train.x.shape == (54_000, 1, 28, 28)
        assert bundle.val.x.shape == (6_000, 1, 28, 28)
        assert bundle.test.x.shape == (10_000, 1, 28, 28)
        # The published moments of the 60,000; the split moves them in the fourth decimal.
        assert bundle.train.x.mean().item() == pytest.approx(mean, abs=5e-4)
        assert bundle.train.x.std().item() == pytest.approx(std, abs=5e-4)
        assert torch.bincount(bundle.test.y).tolist()[0] == {"mnist": 980, "fashion_mnist": 1000}[name]
