"""docs/plugins.md: the smallest scheme, and the project, which is installed with pip and trains."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.plugins.processes import run_python

BLOCK = re.compile(r"`([\w./]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(page: str, tmp_path: Path) -> Path:
    """A folder with all files of the page."""
    files = dict(BLOCK.findall(page))
    assert set(files) == {
        "my_scheme.py",
        "my_config.yaml",
        "against_kaiming.yaml",
        "my_diagnostic.py",
        "pyproject.toml",
        "my_plugin/__init__.py",
        "my_plugin/inits.py",
        "my_plugin/activations.py",
        "tests/test_properties.py",
    }
    for name, text in files.items():
        is_alone = name.startswith(("my_scheme", "my_config", "my_diagnostic", "against"))
        path = tmp_path / ("." if is_alone else "project") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def commands(page: str, number: int) -> list[list[str]]:
    """Return the commands of a block of the page, as arguments of Python."""
    lines = [shlex.split(line) for line in COMMANDS.findall(page)[number].splitlines()]
    return [words[1:] if words[0] == "python" else ["-m", *words] for words in lines]


@pytest.mark.slow
def test_the_smallest_scheme_has_at_most_eight_lines_and_all_commands_work(
    folder: Path, page: str, repository: Path
) -> None:
    lines = (folder / "my_scheme.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 8
    outputs = [run_python(folder, repository, *words) for words in commands(page, 0)]
    assert len(outputs) == 3
    assert [output.returncode for output in outputs] == [0, 0, 0], outputs
    assert "mine · digits · 2 seeds" in outputs[0].stdout
    assert "FAILED" not in outputs[2].stdout


@pytest.mark.slow
def test_a_scheme_is_compared_with_kaiming_by_one_command(folder: Path, page: str, repository: Path) -> None:
    """On digits with few updates, since the test has no CIFAR."""
    ((command,), sweep) = commands(page, 1), (folder / "against_kaiming.yaml").read_text(encoding="utf-8")
    assert len(sweep.splitlines()) + len((folder / "my_scheme.py").read_text("utf-8").splitlines()) <= 20
    assert run_python(
        folder, repository, "-m", "initbench", "validate", "against_kaiming.yaml", "--plugin", "my_scheme"
    ).stdout.endswith(": ok\n")
    small = ["data.name=digits", "train.steps=6", "seeds=2", "model.width=4", "--json", "-q"]
    done = run_python(folder, repository, *command, *small)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [point["label"] for point in document["points"]] == ["mine", "kaiming_normal"]
    assert len({run["run_id"] for point in document["points"] for run in point["runs"]}) == 4
    (gate,) = document["gates"]
    assert gate["state"] == "clear"  # both draw the same weights
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_project_is_installed_and_trains(folder: Path, page: str, repository: Path) -> None:
    """In an environment of its own, which sees the packages of this one."""
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *options, str(folder / "project")], check=True, cwd=folder)
    outputs = [
        run_python(folder, repository, *words, python=str(python))
        for words in [*commands(page, 2), ["-m", "pytest", "-q", "-p", "no:cacheprovider", "project/tests"]]
    ]
    assert [output.returncode for output in outputs] == [0, 0, 0], outputs
    assert "laplace" in outputs[0].stdout
    assert "bent_identity · no norm · laplace" in outputs[1].stdout
    assert "init scheme laplace: my-plugin 1.0" in outputs[1].stdout
    shown = run_python(folder, repository, "-m", "initbench", "show", "my_config")
    assert "init scheme laplace: my-plugin 1.0, which is not installed" in shown.stdout
    (config, _) = sorted((folder / "runs").glob("my_config-s*/config.yaml"))
    again = run_python(folder, repository, "-m", "initbench", "run", str(config))
    assert again.returncode == 2
    for kind, name in (("init scheme", "laplace"), ("activation", "bent_identity")):
        expected = f"{kind} '{name}' came from plug-in my-plugin 1.0, which is not installed"
        assert expected in again.stderr
