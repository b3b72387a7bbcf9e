"""Search for mirrors that answer within a time limit, and verified downloads with a progress bar."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A mirror that compresses an already compressed file would send bytes with another checksum.
_PLAIN = {"Accept-Encoding": "identity"}
_STALL_SECONDS = 15.0


def file_url(mirror: str, file: str) -> str:
    """Return the URL of `file` at `mirror`."""
    return f"{mirror.rstrip('/')}/{file}"


def reachable_mirrors(
    mirrors: Sequence[str], file: str, seconds: float, failures: dict[str, str]
) -> Iterator[str]:
    """Yield the mirrors that have `file`, in the order of their answers, for at most `seconds` in total.

    All mirrors are asked at once, each in a daemon thread, because neither a DNS look-up nor a proxy can be
    interrupted; a thread that hangs is abandoned. `failures` receives the reason for each mirror that failed.
    """
    import requests  # noqa: F401  (so that the time of the import does not count)

    deadline = time.monotonic() + seconds
    answers: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for mirror in mirrors:
        threading.Thread(target=_ask, args=(mirror, file, seconds, answers), daemon=True).start()
    failures.update((mirror, f"no answer within {seconds:g} s") for mirror in mirrors)
    for _ in mirrors:
        try:
            mirror, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if failure is None:
            del failures[mirror]
            yield mirror
        else:
            failures[mirror] = failure


def _ask(mirror: str, file: str, seconds: float, answers: queue.Queue[tuple[str, str | None]]) -> None:
    import requests

    headers = {**_PLAIN, "Range": "bytes=0-0"}
    try:
        with requests.get(file_url(mirror, file), stream=True, timeout=seconds, headers=headers) as response:
            failure = None if response.ok else f"HTTP {response.status_code} {response.reason}"
    except Exception as error:
        # Catch everything: after an exception that ends the thread, the caller would wait in vain.
        failure = error_text(error)
    answers.put((mirror, failure))


def download_file(mirror: str, file: str, known_hash: str, folder: Path) -> str | None:
    """Download `file` into `folder`, where it appears only once it is complete and verified.

    Args:
        mirror: Base URL.
        file: Name of the file.
        known_hash: Expected hash, as `algorithm:hex`.
        folder: Target folder.

    Returns:
        None, or the reason for the failure.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")  # its messages would mix with the progress bar on stderr
    try:
        with _download_bar(file) as bar:
            downloader = pooch.HTTPDownloader(
                progressbar=bar or False, chunk_size=1 << 16, timeout=_STALL_SECONDS, headers=_PLAIN
            )
            url = file_url(mirror, file)
            path = pooch.retrieve(url, known_hash, fname=file, path=folder, downloader=downloader)
        _set_default_mode(Path(path))
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors
        return error_text(error)
    return None


def _set_default_mode(path: Path) -> None:
    """Set the umask's permissions: temporary files are private, but a data root may be shared."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def error_text(error: BaseException) -> str:
    """Return why a request failed, in a few words instead of urllib3's nested messages."""
    import requests

    kinds: list[tuple[type[BaseException], str]] = [
        (requests.Timeout, "timed out"),
        (requests.exceptions.ProxyError, "the proxy refused"),
        (requests.exceptions.SSLError, "the TLS connection failed"),
    ]
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectionError):
        is_name_error = "NameResolutionError" in str(error)
        return "its host name cannot be resolved" if is_name_error else "cannot connect"
    if isinstance(error, ValueError) and "hash" in str(error).lower():
        return "sent a file with the wrong checksum"
    return f"{type(error).__name__}: {error}"


class DownloadBar:
    """An implementation of pooch's progress protocol (`total`, `update`, `reset`, `close`) with rich."""

    def __init__(self, progress: Any, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        """Size of the download in bytes; pooch sets it once the mirror has answered."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        """Advance by `size` bytes."""
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        """Reset to zero; pooch calls this before it fills the bar."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Draw the final state."""
        self._progress.refresh()


@contextmanager
def _download_bar(label: str) -> Iterator[DownloadBar | None]:
    """Show a bar while the block runs; yields None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn())
    # The context ends the live display and restores the cursor, even if the download fails.
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield DownloadBar(progress, label)
