"""The actor that trains on a node of a Ray cluster.

Ray sends this class by value, so that nodes need neither initbench nor the modules of the user: the first
actor on a node writes their files to the cache of the node. Nothing of this file may use another module of
initbench before they are on the path.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initbench.runner.workers.base import Event, ReleaseRequest
    from initbench.runner.workers.task import WorkerTask
    from initbench.runner.workers.training_session import NodeFacts

MAX_CODE_FOLDERS = 8
"""Maximum number of versions of the code that a node keeps."""


class NodeActor:
    """Trains the tasks of a driver, whose code it uses."""

    def __init__(
        self,
        files: dict[str, bytes],
        digest: str,
        variables: dict[str, str],
        directory: str,
        memory: float | None,
        gpu_share: float,
    ) -> None:
        """Install the code and import it.

        Args:
            files: Path → contents of the modules.
            digest: Hash of the files.
            variables: Environment variables of the driver that name code of the user.
            directory: Working directory of the driver; used if this node has it, too.
            memory: Memory limit of this process in bytes, or None.
            gpu_share: Share of the GPU's memory that this process may use; 0 without a GPU.
        """
        os.environ.update(variables)
        sys.path.insert(0, str(install_code(files, digest)))
        if Path(directory).is_dir():
            os.chdir(directory)
            if any(not name.startswith("initbench") for name in files):
                sys.path.append(directory)  # else modules of the user would be imported from there first
        from initbench.runner.workers.training_session import TrainingSession

        self._session = TrainingSession(memory, gpu_share)

    def describe(self) -> NodeFacts:
        """Return the node, the process, and the versions of the code."""
        from initbench.runner.workers.training_session import NodeFacts, code_versions

        ray: Any = import_module("ray")
        node = ray.get_runtime_context().get_node_id()
        return NodeFacts(node, ray.util.get_node_ip_address(), os.getpid(), code_versions())

    def begin(self, task: WorkerTask) -> None:
        """Start to train a task."""
        self._session.begin(task)

    def events(self) -> list[Event]:
        """Wait for events of the task, and return them."""
        return self._session.events()

    def request_release(self, request: ReleaseRequest) -> None:
        """Ask the task for some of its runs."""
        self._session.request_release(request)

    def stop(self) -> None:
        """Tell the task to emit a checkpoint of its runs and to stop."""
        self._session.stop()


def install_code(files: Mapping[str, bytes], digest: str) -> Path:
    """Return a folder with these files, in the cache or, if that cannot be used, a temporary one."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "initbench", "code")
    folder = caches / digest
    try:
        if not holds_files(folder, files):
            caches.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(dir=caches, prefix="."))
            write_files(new, files)
            shutil.rmtree(folder, ignore_errors=True)  # it is damaged, if it exists
            new.replace(folder)
        folder.touch()
        for old in sorted(caches.iterdir(), key=lambda path: -path.stat().st_mtime)[MAX_CODE_FOLDERS:]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:  # not writable, or another actor was faster
        if not holds_files(folder, files):
            folder = Path(tempfile.mkdtemp(prefix="initbench-code-"))
            write_files(folder, files)
    return folder


def holds_files(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Return whether the folder has exactly these contents in the files of these names."""
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, with their folders."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
