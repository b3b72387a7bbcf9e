"""Published archives, found on disk or downloaded from a mirror, and verified.

A file with the wrong checksum is an error; it is neither used nor overwritten, as it may be the user's own
data. If the data root is not writable, downloads go to the cache folder, which is always searched too. A lock
prevents concurrent downloads to one folder.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from initbench.data.dataset import DataSource, UnavailableError
from initbench.data.download.checksums import cache_folder, checksum
from initbench.data.download.mirrors import download_file, error_text, reachable_mirrors
from initbench.errors import DataError

_LOCK_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published data set: its files, their checksums and the mirrors."""

    name: str
    folder: str
    """Folder below the data root in torchvision's layout, e.g. `MNIST/raw`; empty for the root itself."""
    checksums: Mapping[str, str]
    """File name → md5 (hex), in the publisher's order."""
    mirrors: tuple[str, ...]
    """Base URLs, to which a file name is appended, the preferred one first."""

    @property
    def fingerprint(self) -> str:
        """Hash of the names and checksums, independent of their order."""
        listed = "\n".join(f"{file} {md5}" for file, md5 in sorted(self.checksums.items()))
        return hashlib.sha256(listed.encode()).hexdigest()


def find_or_download(archive: Archive, source: DataSource) -> dict[str, Path]:
    """Return the verified path of every file of `archive` by name; missing files are downloaded first.

    Raises DataError for a file with the wrong checksum, UnavailableError if a file is neither on disk nor
    downloadable.
    """
    paths = find_on_disk(archive, source)
    missing = [file for file in archive.checksums if file not in paths]
    if missing:
        if source.offline:
            raise _unavailable(archive, source, dict.fromkeys(archive.mirrors, "not tried (offline)"))
        _fetch(archive, missing, source)
        paths = find_on_disk(archive, source)
    return {file: paths[file] for file in archive.checksums}


def find_on_disk(archive: Archive, source: DataSource) -> dict[str, Path]:
    """Return the verified files of `archive` that are on disk; raise DataError for a damaged one."""
    verified: dict[str, Path] = {}
    for file, expected in archive.checksums.items():
        paths = [folder / file for folder in _folders(archive, source)]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            _verify(archive, path, expected, recheck=source.recheck)
            verified[file] = path
    return verified


def _folders(archive: Archive, source: DataSource) -> list[Path]:
    return list(dict.fromkeys(root / archive.folder for root in (source.root, cache_folder())))


def _verify(archive: Archive, path: Path, expected: str, *, recheck: bool) -> None:
    actual = checksum(path, "md5", recheck=recheck)
    if actual != expected:
        raise DataError(
            f"{path} is not the published file: expected md5 {expected}, found {actual}"
            f" ({path.stat().st_size:,} bytes). It has not been changed; move it away and run"
            f" `initbench data fetch {archive.name}`, or pass another data root with --data-dir."
        )


def _fetch(archive: Archive, missing: list[str], source: DataSource) -> None:
    """Download the files `missing`, or raise UnavailableError with everything that was tried."""
    failures: dict[str, str] = {}
    mirrors = reachable_mirrors(archive.mirrors, missing[0], source.reach_seconds, failures)
    # Find a mirror before taking the lock, so that waiting processes do not wait for each other's search.
    first = next(mirrors, None)
    if first is None:
        raise _unavailable(archive, source, failures)
    from filelock import FileLock, Timeout

    try:
        folder = _writable_folder(archive, source)
        with FileLock(folder / ".initbench.lock", timeout=_LOCK_SECONDS):
            for mirror in chain([first], mirrors):
                missing = _missing(archive, source)  # another process may have downloaded them
                if missing:
                    source.notify(f"downloading {archive.name} from {mirror} to {folder}")
                    missing = _fetch_from(mirror, archive, missing, folder, failures)
                if not missing:
                    return
    except Timeout:
        failures[str(folder)] = f"another process has held its lock for {_LOCK_SECONDS:g} s"
    except OSError as error:
        failures[f"writing to {source.root}"] = error_text(error)
    raise _unavailable(archive, source, failures)


def _missing(archive: Archive, source: DataSource) -> list[str]:
    paths = find_on_disk(archive, source)
    return [file for file in archive.checksums if file not in paths]


def _fetch_from(
    mirror: str, archive: Archive, files: list[str], folder: Path, failures: dict[str, str]
) -> list[str]:
    """Download `files` until the first failure, and return the files that are still missing."""
    for done, file in enumerate(files):
        failure = download_file(mirror, file, f"md5:{archive.checksums[file]}", folder)
        if failure is not None:
            failures[mirror] = f"{file}: {failure}"
            return files[done:]
    return []


def _writable_folder(archive: Archive, source: DataSource) -> Path:
    """Return the first writable folder of the data root's and the cache's; raise OSError if none is."""
    refused: OSError | None = None
    for folder in _folders(archive, source):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            refused = error
    raise refused or OSError("no folder to write to")


def _unavailable(archive: Archive, source: DataSource, failures: Mapping[str, str]) -> UnavailableError:
    missing = ", ".join(_missing(archive, source))
    folders = [f"{folder}: no {missing}" for folder in _folders(archive, source)]
    fetched = "is not downloaded offline" if source.offline else "could not be downloaded"
    holds = f"{archive.folder}/" if archive.folder else " and ".join(archive.checksums)
    return UnavailableError(
        f"{archive.name} is not in {source.root} and {fetched}",
        tried=[*folders, *(f"{location}: {reason}" for location, reason in failures.items())],
        remedies=[
            f"run `initbench data fetch {archive.name}` with a network connection",
            f"pass a folder that contains {holds} with --data-dir or INITBENCH_DATA",
            "use data.name=digits, which needs no download (or data.fallback=digits)",
            "use your own images with data.name=npz and data.path=FILE",
        ],
    )
