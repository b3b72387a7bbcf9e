"""Stand-ins for the programs of a cluster, and for `initbench`, on a path of their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initbench.store.store import Store

RESULT_FILES = ("metrics.jsonl", "layers.jsonl", "weights.safetensors")
FAKE_SLURM = Path(__file__).with_name("fake_slurm.py")
RECORDER = """\
#!/bin/bash
printf '%s\\0' "$@" > "$FAKE_SLURM/call-$(date +%s%N)"
while [ $# -gt 1 ]; do
    [ "$1" = --runs-dir ] && mkdir -p "$2"
    shift
done
[ -e "$FAKE_SLURM/slow" ] || exit "$(cat "$FAKE_SLURM/code" 2>/dev/null || echo 0)"
trap 'kill "$!"; rm "$FAKE_SLURM/slow"; touch "$FAKE_SLURM/stopped"; exit 143' TERM
sleep 30 &
touch "$FAKE_SLURM/ready"
wait
"""
"""Stand-in for initbench: records its arguments; with a file `slow`, waits for a signal to stop."""


def results(root: Path) -> dict[str, tuple[bytes, ...]]:
    """The bytes of the results of every run of a store, all of which are finished."""
    records = Store(root).records()
    assert {record["status"] for record in records} == {"finished"}
    return {
        record["run_id"]: tuple((root / record["run_id"] / name).read_bytes() for name in RESULT_FILES)
        for record in records
    }


class Programs:
    """A folder with programs that shadow those of the machine, and a folder with what they record."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self._bin = folder / "state", folder / "bin"
        self.state.mkdir(parents=True)
        self._bin.mkdir()
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", f"{self._bin}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(self.state))
        monkeypatch.setenv("FAKE_ROOT", str(self.state))
        monkeypatch.setenv("FAKE_MOMENT", "ready")
        for name in ("sbatch", "scontrol"):
            words = shlex.join([sys.executable, "-S", "-E", str(FAKE_SLURM), name])
            self.add(name, f'#!/bin/sh\nexec {words} "$@"\n')

    def add(self, name: str, text: str) -> None:
        """Add a program."""
        (self._bin / name).write_text(text, encoding="utf-8")
        (self._bin / name).chmod(0o755)

    def set(self, **variables: object) -> None:
        """Set environment variables; values that are not texts are written as JSON."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script with its folder's parent as the working directory."""
        command = [str(script.absolute()), *arguments]
        return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return what a stand-in has recorded."""
        path = self.state / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def calls(self) -> list[list[str]]:
        """Return the arguments of each call of the stand-in for initbench since the last time."""
        files = sorted(self.state.glob("call-*"))
        calls = [file.read_text(encoding="utf-8").split("\0")[:-1] for file in files]
        for file in files:
            file.unlink()
        return calls


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """SLURM and a recording initbench."""
    made = Programs(tmp_path / "programs", monkeypatch)
    made.add("initbench", RECORDER)
    return made
