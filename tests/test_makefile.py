"""The Makefile's set-up of the environment, with a Python that only writes down what it is asked."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PYTHON = """#!/bin/sh
# -c runs for real; venv makes a folder, without pip while there is a file `broken`; the rest is noted.
case "$1" in
    -c) exec {real} -c "import sys; sys.version_info = {version}
$2" ;;
esac
echo "$*" >> {log}
[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p "$3/bin"
cp "$0" "$3/bin/python"
[ -e broken ] && exit 1
cp "$0" "$3/bin/pip"
"""
VENV = "-m venv .venv"
INSTALL = "-m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]"

Make = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def make(tmp_path: Path, repository: Path) -> Make:
    """`make .venv/.ready` under a Python of some version: exit status, stderr, what Python was asked.

    The Python to call, and the one that it forwards to, lie in folders whose names contain a space.
    """
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path)

    python, log = tmp_path / "some folder" / "python", tmp_path / "some folder" / "log"
    real = tmp_path / "another folder" / "python"
    for path in (python, real):
        path.parent.mkdir()
    real.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    real.chmod(0o755)

    def run(*arguments: str, version: tuple[int, int] = (3, 11)) -> tuple[int, str, list[str]]:
        log.write_text("")
        if version != (0, 0):
            written = {"real": shlex.quote(str(real)), "version": version, "log": shlex.quote(str(log))}
            python.write_text(PYTHON.format(**written))
            python.chmod(0o755)
        command = ["make", "--silent", ".venv/.ready", f"PYTHON={python}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        return done.returncode, done.stderr, log.read_text().splitlines()

    return run


def test_the_environment_is_made_once(make: Make, tmp_path: Path) -> None:
    assert make() == (0, "", [VENV, INSTALL])
    assert make() == (0, "", [])
    (tmp_path / ".venv" / ".ready").unlink()
    assert make() == (0, "", [INSTALL])


def test_an_environment_that_is_there_brings_its_own_python(make: Make, tmp_path: Path) -> None:
    make()
    (tmp_path / ".venv" / ".ready").unlink()
    assert make(version=(3, 10)) == (0, "", [INSTALL])
    shutil.copy(tmp_path / "some folder" / "python", tmp_path / ".venv" / "bin")
    (tmp_path / ".venv" / ".ready").unlink()
    code, said, asked = make(version=(3, 12))
    assert (code != 0, asked) == (True, [])
    assert "and .venv/bin/python is not" in said


def test_an_environment_that_failed_midway_is_made_again(make: Make, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    code, _, asked = make()
    assert code != 0
    assert asked == [VENV]
    assert (tmp_path / ".venv" / "bin" / "python").exists()
    (tmp_path / "broken").unlink()
    assert make() == (0, "", [VENV, INSTALL])


@pytest.mark.parametrize("version", [(3, 10), (2, 7), (0, 0)], ids=["3.10", "2.7", "missing"])
def test_another_python_is_refused_in_a_sentence_before_anything_is_made(
    make: Make, tmp_path: Path, version: tuple[int, int]
) -> None:
    code, said, asked = make(version=version)
    first, *_ = said.splitlines()
    assert code != 0
    assert first == (
        f"initbench needs Python 3.11 or later, and {tmp_path}/some folder/python is not; "
        "run: make clean && make run PYTHON=python3.11"
    )
    assert not asked
    assert not (tmp_path / ".venv").exists()
