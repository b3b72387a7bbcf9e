"""Archives: looked up, verified, fetched within a bound, never overwritten."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from initbench.data.dataset import UnavailableError
from initbench.data.download import checksums as checksums_module
from initbench.data.download.archive import find_or_download
from initbench.data.download.checksums import cache_folder, checksum
from initbench.errors import DataError

IMAGES = "train-images-idx3-ubyte.gz"


def test_found_on_disk_asks_no_mirror(archive, source, mirror, idx_files, notes, put_on_disk):
    folder = put_on_disk(source.root, idx_files)
    paths = find_or_download(archive, source)
    assert paths == {name: folder / name for name in idx_files}
    assert not mirror.probes
    assert not mirror.served
    assert not notes


def test_fetches_only_what_is_missing(archive, source, mirror, idx_files, notes, put_on_disk):
    folder = put_on_disk(source.root, idx_files)
    (folder / IMAGES).unlink()
    paths = find_or_download(archive, source)
    assert mirror.served == [IMAGES]
    assert paths[IMAGES].read_bytes() == idx_files[IMAGES]
    assert len(notes) == 1
    assert mirror.url in notes[0]


def test_fetched_files_have_the_usual_mode_and_leave_no_rest(archive, source, idx_files):
    umask = os.umask(0o022)
    try:
        paths = find_or_download(archive, source)
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in paths.values()} == {0o644}
    assert {path.name for path in (source.root / archive.folder).iterdir()} - {".initbench.lock"} == set(
        idx_files
    )


def test_cache_is_looked_at_after_the_root(archive, source, mirror, idx_files, put_on_disk):
    folder = put_on_disk(cache_folder(), idx_files)
    assert find_or_download(archive, source)[IMAGES] == folder / IMAGES
    assert not mirror.served


@pytest.mark.parametrize("place", ["root", "cache"])
def test_damaged_file_is_an_error_and_stays(place, archive, source, mirror, idx_files, put_on_disk):
    root = source.root if place == "root" else cache_folder()
    folder = put_on_disk(root, {**idx_files, IMAGES: b"not it"})
    with pytest.raises(DataError) as caught:
        find_or_download(archive, source)
    assert not isinstance(caught.value, UnavailableError)
    message = str(caught.value)
    assert str(folder / IMAGES) in message
    assert archive.checksums[IMAGES] in message
    assert checksum(folder / IMAGES, "md5") in message
    assert (folder / IMAGES).read_bytes() == b"not it"
    assert not mirror.probes


def test_offline_never_touches_the_network(archive, source, mirror, monkeypatch):
    import requests

    monkeypatch.setattr(requests, "get", lambda *a, **k: pytest.fail("asked the network"))
    with pytest.raises(UnavailableError, match=r"not tried \(offline\)"):
        find_or_download(archive, replace(source, offline=True))
    assert not mirror.probes
    assert not source.root.exists()


def test_second_mirror_serves_when_the_first_hangs_or_is_dead(
    archive, source, mirror, hanging_mirror, dead_mirror
):
    mirrors = (hanging_mirror, dead_mirror, mirror.url)
    began = time.monotonic()
    find_or_download(replace(archive, mirrors=mirrors), replace(source, reach_seconds=60.0))
    assert time.monotonic() - began < 50.0  # it does not wait for the one that hangs
    assert sorted(mirror.served) == sorted(archive.checksums)


def test_hanging_mirrors_are_bounded_together(archive, source, hanging_mirror):
    mirrors = tuple(f"{hanging_mirror}{number}/" for number in range(20))
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        find_or_download(replace(archive, mirrors=mirrors), replace(source, reach_seconds=0.5))
    assert 0.4 < time.monotonic() - began < 9.0  # one after the other, they would take 10 s
    for mirror in mirrors:
        assert f"{mirror}: no answer within 0.5 s" in str(caught.value) or f"{mirror}: timed out" in str(
            caught.value
        )
    assert not source.root.exists()


def test_name_lookup_that_hangs_is_bounded(archive, source, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: release.wait(30))
    began = time.monotonic()
    try:
        with pytest.raises(UnavailableError, match=r"no answer within 0.3 s"):
            find_or_download(
                replace(archive, mirrors=("http://mirror.invalid/",)), replace(source, reach_seconds=0.3)
            )
        assert time.monotonic() - began < 20.0
    finally:
        release.set()


def test_wrong_bytes_from_a_mirror_are_not_kept(archive, source, mirror, idx_files):
    mirror.files[IMAGES] = b"<html>please log in</html>"
    with pytest.raises(UnavailableError, match="wrong checksum"):
        find_or_download(archive, source)
    assert not (source.root / archive.folder / IMAGES).exists()
    mirror.files = dict(idx_files)
    assert find_or_download(archive, source)[IMAGES].read_bytes() == idx_files[IMAGES]


def test_failure_names_every_path_and_mirror(archive, source, mirror, dead_mirror):
    mirror.files.clear()
    with pytest.raises(UnavailableError) as caught:
        find_or_download(replace(archive, mirrors=(mirror.url, dead_mirror)), source)
    message = str(caught.value)
    assert f"{mirror.url}: HTTP 404" in message
    assert f"{dead_mirror}: cannot connect" in message
    assert str(source.root / "MNIST/raw") in message
    assert str(cache_folder() / "MNIST/raw") in message
    for help_wanted in ("initbench data fetch mnist", "--data-dir", "INITBENCH_DATA", "data.name=digits"):
        assert help_wanted in message


def test_root_that_cannot_be_written_sends_the_download_to_the_cache(archive, source, tmp_path):
    # Below a file nothing can be made, not even by root, for whom a mode of 0o555 means nothing.
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    paths = find_or_download(archive, replace(source, root=blocked / "root"))
    assert {path.parent for path in paths.values()} == {cache_folder() / "MNIST/raw"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_root_sends_the_download_to_the_cache(archive, source):
    source.root.mkdir()
    source.root.chmod(0o555)
    paths = find_or_download(archive, source)
    assert {path.parent for path in paths.values()} == {cache_folder() / "MNIST/raw"}


def test_nowhere_to_write_is_said(archive, source, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked / "cache"))
    with pytest.raises(UnavailableError, match="writing to"):
        find_or_download(archive, replace(source, root=blocked / "root"))


def test_two_processes_download_once(archive, source, mirror):
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)

    def fetch():
        barrier.wait()
        find_or_download(archive, source)

    processes = [fork.Process(target=fetch) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert sorted(mirror.served) == sorted(archive.checksums)


def test_those_who_wait_for_the_lock_download_nothing(archive, source, mirror, notes):
    folder = source.root / archive.folder
    folder.mkdir(parents=True)
    from filelock import FileLock

    paths: list[object] = []
    with FileLock(folder / ".initbench.lock"):
        waiting = threading.Thread(target=lambda: paths.append(find_or_download(archive, source)))
        waiting.start()
        while not mirror.probes:
            time.sleep(0.01)
        for name, content in mirror.files.items():  # what another process would have done
            (folder / name).write_bytes(content)
    waiting.join(10)
    assert paths
    assert not mirror.served
    assert not notes


# ---- the memory of checksums


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read."""
    names: list[str] = []
    digest = checksums_module.hashlib.file_digest

    def counting(handle, algorithm):
        names.append(Path(handle.name).name)
        return digest(handle, algorithm)

    monkeypatch.setattr(checksums_module.hashlib, "file_digest", counting)
    monkeypatch.setattr(checksums_module, "SMALL_BYTES", 0)
    return names


