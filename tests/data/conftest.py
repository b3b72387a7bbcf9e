"""A tiny archive in MNIST's format, a mirror on loopback that serves it, and a clean environment."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.data.download.archive import Archive
from initbench.data.sets.torchvision_sets import MD5

TRAIN, TEST = 40, 20


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own, no data root, and no proxy between it and loopback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("INITBENCH_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def idx(values: torch.Tensor) -> bytes:
    """`values` (uint8) in the IDX format, gzipped."""
    header = bytes([0, 0, 8, values.dim()]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return gzip.compress(header + values.numpy().tobytes(), mtime=0)


@pytest.fixture(scope="session")
def idx_files() -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(0)
    files = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        images = torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        files[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{part}-labels-idx1-ubyte.gz"] = idx((torch.arange(count) % 10).to(torch.uint8))
    return files


@dataclass
class Mirror:
    files: dict[str, bytes]
    url: str = ""
    served: list[str] = field(default_factory=list)
    """Names of the files sent in whole (a probe asks for one byte and is not counted)."""
    probes: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(idx_files: dict[str, bytes]) -> Iterator[Mirror]:
    state = Mirror(dict(idx_files))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            (state.probes if self.headers.get("Range") else state.served).append(name)
            content = state.files.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hanging_mirror() -> Iterator[str]:
    """It takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def dead_mirror() -> str:
    """Nothing listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def checksums(idx_files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(content).hexdigest() for name, content in idx_files.items()}


@pytest.fixture
def archive(checksums: dict[str, str], mirror: Mirror) -> Archive:
    return Archive(name="mnist", folder="MNIST/raw", checksums=checksums, mirrors=(mirror.url,))


@pytest.fixture
def published_mnist(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """MNIST is the tiny archive for this test."""
    from torchvision.datasets import MNIST

    monkeypatch.setitem(MD5, "MNIST", tuple(archive.checksums.values()))
    monkeypatch.setattr(MNIST, "mirrors", list(archive.mirrors))
    return archive


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def source(tmp_path: Path, notes: list[str]) -> DataSource:
    return DataSource(root=tmp_path / "root", notify=notes.append, reach_seconds=5.0)


@pytest.fixture
def put_on_disk() -> Callable[..., Path]:
    """Write files below `root` as a data root holds them; returns their folder."""

    def put(root: Path, files: dict[str, bytes], folder: str = "MNIST/raw") -> Path:
        target = root / folder
        target.mkdir(parents=True)
        for name, content in files.items():
            (target / name).write_bytes(content)
        return target

    return put
