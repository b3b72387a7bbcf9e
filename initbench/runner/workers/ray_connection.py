"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Any

from initbench.errors import DeviceError, UsageError
from initbench.machine import available_bytes, available_cores
from initbench.optional_packages import import_optional
from initbench.runner.fingerprint_cache import PACKAGE

ADDRESS_FORMS = ("auto", "HOST:PORT", "//HOST:PORT")
VARIABLE = "RAY_ADDRESS"
"""Environment variable of Ray with the address of its cluster."""
REACH_SECONDS = 10.0
"""Maximum time until the port of a cluster answers."""
CONNECT_SECONDS = 60.0
"""Maximum time until Ray is connected or started."""
CLOSE_SECONDS = 10.0
"""Maximum time until Ray is disconnected or stopped; its processes end with this one in any case."""
THREAD_NAME = "ray-connection"
_MACHINE = "local"
"""Address that makes Ray start on this machine."""
_CLIENT = "ray://"
_CLIENT_PORT = 10001
_MIN_STORE_BYTES, _MAX_STORE_BYTES = 80e6, 2e9
"""Limits of the object store on this machine; Ray writes to disk what exceeds it."""


def import_ray() -> Any:
    """Return the package ray, or raise MissingExtraError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send to its authors
    return import_optional("ray", "runs on Ray", "ray")


def check_address(address: str | None) -> None:
    """Raise UsageError if Ray is not installed, or if the text is not an address."""
    import_ray()
    if address is not None and address != "auto" and _port_of(address) is None:
        forms = " or ".join(f"ray:{form}" for form in ADDRESS_FORMS)
        problem = f"{address!r} is not the address of a Ray cluster" if address else "the address is missing"
        raise UsageError(f"--executor ray: {problem}; write {forms}, or ray alone")


class RayConnection:
    """A connection of this process to a cluster.

    Ray is started and stopped by a thread that lives as long as the connection. Thus Ray replaces no signal
    handler of this process, and the main thread handles signals while it waits. The processes of a cluster
    on this machine end with that thread, also after kill -9 of this process.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        """Connect to the cluster at the address, or to that of RAY_ADDRESS, or start one on this machine.

        A connection that this process already has is used, and not closed.

        Args:
            address: `auto`, `HOST:PORT`, `//HOST:PORT` (or `ray://HOST:PORT`) or None.
            workers: Number of workers on this machine if Ray is started here; None for one per core.

        Raises:
            DeviceError: If there is no such cluster, or Ray cannot be started.
        """
        self.ray = import_ray()
        self._address = _full_address(address or os.environ.get(VARIABLE) or _MACHINE)
        self._workers = workers
        self._connected, self._closing, self._closed = Event(), Event(), Event()
        self._error: BaseException | None = None
        self._is_lost = False
        if self.ray.is_initialized():
            self._closed.set()
        else:
            self._connect()
        context = self.ray.get_runtime_context()
        server = self._address if self._is_client else getattr(context, "gcs_address", "")
        self._server = _port_of(server)

    def _connect(self) -> None:
        """Connect in a thread, and wait until it has an answer."""
        _require_reachable(self._address)
        _silence()
        with _muted_stderr():
            Thread(target=self._hold, name=THREAD_NAME, daemon=True).start()
            has_answered = self._connected.wait(CONNECT_SECONDS)
        if not has_answered:
            raise DeviceError(f"{self._subject}: no answer within {CONNECT_SECONDS:.0f} seconds")
        self._raise_failure()
        _restore_signal_handler()

    def total(self, resource: str) -> int:
        """Return the number of CPUs ("CPU") or GPUs ("GPU") of all live nodes."""
        self._require_server()
        return int(self.ray.cluster_resources().get(resource, 0))

    def is_alive(self, node: str) -> bool:
        """Return whether a node is part of the cluster."""
        self._require_server()
        return any(entry["NodeID"] == node and entry["Alive"] for entry in self.ray.nodes())

    def kill(self, actor: Any) -> None:
        """Kill an actor, unless it or its cluster is gone."""
        if not self._is_lost:
            with suppress(Exception):
                self.ray.kill(actor)

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here."""
        if self._is_lost:
            return
        self._closing.set()
        self._closed.wait(CLOSE_SECONDS)

    def _require_server(self) -> None:
        """Raise DeviceError if the head of the cluster is gone: Ray would wait for it, and then exit."""
        if self._server is None:
            return
        try:
            socket.create_connection(self._server, timeout=REACH_SECONDS).close()
        except OSError as error:
            self._is_lost = True
            raise DeviceError(
                "the head of the Ray cluster is gone; the same command resumes the runs"
            ) from error

    @property
    def _starts_ray(self) -> bool:
        return self._address == _MACHINE

    @property
    def _is_client(self) -> bool:
        return self._address.startswith(_CLIENT)

    @property
    def _subject(self) -> str:
        if self._starts_ray:
            return "Ray cannot be started on this machine"
        if self._address == "auto":
            return "no Ray cluster on this machine can be used"
        return f"the Ray cluster at {self._address} cannot be used"

    def _raise_failure(self) -> None:
        """Raise DeviceError if the connection failed."""
        if self._error is not None:
            lines = [line.strip() for line in str(self._error).splitlines() if line.strip()]
            reason = lines[0].rstrip(".") if lines else type(self._error).__name__
            raise DeviceError(f"{self._subject}: {reason}{_advice(self._address)}") from self._error

    def _hold(self) -> None:
        """Connect, keep the connection until `close`, and disconnect."""
        try:
            with chdir("/"):  # Ray puts the working directory of the driver on the path of workers
                self.ray.init(**self._options())
        except BaseException as error:  # Ray exits the process if a cluster does not answer
            self._error = error
        self._connected.set()
        if self._error is None:
            self._closing.wait()
            with suppress(Exception):
                self.ray.shutdown()
        self._closed.set()

    def _options(self) -> dict[str, Any]:
        options = {"address": self._address, "log_to_driver": False, "logging_level": logging.ERROR}
        if self._is_client:  # a process of the cluster reads the messages, and passes them on
            code = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__"]}
            return {**options, "runtime_env": code}
        if not self._starts_ray:
            return options
        return {
            **options,
            "num_cpus": self._workers or available_cores(),
            "include_dashboard": False,
            "object_store_memory": _object_store_bytes(),
        }


def _full_address(address: str) -> str:
    """Return an address with its port; `//HOST` is the address in `--executor ray://HOST`."""
    address = f"ray:{address}" if address.startswith("//") else address
    has_port = re.search(r":\d+$", address) is not None
    return address if has_port or not address.startswith(_CLIENT) else f"{address}:{_CLIENT_PORT}"


def _port_of(address: str) -> tuple[str, int] | None:
    """Return host and port of an address, or None if it is none."""
    match = re.fullmatch(r"(?:ray://)?([^/\s]+):(\d{1,5})", _full_address(address))
    if match is None or not 0 < int(match[2]) < 2**16:
        return None
    return match[1].strip("[]"), int(match[2])


def _require_reachable(address: str) -> None:
    """Raise DeviceError unless the port of the cluster accepts connections; Ray itself waits for minutes."""
    location = _port_of(address)
    if location is None:
        return
    try:
        socket.create_connection(location, timeout=REACH_SECONDS).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise DeviceError(
            f"the Ray cluster at {address} cannot be reached: {reason}; check the address, and that"
            " `ray start --head` runs there"
        ) from error


def _advice(address: str) -> str:
    """Return what else may be wrong with a cluster whose port accepts connections."""
    if address in (_MACHINE, "auto"):
        return ""
    advice = "; if it requires authentication, set RAY_AUTH_MODE=token"
    if address.startswith(_CLIENT):
        return advice
    return f"{advice}; unless this machine is one of its nodes, write --executor ray://HOST:{_CLIENT_PORT}"


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Discard what this process writes to stderr: Ray reports every try to reach a cluster there."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def _restore_signal_handler() -> None:
    """Install the handler of SIGTERM again: Ray has put one before it that prints a stack trace."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and current_thread() is main_thread():
        signal.signal(signal.SIGTERM, handler)


def _silence() -> None:
    """Keep the messages of Ray about nodes and workers off stdout and stderr.

    `log_to_driver=False` does not cover those of Ray's own processes, and Ray has no option for them.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    worker = import_optional("ray._private.worker", "runs on Ray", "ray")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_arguments, **_options: None


def _object_store_bytes() -> int:
    """Return a size for the object store that fits into memory, and into the shared memory of the system."""
    limits = [_MAX_STORE_BYTES, 0.3 * available_bytes()]
    with suppress(OSError, AttributeError):
        status = os.statvfs(Path("/dev/shm"))
        limits.append(0.9 * status.f_bavail * status.f_frsize)
    return int(max(_MIN_STORE_BYTES, min(limits)))
