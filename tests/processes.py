"""The processes of a command, as the system lists them."""

from __future__ import annotations

import subprocess


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
