"""docs/own_nets.md: its files are written, and its commands train, sweep and compare."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.plugins.processes import run_python
from tests.plugins.test_plugins_page import BLOCK, COMMANDS


@pytest.mark.slow
def test_all_commands_of_the_page_work(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "own_nets.md").read_text(encoding="utf-8")
    files = dict(BLOCK.findall(page))
    assert {"nets.py", "mine.yaml", "depths.yaml"} <= set(files)
    assert len(files["nets.py"].splitlines()) <= 20
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (block,) = COMMANDS.findall(page)
    outputs = []
    for line in block.splitlines():
        output = run_python(tmp_path, repository, "-m", *shlex.split(line))
        assert output.returncode == 0, (line, output.stderr)
        outputs.append(output.stdout)
    trained, swept, compared, probed, _ = outputs
    assert re.search(r"made with --model make of module nets, code [0-9a-f]{10}", trained)
    assert "custom depth=5 · tanh" in trained
    assert "as_built_depth6" in swept
    assert "xavier_normal" in compared
    assert "12 head" in probed
