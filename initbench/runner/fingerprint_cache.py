"""Fingerprints of the code of initbench, kept in the user's cache until any of its files changes.

A fingerprint needs the syntax trees of a hundred modules, which takes a second. The cache only saves time:
if it is missing, damaged or not writable, it is ignored. Fingerprints of code of the user are not kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.data.download.checksums import cache_folder
from initbench.runner.code_fingerprint import code_fingerprint, entries_of, uses_user_code
from initbench.store.files import write_atomic

PACKAGE = Path(__file__).parents[1]


def cached_code_fingerprint(config: ExperimentConfig, dataset: str) -> str:
    """Return the `code_fingerprint` of a config, from the cache if the code has not changed."""
    if uses_user_code(config):
        return code_fingerprint(config, dataset)
    key = " ".join(sorted(f"{entry.registry.kind}:{entry.name}" for entry in entries_of(config, dataset)))
    file, code = cache_folder() / "fingerprints.json", package_digest()
    stored = _read(file, code)
    if isinstance(fingerprint := stored.get(key), str):
        return fingerprint
    stored[key] = fingerprint = code_fingerprint(config, dataset)
    with suppress(OSError):  # concurrent writers may lose each other's entries, which are then computed again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"code": code, "fingerprints": stored}, indent=0, sort_keys=True))
    return fingerprint


def _read(file: Path, code: str) -> dict[str, Any]:
    """Return the fingerprints in the cache; none if they are those of other code."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        stored = content["fingerprints"] if content["code"] == code else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return stored if isinstance(stored, dict) else {}


@cache
def package_digest() -> str:
    """Return the SHA-256 of all files of initbench, and of the version of Python, which parses them."""
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
