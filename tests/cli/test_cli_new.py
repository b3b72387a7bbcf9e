"""`initbench new --template`: each study's commands are run as its README lists them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from initbench.cli.main import app
from initbench.cli.new import StudyTemplate, study_files
from initbench.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]


def new(*arguments: str):
    result = CliRunner().invoke(app, ["new", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.slow
@pytest.mark.parametrize("template", StudyTemplate)
def test_the_commands_of_a_study_work(template: StudyTemplate, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "README.md" in new("mine", "--template", template.value).stdout
    readme = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    commands = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    assert commands
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for command in commands:
        line = command.replace("initbench", f"{sys.executable} -m initbench", 1)
        shell = ["/bin/sh", "-c", line]
        done = subprocess.run(shell, cwd="mine", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.mark.parametrize("template", StudyTemplate)
def test_a_study_has_its_name_everywhere(template: StudyTemplate) -> None:
    files = study_files(template, "mine")
    assert len(files) >= 2
    for path, text in files.items():
        assert "STUDY" not in f"{path} {text}"
        assert path.suffix != ".template"
        if path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(text)["name"]
        if path.suffix == ".py":
            compile(text, str(path), "exec")
        for named in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE):
            assert Path(named) in files, "a file that the README lists"


def test_a_study_overwrites_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    with pytest.raises(UsageError, match="mine already exists; choose another name"):
        new("mine", "--template", "ci")
    assert not list(Path("mine").iterdir())
    with pytest.raises(ConfigError, match="name"):
        new("no name", "--template", "ci")
