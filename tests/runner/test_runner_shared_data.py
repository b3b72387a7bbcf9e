"""Data sets in shared memory: the same values, private to each process, and gone with their owner."""

from __future__ import annotations

import gc
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DATASETS, DataSource
from initbench.data.locate import ResolvedDataset, resolve_dataset
from initbench.data.preprocessing import PreparedData, preprocess
from initbench.registry_choice import default_choice
from initbench.runner import dataset_cache, shared_data
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.shared_data import SharedDataOwner, to_device

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not shared_data.can_share(), reason="needs memfd_create and /proc")


@pytest.fixture
def resolved(tmp_path: Path) -> ResolvedDataset:
    return resolve_dataset(default_choice(DATASETS, "digits"), DataSource(root=tmp_path, offline=True))


def options(**changes: Any) -> Any:
    return default_choice(DATASETS, "digits").model_copy(update=changes)


def tensors(data: PreparedData) -> dict[str, torch.Tensor | None]:
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    found = {f"{name}.{part}": getattr(split, part) for name, split in splits.items() for part in "xy"}
    return {**found, "unlabelled": data.unlabelled, "order": data.order.labels}


def same(a: PreparedData, b: PreparedData) -> bool:
    ours, theirs = tensors(a), tensors(b)
    alike = all(
        x is y is None or (x is not None and y is not None and x.dtype == y.dtype and torch.equal(x, y))
        for x, y in zip(ours.values(), theirs.values(), strict=True)
    )
    others = ("classes", "input_shape", "name", "requested", "fingerprint", "labels", "augment")
    return alike and all(getattr(a, name) == getattr(b, name) for name in others)


@pytest.mark.parametrize("changes", [{}, {"labelled": 200, "order": "sorted"}, {"classes": [3, 1]}])
def test_the_opened_data_set_is_the_shared_one(resolved: ResolvedDataset, changes: dict[str, Any]) -> None:
    data = preprocess(resolved, options(**changes), CPU)
    owner = SharedDataOwner(data)
    opened = pickle.loads(pickle.dumps(owner.location)).open()
    assert opened is not None
    assert same(opened, data)
    assert all(t is None or t.data_ptr() % 64 == 0 for t in tensors(opened).values())


def test_writing_to_an_opened_data_set_changes_no_other(resolved: ResolvedDataset) -> None:
    data = preprocess(resolved, options(), CPU)
    owner = SharedDataOwner(data)
    first, second = owner.location.open(), owner.location.open()
    assert first is not None
    assert second is not None
    first.train.x.zero_()
    assert same(second, data)


def test_a_data_set_whose_owner_is_gone_cannot_be_opened(resolved: ResolvedDataset) -> None:
    data = preprocess(resolved, options(), CPU)
    owner = SharedDataOwner(data)
    location, opened = owner.location, owner.location.open()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    del owner
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 1
    assert location.open() is None
    assert opened is not None
    assert same(opened, data), "what is mapped stays"
    again = SharedDataOwner(preprocess(resolved, options(classes=[3, 1]), CPU))
    assert again.location.path == location.path, "the system uses the lowest free descriptor"
    assert location.open() is None, "other memory at the same path is recognised"


def test_a_worker_opens_it_instead_of_preparing_it(
    resolved: ResolvedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, worker = DatasetCache(), DatasetCache()
    location = runner.share(resolved, options())
    assert location is not None
    assert runner.share(resolved, options()) == location
    prepared: list[str] = []

    def counted(*arguments: Any) -> PreparedData:
        prepared.append("once")
        return preprocess(*arguments)

    monkeypatch.setattr(dataset_cache, "preprocess", counted)
    assert same(worker.of(resolved, options(), CPU, location), runner.of(resolved, options(), CPU))
    assert prepared == []
    lost = replace(location, path=f"/proc/{os.getpid()}/fd/1000000")
    assert same(DatasetCache().of(resolved, options(), CPU, lost), runner.of(resolved, options(), CPU))
    assert prepared == ["once"], "a worker that cannot open it prepares it"


def test_samples_are_moved_to_a_device_and_labels_of_the_order_are_not(resolved: ResolvedDataset) -> None:
    data = preprocess(resolved, options(labelled=200, order="sorted"), CPU)
    moved = to_device(data, torch.device("meta"))
    found = tensors(moved)
    assert found.pop("order") is data.order.labels
    assert all(tensor is not None and tensor.is_meta for tensor in found.values())
    assert moved.form == data.form


def test_without_such_memory_workers_prepare_their_own(
    resolved: ResolvedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_data, "can_share", lambda: False)
    assert DatasetCache().share(resolved, options()) is None