def test_checksum_is_computed_once_until_the_file_changes(tmp_path, hashed):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = checksum(path, "md5")
    assert checksum(path, "md5") == first
    assert len(hashed) == 1
    checksum(path, "md5", recheck=True)
    assert len(hashed) == 2
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert checksum(path, "md5") != first
    checksum(path, "sha256")
    assert len(hashed) == 4


def test_npz_checksum_memory_notices_a_file_of_the_same_size_and_time(tmp_path, hashed):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = checksum(path, "md5")
    path.write_bytes(b"two")  # in place: the time of the last change tells
    os.utime(path, ns=(1, 1))
    second = checksum(path, "md5")
    other.write_bytes(b"six")
    os.utime(other, ns=(1, 1))
    other.replace(path)
    third = checksum(path, "md5")
    assert len({first, second, third}) == 3


def test_a_small_file_is_hashed_each_time(tmp_path, hashed, monkeypatch):
    monkeypatch.undo()
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = checksum(path, "md5")
    monkeypatch.setattr(checksums_module, "_stamp", lambda _path: [3, 1, 1, 1])
    path.write_bytes(b"two")
    assert checksum(path, "md5") != first


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"md5:PATH": "x"}', b'{"md5:PATH": [1, 2]}'])
def test_damaged_memory_is_ignored_and_mended(tmp_path, hashed, content):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    memory = cache_folder() / "checksums.json"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(content.replace(b"PATH", str(path).encode()))
    assert checksum(path, "md5") == "f97c5d29941bfb1b2fdab0874906ab82"
    checksum(path, "md5")
    assert len(hashed) == 1
    assert json.loads(memory.read_text())[f"md5:{path}"][0] == 3
    assert [item.name for item in memory.parent.iterdir()] == ["checksums.json"]


def test_unwritable_memory_is_ignored(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert checksum(blocked, "md5") == "f97c5d29941bfb1b2fdab0874906ab82"


def test_unreadable_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        checksum(tmp_path / "absent", "md5")
