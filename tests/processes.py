"""The processes of a command, as the system lists them, and code in forked processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from initbench.runner.workers.fork_server import start_fork_server, worker_context


def children(pid: int) -> list[int]:
    """Return the ids of all living children of a process."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in found.stdout.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def descendants(pid: int) -> list[int]:
    """Return the ids of the children of a process, of their children, and so on."""
    found = children(pid)
    return [*found, *(deeper for child in found for deeper in descendants(child))]


def forked_workers(pid: int) -> list[int]:
    """Return the worker processes of a command: the children of its fork server."""
    return [worker for server in children(pid) for worker in children(server)]


COMMAND_LINE = "from initbench.__main__ import main; main()"


def run_forked(
    folder: Path, *arguments: str, source: str = COMMAND_LINE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line, or other Python code, in a process forked from the server of workers.

    The server has imported torch but read no registry, so the process is as good as a new one, and starts in
    a tenth of the time. Tests of the path, or of imports that the server has made, need a new process.
    """
    start_fork_server()
    outputs = [folder / name for name in (".stdout", ".stderr")]
    work = (folder, arguments, source, {**os.environ, **variables}, outputs)
    process = worker_context("cpu").Process(target=_run_source, args=work)
    process.start()
    process.join(600)
    texts = [output.read_text(encoding="utf-8") for output in outputs]
    for output in outputs:
        output.unlink()
    assert process.exitcode is not None, texts
    return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


def _run_source(
    folder: Path, arguments: tuple[str, ...], source: str, environment: dict[str, str], outputs: list[Path]
) -> None:
    """Run the source in this process, in the folder, with its output in two files."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tests = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(tests)]
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
    sys.argv = ["initbench", *arguments]
    exec(source, {"__name__": "__main__"})
